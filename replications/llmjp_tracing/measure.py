"""The cheap part: from what the stages left to the published numbers, findings and figures' data.

A stage that a run leaves out (published data, no injection) has empty tables and no values.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt

from langsae.command import run
from langsae.errors import InputError
from langsae.evidence import Basis, Recorder
from langsae.files import digest, publish, read_json
from langsae.params import Spec, section
from langsae.paths import expand
from replications.llmjp_tracing import artefacts, described, record, tables
from replications.llmjp_tracing.findings import PREDICATES, Answer, Subject, larger_more_bilingual
from replications.llmjp_tracing.run import STUDY, Run, folder, history_folder
from replications.llmjp_tracing.series import Series, series
from replications.llmjp_tracing.tables import COLUMNS, NONE, Frames

# folders of a run, by the name of the stage's result
RESULTS = ("evaluated", "rates", "collected", "described", "injected")


class Measuring(Spec):
    """draws: bootstrap samples of the features; level: of their intervals.

    alpha, features: the injection that Table 1 and the findings are about; features None is the
    largest number that was added.
    """

    draws: PositiveInt = 400
    level: float = Field(0.95, gt=0, lt=1)
    alpha: PositiveFloat = 0.1
    features: PositiveInt | None = None


@dataclass(frozen=True)
class Measured:
    """One run: its settings, its features' series, its tables, and what predicates read."""

    name: str
    chosen: Run
    described: described.Described
    series: Series
    frames: Frames
    subject: Subject

    @property
    def basis(self) -> Basis:
        return "rerun" if self.chosen.published is None else "published artefact"


def gather(
    name: str, chosen: Run, places: dict[str, Path], history: Path, settings: Measuring, seed: int
) -> Measured:
    """Everything of one run, from the folders of its stages; tables have the columns of COLUMNS."""
    found = described.load(places["described"])
    one = series(found, settings.draws, seed)
    parts: list[Frames] = [
        tables.described(one, settings.level),
        tables.rates(places["rates"]),
        tables.perplexity(places["evaluated"]),
        tables.pretraining(history),
        tables.injections(places["injected"]),
        tables.patterns(places["described"], found.layers),
    ]
    if chosen.published is not None:
        parts.append({"labels": artefacts.labels(expand(chosen.published))})
    frames = {key: frame for part in parts for key, frame in part.items()}
    frames = {key: frames.get(key, pd.DataFrame()).reindex(columns=c) for key, c in COLUMNS.items()}
    return Measured(name, chosen, found, one, frames, subject(one, places["injected"], settings))


def subject(one: Series, injected: Path, settings: Measuring) -> Subject:
    """The series, and of the injections those at the settings' alpha and number of features."""
    texts = _at(tables.injected(injected, "perplexity"), settings)
    scores = _at(tables.injected(injected, "translation"), settings)
    if len(scores):  # COMET-22 where it was run, as the study; else chrF
        scores = scores[scores["metric"] == min(scores["metric"], key=("comet", "chrf").index)]
    return Subject(one, texts.rename(columns={"perplexity": "value"}),
                   scores.rename(columns={"score": "value"}))  # fmt: skip


def _at(rows: pd.DataFrame, settings: Measuring) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame(columns=["add", "added", "draw", "language", "direction", "value"])
    added = rows[rows["add"] != NONE]
    features = settings.features or int(added["features"].max())
    wanted = np.isclose(added["alpha"], settings.alpha) & (added["features"] == features)
    if not wanted.any():
        tried = sorted(set(zip(added["alpha"], added["features"], strict=True)))
        raise InputError(
            f"{STUDY}.measure: nothing was injected at alpha {settings.alpha} with {features} "
            f"features; choose of (alpha, features) {', '.join(f'({a}, {n:g})' for a, n in tried)}"
        )
    return pd.concat([rows[rows["add"] == NONE], added[wanted]])


def enter(recorder: Recorder, one: Measured, settings: Measuring) -> None:
    """Record every published quantity of one run."""
    if one.chosen.published is not None:
        record.page(recorder, one.described, expand(one.chosen.published))
        record.labels(recorder, one.frames)
    record.rate(recorder, one.name, one.frames)
    record.injection(recorder, one.name, one.frames, settings.alpha)


def find(recorder: Recorder, runs: list[Measured]) -> None:
    """Ask every finding that can be asked: of each run, and of the sizes of a family together."""
    for one in runs:
        for predicate, ask in PREDICATES.items():
            _answer(recorder, predicate, one.name, ask(one.subject), one.basis)
    families: dict[str, dict[str, Series]] = {}
    for one in runs:
        # llmjp_150m, llmjp_3_7b, … are llmjp; a run of some layers tells neither size nor share
        if one.chosen.published is None and one.chosen.layers is None:
            families.setdefault(one.name.split("_")[0], {})[one.name] = one.series
    for family, sizes in families.items():
        answer = larger_more_bilingual(sizes)
        _answer(recorder, larger_more_bilingual.__name__, family, answer, "rerun")


def _answer(
    recorder: Recorder, predicate: str, model: str, answer: Answer | None, basis: Basis
) -> None:
    if answer is not None:
        id = predicate.replace("_", "-")
        recorder.find(id, model, answer.holds, answer.detail, basis, answer.interval)


def inputs(name: str, collected: Path) -> dict[str, str]:
    """Digests of what the run read: corpus, models and SAEs, or the page's data."""
    found = read_json(collected / "totals.json")["inputs"]
    return {f"{name}/{key}": digest(value) for key, value in sorted(found.items())}


def main() -> None:
    profile, seed = section("profile", str), section("seed", int)
    runs = section(f"{STUDY}.runs", dict[str, Run])
    settings = section(f"{STUDY}.measure", Measuring)
    read: dict[str, str] = {}
    found = []
    for name, chosen in runs.items():
        places = {result: folder(profile, name, result) for result in RESULTS}
        read |= inputs(name, places["collected"])
        history = history_folder(chosen.history)
        found.append(gather(name, chosen, places, history, settings, seed))
    recorder = Recorder(STUDY, profile, seed, read)
    for one in found:
        enter(recorder, one, settings)
    find(recorder, found)
    recorder.write()
    with publish(Path("results") / STUDY / "plots" / profile) as out:
        out.mkdir()
        for key, columns in COLUMNS.items():
            parts = [one.frames[key].assign(run=one.name) for one in found]
            frame = pd.concat([part for part in parts if len(part)] or parts[:1])
            # 10 digits: more than a figure needs, fewer than differ between CPUs
            frame[["run", *columns]].to_csv(out / f"{key}.csv", index=False, float_format="%.10g")


if __name__ == "__main__":
    run(main)
