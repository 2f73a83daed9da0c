"""The texts in which each feature is most active."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.reducers.base import SparseBatch, read
from langsae.reducers.entries import GrowingReducer, entries, largest, sorted_rows

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # value, example, position


class Context(NamedTuple):
    """A feature's largest activation in one text."""

    value: float
    example: int  # index of the text within its language
    position: int  # where in the text, BOS included; the first, if several are as large


class TopContexts(GrowingReducer):
    """For every (hook, language, feature), the k texts in which it reaches the largest values.

    Ordered by value, then by example; one entry per text, at its first largest position. Memory is
    12 bytes * H * L * F * k, whatever the text.

    masked: leave out the token policy's padding; the name ends in `_masked` then.
    In the file: value float32, example and position int32 (-1 where there is no such text), all
    [H, L, F, k].
    """

    name = "top_contexts"

    def __init__(
        self,
        header: dict[str, Any],
        hooks: int,
        languages: int,
        features: int,
        k: int,
        masked: bool = False,
    ) -> None:
        super().__init__(header, {})
        if k < 1:
            raise InputError(f"top contexts: k is {k}; ask for at least one")
        self.masked = masked
        if masked:
            self.name = f"{TopContexts.name}_masked"
        self.sizes = (hooks, languages, features, k)
        rows = hooks * languages * features
        self._value = np.zeros((rows, k), dtype=np.float32)
        self._example = np.full((rows, k), -1, dtype=np.int32)
        self._position = np.full((rows, k), -1, dtype=np.int32)

    @classmethod
    def load(cls, path: str | Path, masked: bool = False) -> "TopContexts":
        """A saved collection; InputError where the file is not one, or not `masked` so."""
        header, state = read(path, f"{cls.name}_masked" if masked else cls.name)
        reducer = cls(header, *state["value"].shape, masked=masked)
        reducer.unpack(state)
        return reducer

    def update(self, batch: SparseBatch) -> None:
        _, languages, features, _ = self.sizes
        found = largest(entries(batch, self.masked), features)
        row = (batch.hook * languages + found.language) * features + found.feature
        self._insert(row, (found.value, found.example, found.position))

    def merge(self, other: "TopContexts") -> None:
        """Add another part of the same collection."""
        super().merge(other)
        if self.sizes != other.sizes:
            raise InputError(f"{self.name}: sizes {self.sizes} and {other.sizes} differ")
        row, slot = (other._example >= 0).nonzero()
        self._insert(row, other._at(row, slot))

    def top(self, hook: int, language: int, feature: int) -> list[Context]:
        """At most k contexts of one feature, the strongest first."""
        _, languages, features, _ = self.sizes
        row = (hook * languages + language) * features + feature
        kept = int((self._example[row] >= 0).sum())
        columns = (self._value, self._example, self._position)
        return [
            Context(*values)
            for values in zip(*(column[row, :kept].tolist() for column in columns), strict=True)
        ]

    def _at(self, row: np.ndarray, slot: np.ndarray) -> Columns:
        return self._value[row, slot], self._example[row, slot], self._position[row, slot]

    def _insert(self, row: np.ndarray, found: Columns) -> None:
        """Let `found`, at most one of a row and text, compete for the slots of their rows."""
        # a row's last slot is its weakest; an empty one has value 0 and lets everything in
        last, last_example = self._value[row, -1], self._example[row, -1]
        enters = (found[0] > last) | ((found[0] == last) & (found[1] < last_example))
        if not enters.any():
            return
        row, found = row[enters], tuple(column[enters] for column in found)
        touched = np.unique(row)
        old_row, slot = (self._example[touched] >= 0).nonzero()
        old = self._at(touched[old_row], slot)
        row = np.concatenate([touched[old_row], row])
        value, example, position = (np.concatenate(pair) for pair in zip(old, found, strict=True))
        order = sorted_rows((row, -value, example))
        row = row[order]
        starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        rank = np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))
        best = rank < self.sizes[3]
        order, at = order[best], (row[best], rank[best])
        self._value[at], self._example[at] = value[order], example[order]
        self._position[at] = position[order]

    def pack(self) -> dict[str, Tensor]:
        columns = {"value": self._value, "example": self._example, "position": self._position}
        return {name: torch.from_numpy(c).view(self.sizes) for name, c in columns.items()}

    def unpack(self, state: dict[str, Tensor]) -> None:
        if tuple(state["value"].shape) != self.sizes:
            raise InputError(f"{self.name}: saved with sizes {list(state['value'].shape)}, not "
                             f"those of this collection, {list(self.sizes)}")  # fmt: skip
        self._value = state["value"].numpy().reshape(self._value.shape).copy()
        self._example = state["example"].numpy().reshape(self._value.shape).copy()
        self._position = state["position"].numpy().reshape(self._value.shape).copy()
