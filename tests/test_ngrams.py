"""Unigram and bigram baselines against a case worked out by hand and a brute-force reference."""

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from langsae.errors import InputError
from langsae.ngrams import Bigram, Unigram, transitions

# 0 is the BOS of a vocabulary of five; 4 is never seen.
TEXTS = [[0, 1, 2], [0, 1, 2, 3], [0, 2]]


def _probability(model, before: int, token: int) -> float:
    return math.exp(model.log_probability(np.array([before]), np.array([token]))[0])


def test_transitions_stay_within_texts():
    before, token = transitions([[0, 1, 2], [9], [0, 3]])
    assert before.tolist() == [0, 1, 0]
    assert token.tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="no text has a token after its first"):
        transitions([[0], [0]])


def test_unigram_by_hand():
    # predicted: 1 twice, 2 three times, 3 once: six; one is added to each of five
    found = [_probability(Unigram(TEXTS, 5), 0, token) for token in range(5)]
    assert found == pytest.approx([1 / 11, 3 / 11, 4 / 11, 2 / 11, 1 / 11])


def test_bigram_by_hand():
    # Pairs: 01 twice, 02 once, 12 twice, 23 once. n1 = 2, n2 = 2: D = 2 / 6.
    # Predecessors: of 1 one, of 2 two, of 3 one. n1 = 2, n2 = 1: E = 2 / 4; W = 3, N(..) = 4.
    model = Bigram(TEXTS, 5)
    assert model.discount == pytest.approx(1 / 3)
    lower = [0.3 / 4, 0.8 / 4, 1.8 / 4, 0.8 / 4, 0.3 / 4]  # E W / V = 0.3
    assert sum(lower) == pytest.approx(1)
    of_bos = [
        (kept + 2 / 3 * p) / 3 for kept, p in zip((0, 5 / 3, 2 / 3, 0, 0), lower, strict=True)
    ]
    assert [_probability(model, 0, token) for token in range(5)] == pytest.approx(of_bos)
    # after 3 nothing was seen: the lower order alone
    assert [_probability(model, 3, token) for token in range(5)] == pytest.approx(lower)


def _drawn(vocabulary: int, texts: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(vocabulary, 0.3))
    return [[0, *rng.choice(vocabulary, rng.integers(1, 30), p=weights)] for _ in range(texts)]


def test_both_are_distributions_whatever_came_before():
    size = 40
    texts = _drawn(size, 60, 0)
    every = np.arange(size)
    for model in (Unigram(texts, size), Bigram(texts, size)):
        for before in range(size):
            logs = model.log_probability(np.full(size, before), every)
            assert np.exp(logs).sum() == pytest.approx(1, abs=1e-12)


def test_bigram_equals_a_reference_in_fractions():
    size, texts = 25, _drawn(25, 40, 1)
    pairs = Counter(pair for text in texts for pair in pairwise(text))
    predecessors = Counter(token for _, token in pairs)

    def discount(counts: Counter) -> Fraction:
        kinds = Counter(counts.values())
        return Fraction(kinds[1], kinds[1] + 2 * kinds[2])

    upper, under = discount(pairs), discount(predecessors)

    def expected(before: int, token: int) -> Fraction:
        lower = max(predecessors[token] - under, Fraction(0))
        lower = (lower + under * len(predecessors) / size) / len(pairs)
        times = sum(n for (v, _), n in pairs.items() if v == before)
        if not times:
            return lower
        kinds = sum(v == before for v, _ in pairs)
        kept = max(pairs[before, token] - upper, Fraction(0))
        return (kept + upper * kinds * lower) / times

    model = Bigram(texts, size)
    for before in range(size):
        for token in range(size):
            found = _probability(model, before, token)
            assert found == pytest.approx(float(expected(before, token)), rel=1e-12)


def test_a_bigram_of_what_it_saw_beats_the_unigram():
    texts = [[0, 1, 2, 3, 1, 2, 3, 1, 2, 3]] * 3 + [[0, 3, 1, 2]]
    unseen = transitions([[0, 1, 2, 3, 1, 2, 3]])
    bigram, unigram = (kind(texts, 6).log_probability(*unseen).sum() for kind in (Bigram, Unigram))
    assert bigram > unigram + 3
