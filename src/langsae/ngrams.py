"""Unigram and bigram models of token ids: what a language model must beat to have learnt anything.

A text is a sequence of ids whose first is context only (the BOS); the others are predicted. Both
models are distributions over all ids 0..vocabulary - 1.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from langsae.errors import InputError


class NGram(Protocol):
    """A model that predicts each token from at most the one before it."""

    def log_probability(self, before: np.ndarray, token: np.ndarray) -> np.ndarray:
        """ln P(token | before), float64 [N], for ids int64 [N]."""


def transitions(texts: Iterable[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Every predicted token and the one before it, in order: (before, token), int64 [N] each.

    Raises InputError where there is none.
    """
    lengths: list[int] = []

    def noted(text: Sequence[int]) -> Sequence[int]:
        lengths.append(len(text))
        return text

    flat = np.fromiter(chain.from_iterable(map(noted, texts)), np.int64)
    first = np.zeros(len(flat) + 1, bool)
    first[np.cumsum([0, *lengths])] = True
    at = np.flatnonzero(~first[:-1])
    if not len(at):
        raise InputError("n-grams: no text has a token after its first; give more text")
    return flat[at - 1], flat[at]


class Unigram:
    """P(w) = (c(w) + 1) / (N + V): counts of predicted tokens, one added to each."""

    def __init__(self, texts: Iterable[Sequence[int]], vocabulary: int) -> None:
        _, token = transitions(texts)
        counts = np.bincount(token, minlength=vocabulary) + 1
        self._logs = np.log(counts / counts.sum())

    def log_probability(self, before: np.ndarray, token: np.ndarray) -> np.ndarray:
        """See NGram; `before` is not looked at."""
        return self._logs[token]


class Bigram:
    """Interpolated Kneser-Ney (Chen & Goodman 1999, section 3; one discount for each order).

    P(w|v)  = (max(c(vw) - D, 0) + D N(v.) Pc(w)) / c(v), and Pc(w) after an unseen v
    Pc(w)   = (max(N(.w) - E, 0) + E W / V) / N(..)
    where c counts pairs, N(v.) distinct followers, N(.w) distinct predecessors, N(..) distinct
    pairs and W distinct followers of anything. D and E are n1 / (n1 + 2 n2) of the pairs' counts
    and of N(.w), n_i being how many of them equal i.
    """

    def __init__(self, texts: Iterable[Sequence[int]], vocabulary: int) -> None:
        before, token = transitions(texts)
        self.vocabulary = vocabulary
        self._pairs, self._counts = np.unique(before * vocabulary + token, return_counts=True)
        histories, followers = np.divmod(self._pairs, vocabulary)
        self._times = np.bincount(before, minlength=vocabulary)  # c(v)
        self._kinds = np.bincount(histories, minlength=vocabulary)  # N(v.)
        predecessors = np.bincount(followers, minlength=vocabulary)  # N(.w)
        self.discount, lower = _discount(self._counts), _discount(predecessors)
        shared = lower * np.count_nonzero(predecessors) / vocabulary
        self._lower = (np.maximum(predecessors - lower, 0) + shared) / len(self._pairs)

    def log_probability(self, before: np.ndarray, token: np.ndarray) -> np.ndarray:
        """See NGram."""
        pairs = before * self.vocabulary + token
        found = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        count = np.where(self._pairs[found] == pairs, self._counts[found], 0)
        times, lower = self._times[before], self._lower[token]
        kept = np.maximum(count - self.discount, 0) + self.discount * self._kinds[before] * lower
        return np.log(np.divide(kept, times, out=lower.copy(), where=times > 0))


def _discount(counts: np.ndarray) -> float:
    """n1 / (n1 + 2 n2); one half where nothing was seen once."""
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    return once / (once + 2 * twice) if once else 0.5
