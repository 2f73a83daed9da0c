"""A closer look: every reading's ranking, and the candidates' activations token by token.

Maxima say which texts to look at, so only these pass through the model once more.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from langsae.command import run
from langsae.compute import Compute
from langsae.files import publish, read_json, write_json
from langsae.params import section
from langsae.reducers.traces import FeatureTraces
from replications.bilingual_score import series
from replications.bilingual_score.ranking import (
    candidates,
    load_maxima,
    rank,
    strongest_rows,
)
from replications.bilingual_score.run import STUDY, Run, Score, Trace, folder
from replications.bilingual_score.source import Source, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    compute = section("compute", Compute)
    compute.apply()
    spec = section(f"{STUDY}.runs.{name}", Run)
    collected, out = (folder(section("profile", str), name, s) for s in ("collected", "traced"))
    if spec.published:
        with publish(out) as part:
            series.write_traced(collected, part)
        return
    settings = section(f"{STUDY}.score", Score), section(f"{STUDY}.trace", Trace)
    trace(spec, compute, collected, *settings, out)


def trace(
    run: Run, compute: Compute, collected: Path, score: Score, settings: Trace, out: Path
) -> None:
    """Publish `ranking.csv`, `summary.json` and `contexts.csv` of one run at `out`."""
    languages = tuple(read_json(collected / "facts.json")["languages"])
    counted, masked = (load_maxima(collected, without) for without in (False, True))
    ranking = rank(counted, masked, languages, score)
    rows = {
        feature: strongest_rows(masked, feature, settings.contexts)
        for feature in candidates(ranking.table, settings)
    }
    source = open_source(run, compute)
    traces = FeatureTraces(source.header, {0: sorted(rows)}, masked=True)
    wanted = sorted({row for places in rows.values() for row in places})
    source.feed([traces], Path("scratch") / STUDY, wanted)
    contexts = _contexts(source, traces, rows)
    with publish(out) as part:
        part.mkdir(parents=True)
        ranking.table.to_csv(part / "ranking.csv", index=False, float_format="%.17g")
        contexts.to_csv(part / "contexts.csv", index=False)
        write_json(part / "summary.json", ranking.summary)


def _contexts(source: Source, traces: FeatureTraces, rows: dict[int, list[int]]) -> pd.DataFrame:
    """A row per (feature, aligned text, language): its pieces and their values, as JSON lists."""
    columns = pd.DataFrame(traces.columns()).drop(columns="hook")
    texts = dict(list(columns.groupby(["feature", "example", "language"], sort=False)))
    found = []
    for feature, places in rows.items():
        for place, row in enumerate(places):
            for at, code in enumerate(source.languages):
                words = source.pieces(at, row)
                values: list[float] = [0] * len(words)  # 0, not 0.0: most of the file
                part = texts.get((feature, row, at))
                if part is not None:
                    for position, value in zip(part["position"], part["value"], strict=True):
                        values[position] = float(f"{value:.6g}")
                found.append((feature, place, row, code, json.dumps(words[source.skipped :]),
                              json.dumps(values[source.skipped :])))  # fmt: skip
    return pd.DataFrame(found, columns=series.CONTEXTS)


if __name__ == "__main__":
    run(main)
