"""The distribution of all positive activations of each language."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.reducers.base import SparseBatch, exact, read
from langsae.reducers.entries import GrowingReducer, entries

_MANTISSA = 23  # bits of a float32's fraction
_BUFFER = 1_000_000  # values that wait to be counted, per hook and language
_FEWEST = 256  # one per exponent: what is left when all of the fraction is dropped


class _Multiset:
    """Positive float32 values as sorted distinct bit patterns with counts.

    The bits of positive floats sort as the floats do. `dropped` low bits are left out: the fewest
    with which there are at most `limit` distinct patterns, hence the same in whatever order values
    come.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.dropped = limit, 0
        self.pattern, self.count = np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._waiting: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        self._waiting.append(values.view(np.int32))
        if sum(map(len, self._waiting)) >= _BUFFER:
            self.settle()

    def settle(self) -> None:
        """Count what waits."""
        if self._waiting:
            pattern, count = np.unique(np.concatenate(self._waiting), return_counts=True)
            self._waiting = []
            self.join(pattern, count, 0)

    def join(self, pattern: np.ndarray, count: np.ndarray, dropped: int) -> None:
        """Add counts of patterns that lack `dropped` bits."""
        target = max(self.dropped, dropped)
        mine, theirs = self.pattern >> (target - self.dropped), pattern >> (target - dropped)
        self.pattern, self.count = _summed(
            np.concatenate([mine, theirs]), np.concatenate([self.count, count])
        )
        self.dropped = target
        while len(self.pattern) > self.limit:
            self.pattern, self.count = _summed(self.pattern >> 1, self.count)
            self.dropped += 1


def _summed(pattern: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct patterns and the sums of their counts."""
    order = np.argsort(pattern, kind="stable")
    pattern, count = pattern[order], count[order]
    starts = np.flatnonzero(np.r_[True, pattern[1:] != pattern[:-1]][: len(pattern)])
    if not len(starts):
        return pattern, count
    return pattern[starts], np.add.reduceat(count, starts)


def _values(pattern: np.ndarray, dropped: int) -> np.ndarray:
    """The float32 values of patterns, float64; the middle of those that share one."""
    low = (pattern.astype(np.int64) << dropped).astype(np.int32).view(np.float32)
    if not dropped:
        return low.astype(np.float64)
    high = (pattern.astype(np.int64) << dropped) + (1 << dropped) - 1
    return (low.astype(np.float64) + high.astype(np.int32).view(np.float32)) / 2


class PositiveValues(GrowingReducer):
    """Every value above 0 of each (hook, language), as a multiset: means and exact quantiles.

    Memory is 12 bytes * `limit` per (hook, language) at most. While there are at most `limit`
    distinct values, quantiles are exact; beyond that low bits of the mantissa are dropped, one at
    a time. A value then stands for the middle of those that share its other bits, so a quantile of
    normal float32 values is off by less than a factor of 1 +- 2**(dropped - 24), `error_bound`.
    The mean is off by 2**-21 at most, half the grid of its sum.

    masked: leave out the token policy's padding; the name ends in `_masked` then.
    In the file: total float64 [H, L]; dropped int64 [H, L]; for hook h and language l pattern.h.l
    int32 (the bits of a float32 without the dropped ones) and count.h.l int64.
    """

    name = "positive_values"
    grids: ClassVar = {"total": 2.0**-20}  # exact up to 8.6e9

    def __init__(
        self,
        header: dict[str, Any],
        hooks: int,
        languages: int,
        masked: bool = False,
        limit: int = 4_000_000,
    ) -> None:
        super().__init__(header, {})
        if limit < _FEWEST:
            raise InputError(f"positive values: a limit of {limit} is below {_FEWEST}; raise it")
        self.masked, self.limit = masked, limit
        if masked:
            self.name = f"{PositiveValues.name}_masked"
        self._sets = [[_Multiset(limit) for _ in range(languages)] for _ in range(hooks)]
        self._total = torch.zeros(hooks, languages, dtype=torch.float64)

    @classmethod
    def load(cls, path: str | Path, masked: bool = False) -> "PositiveValues":
        """A saved collection; InputError where the file is not one, or not `masked` so."""
        header, state = read(path, f"{cls.name}_masked" if masked else cls.name)
        reducer = cls(header, *state["total"].shape, masked, int(state["limit"]))
        reducer.unpack(state)
        return reducer

    def update(self, batch: SparseBatch) -> None:
        found = entries(batch, self.masked)
        for language in np.unique(found.language).tolist():
            values = found.value[found.language == language]
            self._sets[batch.hook][language].add(values)
            total = exact(torch.from_numpy(values), self.grids["total"]).sum()
            self._total[batch.hook, language] += total

    def merge(self, other: "PositiveValues") -> None:
        """Add another part of the same collection, kept under the same limit."""
        super().merge(other)
        if self.limit != other.limit or self._total.shape != other._total.shape:
            raise InputError(f"{self.name}: the parts have other limits or sizes; collect again")
        self._total += other._total
        for ours, theirs in zip(self._sets, other._sets, strict=True):
            for mine, added in zip(ours, theirs, strict=True):
                added.settle()
                mine.settle()
                mine.join(added.pattern, added.count, added.dropped)

    def count(self, hook: int, languages: Sequence[int]) -> int:
        """How many positive values these languages have together."""
        return sum(int(self._settled(hook, language).count.sum()) for language in languages)

    def mean(self, hook: int, languages: Sequence[int]) -> float:
        """Mean of the positive values of these languages together."""
        total = float(self._total[hook, list(languages)].sum())
        return total / self._some(hook, languages)

    def quantiles(self, hook: int, languages: Sequence[int], q: Sequence[float]) -> np.ndarray:
        """Quantiles of the positive values of these languages together, float64 [len(q)].

        Linearly interpolated, as by numpy.quantile's and torch.quantile's default.
        """
        at = np.asarray(q, dtype=np.float64) * (self._some(hook, languages) - 1)
        values, counts = self._pooled(hook, languages)
        ends = np.cumsum(counts)
        below = np.floor(at).astype(np.int64)
        above = np.ceil(at).astype(np.int64)
        low = values[np.searchsorted(ends, below, side="right")]
        high = values[np.searchsorted(ends, above, side="right")]
        return low + (high - low) * (at - below)

    def error_bound(self, hook: int, languages: Sequence[int]) -> float:
        """Largest relative error of these languages' quantiles; 0 while they are exact."""
        dropped = max(self._settled(hook, language).dropped for language in languages)
        return 2.0 ** (dropped - _MANTISSA - 1) if dropped else 0.0

    def _settled(self, hook: int, language: int) -> _Multiset:
        self._sets[hook][language].settle()
        return self._sets[hook][language]

    def _pooled(self, hook: int, languages: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rising values float64 and their counts, of these languages together."""
        sets = [self._settled(hook, language) for language in languages]
        values = np.concatenate([_values(part.pattern, part.dropped) for part in sets])
        order = np.argsort(values, kind="stable")
        return values[order], np.concatenate([part.count for part in sets])[order]

    def _some(self, hook: int, languages: Sequence[int]) -> int:
        count = self.count(hook, languages)
        if not count:
            raise InputError(f"{self.name}: languages {list(languages)} have no value above 0; "
                             "check SAE and corpus")  # fmt: skip
        return count

    def pack(self) -> dict[str, Tensor]:
        dropped = torch.zeros(self._total.shape, dtype=torch.int64)
        state = {"total": self._total.clone(), "limit": torch.tensor(self.limit)}
        for hook, language in np.ndindex(*dropped.shape):
            part = self._settled(hook, language)
            dropped[hook, language] = part.dropped
            state[f"pattern.{hook}.{language}"] = torch.from_numpy(part.pattern)
            state[f"count.{hook}.{language}"] = torch.from_numpy(part.count)
        return {**state, "dropped": dropped}

    def unpack(self, state: dict[str, Tensor]) -> None:
        if state["total"].shape != self._total.shape or int(state["limit"]) != self.limit:
            raise InputError(f"{self.name}: saved with another limit or size; collect again")
        self._total = state["total"].clone()
        for hook, language in np.ndindex(*self._total.shape):
            part = _Multiset(self.limit)
            part.dropped = int(state["dropped"][hook, language])
            part.pattern = state[f"pattern.{hook}.{language}"].numpy().copy()
            part.count = state[f"count.{hook}.{language}"].numpy().copy()
            self._sets[hook][language] = part
