"""How well explanations tell where a feature is active: scores, their means, and correlations.

Scores are arrays over features; undefined ones are NaN and are left out of means.
"""

from collections.abc import Mapping

import numpy as np

SCORES = ("accuracy", "precision", "recall", "f1")


def scores(
    tp: np.ndarray,
    tn: np.ndarray,
    fp: np.ndarray,
    fn: np.ndarray,
    undefined: float = np.nan,
) -> dict[str, np.ndarray]:
    """Balanced accuracy (called accuracy), precision, recall and F1 from counts: float64 [F] each.

    undefined: what a ratio without a denominator is; the study's tool takes 0. Raises ValueError
    for a negative count.
    """
    tp, tn, fp, fn = (np.asarray(count, dtype=np.float64) for count in (tp, tn, fp, fn))
    if min(count.min(initial=0) for count in (tp, tn, fp, fn)) < 0:
        raise ValueError("counts are negative")
    recall = _ratio(tp, tp + fn, undefined)
    return {
        "accuracy": (recall + _ratio(tn, tn + fp, undefined)) / 2,
        "precision": _ratio(tp, tp + fp, undefined),
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn, undefined),
    }


def _ratio(part: np.ndarray, whole: np.ndarray, undefined: float) -> np.ndarray:
    out = np.full(np.broadcast(part, whole).shape, undefined)
    return np.divide(part, whole, out=out, where=whole > 0)


def means(values: Mapping[str, np.ndarray], groups: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean of each score over the features of each group (a language), by group in sorted order.

    A group in which a score is nowhere defined lacks that score.
    """
    groups = np.asarray(groups)
    found: dict[str, dict[str, float]] = {}
    for group in sorted(set(groups.tolist())):
        part = {name: column[groups == group] for name, column in values.items()}
        kept = {name: column[~np.isnan(column)] for name, column in part.items()}
        found[group] = {name: float(c.mean()) for name, c in kept.items() if len(c)}
    return found


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's r over the pairs of which both are defined; None for fewer than three of them, or
    where either is constant."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def beyond_chance(tp: int, tn: int, fp: int, fn: int) -> float:
    """How unlikely at least this balanced accuracy is for answers that do not depend on the truth.

    Fisher's exact test, one-sided: the probability of tp or more true positives given the margins.
    """
    # imported here: only this function needs SciPy, and its import takes a while
    from scipy.stats import hypergeom

    total, positives, said = tp + tn + fp + fn, tp + fn, tp + fp
    return float(hypergeom.sf(tp - 1, total, positives, said))
