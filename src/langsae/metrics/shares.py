"""Language shares of features, and what Belieni (2025) counts on them. Pure functions.

Shapes: active int64 [H, L, F] (active tokens), tokens int64 [L]; H hook points, L languages,
F features. A feature that is active nowhere ("dead") has no share: NaN inside, handled by name.
"""

from typing import Literal

import numpy as np

from langsae.errors import InputError

Reading = Literal["normalised", "raw"]


def language_shares(active: np.ndarray, tokens: np.ndarray, reading: Reading) -> np.ndarray:
    """Share of each language in each feature's activity, float64 [H, L, F]; NaN where dead.

    normalised: rate c/n of each language over the sum of the rates; raw: c over the sum of c.
    The post does not print the formula (flores_exploration, "monolingual features").
    """
    if np.any(tokens <= 0):
        raise InputError("a language without tokens has no activation rate; drop it")
    weight = active / tokens[None, :, None] if reading == "normalised" else active.astype(float)
    total = weight.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return weight / total


def monolingual_counts(shares: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """How many features have a share strictly above `threshold`: int64 [H, L]."""
    return (shares > threshold).sum(axis=2)


def variance_over_languages(
    shares: np.ndarray, ddof: int, dead: Literal["drop", "zero"]
) -> np.ndarray:
    """Mean over features of the variance over languages of the share: float64 [H].

    dead: features that are active nowhere are left out, or enter with variance zero. Raises
    InputError where a hook has no live feature.
    """
    variance = shares.var(axis=1, ddof=ddof)
    alive = ~np.isnan(variance)
    if not alive.any(axis=1).all():
        raise InputError("a hook point has no live feature: no variance to average")
    count = alive.sum(axis=1) if dead == "drop" else variance.shape[1]
    return np.where(alive, variance, 0.0).sum(axis=1) / count


def language_groups(
    shares: np.ndarray, languages: tuple[str, ...], threshold: float = 0.05, top: int = 5
) -> list[list[tuple[frozenset[str], int]]]:
    """Per hook, the `top` largest groups (set of languages with share >= threshold, features).

    Ties are ordered by the sorted language codes, so the result is deterministic.
    """
    member = np.nan_to_num(shares, nan=0.0) >= threshold
    bits = 1 << np.arange(len(languages), dtype=np.int64)
    groups = []
    for layer in member:
        keys, sizes = np.unique(bits @ layer, return_counts=True)
        named = [
            (frozenset(np.array(languages)[(key & bits) > 0].tolist()), int(size))
            for key, size in zip(keys, sizes, strict=True)
            if key
        ]
        groups.append(sorted(named, key=lambda item: (-item[1], sorted(item[0])))[:top])
    return groups


def share_histogram(shares: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Live features by their largest language share: edges [bins + 1] and int64 [H, bins]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    largest = np.nanmax(np.where(np.isnan(shares), -1.0, shares), axis=1)
    counts = np.stack([np.histogram(row[row >= 0], edges)[0] for row in largest])
    return edges, counts
