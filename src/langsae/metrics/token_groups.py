"""Grouping the activating tokens of each feature by cosine similarity of their embeddings.

Inaba et al. (2025) group tokens whose cosine similarity exceeds 0.1 and do not print how: both
readings are here. connected: the connected components of the graph of similar tokens. greedy: the
most frequent token left founds a group and takes in every token left that is similar to it.
"""

from typing import Literal

import numba
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from langsae.errors import InputError
from langsae.metrics.semantics import TokenCounts

Grouping = Literal["connected", "greedy"]
GROUPINGS: tuple[Grouping, ...] = ("connected", "greedy")

_ROWS = 1024  # of the similarity matrix at a time: 400 MB of float32 for 100,000 tokens


class Similarity:
    def __init__(self, embeddings: Tensor, cosine: float = 0.1) -> None:
        self.embeddings, self.cosine = embeddings, cosine

    def groups(self, counts: TokenCounts, grouping: Grouping) -> np.ndarray:
        return token_groups(counts, self.embeddings, grouping, self.cosine)


def token_groups(
    counts: TokenCounts, embeddings: Tensor, grouping: Grouping, cosine: float = 0.1
) -> np.ndarray:
    """The group of each entry of `counts`, numbered within its feature: int64 [nnz].

    embeddings: float [V, d], the model's input embeddings. Tokens are similar where their cosine
    is strictly above `cosine` (float32). The graph over the U tokens that occur anywhere is made
    once, as U² bits, so a token's similarities are not computed again for every feature. Raises
    InputError for a token outside the vocabulary or a zero embedding.
    """
    if len(counts.token) == 0:
        return np.zeros(0, dtype=np.int64)
    if counts.token.max() >= len(embeddings) or counts.token.min() < 0:
        raise InputError(f"token {counts.token.max()} has no row in {len(embeddings)} embeddings")
    used, local = np.unique(counts.token, return_inverse=True)
    graph = similar_tokens(embeddings[torch.from_numpy(used)], cosine)
    order = _founders_first(counts)
    groups = np.empty(len(local), dtype=np.int64)
    kernel = _connected if grouping == "connected" else _greedy
    groups[order] = kernel(graph, counts.starts, local[order])
    return groups


def _founders_first(counts: TokenCounts) -> np.ndarray:
    """Entries by feature, then falling count, then token: the order in which groups are founded."""
    return np.lexsort((counts.token, -counts.count, counts.feature()))


def similar_tokens(embeddings: Tensor, cosine: float) -> np.ndarray:
    """Which rows of embeddings [U, d] are similar: packed bits, uint8 [U, ceil(U / 8)]."""
    rows = embeddings.float()
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not bool((norm > 0).all()):
        raise InputError("an activating token has a zero embedding: it has no direction to compare")
    rows = rows / norm
    graph = np.empty((len(rows), (len(rows) + 7) // 8), dtype=np.uint8)
    starts = range(0, len(rows), _ROWS)
    for start in tqdm(starts, desc="similar tokens", unit="rows", disable=len(starts) < 3):
        near = rows[start : start + _ROWS] @ rows.T > cosine
        graph[start : start + _ROWS] = np.packbits(near.cpu().numpy(), axis=1, bitorder="little")
    return graph


@numba.njit(cache=True, inline="always")
def _linked(graph, a, b):
    return (graph[a, b >> 3] >> (b & 7)) & 1


@numba.njit(cache=True)
def _connected(graph, starts, token):
    group = np.empty(len(token), np.int64)
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
    return group


@numba.njit(cache=True)
def _greedy(graph, starts, token):
    group = np.empty(len(token), np.int64)
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
    return group
