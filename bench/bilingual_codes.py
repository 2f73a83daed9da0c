"""Synthetic sparse codes of the size that bilingual_score was published with.

34,098 positions per 500 pairs, BOS and padding included, 16,384 features, about 70 active.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from langsae.models.tokens import TokenTable
from langsae.reducers.base import SparseBatch
from langsae.saes.codes import SparseCodes

LATENTS, LONGEST, POSITIONS = 16_384, 226, 34.098  # the last: per text
DRAWS = 72  # of which about 70 are distinct
RARER = 1_700  # features further, one is e times as rare: about as many alive as published, 11,247
BATCH_TEXTS = 120  # about 4,096 positions


@dataclass(frozen=True)
class Ready:
    """A coder that has its codes already."""

    codes: SparseCodes

    def encode(self, x: torch.Tensor) -> SparseCodes:
        return self.codes


def lengths(pairs: int) -> np.ndarray:
    """Positions of each pair's texts, int [pairs]: skewed, the longest as published, mean 34."""
    rng = np.random.default_rng(1)
    drawn = np.clip(rng.lognormal(3.2, 0.75, pairs), 4, LONGEST).astype(int)
    drawn[0] = LONGEST
    while short := round(POSITIONS * pairs) - int(drawn.sum()):
        at = rng.integers(1, pairs, min(abs(short), pairs))
        drawn[np.unique(at)] += np.sign(short)
        drawn[1:] = np.clip(drawn[1:], 4, LONGEST)
    return drawn


def batches(pairs: int) -> Iterator[SparseBatch]:
    """Codes of all texts. Pairs share topics; how often features are active falls exponentially."""
    size = lengths(pairs)
    share = np.exp(-np.arange(LATENTS) / RARER)
    ends = np.cumsum(share / share.sum())
    for start in range(0, pairs, BATCH_TEXTS // 2):
        rng = np.random.default_rng((2, start))
        rows = np.arange(start, min(start + BATCH_TEXTS // 2, pairs))
        topics = np.searchsorted(ends, rng.random((len(rows), 300)))
        example = np.tile(np.repeat(rows, size[rows] - 1), 2)  # the BOS is not counted
        language = np.repeat([0, 1], len(example) // 2)
        position = np.concatenate([np.arange(1, size[row]) for row in [*rows, *rows]])
        common = np.searchsorted(ends, rng.random((len(example), DRAWS)))
        topical = topics[example - start, rng.integers(0, 300, common.shape[::-1])].T
        feature = np.sort(np.where(rng.random(common.shape) < 0.25, topical, common), axis=1)
        fresh = np.c_[np.full(len(feature), True), feature[:, 1:] != feature[:, :-1]]
        token, slot = fresh.nonzero()
        values = (7 + rng.gamma(0.8, 12, len(token))).astype(np.float32)
        codes = (torch.from_numpy(c) for c in (token, feature[token, slot], values))
        # as if the Spanish text ended two tokens before the English one
        padding = (language == 0) & (position >= size[example] - 2)
        columns = (language, example, np.zeros_like(example), position, padding)
        table = TokenTable(*(torch.from_numpy(column) for column in columns))
        coder = Ready(SparseCodes(*codes, (len(example), LATENTS)))
        yield SparseBatch(0, table, torch.zeros(len(example), 0), coder, "synthetic")
