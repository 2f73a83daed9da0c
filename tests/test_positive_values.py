"""Means and quantiles of all positive values against numpy's on the values themselves."""

import numpy as np
import pytest

from coded_stream import random_coded
from langsae.errors import InputError
from langsae.reducers.positive_values import PositiveValues

Q = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1.0)


def collected(coded, masked=False, size=4, seed=0, part=(0, 1), limit=4_000_000):
    reducer = PositiveValues({}, *coded.values.shape[:2], masked, limit)
    for batch in coded.batches(size, seed, part):
        reducer.update(batch)
    return reducer


def lognormal(seed=0, **sizes):
    """Values over many orders of magnitude, nearly all distinct."""
    coded = random_coded(seed=seed, active=0.5, **sizes)
    noise = np.random.default_rng(seed).lognormal(2, 3, coded.values.shape)
    coded.values = (coded.values * noise).astype(np.float32)
    return coded


def oracle(coded, hook, languages, masked=False):
    values = coded.shown(masked)[hook, list(languages)]
    return values[values > 0].astype(np.float64)


@pytest.mark.parametrize("make", [random_coded, lognormal])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("languages", [(0,), (1,), (0, 1)])
def test_exact_below_the_limit(make, masked, languages, tmp_path):
    coded = make()
    reducer = collected(coded, masked)
    reducer.save(tmp_path / "p")
    for ours in (reducer, PositiveValues.load(tmp_path / "p", masked)):
        for hook in (0, 1):
            values = oracle(coded, hook, languages, masked)
            assert ours.count(hook, languages) == len(values) > 50
            np.testing.assert_allclose(
                ours.quantiles(hook, languages, Q), np.quantile(values, Q), rtol=1e-14
            )
            assert ours.mean(hook, languages) == pytest.approx(values.mean(), abs=2.0**-21)
            assert ours.error_bound(hook, languages) == 0


@pytest.mark.parametrize("limit", [256, 300, 1000])
def test_beyond_the_limit_the_error_stays_within_the_bound(limit):
    coded = lognormal(examples=40, features=60)
    reducer = collected(coded, limit=limit)
    exact = collected(coded)
    q = np.linspace(0, 1, 501)
    for languages in ((0,), (0, 1)):
        values = oracle(coded, 0, languages)
        expected = np.quantile(values, q)
        bound = reducer.error_bound(0, languages)
        assert 0 < bound < 0.5
        error = np.abs(reducer.quantiles(0, languages, q) / expected - 1)
        assert bound / 8 < error.max() < bound
        assert reducer.count(0, languages) == len(values)
        assert reducer.mean(0, languages) == exact.mean(0, languages)
    state = reducer.pack()
    assert max(len(state[f"pattern.{h}.{lang}"]) for h in (0, 1) for lang in (0, 1)) <= limit
    # not a bit more is dropped than need be: the values with one bit less are too many
    bits = oracle(coded, 0, (0,)).astype(np.float32).view(np.int32)
    dropped = int(state["dropped"][0, 0])
    assert len(np.unique(bits >> dropped)) <= limit < len(np.unique(bits >> (dropped - 1)))


def test_as_many_distinct_values_as_the_limit_are_exact():
    coded = random_coded(hooks=1, languages=1, examples=90, positions=9, features=4, active=1.0)
    coded.values[..., 1] = np.arange(810).reshape(1, 1, 90, 9) + 1
    coded.values[..., 2:] = 0
    distinct = len(np.unique(oracle(coded, 0, (0,))))
    assert distinct > 256
    assert collected(coded, limit=distinct).error_bound(0, (0,)) == 0
    assert collected(coded, limit=distinct - 1).error_bound(0, (0,)) > 0


@pytest.mark.parametrize("limit", [256, 700, 4_000_000])
def test_any_order_of_batches_and_shards_gives_the_same_bytes(limit, tmp_path, monkeypatch):
    coded = lognormal(examples=25, features=40)
    collected(coded, size=1000, limit=limit).save(tmp_path / "one")
    monkeypatch.setattr("langsae.reducers.positive_values._BUFFER", 50)
    parts = [collected(coded, size=2, seed=5, part=(i, 3), limit=limit) for i in (1, 2, 0)]
    parts[0].merge(parts[1])
    parts[2].merge(parts[0])
    parts[2].save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_resumed_from_a_checkpoint(tmp_path):
    coded = lognormal()
    batches = list(coded.batches(4))
    first, second = (PositiveValues({}, 2, 2, limit=256) for _ in range(2))
    for batch in batches[:4]:
        first.update(batch)
    first.save(tmp_path / "checkpoint")
    second.restore(tmp_path / "checkpoint")
    for batch in batches[4:]:
        second.update(batch)
    second.save(tmp_path / "resumed")
    collected(coded, limit=256).save(tmp_path / "whole")
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_nothing_positive_or_another_limit_is_refused(tmp_path):
    coded = random_coded()
    coded.values[:, 1] = 0
    reducer = collected(coded)
    assert reducer.count(0, (1,)) == 0
    for ask in (lambda: reducer.mean(0, (1,)), lambda: reducer.quantiles(0, (1,), (0.5,))):
        with pytest.raises(InputError, match="no value above 0"):
            ask()
    with pytest.raises(InputError, match="limits"):
        reducer.merge(collected(coded, limit=300))
    reducer.save(tmp_path / "p")
    with pytest.raises(InputError, match="another limit"):
        PositiveValues({}, 2, 2, limit=300).restore(tmp_path / "p")
    with pytest.raises(InputError, match="below 256"):
        PositiveValues({}, 2, 2, limit=255)
