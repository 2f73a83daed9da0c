"""Shares and means over features by checkpoint and layer, with bootstrap samples.

A layer without a live feature at a checkpoint has no share and no mean: NaN, left out of tables
and of means over layers.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from langsae.errors import InputError
from langsae.metrics.bootstrap import interval, resampled_means
from langsae.metrics.semantics import CLASSES, monosemanticity
from replications.llmjp_tracing.described import READINGS, Described

MIXED = CLASSES.index("Mixed")
AT_ZERO: tuple[Literal[0, 1], ...] = (0, 1)  # monosemanticity where TE is 0: the text lost it
SEEDS = {"shares": 0, "monosemanticity": 1, "spans": 2}  # beside the run's own


@dataclass(frozen=True)
class Sampled:
    """A quantity and bootstrap samples of it: value [...], samples [..., draws]."""

    value: np.ndarray
    samples: np.ndarray

    def over_layers(self) -> "Sampled":
        """From [C, L]: the mean over the layers that have a value, each counting the same: [C]."""
        if np.isnan(self.value).all(axis=1).any():
            raise InputError("at some checkpoint no feature of any layer is alive; train longer")
        return Sampled(np.nanmean(self.value, axis=1), np.nanmean(self.samples, axis=1))

    def at(self, place: Any) -> "Sampled":
        """Part of it; `place` indexes the leading axes."""
        return Sampled(self.value[place], self.samples[place])

    def ends(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """The percentile interval, NaN where there is no value."""
        low, high = interval(self.samples, level)
        return low, high


@dataclass(frozen=True)
class Series:
    """Everything that one run's features say, each quantity [C, L].

    shares: by reading of a token's language, one per class; counts: the features behind them;
    monosemanticity: by (grouping, value at TE = 0); zero: the share of live features with TE = 0;
    spans: by reading of "active".
    """

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    counts: dict[str, np.ndarray]  # int64 [C, L, 3]
    shares: dict[str, tuple[Sampled, ...]]
    monosemanticity: dict[tuple[str, int], Sampled]
    zero: np.ndarray
    spans: dict[str, Sampled]

    @property
    def mixed(self) -> dict[str, Sampled]:
        """Share of mixed features by reading."""
        return {reading: classes[MIXED] for reading, classes in self.shares.items()}


def series(described: Described, draws: int, seed: int) -> Series:
    """Every quantity of one run with `draws` bootstrap samples of its features."""
    arrays = described.arrays
    counts = {reading: class_counts(arrays[name]) for reading, name in READINGS.items()}
    entropy = arrays["token_entropy"]
    alive = (~np.isnan(entropy)).sum(axis=2)
    with np.errstate(invalid="ignore"):
        zero = (entropy == 0).sum(axis=2) / alive
    return Series(
        described.steps,
        described.layers,
        counts,
        {name: _shares(found, draws, [seed, SEEDS["shares"], n])
         for n, (name, found) in enumerate(counts.items())},
        {(grouping, at_zero): _means(_monosemanticity(arrays, grouping, at_zero), draws,
                                     _number(seed, "monosemanticity"))
         for grouping in described.groupings for at_zero in AT_ZERO},
        zero,
        {name: _means(arrays[f"span_{name}"], draws, _number(seed, "spans"))
         for name in described.spans},
    )  # fmt: skip


def class_counts(classes: np.ndarray) -> np.ndarray:
    """Live features of each class: int64 [C, L, 3] from classes [C, L, F], -1 being dead."""
    return np.stack([(classes == n).sum(axis=2) for n in range(len(CLASSES))], axis=2)


def _number(seed: int, kind: str) -> int:
    return seed * len(SEEDS) + SEEDS[kind]


def _shares(counts: np.ndarray, draws: int, seed: Sequence[int]) -> tuple[Sampled, ...]:
    """Shares of the classes among live features, one Sampled [C, L] a class.

    Resampling N features with replacement draws class counts from a multinomial distribution, so
    that is what is drawn: the same samples' law at the cost of three numbers.
    """
    total = counts.sum(axis=2)
    with np.errstate(invalid="ignore"):
        shares = counts / total[..., None]
    samples = np.full((*counts.shape, draws), np.nan)
    for place in np.ndindex(total.shape):
        if total[place]:
            rng = np.random.default_rng([*seed, *place])
            drawn = rng.multinomial(total[place], shares[place], size=draws)
            samples[place] = drawn.T / total[place]
    return tuple(Sampled(shares[..., n], samples[..., n, :]) for n in range(counts.shape[2]))


def _monosemanticity(
    arrays: dict[str, np.ndarray], grouping: str, at_zero: Literal[0, 1]
) -> np.ndarray:
    return monosemanticity(arrays["token_entropy"], arrays[f"semantic_entropy_{grouping}"],
                           at_zero)[0]  # fmt: skip


def _means(values: np.ndarray, draws: int, seed: int) -> Sampled:
    """Means over the features that have a value: [C, L] from values [C, L, F]."""
    known = ~np.isnan(values)
    alive = known.any(axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no value is NaN, as meant
        value = np.nanmean(values, axis=2)
    samples = np.full((*alive.shape, draws), np.nan)
    samples[alive] = resampled_means(values[alive], draws, seed)
    return Sampled(value, samples)


def classes_table(one: Series, level: float) -> pd.DataFrame:
    """Shares of the classes by checkpoint: the mean over layers."""
    rows = [
        {"step": step, "reading": reading, "class": name, "share": share, "low": low, "high": high}
        for reading, classes in one.shares.items()
        for name, sampled in zip(CLASSES, classes, strict=True)
        for step, share, low, high in _lines(one.steps, sampled.over_layers(), level)
    ]
    return pd.DataFrame(rows)


def classes_by_layer(one: Series, level: float) -> pd.DataFrame:
    """Shares of the classes by checkpoint and layer, and the features behind them."""
    rows = [
        {"step": step, "layer": layer, "reading": reading, "class": name,
         "count": int(one.counts[reading][c, at, n]), "share": share, "low": low, "high": high}
        for reading, classes in one.shares.items()
        for n, (name, sampled) in enumerate(zip(CLASSES, classes, strict=True))
        for c, step in enumerate(one.steps)
        for at, (layer, share, low, high) in enumerate(_lines(one.layers, sampled.at(c), level))
        if not np.isnan(share)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def monosemanticity_table(one: Series, level: float) -> pd.DataFrame:
    """Mean monosemanticity by checkpoint: the mean over layers, and the share at TE = 0."""
    zero = np.nanmean(one.zero, axis=1)
    rows = [
        {"step": step, "grouping": grouping, "at_zero": at_zero, "mean": mean, "low": low,
         "high": high, "zero_share": zero[c]}
        for (grouping, at_zero), sampled in one.monosemanticity.items()
        for c, (step, mean, low, high) in enumerate(_lines(one.steps, sampled.over_layers(), level))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def monosemanticity_by_layer(one: Series, level: float) -> pd.DataFrame:
    """Mean monosemanticity by checkpoint and layer, and the share of features at TE = 0."""
    rows = [
        {"step": step, "layer": layer, "grouping": grouping, "at_zero": at_zero, "mean": mean,
         "low": low, "high": high, "zero_share": one.zero[c, at]}
        for (grouping, at_zero), sampled in one.monosemanticity.items()
        for c, step in enumerate(one.steps)
        for at, (layer, mean, low, high) in enumerate(_lines(one.layers, sampled.at(c), level))
        if not np.isnan(mean)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def spans_by_layer(one: Series, level: float) -> pd.DataFrame:
    """Mean span length by checkpoint and layer, in both readings of "active"."""
    rows = [
        {"step": step, "layer": layer, "reading": reading, "mean": mean, "low": low, "high": high}
        for reading, sampled in one.spans.items()
        for c, step in enumerate(one.steps)
        for layer, mean, low, high in _lines(one.layers, sampled.at(c), level)
        if not np.isnan(mean)
    ]
    return pd.DataFrame(rows)


def _lines(labels: Sequence[int], sampled: Sampled, level: float) -> list[tuple]:
    """(label, value, low, high) of a quantity with one axis."""
    low, high = sampled.ends(level)
    return list(zip(labels, sampled.value, low, high, strict=True))
