"""The active entries of a batch as plain columns, for reducers that keep single values."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from langsae.reducers.base import Reducer, SparseBatch, read


@dataclass(frozen=True)
class Entries:
    """N active entries, one row each; all columns [N], on the CPU."""

    language: np.ndarray  # int64, index into the collection's languages
    example: np.ndarray  # int64, index of the text within its language
    position: np.ndarray  # int64, within the text, BOS included
    feature: np.ndarray  # int64
    value: np.ndarray  # float32, above 0

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: np.ndarray) -> "Entries":
        """The entries at `rows` (indices or a mask)."""
        return Entries(*(getattr(self, field.name)[rows] for field in fields(self)))


def entries(batch: SparseBatch, masked: bool, chosen: Tensor | None = None) -> Entries:
    """Every value above 0 of `batch`.

    masked: leave out the positions that the token policy's padding fills; chosen: bool
    [features], of which alone entries are wanted.
    """
    codes = batch.codes.active()
    keep = torch.ones_like(codes.token, dtype=torch.bool)
    if masked:
        keep &= ~batch.tokens.padding[codes.token]
    if chosen is not None:
        keep &= chosen.to(keep.device)[codes.feature]
    token, table = codes.token[keep], batch.tokens
    return Entries(
        table.language[token].cpu().numpy(),
        table.example[token].cpu().numpy(),
        table.position[token].cpu().numpy(),
        codes.feature[keep].cpu().numpy(),
        codes.value[keep].float().cpu().numpy(),
    )


def largest(found: Entries, features: int) -> Entries:
    """One entry per (language, example, feature), in this order: the largest value.

    Its position is the first at which that value stands. features: how many there are.
    """
    if not len(found):
        return found
    examples = int(found.example.max()) + 1
    key = (found.language * examples + found.example) * features + found.feature
    order = np.argsort(key)
    key, value = key[order], found.value[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    peaks = np.maximum.reduceat(value, starts)
    at_peak = value == np.repeat(peaks, np.diff(np.r_[starts, len(key)]))
    beyond = np.iinfo(np.int64).max
    positions = np.minimum.reduceat(np.where(at_peak, found.position[order], beyond), starts)
    text, feature = np.divmod(key[starts], features)
    language, example = np.divmod(text, examples)
    return Entries(language, example, positions, feature, peaks)


class GrowingReducer(Reducer):
    """A reducer whose state has no fixed size.

    Subclasses keep it as they like, and write and read it as tensors in `pack` and `unpack`;
    `pack` depends on what was seen alone, not on its order.
    """

    def pack(self) -> dict[str, Tensor]:
        """The state, in its canonical form."""
        raise NotImplementedError

    def unpack(self, state: dict[str, Tensor]) -> None:
        """Replace the state by what `pack` returned; InputError if it is of another size."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        self.state = self.pack()
        super().save(path)
        self.state = {}

    def restore(self, path: str | Path) -> None:
        _, saved = read(path, self.name)
        self.state = {key: torch.empty_like(value) for key, value in saved.items()}
        super().restore(path)  # checks the header
        self.unpack(self.state)
        self.state = {}

    def merge(self, other: Reducer) -> None:
        super().merge(other)  # checks the header; `state` is empty between saves


def sorted_rows(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The order that sorts rows by the first column, then the second, and so on."""
    return np.lexsort(tuple(reversed(columns)))
