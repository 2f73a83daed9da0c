"""How many texts activate each feature, at several thresholds: Gómez (2024), first figures.

Shapes: maxima float32 [L, S, F], the largest activation of F features in S texts of L languages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langsae.errors import InputError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of all positive values, beside their mean


def thresholds(
    mean: float, quantiles: Sequence[float], at: Sequence[float] = QUANTILES
) -> dict[str, float]:
    """The thresholds under the published names: mean, q_0.05, q_0.25 ..."""
    named = {f"q_{q:g}": float(value) for q, value in zip(at, quantiles, strict=True)}
    return {"mean": float(mean), **named}


def frequency_curves(maxima: np.ndarray, thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:
    """For each threshold, every feature's share of texts with a maximum strictly above it.

    maxima [..., F], whose leading axes are all texts. Each curve is float64 [F], falling: sorted
    for each threshold on its own. Raises InputError where there are no texts.
    """
    texts = maxima.reshape(-1, maxima.shape[-1])
    if not len(texts):
        raise InputError("no texts: no activation frequency")
    curves = {}
    for name, threshold in thresholds.items():
        # as float64, a threshold between two float32 values stays between them
        share = (texts > np.float64(threshold)).sum(axis=0) / len(texts)
        curves[name] = np.sort(share)[::-1]
    return curves


@dataclass(frozen=True)
class Alive:
    """How many of F features some text activates (value above 0)."""

    dead: tuple[int, ...]  # by language: active in none of its texts
    dead_somewhere: int  # in at least one language
    dead_everywhere: int  # in all languages
    alive: int  # in every language


def alive_counts(maxima: np.ndarray) -> Alive:
    """Counts of live and dead features of maxima [L, S, F]."""
    active = (maxima > 0).any(axis=1)  # [L, F]
    dead = ~active
    return Alive(
        tuple(dead.sum(axis=1).tolist()),
        int(dead.any(axis=0).sum()),
        int(dead.all(axis=0).sum()),
        int(active.all(axis=0).sum()),
    )
