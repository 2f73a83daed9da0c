"""Maxima of every text against a dense NumPy maximum."""

import numpy as np
import pytest

from coded_stream import random_coded
from langsae.errors import InputError
from langsae.reducers.example_maxima import ExampleMaxima

HEADER = {"corpus": "made"}


def collected(coded, masked=False, size=4, seed=0, part=(0, 1), header=HEADER):
    hooks, languages, examples, _, features = coded.values.shape
    reducer = ExampleMaxima(header, hooks, languages, examples, features, masked)
    for batch in coded.batches(size, seed, part):
        reducer.update(batch)
    return reducer


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("active", [0.02, 0.15, 0.9])
def test_maxima_equal_the_dense_ones(masked, active, tmp_path):
    coded = random_coded(active=active)
    reducer = collected(coded, masked)
    expected = coded.shown(masked).max(axis=3)
    assert (coded.shown(True).max(axis=3) != coded.shown(False).max(axis=3)).any()
    reducer.save(tmp_path / "m")
    loaded = ExampleMaxima.load(tmp_path / "m", masked)
    for hook in range(len(expected)):
        for ours in (reducer, loaded):
            assert ours.dense(hook).dtype == np.float32
            np.testing.assert_array_equal(ours.dense(hook), expected[hook])


def test_dense_where_that_is_smaller(tmp_path):
    sizes = {}
    for active in (0.02, 0.9):
        reducer = collected(random_coded(active=active, features=200))
        reducer.save(tmp_path / "m")
        sizes[active] = (tmp_path / "m").stat().st_size
        assert all((f"dense.{hook}" in reducer.pack()) == (active == 0.9) for hook in range(2))
    dense = 2 * 2 * 9 * 200 * 4
    assert sizes[0.02] < dense < sizes[0.9] < dense + 2000


@pytest.mark.parametrize("active", [0.05, 0.5, 0.9])
def test_any_order_of_batches_and_shards_gives_the_same_bytes(active, tmp_path):
    coded = random_coded(active=active)
    collected(coded, size=100).save(tmp_path / "one")
    parts = [collected(coded, size=2, seed=3, part=(i, 3)) for i in (2, 0, 1)]
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    parts[0].save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_resumed_from_a_checkpoint(tmp_path):
    coded = random_coded()
    batches = list(coded.batches(4))
    first, second = (ExampleMaxima(HEADER, 2, 2, 9, 12) for _ in range(2))
    for batch in batches[:4]:
        first.update(batch)
    first.save(tmp_path / "checkpoint")
    second.restore(tmp_path / "checkpoint")
    for batch in batches[4:]:
        second.update(batch)
    second.save(tmp_path / "resumed")
    collected(coded).save(tmp_path / "whole")
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_text_that_is_missing_or_comes_twice_is_refused():
    coded = random_coded()
    half = collected(coded, part=(0, 2))
    with pytest.raises(InputError, match="texts are missing"):
        half.dense(0)
    with pytest.raises(InputError, match="came twice"):
        half.merge(collected(coded, part=(0, 3)))
    with pytest.raises(InputError, match="came twice"):
        half.update(next(coded.batches(1, part=(0, 2))))


def test_other_headers_sizes_and_paddings_are_refused(tmp_path):
    coded = random_coded()
    reducer = collected(coded)
    with pytest.raises(InputError, match="another corpus"):
        reducer.merge(collected(coded, part=(0, 2), header={"corpus": "other"}))
    reducer.save(tmp_path / "m")
    with pytest.raises(InputError, match="holds 'example_maxima'"):
        ExampleMaxima.load(tmp_path / "m", masked=True)
    with pytest.raises(InputError, match="sizes"):
        ExampleMaxima(HEADER, 2, 2, 9, 13).restore(tmp_path / "m")


def test_a_text_of_nothing_active_counts_as_seen(tmp_path):
    coded = random_coded()
    coded.values[:] = 0
    reducer = collected(coded)
    reducer.save(tmp_path / "m")
    assert not ExampleMaxima.load(tmp_path / "m").dense(1).any()
