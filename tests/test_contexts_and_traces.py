"""The strongest texts of every feature, and whole traces of some, against plain loops."""

import numpy as np
import pytest

from coded_stream import random_coded
from langsae.errors import InputError
from langsae.reducers.contexts import TopContexts
from langsae.reducers.traces import FeatureTraces

K = 3
CHOSEN = {0: [5, 2, 9], 1: [1, 2]}


def contexts(coded, masked=False, size=4, seed=0, part=(0, 1), k=K):
    hooks, languages, _, _, features = coded.values.shape
    reducer = TopContexts({}, hooks, languages, features, k, masked)
    for batch in coded.batches(size, seed, part):
        reducer.update(batch)
    return reducer


def traces(coded, masked=False, size=4, seed=0, part=(0, 1), chosen=CHOSEN):
    reducer = FeatureTraces({}, chosen, masked)
    for batch in coded.batches(size, seed, part):
        reducer.update(batch)
    return reducer


def strongest(values, k):
    """One feature of one language, [S, T]: a sort of Python tuples."""
    found = []
    for example, row in enumerate(values):
        best = max(row)
        if best > 0:
            found.append((-best, example, list(row).index(best)))
    return [(-value, example, position) for value, example, position in sorted(found)[:k]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_top_contexts_with_ties(masked, k, tmp_path):
    coded = random_coded()
    reducer = contexts(coded, masked, k=k)
    shown = coded.shown(masked)
    reducer.save(tmp_path / "t")
    loaded = TopContexts.load(tmp_path / "t", masked)
    for hook, language, feature in np.ndindex(2, 2, coded.values.shape[-1]):
        expected = strongest(shown[hook, language, :, :, feature], k)
        assert reducer.top(hook, language, feature) == expected
        assert loaded.top(hook, language, feature) == expected
    assert reducer.top(0, 0, 0) == []
    assert len(reducer.top(0, 1, 1)) == min(k, 9)


def test_top_contexts_in_any_order_give_the_same_bytes(tmp_path):
    coded = random_coded(examples=30, levels=3)
    contexts(coded, size=1000).save(tmp_path / "one")
    parts = [contexts(coded, size=1, seed=4, part=(i, 3)) for i in (1, 2, 0)]
    parts[1].merge(parts[0])
    parts[2].merge(parts[1])
    parts[2].save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()
    fresh = contexts(coded, part=(0, 10**6))
    fresh.restore(tmp_path / "one")
    fresh.save(tmp_path / "again")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize("masked", [False, True])
def test_traces_are_all_activations_of_the_chosen_features(masked, tmp_path):
    coded = random_coded()
    reducer = traces(coded, masked)
    shown = coded.shown(masked)
    places = zip(*(axis.tolist() for axis in shown.nonzero()), strict=True)
    expected = [(*at, float(shown[at])) for at in places if at[-1] in CHOSEN[at[0]]]
    reducer.save(tmp_path / "t")
    for ours in (reducer, FeatureTraces.load(tmp_path / "t", masked)):
        found = list(zip(*(c.tolist() for c in ours.columns().values()), strict=True))
        assert found == expected
        for hook, chosen in CHOSEN.items():
            for feature in chosen:
                strip = ours.strip(hook, feature, 1, 4, 8)
                np.testing.assert_array_equal(strip, shown[hook, 1, 4, :, feature])


def test_traces_in_any_order_give_the_same_bytes(tmp_path):
    coded = random_coded()
    traces(coded, size=1000).save(tmp_path / "one")
    parts = [traces(coded, size=1, seed=4, part=(i, 3)) for i in (1, 2, 0)]
    parts[1].merge(parts[0])
    parts[2].merge(parts[1])
    parts[2].save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()
    fresh = FeatureTraces({}, CHOSEN)
    fresh.restore(tmp_path / "one")
    fresh.save(tmp_path / "again")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes()


def test_traces_refuse_other_features_unknown_ones_and_doubles(tmp_path):
    coded = random_coded()
    reducer = traces(coded)
    with pytest.raises(InputError, match="other features"):
        reducer.merge(traces(coded, chosen={0: [5]}))
    reducer.save(tmp_path / "t")
    with pytest.raises(InputError, match="other features"):
        FeatureTraces({}, {0: [5]}).restore(tmp_path / "t")
    with pytest.raises(InputError, match="has features 0 to 11, not 3 to 12"):
        traces(coded, chosen={0: [3, 12]})
    reducer.merge(traces(coded, part=(0, 3)))
    with pytest.raises(InputError, match="came twice"):
        reducer.columns()


def test_traces_of_nothing(tmp_path):
    reducer = traces(random_coded(), chosen={1: []})
    reducer.save(tmp_path / "t")
    assert len(FeatureTraces.load(tmp_path / "t").of(1, 3)) == 0


def test_contexts_refuse_other_sizes(tmp_path):
    coded = random_coded()
    reducer = contexts(coded)
    reducer.save(tmp_path / "t")
    with pytest.raises(InputError, match="sizes"):
        reducer.merge(contexts(coded, k=4))
    with pytest.raises(InputError, match="sizes"):
        TopContexts({}, 2, 2, 12, 4).restore(tmp_path / "t")
    with pytest.raises(InputError, match="at least one"):
        TopContexts({}, 2, 2, 12, 0)
