"""Every reading's ranking, and the texts that deserve a closer look: cheap, from maxima alone."""

import argparse
from pathlib import Path

from langsae.command import run
from langsae.files import publish, read_json, write_json
from langsae.params import section
from replications.bilingual_score import readings, series
from replications.bilingual_score.run import STUDY, Run, Score, Trace, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    collected, out = (
        folder(section("profile", str), name, stage) for stage in ("collected", "ranked")
    )
    if section(f"{STUDY}.runs.{name}", Run).published:
        with publish(out) as part:
            part.mkdir(parents=True)
            table = series.ranking(collected)
            table.to_csv(part / "ranking.csv", index=False, float_format="%.17g")
            write_json(part / "texts.json", [])
        return
    rank(collected, section(f"{STUDY}.score", Score), section(f"{STUDY}.trace", Trace), out)


def rank(collected: Path, score: Score, settings: Trace, out: Path) -> None:
    """Publish at `out` ranking.csv, summary.json and texts.json: chosen features and their rows."""
    languages = tuple(read_json(collected / "facts.json")["languages"])
    counted, masked = (readings.load_maxima(collected, without) for without in (False, True))
    ranking = readings.rank(counted, masked, languages, score)
    texts = [
        {"feature": feature, "rows": readings.strongest_rows(masked, feature, settings.contexts)}
        for feature in readings.candidates(ranking.table, settings)
    ]
    with publish(out) as part:
        part.mkdir(parents=True)
        ranking.table.to_csv(part / "ranking.csv", index=False, float_format="%.17g")
        write_json(part / "summary.json", ranking.summary)
        write_json(part / "texts.json", texts)


if __name__ == "__main__":
    run(main)
