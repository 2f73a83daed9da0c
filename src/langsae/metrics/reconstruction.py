"""Squared error and fraction of variance unexplained, from the sums of one collection."""

import numpy as np

from langsae.errors import InputError


def mean_squared_error(error: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Squared error per token, summed over d: [H, L] from sums [H, L] and tokens [H, L]."""
    if np.any(tokens <= 0):
        raise InputError("a language without tokens has no reconstruction error; drop it")
    return error / tokens


def unexplained_variance(
    error: np.ndarray, square: np.ndarray, mean: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
    """FVU per hook and language [H, L]: squared error over squared distance to the mean vector.

    The mean is that of the hook point over all languages, so languages are comparable.
    """
    centre = mean.sum(axis=1, keepdims=True) / tokens.sum(axis=1)[:, None, None]
    spread = square - 2 * (mean * centre).sum(-1) + tokens * (centre**2).sum(-1)
    if np.any(spread <= 0):
        raise InputError("activations do not vary: no variance to explain")
    return error / spread
