"""A stream of sparse codes made from a dense array, for tests of reducers."""

from dataclasses import dataclass

import numpy as np
import torch

from langsae.models.tokens import TokenTable
from langsae.reducers.base import SparseBatch
from langsae.saes.codes import SparseCodes


class Plain:
    """A coder whose codes are its input; it yields zeros too, as TopK coders do."""

    def encode(self, x):
        token, feature = (x != 0).nonzero(as_tuple=True)
        rows = torch.arange(len(x))
        order = torch.argsort(torch.cat([token, rows]), stable=True)
        return SparseCodes(
            torch.cat([token, rows])[order],
            torch.cat([feature, torch.zeros_like(rows)])[order],
            torch.cat([x[token, feature], torch.zeros(len(x))])[order],
            tuple(x.shape),
        )


@dataclass
class Coded:
    """values float32 [H, L, S, T, F]; lengths int [L, S] (positions); pads int [L, S], the last of
    these that are padding. Position 0 is a BOS that does not count."""

    values: np.ndarray
    lengths: np.ndarray
    pads: np.ndarray

    def shown(self, masked: bool) -> np.ndarray:
        """The values with everything that must not count set to zero: the dense oracle's input."""
        out = self.values.copy()
        for language, example in np.ndindex(*self.lengths.shape):
            end = self.lengths[language, example]
            end -= self.pads[language, example] if masked else 0
            out[:, language, example, end:] = 0
        out[:, :, :, 0] = 0
        return out

    def batches(self, size: int, seed: int = 0, part: tuple[int, int] = (0, 1)):
        """SparseBatches of `size` texts in a random order; `part` (i, n) is every n-th text."""
        texts = list(np.ndindex(*self.lengths.shape))
        texts = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
        texts = texts[part[0] :: part[1]]
        for start in range(0, len(texts), size):
            yield from self._batch(texts[start : start + size])

    def _batch(self, texts):
        columns, vectors = [], []
        for language, example in texts:
            end, pads = self.lengths[language, example], self.pads[language, example]
            for position in range(1, end):
                columns.append((language, example, 7, position, int(position >= end - pads)))
                vectors.append(self.values[:, language, example, position])
        table = torch.tensor(columns, dtype=torch.int64)
        tokens = TokenTable(*table[:, :4].T, table[:, 4].bool())
        stacked = torch.from_numpy(np.stack(vectors, axis=1))
        for hook, x in enumerate(stacked):
            yield SparseBatch(hook, tokens, x, Plain(), f"hook {hook}")


def random_coded(
    hooks=2, languages=2, examples=9, positions=8, features=12, active=0.15, seed=0, levels=6
) -> Coded:
    """Few distinct values, so that ties abound; feature 0 is dead, feature 1 always active."""
    rng = np.random.default_rng(seed)
    shape = (hooks, languages, examples, positions, features)
    values = rng.integers(1, levels + 1, shape) / np.float32(levels)
    values = np.where(rng.random(shape) < active, values, 0).astype(np.float32)
    values[..., 0], values[..., 1] = 0, 0.5
    lengths = np.full((languages, examples), 0)
    lengths[:] = rng.integers(3, positions + 1, examples)
    texts = np.stack([rng.integers(2, lengths[0] + 1) for _ in range(languages)])
    texts[rng.integers(0, languages, examples), np.arange(examples)] = lengths[0]
    return Coded(values, lengths, lengths - texts)
