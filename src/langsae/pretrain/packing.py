"""Texts as rows of equal length: what one step of pretraining reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.models.tokens import TokenIds

NOT_SCORED = -100  # cross_entropy's ignore_index


@dataclass(frozen=True)
class PackedBatch:
    """B rows of T tokens: int64 [B, T] each.

    labels: the token after each; NOT_SCORED where the next text begins. positions: counted anew
    from each text's beginning (and each row's), by which transformers keeps packed texts apart in
    attention.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor


class PackedTexts:
    """All texts end to end, each between BOS and EOS, cut into rows; anew ordered in each epoch.

    The order of texts depends on (seed, epoch) alone, so batch `step` can be had without those
    before it. What is left of an epoch after its last whole batch is dropped.
    """

    def __init__(
        self,
        texts: Iterable[Sequence[int]],
        begin: int,
        end: int,
        rows: int,
        row_tokens: int,
        seed: int,
    ) -> None:
        self._texts = TokenIds((begin, *text, end) for text in texts)
        self.begin, self.rows, self.row_tokens, self.seed = begin, rows, row_tokens, seed
        self.tokens = sum(self._texts.lengths())
        self.batches = (self.tokens - 1) // (rows * row_tokens)  # of an epoch; one token looks on
        self._held: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        if not self.batches:
            raise InputError(
                f"pretraining: {self.tokens} tokens of text are less than one step of "
                f"{rows} rows of {row_tokens}; give more text or fewer rows"
            )

    def batch(self, step: int) -> PackedBatch:
        """The batch of step 0, 1, …"""
        epoch, index = divmod(step, self.batches)
        stream, size = self._stream(epoch), self.rows * self.row_tokens
        part = stream[index * size : (index + 1) * size + 1]
        shape = (self.rows, self.row_tokens)
        ids, following = part[:-1].reshape(shape), part[1:].reshape(shape)
        at = np.arange(self.row_tokens)
        began = np.maximum.accumulate(np.where(ids == self.begin, at, 0), axis=1)
        labels = np.where(following == self.begin, NOT_SCORED, following)
        return PackedBatch(*map(torch.from_numpy, (ids, labels, at - began)))

    def _stream(self, epoch: int) -> np.ndarray:
        if self._held[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self._texts))
            texts = (token for index in order for token in self._texts[index])
            self._held = (epoch, np.fromiter(texts, np.int64, self.tokens))
        return self._held[1]
