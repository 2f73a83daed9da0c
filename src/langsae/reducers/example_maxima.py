"""The largest activation of every feature in every text."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.reducers.base import SparseBatch, read
from langsae.reducers.entries import GrowingReducer, entries, largest

Part = tuple[np.ndarray, np.ndarray, np.ndarray]  # text, feature, value of the same entries


class ExampleMaxima(GrowingReducer):
    """Maximum over positions per (hook, language, example, feature); 0 where never active.

    A text comes in one batch, so its maxima are final when it was seen. They are kept as sparse
    entries (12 bytes each, 8 in the file) and, per hook, as a dense float32 array as soon as that
    is smaller.

    masked: leave out the token policy's padding; the name ends in `_masked` then.
    In the file: seen bool [H, L, S]; per hook h either dense.h float32 [L, S, F], or count.h int64
    [L*S] (entries of each text) with feature.h int32 and value.h float32, by text then feature.
    """

    name = "example_maxima"

    def __init__(
        self,
        header: dict[str, Any],
        hooks: int,
        languages: int,
        examples: int,
        features: int,
        masked: bool = False,
    ) -> None:
        super().__init__(header, {})
        self.masked = masked
        if masked:
            self.name = f"{ExampleMaxima.name}_masked"
        self.sizes = (hooks, languages, examples, features)
        self._seen = np.zeros((hooks, languages * examples), dtype=bool)
        self._parts: list[list[Part]] = [[] for _ in range(hooks)]
        self._dense: list[np.ndarray | None] = [None] * hooks

    @classmethod
    def load(cls, path: str | Path, masked: bool = False) -> "ExampleMaxima":
        """A saved collection; InputError where the file is not one, or not `masked` so."""
        header, state = read(path, f"{cls.name}_masked" if masked else cls.name)
        reducer = cls(header, *state["sizes"].tolist(), masked=masked)
        reducer.unpack(state)
        return reducer

    def update(self, batch: SparseBatch) -> None:
        _, _, examples, features = self.sizes
        table = batch.tokens
        self._see(batch.hook, torch.unique(table.language * examples + table.example).cpu().numpy())
        found = largest(entries(batch, self.masked), features)
        text = (found.language * examples + found.example).astype(np.int32)
        self._add(batch.hook, (text, found.feature.astype(np.int32), found.value))

    def merge(self, other: "ExampleMaxima") -> None:
        """Add another part of the same collection, of other texts."""
        super().merge(other)
        if self.sizes != other.sizes:
            raise InputError(f"{self.name}: sizes {self.sizes} and {other.sizes} differ")
        for hook in range(self.sizes[0]):
            self._see(hook, np.flatnonzero(other._seen[hook]))
            for part in other._entries(hook):
                self._add(hook, part)

    def dense(self, hook: int) -> np.ndarray:
        """The maxima of one hook, float32 [L, S, F]; InputError where a text was not seen."""
        _, languages, examples, features = self.sizes
        missing = np.flatnonzero(~self._seen[hook])
        if len(missing):
            language, example = divmod(int(missing[0]), examples)
            raise InputError(
                f"{self.name}: {len(missing)} texts are missing, the first is text {example} of "
                f"language {language}; merge the other shards, or collect again"
            )
        return self._filled(hook).reshape(languages, examples, features)

    def _see(self, hook: int, texts: np.ndarray) -> None:
        twice = texts[self._seen[hook, texts]]
        if len(twice):
            language, example = divmod(int(twice[0]), self.sizes[2])
            raise InputError(
                f"{self.name}: text {example} of language {language} came twice; "
                "merge only shards without common texts"
            )
        self._seen[hook, texts] = True

    def _add(self, hook: int, part: Part) -> None:
        text, feature, value = part
        if self._dense[hook] is not None:
            self._dense[hook][text, feature] = value
            return
        self._parts[hook].append(part)
        entries = sum(len(values) for _, _, values in self._parts[hook])
        if 2 * entries >= self._seen.shape[1] * self.sizes[3]:  # 8 bytes against 4
            self._dense[hook] = self._filled(hook)
            self._parts[hook] = []

    def _filled(self, hook: int) -> np.ndarray:
        if self._dense[hook] is not None:
            return self._dense[hook]
        out = np.zeros((self._seen.shape[1], self.sizes[3]), dtype=np.float32)
        for text, feature, value in self._parts[hook]:
            out[text, feature] = value
        return out

    def _entries(self, hook: int) -> list[Part]:
        if self._dense[hook] is None:
            return self._parts[hook]
        text, feature = self._dense[hook].nonzero()
        return [(text, feature, self._dense[hook][text, feature])]

    def pack(self) -> dict[str, Tensor]:
        hooks, languages, examples, features = self.sizes
        seen = torch.from_numpy(self._seen.reshape(hooks, languages, examples))
        state = {"sizes": torch.tensor(self.sizes), "seen": seen}
        for hook in range(hooks):
            if self._dense[hook] is not None:
                whole = torch.from_numpy(self._dense[hook])
                state[f"dense.{hook}"] = whole.view(languages, examples, features)
                continue
            empty = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
            parts = [empty, *self._parts[hook]]
            text, feature, value = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(text.astype(np.int64) * features + feature)
            count = np.bincount(text, minlength=languages * examples)
            state[f"count.{hook}"] = torch.from_numpy(count)
            state[f"feature.{hook}"] = torch.from_numpy(feature[order])
            state[f"value.{hook}"] = torch.from_numpy(value[order])
        return state

    def unpack(self, state: dict[str, Tensor]) -> None:
        if tuple(state["sizes"].tolist()) != self.sizes:
            raise InputError(f"{self.name}: saved with sizes {state['sizes'].tolist()}, not those "
                             f"of this collection, {list(self.sizes)}; collect again")  # fmt: skip
        self._seen = state["seen"].numpy().reshape(self._seen.shape).copy()
        for hook in range(self.sizes[0]):
            self._parts[hook], self._dense[hook] = [], None
            if f"dense.{hook}" in state:
                self._dense[hook] = state[f"dense.{hook}"].numpy().reshape(-1, self.sizes[3]).copy()
                continue
            count = state[f"count.{hook}"].numpy()
            text = np.repeat(np.arange(len(count), dtype=np.int32), count)
            feature, value = state[f"feature.{hook}"].numpy(), state[f"value.{hook}"].numpy()
            self._parts[hook].append((text, feature, value))
