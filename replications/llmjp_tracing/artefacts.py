"""What the project page's data says that no measure can: labels given by hand.

Only labels and the fact that an entropy was published are read here; entropies, classes and counts
are worked out from the tokens by stage describe.
"""

from pathlib import Path

import pandas as pd

from langsae.errors import InputError

LABELS = {
    "uninterpretable": "uninterpretable",
    "concept_semantic": "semantic",
    "concept_synonym": "synonym",
    "token": "token",
}


def labels(path: Path) -> pd.DataFrame:
    """Features by checkpoint and label: step, label, count; every label, also of no feature."""
    page = _read(path)
    unknown = sorted(set(page["granularity_label"]) - set(LABELS))
    if unknown:
        raise InputError(f"{path}: '{unknown[0]}' is no label of the page; expected {list(LABELS)}")
    counts = page.groupby(["checkpoint", "granularity_label"]).size()
    rows = [
        {"step": int(step), "label": name, "count": int(counts.get((step, theirs), 0))}
        for step in sorted(page["checkpoint"].unique())
        for theirs, name in LABELS.items()
    ]
    return pd.DataFrame(rows)


def with_entropy(path: Path) -> dict[int, list[int]]:
    """By checkpoint the features whose entropy the page gives."""
    page = _read(path)
    page = page[page["authors_entropy"].notna()]
    return {int(step): sorted(rows["feature"]) for step, rows in page.groupby("checkpoint")}


def _read(path: Path) -> pd.DataFrame:
    wanted = ["checkpoint", "feature", "granularity_label", "authors_entropy"]
    return pd.read_csv(path, usecols=wanted)
