"""Entries near the maximum in one pass, against a dense array whose maximum is known before."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from coded_stream import Plain, random_coded
from langsae.errors import InputError
from langsae.metrics.token_language import (
    DIGITS,
    ENGLISH,
    JAPANESE,
    language_of_token,
    languages_along,
    vocabulary_languages,
)
from langsae.models.tokens import TokenTable
from langsae.reducers.activating_tokens import COLUMNS, ActivatingTokens, SavedActivatingTokens
from langsae.reducers.base import SparseBatch

RULE = np.full(8, ENGLISH, dtype=np.int8)  # the coded stream's token is 7 everywhere
BAR = 0.7


def collected(coded, size=4, seed=0, part=(0, 1), limit=10**6, bar=BAR, spill=None, header=None):
    hooks, *_, features = coded.values.shape
    reducer = ActivatingTokens(
        header or {"corpus": "made"}, hooks, features, RULE, bar, limit, spill
    )
    for batch in coded.batches(size, seed, part):
        reducer.update(batch)
    return reducer


def rows(entries):
    return list(zip(*(entries[name].tolist() for name in COLUMNS), strict=True))


@pytest.mark.parametrize("limit", [10**6, 50, 1])
def test_entries_are_those_above_the_final_bar(limit, tmp_path):
    """levels=100 gives rising maxima: much that is kept at first is dropped later."""
    coded = random_coded(levels=100, examples=20)
    reducer = collected(coded, limit=limit, size=1, spill=tmp_path / "spill")
    shown = coded.shown(masked=True)
    assert any(reducer._spilled) == (limit < 10**6)
    reducer.save(tmp_path / "a")
    saved = SavedActivatingTokens(tmp_path / "a")
    for hook, values in enumerate(shown):
        peak = values.max(axis=(0, 1, 2))
        np.testing.assert_array_equal(saved.maximum[hook], peak)
        above = values.astype(float) > BAR * peak.astype(float)
        expected = sorted(
            (f, code, s, p, 7, ENGLISH, float(values[code, s, p, f]))
            for code, s, p, f in np.argwhere(above).tolist()
        )
        assert rows(saved.entries(hook)) == rows(reducer.entries(hook)) == expected
        assert 0 < len(expected) < (values > 0).sum()
    assert not list((tmp_path / "spill").glob("*") if limit < 10**6 else ())  # files without names


def test_any_order_shards_and_limits_give_the_same_bytes(tmp_path):
    coded = random_coded(levels=100, examples=20)
    collected(coded, size=100).save(tmp_path / "one")
    parts = [collected(coded, size=2, seed=3, part=(i, 3), limit=20) for i in (2, 0, 1)]
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    parts[0].save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_resumed_from_a_checkpoint(tmp_path):
    coded = random_coded(levels=100)
    batches = list(coded.batches(3))
    first = collected(coded, part=(999, 1000))
    for batch in batches[: len(batches) // 2]:
        first.update(batch)
    first.save(tmp_path / "half")
    second = collected(coded, part=(999, 1000), limit=30)
    second.restore(tmp_path / "half")
    for batch in batches[len(batches) // 2 :]:
        second.update(batch)
    second.save(tmp_path / "resumed")
    collected(coded).save(tmp_path / "whole")
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_file_is_plain_safetensors(tmp_path):
    collected(random_coded()).save(tmp_path / "a")
    tensors = load_file(tmp_path / "a")
    assert tensors["maximum"].shape == (2, 12)
    assert {f"{name}.{hook}" for name in COLUMNS for hook in (0, 1)} | {"maximum"} == set(tensors)
    with safe_open(tmp_path / "a", "np") as file:
        header = json.loads(file.metadata()["langsae"])["header"]
    assert (header["corpus"], header["bar"]) == ("made", BAR)


def test_what_does_not_belong_together_is_refused(tmp_path):
    coded = random_coded()
    ours = collected(coded)
    with pytest.raises(InputError, match="under another bar"):
        ours.merge(collected(coded, bar=0.5))
    with pytest.raises(InputError, match="under another corpus"):
        ours.merge(collected(coded, header={"corpus": "another"}))
    with pytest.raises(InputError, match="hooks and features"):
        ours.merge(collected(random_coded(features=13)))
    ours.merge(collected(coded))
    with pytest.raises(InputError, match="came twice"):
        ours.save(tmp_path / "a")
    with pytest.raises(InputError, match="no such file"):
        SavedActivatingTokens(tmp_path / "none")


TOKENS = ["the", " 12", "7", "猫", ";", "\n", " Don't", "１"]


def test_rule_languages_follow_digits_back_to_the_last_word():
    rng = np.random.default_rng(0)
    ids = rng.integers(len(TOKENS), size=400)
    first = rng.random(400) < 0.1
    first[0] = True
    labels = languages_along(vocabulary_languages(TOKENS)[ids], first)
    starts = np.maximum.accumulate(np.where(first, np.arange(400), 0))
    expected = [
        language_of_token([TOKENS[id] for id in ids[start : at + 1]])
        for at, start in enumerate(starts)
    ]
    assert [("en", "ja")[label] for label in labels] == expected
    codes = [ENGLISH, DIGITS, DIGITS, JAPANESE, JAPANESE, JAPANESE, ENGLISH, DIGITS]
    assert vocabulary_languages(TOKENS).tolist() == codes


def test_entries_carry_both_languages():
    """A feature on every token: a Japanese document whose words are English, with a year."""
    ids = [3, 0, 1, 2, 4, 1, 6]
    column = torch.tensor
    table = TokenTable(column([0, 1, 1, 1, 1, 0, 0]), column([5, 2, 2, 2, 2, 6, 6]), column(ids),
                       column([1, 1, 2, 3, 4, 1, 2]), torch.zeros(7, dtype=torch.bool))  # fmt: skip
    reducer = ActivatingTokens({}, 1, 2, vocabulary_languages(TOKENS))
    x = torch.zeros(7, 2)
    x[:, 1] = 1
    reducer.update(SparseBatch(0, table, x, Plain(), "hook 0"))
    kept = reducer.entries(0)
    assert kept["language"].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert kept["token"].tolist() == [3, 1, 6, 0, 1, 2, 4]
    assert kept["rule"].tolist() == [JAPANESE, JAPANESE, ENGLISH] + [ENGLISH] * 3 + [JAPANESE]
