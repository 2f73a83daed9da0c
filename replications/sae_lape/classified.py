"""What stage classify left: scores of every text, and the tables that follow from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langsae.errors import InputError
from langsae.files import read_json
from langsae.metrics.classification import Evaluation, evaluate, predict

AS_PUBLISHED = "as published"
NORMALISED = "normalised by list size"
PREDICTIONS = "published predictions"  # theirs, not ours
# in the order in which tables and figures have them; fasttext has no list of features
CLASSIFIERS = ("fasttext", "sae-count", "sae-min-max", "neuron-count")


@dataclass(frozen=True)
class Classified:
    """Scores of S texts in L languages, which are in the study's order (by English name).

    labels: int64 [S], each text's language; scores: [S, L] by classifier; sizes: int64 [L] by
    classifier, how many features each language's score is a sum over.
    """

    languages: tuple[str, ...]
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    sizes: dict[str, np.ndarray]

    def readings(self, classifier: str) -> dict[str, np.ndarray]:
        """Predictions int64 [S] in each reading; a classifier without lists has only the first."""
        scores = self.scores[classifier]
        found = {AS_PUBLISHED: predict(scores)}
        if classifier in self.sizes:
            found[NORMALISED] = predict(scores, self.sizes[classifier])
        return found


def column(classifier: str, language: str) -> str:
    """How scores.csv calls a score."""
    return f"{classifier}:{language}"


def load(folder: str | Path) -> Classified:
    """Read scores.csv and lists.json of stage classify; InputError where they do not fit."""
    path = Path(folder) / "scores.csv"
    frame, sizes = _table(path), read_json(Path(folder) / "lists.json")
    heads = [head.split(":") for head in frame.columns if ":" in head]
    languages = tuple(dict.fromkeys(code for _, code in heads))
    present = [name for name in CLASSIFIERS if any(name == head for head, _ in heads)]
    unknown = sorted(set(frame["label"]) - set(languages))
    if unknown or frame.isna().any(axis=None):
        raise InputError(f"{path}: no scores of {', '.join(unknown) or 'some texts'}; run it again")
    return Classified(
        languages,
        frame["label"].map(languages.index).to_numpy(),
        {c: frame[[column(c, code) for code in languages]].to_numpy(float) for c in present},
        {c: np.array([by_code[code] for code in languages]) for c, by_code in sizes.items()},
    )


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run stage classify first") from error


def tables(classified: Classified) -> dict[str, list[dict[str, Any]]]:
    """Every published quantity of the classifiers as tidy rows: metrics, accuracy, confusion."""
    return _tables(classified, {name: classified.readings(name) for name in classified.scores})


def _tables(
    classified: Classified, predictions: dict[str, dict[str, np.ndarray]]
) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {"metrics": [], "accuracy": [], "confusion": []}
    for classifier, readings in predictions.items():
        for reading, predicted in readings.items():
            found = evaluate(classified.labels, predicted, len(classified.languages))
            base = {"classifier": classifier, "reading": reading}
            rows["accuracy"].append(base | {"accuracy": found.accuracy} | found.macro)
            for name, part in _by_language(found, classified.languages).items():
                rows[name] += [base | row for row in part]
    return rows


def _by_language(found: Evaluation, languages: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    metrics = [
        {"language": code, "precision": float(found.precision[i]), "recall": float(found.recall[i]),
         "f1": float(found.f1[i]), "support": int(found.support[i])}
        for i, code in enumerate(languages)
    ]  # fmt: skip
    confusion = [
        {"label": label, "predicted": predicted, "count": int(found.confusion[i, j])}
        for i, label in enumerate(languages)
        for j, predicted in enumerate(languages)
    ]
    return {"metrics": metrics, "confusion": confusion}


def published_predictions(folder: str | Path) -> dict[str, np.ndarray]:
    """What the authors predicted, int64 [S] by classifier; empty if the run has none of theirs."""
    path = Path(folder) / "published_predictions.csv"
    if not path.is_file():
        return {}
    frame, languages = _table(path), load(folder).languages
    columns = [name for name in CLASSIFIERS if name in frame]
    return {name: frame[name].map(languages.index).to_numpy() for name in columns}


def published_tables(folder: str | Path) -> dict[str, list[dict[str, Any]]]:
    """`tables` of the authors' own predictions, as the reading "published predictions"."""
    theirs = published_predictions(folder)
    return _tables(load(folder), {name: {PREDICTIONS: values} for name, values in theirs.items()})


def agreement(folder: str | Path) -> dict[str, float]:
    """Share of texts that are predicted as the authors predicted them, by classifier."""
    ours = load(folder)
    return {
        name: float((ours.readings(name)[AS_PUBLISHED] == theirs).mean())
        for name, theirs in published_predictions(folder).items()
    }
