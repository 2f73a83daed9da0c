"""Percentile intervals of means over features, by resampling the features."""

import numpy as np

from langsae.errors import InputError

_AT_ONCE = 1 << 22  # values drawn at a time: 32 MB of indices


def resampled_means(values: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Means of bootstrap samples of the features of each row: float64 [R, draws].

    values: float [R, F], one row a layer (of a checkpoint), whose features are drawn with
    replacement, as many as have a value; NaN (a dead feature) is no value. Row r takes its draws
    from the seed (`seed`, r), so rows are independent: the difference of two rows' means has the
    distribution of `means[a] - means[b]`. A share is the mean of a 0/1 row. Raises InputError for a
    row without any value.
    """
    values = np.asarray(values, dtype=np.float64)
    out = np.empty((len(values), draws))
    for row, all_of_row in enumerate(values):
        known = all_of_row[~np.isnan(all_of_row)]
        if not len(known):
            raise InputError(f"bootstrap: row {row} has no value; leave a layer of dead "
                             "features out")  # fmt: skip
        rng = np.random.default_rng([seed, row])
        step = max(1, _AT_ONCE // len(known))
        for start in range(0, draws, step):
            size = (min(step, draws - start), len(known))
            out[row, start : start + step] = known[rng.integers(len(known), size=size)].mean(1)
    return out


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the percentile interval over the last axis of `samples`."""
    tail = (1 - level) / 2
    low, high = np.quantile(samples, (tail, 1 - tail), axis=-1)
    return low, high


def mean_intervals(
    values: np.ndarray, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the features of each row of [R, F] that have a value, and its interval: 3 x [R]."""
    low, high = interval(resampled_means(values, draws, seed), level)
    return np.nanmean(values, axis=1), low, high
