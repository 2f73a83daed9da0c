"""Grouping the activating tokens of each feature by cosine similarity of their embeddings.

Inaba et al. (2025) group tokens whose cosine similarity exceeds 0.1 and do not print how: both
readings are here. connected: the connected components of the graph of similar tokens. greedy: the
most frequent token left founds a group and takes in every token left that is similar to it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numba
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from langsae.errors import InputError
from langsae.metrics.feature_graphs import BAND, LARGEST, decide, group_features
from langsae.metrics.semantics import TokenCounts

Grouping = Literal["connected", "greedy"]
GROUPINGS: tuple[Grouping, ...] = ("connected", "greedy")

_ROWS = 1024  # of the similarity matrix at a time: 400 MB of float32 for 100,000 tokens
_SMALL = 16_384  # tokens of a vocabulary whose whole graph is made at once: 32 MB
_SAMPLE = 128  # features whose cost is measured before the cheaper way is chosen
# A product of vectors in a large matrix product takes this part of one in feature_graphs (measured
# on a Xeon with AVX-512, 3072 dimensions: 109 and 43 GFLOP/s).
_MATRIX_COST = 0.4


class Similarity:
    """Which tokens are similar: where the cosine of their embeddings is strictly above `cosine`.

    embeddings: float [V, d], the model's input embeddings. Cosines are of rows normalised in
    float32; where float32 is too coarse to tell on which side one lies, float64 decides, so the
    groups do not depend on how they were found. That is by the cheaper of two ways: a graph of all
    tokens concerned as bits, made once, or only the similarities that each feature needs.
    """

    def __init__(self, embeddings: Tensor, cosine: float = 0.1) -> None:
        self.embeddings, self.cosine = embeddings, cosine
        self._whole: tuple[np.ndarray, Tensor] | None = None  # a small vocabulary's graph

    def groups(self, counts: TokenCounts) -> dict[Grouping, np.ndarray]:
        """The group of each entry of `counts`, numbered within its feature: int64 [nnz] each.

        Raises InputError for a token outside the vocabulary or with a zero embedding.
        """
        groups = {grouping: np.zeros(len(counts.token), np.int64) for grouping in GROUPINGS}
        if not len(counts.token):
            return groups
        low, high = counts.token.min(), counts.token.max()
        if low < 0 or high >= len(self.embeddings):
            raise InputError(f"token {high} has no row in {len(self.embeddings)} embeddings")
        order = _founders_first(counts)
        token = counts.token[order]
        found = {grouping: np.empty_like(token) for grouping in GROUPINGS}
        if len(self.embeddings) <= _SMALL:
            graph, length = self._small_graph()
            _check(length[torch.from_numpy(token)])
            _by_graph(graph, counts.starts, token, found)
        else:
            used, local = np.unique(token, return_inverse=True)
            unit, length = _unit(self.embeddings[torch.from_numpy(used)])
            _check(length)
            _by_cost(unit, self.cosine, counts.starts, local, found)
        for grouping in GROUPINGS:
            groups[grouping][order] = found[grouping]
        return groups

    def _small_graph(self) -> tuple[np.ndarray, Tensor]:
        if self._whole is None:
            unit, length = _unit(self.embeddings.clone())
            self._whole = similar_tokens(unit, self.cosine), length
        return self._whole


def _check(length: Tensor) -> None:
    if not bool((length > 0).all()):
        raise InputError("an activating token has a zero embedding: it has no direction to compare")


def token_groups(
    counts: TokenCounts, embeddings: Tensor, grouping: Grouping, cosine: float = 0.1
) -> np.ndarray:
    """One grouping of `Similarity(embeddings, cosine)`: int64 [nnz]."""
    return Similarity(embeddings, cosine).groups(counts)[grouping]


def _founders_first(counts: TokenCounts) -> np.ndarray:
    """Entries by feature, then falling count, then token: the order in which groups are founded."""
    return np.lexsort((counts.token, -counts.count, counts.feature()))


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [U, d] scaled to length 1 in float32, in place if they are that; and their lengths [U].

    A row of zeros stays one: it is similar to none.
    """
    rows = rows.float()
    length = torch.linalg.vector_norm(rows, dim=1)
    return rows.div_(length.clamp_min(torch.finfo(torch.float32).tiny)[:, None]), length


def similar_tokens(unit: Tensor, cosine: float) -> np.ndarray:
    """Which rows of unit vectors [U, d] are similar: packed bits, uint8 [U, ceil(U / 8)]."""
    total = len(unit)
    graph = np.zeros((total, (total + 7) // 8), dtype=np.uint8)
    starts = range(0, total, _ROWS)
    plain = unit.cpu().numpy()
    for start in tqdm(starts, desc="similar tokens", unit="rows", disable=len(starts) < 3):
        dots = unit[start : start + _ROWS] @ unit[start:].T
        near = (dots > cosine).cpu().numpy()
        close = ((dots > cosine - BAND) & (dots < cosine + BAND)).nonzero().cpu().numpy()
        decide(plain[start:], close, cosine, near)
        rows, first = slice(start, start + len(near)), start // 8
        graph[rows, first:] = np.packbits(near, axis=1, bitorder="little")
        # the other half is the mirror image
        below = np.packbits(near[:, _ROWS:].T, axis=1, bitorder="little")
        graph[start + _ROWS :, first : first + below.shape[1]] = below
    return graph


Groups = dict[Grouping, np.ndarray]


def _by_cost(
    unit: Tensor, cosine: float, starts: np.ndarray, token: np.ndarray, out: Groups
) -> None:
    """Both groupings by the cheaper way; what each feature needs is measured on some."""
    sizes = np.diff(starts)
    if sizes.max() <= LARGEST:
        sample = np.arange(0, len(sizes), max(1, len(sizes) // _SAMPLE))
        products = _by_feature(unit, cosine, starts, token, sample, out)
        expected = products * len(sizes) / len(sample)
        if expected < _MATRIX_COST * len(unit) ** 2 / 2:
            _by_feature(unit, cosine, starts, token, np.arange(len(sizes)), out)
            return
    _by_graph(similar_tokens(unit, cosine), starts, token, out)


def _by_feature(
    unit: Tensor, cosine: float, starts: np.ndarray, token: np.ndarray, features: np.ndarray,
    out: Groups,
) -> int:  # fmt: skip
    """Both groupings of these features (rising); returns the products of vectors that it took."""
    rows = unit.cpu().numpy()

    def work(part: np.ndarray) -> int:
        ends = np.concatenate([[0], np.cumsum(starts[part + 1] - starts[part])])
        at = np.repeat(starts[part] - ends[:-1], np.diff(ends)) + np.arange(ends[-1])
        found = {grouping: np.empty(len(at), np.int64) for grouping in GROUPINGS}
        products = group_features(
            rows, cosine, ends, token[at], found["connected"], found["greedy"]
        )
        for grouping in GROUPINGS:
            out[grouping][at] = found[grouping]
        return products

    return sum(_spread(work, features, "semantic groups"))


def _by_graph(graph: np.ndarray, starts: np.ndarray, token: np.ndarray, out: Groups) -> None:
    """Both groupings of all features from the bits of `similar_tokens`."""

    def work(kernel: Callable, groups: np.ndarray, part: np.ndarray) -> None:
        kernel(graph, starts[part[0] : part[-1] + 2], token, groups)

    features = np.arange(len(starts) - 1)
    for grouping, kernel in (("connected", _connected), ("greedy", _greedy)):
        for _ in _spread(partial(work, kernel, out[grouping]), features, grouping):
            pass


def _spread(work: Callable, features: np.ndarray, what: str) -> Iterator:
    """`work` on parts of `features`, by as many threads as torch uses; results in order."""
    parts = np.array_split(features, min(len(features), 256))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        done = pool.map(work, parts)
        yield from tqdm(done, total=len(parts), desc=what, disable=len(features) < 10_000)


@numba.njit(cache=True, nogil=True, inline="always")
def _linked(graph, a, b):
    return (graph[a, b >> 3] >> (b & 7)) & 1


@numba.njit(cache=True, nogil=True)
def _connected(graph, starts, token, group):
    for feature in range(len(starts) - 1):
        first, last = starts[feature], starts[feature + 1]
        left = np.arange(first, last)  # entries without a group
        queue = np.empty(last - first, np.int64)
        n_left, number = last - first, 0
        while n_left:
            queue[0], head, tail = left[0], 0, 1
            group[left[0]] = number
            left[: n_left - 1] = left[1:n_left].copy()
            n_left -= 1
            while head < tail and n_left:
                kept = 0
                for at in range(n_left):
                    entry = left[at]
                    if _linked(graph, token[queue[head]], token[entry]):
                        group[entry] = number
                        queue[tail] = entry
                        tail += 1
                    else:
                        left[kept] = entry
                        kept += 1
                n_left = kept
                head += 1
            number += 1


@numba.njit(cache=True, nogil=True)
def _greedy(graph, starts, token, group):
    for feature in range(len(starts) - 1):
        left = np.arange(starts[feature], starts[feature + 1])
        n_left, number = len(left), 0
        while n_left:
            seed, kept = left[0], 0
            for at in range(n_left):
                entry = left[at]
                if entry == seed or _linked(graph, token[seed], token[entry]):
                    group[entry] = number
                else:
                    left[kept] = entry
                    kept += 1
            n_left = kept
            number += 1
