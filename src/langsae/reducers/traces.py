"""Every activation of a few chosen features, position by position."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.reducers.base import SparseBatch, read
from langsae.reducers.entries import Entries, GrowingReducer, entries, sorted_rows

COLUMNS = ("hook", "language", "example", "position", "feature", "value")
TYPES = (np.int32,) * 5 + (np.float32,)


class FeatureTraces(GrowingReducer):
    """All activations above 0 of the chosen features, as columns sorted in the order of `COLUMNS`.

    features: the ids wanted, int64, by index of the hook; memory grows with their activations.
    masked: leave out the token policy's padding; the name ends in `_masked` then.
    In the file: the columns, int32 [N] (value: float32), and chosen int64 [n, 2] (hook, feature).
    """

    name = "feature_traces"

    def __init__(
        self, header: dict[str, Any], features: Mapping[int, np.ndarray | Tensor | list[int]],
        masked: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(header, {})
        self.masked = masked
        if masked:
            self.name = f"{FeatureTraces.name}_masked"
        self.features = {
            int(hook): np.unique(np.asarray(features[hook], dtype=np.int64))
            for hook in sorted(features)
        }
        self._wanted: dict[int, Tensor] = {}  # by hook: bool [features of its coder]
        self._parts: list[tuple[np.ndarray, ...]] = [tuple(np.zeros(0, kind) for kind in TYPES)]

    @classmethod
    def load(cls, path: str | Path, masked: bool = False) -> "FeatureTraces":
        """A saved collection; InputError where the file is not one, or not `masked` so."""
        header, state = read(path, f"{cls.name}_masked" if masked else cls.name)
        hook, feature = state["chosen"].numpy().T
        chosen = {int(at): feature[hook == at] for at in np.unique(hook)}
        reducer = cls(header, chosen, masked)
        reducer.unpack(state)
        return reducer

    def update(self, batch: SparseBatch) -> None:
        if batch.hook not in self.features:
            return
        found = entries(batch, self.masked, self._chosen(batch))
        hook = np.full(len(found), batch.hook)
        columns = (hook, *(getattr(found, name) for name in COLUMNS[1:]))
        self._parts.append(
            tuple(column.astype(kind) for column, kind in zip(columns, TYPES, strict=True))
        )

    def _chosen(self, batch: SparseBatch) -> Tensor:
        if batch.hook not in self._wanted:
            ids, features = self.features[batch.hook], batch.codes.shape[1]
            if len(ids) and not 0 <= ids[0] <= ids[-1] < features:
                raise InputError(f"{self.name}: {batch.where} has features 0 to {features - 1}, "
                                 f"not {ids[0]} to {ids[-1]}")  # fmt: skip
            wanted = torch.zeros(features, dtype=torch.bool)
            wanted[torch.from_numpy(ids)] = True
            self._wanted[batch.hook] = wanted.to(batch.codes.feature.device)
        return self._wanted[batch.hook]

    def merge(self, other: "FeatureTraces") -> None:
        """Add another part of the same collection, of other texts and the same features."""
        super().merge(other)
        if not np.array_equal(self._pairs(), other._pairs()):
            raise InputError(f"{self.name}: collected for other features; collect again")
        self._parts += other._parts

    def columns(self) -> dict[str, np.ndarray]:
        """The columns by name; InputError where a position is there twice."""
        whole = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        order = sorted_rows(whole[:-1])
        whole = [column[order] for column in whole]
        keys = np.stack(whole[:-1])
        if bool((keys[:, 1:] == keys[:, :-1]).all(axis=0).any()):
            raise InputError(f"{self.name}: a text came twice; merge only shards without common "
                             "texts")  # fmt: skip
        self._parts = [tuple(whole)]
        return dict(zip(COLUMNS, whole, strict=True))

    def of(self, hook: int, feature: int) -> Entries:
        """The activations of one feature, by language, example and position."""
        whole = self.columns()
        rows = np.flatnonzero((whole["hook"] == hook) & (whole["feature"] == feature))
        return Entries(*(whole[name][rows].astype(np.int64) for name in COLUMNS[1:-1]),
                       whole["value"][rows])  # fmt: skip

    def strip(self, hook: int, feature: int, language: int, example: int, length: int):
        """The values of one feature along one text, float32 [length]; 0 where not active.

        length: the text's positions, BOS included; activations beyond it are left out.
        """
        found = self.of(hook, feature)
        here = (found.language == language) & (found.example == example)
        found = found.take(here & (found.position < length))
        values = np.zeros(length, dtype=np.float32)
        values[found.position] = found.value
        return values

    def _pairs(self) -> np.ndarray:
        pairs = [(hook, int(id)) for hook, ids in self.features.items() for id in ids]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def pack(self) -> dict[str, Tensor]:
        columns = {name: torch.from_numpy(column) for name, column in self.columns().items()}
        return {**columns, "chosen": torch.from_numpy(self._pairs())}

    def unpack(self, state: dict[str, Tensor]) -> None:
        if not np.array_equal(state["chosen"].numpy(), self._pairs()):
            raise InputError(f"{self.name}: saved for other features; collect again")
        self._parts = [tuple(state[name].numpy() for name in COLUMNS)]
