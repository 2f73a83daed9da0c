"""Activation-frequency curves and counts of dead features on arrays small enough to check."""

import numpy as np
import pytest

from langsae.errors import InputError
from langsae.metrics.activation_frequency import (
    QUANTILES,
    Alive,
    alive_counts,
    frequency_curves,
    thresholds,
)


def test_curves_by_hand():
    maxima = np.array([[[0, 1, 5], [0, 2, 5]], [[0, 3, 0], [4, 2, 5]]], dtype=np.float32)
    curves = frequency_curves(maxima, {"low": 0.0, "at two": 2.0, "high": 4.5})
    assert curves["low"].tolist() == [1.0, 0.75, 0.25]
    assert curves["at two"].tolist() == [0.75, 0.25, 0.25]  # strictly above
    assert curves["high"].tolist() == [0.75, 0.0, 0.0]
    spanish = frequency_curves(maxima[0], {"at two": 2.0})
    assert spanish["at two"].tolist() == [1.0, 0.0, 0.0]


def test_curves_against_a_loop():
    rng = np.random.default_rng(0)
    maxima = np.where(rng.random((2, 30, 40)) < 0.3, rng.gamma(2, 5, (2, 30, 40)), 0)
    maxima = maxima.astype(np.float32)
    names = thresholds(8.0, np.quantile(maxima[maxima > 0], QUANTILES))
    assert list(names) == ["mean", "q_0.05", "q_0.25", "q_0.5", "q_0.75", "q_0.95"]
    curves = frequency_curves(maxima, names)
    for name, threshold in names.items():
        above = [sum(float(m) > threshold for m in maxima[..., f].ravel()) for f in range(40)]
        assert curves[name].tolist() == [n / 60 for n in sorted(above, reverse=True)]


@pytest.mark.parametrize("start", [7.3, np.nextafter(np.float32(7.3), np.float32(8))])
def test_a_threshold_between_two_float32_values_stays_there(start):
    """Rounded to float32 it would fall on the lower one for one start, the upper for the other."""
    value = np.float32(start)
    above = np.nextafter(value, np.float32(8))
    between = (float(value) + float(above)) / 2
    curve = frequency_curves(np.array([[value, above]]), {"h": between})["h"]
    assert curve.tolist() == [1.0, 0.0]


def test_dead_and_alive():
    maxima = np.zeros((2, 3, 5), np.float32)
    maxima[0, 1, [0, 1, 2]] = 1
    maxima[1, 2, [2, 3]] = 1
    assert alive_counts(maxima) == Alive((2, 3), dead_somewhere=4, dead_everywhere=1, alive=1)


def test_no_texts_is_an_error():
    with pytest.raises(InputError, match="no texts"):
        frequency_curves(np.zeros((0, 5), np.float32), {"h": 1.0})
