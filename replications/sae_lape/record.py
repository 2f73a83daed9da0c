"""Measured values under the ids and variants that published.yaml gives them.

Values of a run on another model than the study's get the run's name in front of their ids. A number
that a stage took from the authors' artefacts is entered only where artefact.json says that it was
worked out from something rawer than the claim; see artefacts.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from langsae.evidence import Basis, Recorder
from replications.sae_lape import artefacts
from replications.sae_lape.classified import AS_PUBLISHED, CLASSIFIERS, NORMALISED
from replications.sae_lape.identified import Identified
from replications.sae_lape.tables import SCORES, Frames, steered_rows

SUBJECT = "llama"  # the run on the study's own model
SHIPPED = "lid.176.ftz"
JUDGED, MISALIGNED = "told by fastText", "from the saved probabilities"
TOP = 10  # features in the published lists


@dataclass(frozen=True)
class Entry:
    """Where one run's values go. decided: per stage what its artefact may decide, None if run."""

    recorder: Recorder
    run: str
    decided: dict[str, tuple[str, ...] | None]

    @classmethod
    def of(cls, recorder: Recorder, run: str, folders: dict[str, Path]) -> "Entry":
        """For the stages' folders of a run."""
        return cls(recorder, run, {name: artefacts.decides(at) for name, at in folders.items()})

    def __call__(
        self,
        stage: str,
        id: str,
        value: Any,
        variant: str = AS_PUBLISHED,
        detail: str | None = None,
    ) -> None:
        starts = self.decided[stage]
        if starts is not None and not id.startswith(starts):
            return
        name = id if self.run == SUBJECT else f"{self.run}/{id}"
        basis: Basis = "rerun" if starts is None else "published artefact"
        self.recorder.measure(name, variant, value, basis, detail)


def collected(enter: Entry, frames: Frames) -> None:
    """Totals of the texts."""
    for row in frames["totals"].itertuples():
        enter("collected", f"totals/tokens/{row.language}", row.tokens)
        enter("collected", f"totals/examples/{row.language}", row.examples)


def identified(enter: Entry, found: Identified, frames: Frames) -> None:
    """Numbers of features and neurons, lists of the first ten, and what languages share."""
    unique = found.features.drop_duplicates(["hook", "feature"])
    specific = int((unique["languages"] == 1).sum())
    numbers = {"kept": len(unique), "specific": specific, "shared": len(unique) - specific}
    for name, count in numbers.items():
        enter("identified", f"identified/counts/{name}", count)
    for (selection, language), rows in frames["counts"].groupby(["selection", "language"]):
        _layers(enter, f"features/{selection}/{language}", rows)
    for name in (f"top_{TOP}_by_entropy", f"top_{TOP}_by_freq"):
        if name in found.summary["selections"]:
            rows = found.selections[found.selections["selection"] == name]
            _lists(enter, f"lists/{name}", rows, found.languages, AS_PUBLISHED)
    own = found.features[found.features["languages"] == 1]
    if own["probability_as_published"].notna().all():
        wrong = own.sort_values("probability_as_published", ascending=False, kind="stable")
        wrong = wrong.groupby("language").head(TOP)
        _lists(enter, f"lists/top_{TOP}_by_freq", wrong, found.languages, MISALIGNED)
    for number, rows in frames["shared_layers"].groupby("languages"):
        _layers(enter, f"shared/layers/{number}", rows)
    for row in frames["shared_languages"].itertuples():
        enter("identified", f"shared/languages/{row.languages}/{row.language}", row.count)


def _layers(enter: Entry, id: str, rows: pd.DataFrame) -> None:
    for layer, count in zip(rows["layer"], rows["count"], strict=True):
        enter("identified", f"{id}/L{layer}", count)
    enter("identified", f"{id}/total", rows["count"].sum())


def _lists(
    enter: Entry, id: str, rows: pd.DataFrame, languages: tuple[str, ...], variant: str
) -> None:
    for code in languages:
        mine = rows[rows["language"] == code]
        names = [f"{row.layer}.{row.feature}" for row in mine.itertuples()]
        enter("identified", f"{id}/{code}", names or ["none"], variant)


def compared(enter: Entry, frames: Frames) -> None:
    """Overlap of languages, and mean similarity within each."""
    for row in frames["overlap"].itertuples():
        enter("compared", f"overlap/intersection/{row.a}/{row.b}", row.intersection)
        enter("compared", f"overlap/iou/{row.a}/{row.b}", row.iou)
    for row in frames["similarity_mean"].itertuples():
        enter("compared", f"similarity/{row.measure}/{row.language}", row.mean)


def classified(enter: Entry, frames: Frames, model: str, theirs: Frames | None = None) -> None:
    """Every classifier in both readings; confusions as published only.

    model: the fastText model that was run. theirs: the same tables of the authors' own predictions,
    for a run of artefacts; their scores are then behind all but fastText's.
    """
    fasttext = {AS_PUBLISHED: SHIPPED if model == SHIPPED else AS_PUBLISHED}
    others = {AS_PUBLISHED: AS_PUBLISHED, NORMALISED: NORMALISED}
    _classifiers(enter, "fasttext_run", _of(frames, ["fasttext"]), fasttext)
    _classifiers(
        enter, "classified", _of(frames, [c for c in CLASSIFIERS if c != "fasttext"]), others
    )
    if theirs is not None:
        _classifiers(enter, "classified", _of(theirs, ["fasttext"]), others)


def _of(frames: Frames, classifiers: list[str]) -> Frames:
    tables = {name: frames[name] for name in ("accuracy", "metrics", "confusion")}
    return {name: rows[rows["classifier"].isin(classifiers)] for name, rows in tables.items()}


def _classifiers(enter: Entry, stage: str, frames: Frames, variants: dict[str, str]) -> None:
    why = {NORMALISED: "our re-analysis: each score divided by the size of its language's list"}
    for row in frames["accuracy"].itertuples():
        for name in SCORES:
            id = f"classification/{row.classifier}/{name}"
            enter(stage, id, getattr(row, name), variants[row.reading], why.get(row.reading))
    for row in frames["metrics"].itertuples():
        for name in SCORES[1:]:
            id = f"classification/{row.classifier}/{name}/{row.language}"
            enter(stage, id, getattr(row, name), variants[row.reading], why.get(row.reading))
    for row in frames["confusion"].query("reading == @AS_PUBLISHED").itertuples():
        id = f"classification/{row.classifier}/confusion/{row.label}/{row.predicted}"
        enter(stage, id, row.count, variants[row.reading])


def perplexities(enter: Entry, frames: Frames) -> None:
    """Plain perplexities, and what every setting does to them."""
    for row in frames["perplexity_normal"].itertuples():
        enter("perplexity", f"perplexity/normal/{row.language}", row.mean)
    for row in frames["perplexity"].itertuples():
        if row.setting.startswith("sae_shared_"):
            continue  # of an unknown number of languages as published: there is no claim
        enter("perplexity", f"perplexity/{row.setting}/{row.intervened}/{row.impacted}", row.change)


def generated(enter: Entry, frames: Frames) -> None:
    """Of 100 texts how many reached the language, at the lower and the higher strength.

    English is suppressed: the texts that left it count. Hand labels are entered as such.
    """
    for row in frames["labels"].itertuples():
        name = f"{'changed' if row.changed else 'unchanged'}_{row.label}"
        enter("generated", f"generation/labels/{row.table}/{row.language}/{name}", row.count)
    for (table, language), rows in frames["labels"].groupby(["table", "language"]):
        changed = rows.loc[rows["changed"], "count"].sum()
        enter("generated", f"generation/reached/{table}/{language}", changed)
    if len(frames["labels"]):
        return
    for language, rows in steered_rows(frames["generation"]).groupby("language"):
        rows = rows.sort_values("alpha", key=abs)
        for table, row in zip(("higher", "lower"), rows[::-1].itertuples(), strict=False):
            share = row.reached if row.alpha > 0 else 1 - row.reached
            enter("generated", f"generation/reached/{table}/{language}", 100 * share, JUDGED)


def interpreted(enter: Entry, frames: Frames) -> None:
    """Mean scores of the explanations by language, and their correlations with entropy."""
    for row in frames["interpretation"].itertuples():
        for name in SCORES:
            id = f"interpretation/{row.method}/{row.language}/{name}"
            enter("interpreted", id, getattr(row, name))
    for row in frames["correlations"].itertuples():
        enter("interpreted", f"interpretation/correlation/{row.method}/{row.metric}", row.pearson)
