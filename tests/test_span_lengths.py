"""Runs of active positions: hand-written sequences, and itertools over a dense array."""

from itertools import groupby

import numpy as np
import pytest
import torch

from coded_stream import Plain, random_coded
from langsae.metrics.spans import mean_span, runs_of_entries
from langsae.models.tokens import TokenTable
from langsae.reducers.activating_tokens import ActivatingTokens
from langsae.reducers.base import SparseBatch
from langsae.reducers.span_lengths import SpanLengths


def collected(coded, size=4, seed=0, part=(0, 1)):
    hooks, languages, _, _, features = coded.values.shape
    reducer = SpanLengths({}, hooks, languages, features)
    for batch in coded.batches(size, seed, part):
        reducer.update(batch)
    return reducer


def lengths(active):
    """Lengths of the runs of True."""
    return [len(list(run)) for value, run in groupby(active) if value]


@pytest.mark.parametrize("active", [0.1, 0.7])
def test_runs_against_itertools(active):
    coded = random_coded(active=active)
    shown = coded.shown(masked=True)
    state = collected(coded).state
    for hook, language, feature in np.ndindex(2, 2, 12):
        runs = [n for text in shown[hook, language, :, :, feature] for n in lengths(text > 0)]
        assert int(state["runs"][hook, language, feature]) == len(runs)
        assert int(state["tokens"][hook, language, feature]) == sum(runs)


def test_a_written_sequence():
    """Two texts one after the other: a run ends with its text."""
    values = torch.tensor([1.0, 0.8, 0, 0.5, 1.0, 1.0, 0.6, 0, 0.9])
    language = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])
    position = torch.tensor([1, 2, 3, 4, 5, 1, 2, 3, 4])
    table = TokenTable(language, torch.zeros(9, dtype=torch.int64), torch.zeros(9).long(), position,
                       torch.zeros(9, dtype=torch.bool))  # fmt: skip
    spans = SpanLengths({}, 1, 2, 3)
    near = ActivatingTokens({}, 1, 3, np.zeros(1, np.int8))
    x = torch.zeros(9, 3)
    x[:, 2] = values
    for reducer in (spans, near):
        reducer.update(SparseBatch(0, table, x, Plain(), "hook 0"))
    assert spans.state["runs"][0, :, 2].tolist() == [2, 2]  # 1 .8 | .5 1 and 1 .6 | .9
    assert spans.state["tokens"][0, :, 2].tolist() == [4, 3]
    found = near.entries(0)
    at = (found[name] for name in ("feature", "language", "example", "position"))
    tokens, runs = runs_of_entries(*at, 3)  # above 0.7: 1 .8 | 1 and 1 | .9
    assert (tokens.tolist(), runs.tolist()) == ([0, 0, 5], [0, 0, 4])
    np.testing.assert_array_equal(mean_span(tokens, runs), [np.nan, np.nan, 1.25])


def test_any_order_of_batches_and_shards_gives_the_same_bytes(tmp_path):
    coded = random_coded(active=0.5)
    collected(coded, size=100).save(tmp_path / "one")
    parts = [collected(coded, size=1, seed=3, part=(i, 3)) for i in (2, 0, 1)]
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    parts[0].save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_runs_of_the_bar_reading_against_itertools():
    coded = random_coded(active=0.6, levels=4)
    shown = coded.shown(masked=True)
    hooks, *_, features = coded.values.shape
    near = ActivatingTokens({}, hooks, features, np.zeros(8, np.int8), bar=0.6)
    for batch in coded.batches(3):
        near.update(batch)
    for hook, values in enumerate(shown):
        found = near.entries(hook)
        at = (found[name] for name in ("feature", "language", "example", "position"))
        tokens, runs = runs_of_entries(*at, features)
        for feature in range(features):
            above = values[..., feature] > 0.6 * max(values[..., feature].max(), 1e-9)
            every = [n for text in above.reshape(-1, above.shape[-1]) for n in lengths(text)]
            assert (tokens[feature], runs[feature]) == (sum(every), len(every))
