"""What a feature's activating tokens say about it: language, entropies, monosemanticity.

Inaba et al. (2025), section 4. Activating tokens come as `TokenCounts`: for each feature the
distinct token ids above the activation bar and how often each occurred there.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from langsae.errors import InputError

CLASSES = ("English", "Japanese", "Mixed")


@dataclass(frozen=True)
class TokenCounts:
    """Activating tokens of F features in compressed rows.

    starts: int64 [F + 1]; token, count: int64 [nnz]; the entries of feature f are
    starts[f]:starts[f + 1], its tokens distinct and its counts above 0.
    """

    starts: np.ndarray
    token: np.ndarray
    count: np.ndarray

    def __post_init__(self) -> None:
        if len(self.token) != len(self.count) or self.starts[-1] != len(self.token):
            raise InputError("token counts: starts, tokens and counts do not fit one another")
        if len(self.count) and self.count.min() < 1:
            raise InputError("token counts: every listed token needs a count of at least 1")

    @classmethod
    def of(cls, feature: np.ndarray, token: np.ndarray, features: int) -> "TokenCounts":
        """Counted from single activating tokens, int64 [N] columns in any order."""
        width = int(token.max(initial=0)) + 1
        key, count = np.unique(feature * width + token, return_counts=True)
        feature, token = np.divmod(key, width)
        starts = np.searchsorted(feature, np.arange(features + 1))
        return cls(starts, token, count)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def feature(self) -> np.ndarray:
        """The feature of each entry, int64 [nnz]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def totals(self) -> np.ndarray:
        """Activating tokens of each feature, int64 [F]."""
        return _sums(self.count, self.starts)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sum of each row; exact for integers, which cumulative sums keep."""
    running = np.concatenate([values[:0].sum(keepdims=True), np.cumsum(values)])
    return running[starts[1:]] - running[starts[:-1]]


def token_entropy(counts: TokenCounts) -> np.ndarray:
    """TE = -sum over t of P(t|i) ln P(t|i), float64 [F]; NaN for a feature without tokens."""
    return _entropy(counts.feature(), counts.count, len(counts))


def semantic_entropy(counts: TokenCounts, groups: np.ndarray) -> np.ndarray:
    """SE: the same entropy over groups of tokens, float64 [F].

    groups: int64 [nnz], the group of each entry, numbered within its feature (see token_groups).
    """
    if len(groups) != len(counts.token):
        raise InputError(f"{len(groups)} groups for {len(counts.token)} activating tokens")
    width = int(groups.max(initial=0)) + 1
    key, entry = np.unique(counts.feature() * width + groups, return_inverse=True)
    merged = np.bincount(entry, weights=counts.count, minlength=len(key)).astype(np.int64)
    return _entropy(key // width, merged, len(counts))


def _entropy(feature: np.ndarray, count: np.ndarray, features: int) -> np.ndarray:
    """-sum p ln p per feature as ln N - (sum c ln c) / N."""
    total = np.bincount(feature, weights=count, minlength=features)
    inner = np.bincount(feature, weights=count * np.log(count), minlength=features)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.log(total) - inner / total
    kinds = np.bincount(feature, minlength=features)
    return np.where(kinds == 1, 0.0, np.maximum(entropy, 0.0))  # one kind: no rounding left over


def monosemanticity(
    token: np.ndarray, semantic: np.ndarray, at_zero: Literal[0, 1]
) -> tuple[np.ndarray, float]:
    """1 - SE/TE per feature, float64 [F], and the share of features that have TE = 0.

    at_zero: the value where TE is 0, which the paper defines and its text lost. NaN (a feature
    without activating tokens) stays NaN and is not among those the share is of.
    """
    zero = token == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(zero, float(at_zero), 1 - semantic / token)
    alive = ~np.isnan(token)
    if not alive.any():
        raise InputError("no feature has an activating token; is the bar above every activation?")
    return value, float(zero.sum() / alive.sum())


def language_class(english: np.ndarray, japanese: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """0 English, 1 Japanese, 2 Mixed (see CLASSES), by share strictly above `threshold`: int64 [F].

    A feature with no activating token is -1. Threshold and strictness are version 1's code.
    """
    total = english + japanese
    with np.errstate(invalid="ignore"):
        share = english / total
        classes = np.select([share > threshold, japanese / total > threshold], [0, 1], 2)
    return np.where(total == 0, -1, classes)
