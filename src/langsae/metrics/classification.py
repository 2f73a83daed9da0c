"""From scores of languages to predictions, and how good these are. Pure functions.

Shapes: scores [S, L], truth and predictions int64 [S]; S texts, L languages.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from langsae.errors import InputError


@dataclass(frozen=True)
class Evaluation:
    """precision, recall, f1: float64 [L]; support: int64 [L], texts in the language; confusion:
    int64 [L, L], true language down, predicted across.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of texts whose language was told."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def macro(self) -> dict[str, float]:
        """Unweighted means over the languages."""
        parts = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: float(values.mean()) for name, values in parts.items()}


def predict(scores: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
    """The language with the largest score, the first of equals: int64 [S].

    sizes: int [L], how many features each language's score was summed over; scores are divided by
    them, and a language with none is never predicted. Raises InputError for scores that are not
    finite, sizes below 0, or none above.
    """
    scores = np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise InputError("a score is missing or not finite; classify again")
    if sizes is None:
        return scores.argmax(axis=1)
    sizes = np.asarray(sizes)
    if sizes.shape != scores.shape[1:] or (sizes < 0).any() or not sizes.any():
        raise InputError(f"{scores.shape[1]} languages cannot have lists of sizes {sizes.tolist()}")
    means = np.full(scores.shape, -np.inf)
    np.divide(scores, sizes, out=means, where=sizes > 0)
    return means.argmax(axis=1)


def evaluate(truth: np.ndarray, predicted: np.ndarray, languages: int) -> Evaluation:
    """Predictions against the truth, both indices below `languages`.

    A language that is never predicted has precision 0, as scikit-learn and the study count it.
    Raises InputError without texts, or for an index beyond `languages`.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or not len(truth):
        raise InputError(f"{len(predicted)} predictions for {len(truth)} texts")
    if min(truth.min(), predicted.min()) < 0 or max(truth.max(), predicted.max()) >= languages:
        raise InputError(f"a text is in none of the {languages} languages, or predicted as such")
    labels = np.arange(languages)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0.0
    )
    return Evaluation(
        precision, recall, f1, support, confusion_matrix(truth, predicted, labels=labels)
    )
