"""Bootstrap intervals over features, against SciPy's and the binomial law."""

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from langsae.errors import InputError
from langsae.metrics.bootstrap import interval, mean_intervals, resampled_means


def test_intervals_agree_with_scipys():
    values = np.random.default_rng(0).gamma(2, size=(3, 200))
    values[1, ::3] = np.nan
    mean, low, high = mean_intervals(values, draws=4000, seed=5)
    for row in range(3):
        known = values[row][~np.isnan(values[row])]
        theirs = bootstrap((known,), np.mean, n_resamples=4000, method="percentile",
                           rng=np.random.default_rng(1)).confidence_interval  # fmt: skip
        width = theirs.high - theirs.low
        assert mean[row] == pytest.approx(known.mean())
        assert low[row] == pytest.approx(theirs.low, abs=0.05 * width)
        assert high[row] == pytest.approx(theirs.high, abs=0.05 * width)


def test_a_share_is_binomial():
    shares = np.zeros((1, 400))
    shares[0, :100] = 1
    means = resampled_means(shares, draws=20_000, seed=1)
    low, high = interval(means, 0.9)
    assert low[0] == pytest.approx(binom.ppf(0.05, 400, 0.25) / 400, abs=0.003)
    assert high[0] == pytest.approx(binom.ppf(0.95, 400, 0.25) / 400, abs=0.003)


def test_rows_are_drawn_apart_and_repeatably():
    values = np.tile(np.arange(50.0), (2, 1))
    means = resampled_means(values, draws=100, seed=3)
    assert (means[0] != means[1]).any()
    np.testing.assert_array_equal(means, resampled_means(values, draws=100, seed=3))
    assert (means != resampled_means(values, draws=100, seed=4)).any()


def test_a_layer_of_dead_features_is_refused():
    with pytest.raises(InputError, match="row 1 has no value"):
        resampled_means(np.array([[1.0, np.nan], [np.nan, np.nan]]))
