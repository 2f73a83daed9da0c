"""Measured values under the ids and variants that published.yaml gives them.

Injections of another run than the study's get the run's name in front of their ids.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from langsae.claims import AS_PUBLISHED
from langsae.evidence import Recorder
from langsae.metrics.semantics import CLASSES
from replications.llmjp_tracing import artefacts
from replications.llmjp_tracing.described import READINGS, Described
from replications.llmjp_tracing.tables import NONE, Frames

INJECTED = "llmjp_3_7b"  # the run whose injections Table 1 prints
VARIANTS = {"rule": AS_PUBLISHED, "document": "by document"}  # of a token's language
TABLE_1 = (NONE, "en", "ja", "bi")  # the random control is ours


def page(recorder: Recorder, described: Described, path: Path) -> None:
    """What the page's data decides: a run of one layer whose features are numbered from 0."""
    basis = "published artefact"
    arrays = {name: array[:, 0] for name, array in described.arrays.items()}
    for reading, variant in VARIANTS.items():
        classes = arrays[READINGS[reading]]
        counted = {code: arrays[f"{code}_{reading}"] for code in ("en", "ja")}
        for c, step in enumerate(described.steps):
            for n, name in enumerate(CLASSES):
                id = f"page/classes/{step}/{name}"
                recorder.measure(id, variant, int((classes[c] == n).sum()), basis)
            for feature in np.flatnonzero(classes[c] >= 0):  # the page lacks some
                name = CLASSES[classes[c, feature]]
                recorder.measure(f"page/class/{step}/{feature}", variant, name, basis)
                for code, windows in counted.items():
                    id = f"page/windows/{step}/{code}/{feature}"
                    recorder.measure(id, variant, windows[c, feature], basis)
    for step, features in artefacts.with_entropy(path).items():
        entropy = arrays["token_entropy"][described.steps.index(step)]
        for feature in features:
            id = f"page/entropy/{step}/{feature}"
            recorder.measure(id, AS_PUBLISHED, entropy[feature], basis)


def labels(recorder: Recorder, frames: Frames) -> None:
    """The hand labels, counted again."""
    for row in frames["labels"].itertuples():
        id, why = f"page/labels/{row.step}/{row.label}", "the authors' labels, counted again"
        recorder.measure(id, AS_PUBLISHED, row.count, "published artefact", why)


def rate(recorder: Recorder, run: str, frames: Frames) -> None:
    """The learning rate that a grid chose."""
    held_out = frames["rates_held_out"]
    if len(held_out):
        chosen = held_out.loc[held_out["selected"].astype(bool), "rate"].iloc[0]
        recorder.measure(f"learning-rate/{run}/selected", AS_PUBLISHED, float(chosen))


def injection(recorder: Recorder, run: str, frames: Frames, alpha: float) -> None:
    """Perplexities and COMET scores at `alpha`, a variant a number of features."""
    start = "" if run == INJECTED else f"{run}/"
    for variant, rows in _by_number(frames["injection"], alpha):
        for row in rows.itertuples():
            end = f"{row.add}/{row.language}"
            recorder.measure(f"{start}injection/perplexity/{end}", variant, row.mean)
            if row.add != NONE:
                ratio = 1 + row.change / 100
                recorder.measure(f"{start}injection/ratio/{end}", variant, ratio)
    scores = frames["translation"]
    for variant, rows in _by_number(scores[scores["metric"] == "comet"], alpha):
        for row in rows.itertuples():
            id = f"{start}injection/comet/{row.add}/{row.direction}"
            recorder.measure(id, variant, row.mean)


def _by_number(rows: pd.DataFrame, alpha: float) -> list[tuple[str, pd.DataFrame]]:
    """Variant and rows of Table 1 for each number of features added at `alpha`.

    What is without addition belongs to each of them.
    """
    rows = rows[rows["add"].isin(TABLE_1)]
    plain, at = rows[rows["add"] == NONE], rows[np.isclose(rows["alpha"].astype(float), alpha)]
    return [
        (f"{int(number):,} features", pd.concat([plain, part]))
        for number, part in at[at["add"] != NONE].groupby("features", sort=True)
    ]
