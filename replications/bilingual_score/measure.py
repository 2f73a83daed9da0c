"""The cheap part: what the post published, its findings, and the data of figures and page."""

from pathlib import Path

import pandas as pd
from pydantic import Field, PositiveInt

from langsae.command import run
from langsae.evidence import Recorder
from langsae.files import publish
from langsae.params import Spec, section
from replications.bilingual_score.claims import Watched, record, record_series
from replications.bilingual_score.constructed import constructed
from replications.bilingual_score.findings import PREDICATES, Series, applicable
from replications.bilingual_score.results import RunResults, load
from replications.bilingual_score.run import PUBLISHED, STUDY, Run, Score

SCORE_POINTS = 150  # of a curve, on each kind of axis


class Measure(Spec):
    """listed: best features of each reading that the tables name; watched: by subject, what of
    single features was published.
    """

    listed: PositiveInt
    watched: dict[str, Watched] = Field(default_factory=dict)


def main() -> None:
    profile = section("profile", str)
    settings = section(f"{STUDY}.measure", Measure)
    runs = section(f"{STUDY}.runs", dict[str, Run])
    found = [load(name, spec, profile) for name, spec in runs.items()]
    inputs = {f"{one.name}/{key}": value for one in found for key, value in one.inputs.items()}
    recorder = Recorder(STUDY, profile, section("seed", int), inputs)
    for one in found:
        watched = settings.watched.get(one.subject, Watched())
        (record_series if one.series else record)(recorder, one, watched)
    find(recorder, found)
    recorder.write()
    frames = tables(found, settings)
    frames["constructed"] = constructed(section(f"{STUDY}.score", Score))
    with publish(Path("results") / STUDY / "plots" / profile) as folder:
        folder.mkdir()
        for name, frame in frames.items():
            # 10 digits: more than a figure needs, fewer than differ between CPUs
            frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")


def find(recorder: Recorder, found: list[RunResults]) -> None:
    """Ask every finding that can be asked of each run, in the reading as published."""
    for one in found:
        ranking = one.ranking[one.ranking["reading"] == PUBLISHED].assign(model=one.model)
        curves = one.summaries[one.summaries["padding"] == "counted"].assign(model=one.model)
        texts = one.rows * len(one.languages)
        series = Series(ranking, curves[curves["group"] != "global"], {one.model: one.rows},
                        {one.model: texts})  # fmt: skip
        for name in applicable(series, one.model):
            answer = PREDICATES[name](series, one.model)
            id = name.replace("_", "-")
            recorder.find(id, one.model, answer.holds, answer.detail, one.basis)


def tables(found: list[RunResults], settings: Measure) -> dict[str, pd.DataFrame]:
    """Tidy frames of all runs, by the name of their file."""
    parts = {
        "thresholds": [one.thresholds for one in found],
        "summaries": [one.summaries for one in found],
        "curves": [one.histograms() for one in found],
        "scores": [one.score_points(SCORE_POINTS) for one in found],
        "ranking": [one.best(settings.listed) for one in found],
        "contexts": [one.contexts for one in found],
    }
    return {
        name: pd.concat(
            [frame.assign(model=one.model) for one, frame in zip(found, frames, strict=True)],
            ignore_index=True,
        )
        for name, frames in parts.items()
    }


if __name__ == "__main__":
    run(main)
