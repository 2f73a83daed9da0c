"""Language shares and what is counted on them, against hand-computed cases."""

import numpy as np
import pytest

from langsae.errors import InputError
from langsae.metrics import shares

LANGUAGES = ("en", "ja", "hi")
TOKENS = np.array([100, 50, 200])
#                  only en  even rates  ja 0.8 by rate   dead
ACTIVE = np.array([[[10,      10,         10,            0],
                    [0,       5,          20,            0],
                    [0,       20,         0,             0]]])  # fmt: skip


def test_normalised_and_raw_shares():
    normalised = shares.language_shares(ACTIVE, TOKENS, "normalised")[0]
    np.testing.assert_allclose(normalised[:, 0], [1, 0, 0])
    np.testing.assert_allclose(normalised[:, 1], [1 / 3] * 3)
    np.testing.assert_allclose(normalised[:, 2], [0.2, 0.8, 0])
    assert np.isnan(normalised[:, 3]).all()
    raw = shares.language_shares(ACTIVE, TOKENS, "raw")[0]
    np.testing.assert_allclose(raw[:, 1], [10 / 35, 5 / 35, 20 / 35])
    np.testing.assert_allclose(raw[:, 2], [1 / 3, 2 / 3, 0])


def test_monolingual_is_strictly_above_the_threshold():
    share = shares.language_shares(ACTIVE, TOKENS, "normalised")
    assert shares.monolingual_counts(share, 0.5).tolist() == [[1, 1, 0]]
    assert shares.monolingual_counts(share, 0.8).tolist() == [[1, 0, 0]]
    raw = shares.language_shares(ACTIVE, TOKENS, "raw")
    assert shares.monolingual_counts(raw, 0.5).tolist() == [[1, 1, 1]]


def test_variance_with_both_treatments_of_dead_features():
    share = shares.language_shares(ACTIVE, TOKENS, "normalised")
    alive = [np.var([1, 0, 0]), 0.0, np.var([0.2, 0.8, 0])]
    np.testing.assert_allclose(shares.variance_over_languages(share, 0, "drop"), sum(alive) / 3)
    np.testing.assert_allclose(shares.variance_over_languages(share, 0, "zero"), sum(alive) / 4)
    np.testing.assert_allclose(
        shares.variance_over_languages(share, 1, "drop"), 1.5 * sum(alive) / 3
    )


def test_groups_and_their_tie_order():
    share = shares.language_shares(ACTIVE, TOKENS, "normalised")
    (groups,) = shares.language_groups(share, LANGUAGES, 0.05, 5)
    assert groups == [
        (frozenset({"en"}), 1),
        (frozenset({"en", "hi", "ja"}), 1),
        (frozenset({"en", "ja"}), 1),
    ]
    assert shares.language_groups(share, LANGUAGES, 0.25, 1)[0] == [(frozenset({"en"}), 1)]


def test_groups_against_a_plain_loop():
    rng = np.random.default_rng(0)
    active = rng.poisson(0.4, (2, 3, 500))
    share = shares.language_shares(active, TOKENS, "normalised")
    for layer, groups in enumerate(shares.language_groups(share, LANGUAGES, 0.05, 99)):
        counted = {}
        for feature in range(500):
            rates = active[layer, :, feature] / TOKENS
            if rates.sum():
                bars = rates / rates.sum()
                key = frozenset(c for c, r in zip(LANGUAGES, bars, strict=True) if r >= 0.05)
                counted[key] = counted.get(key, 0) + 1
        assert dict(groups) == counted


def test_histogram_counts_every_live_feature_once():
    edges, counts = shares.share_histogram(shares.language_shares(ACTIVE, TOKENS, "normalised"), 10)
    assert counts.sum() == 3
    assert counts[0, 3] == 1  # 1/3
    assert counts[0, -1] == 1  # 1.0 belongs to the last bin
    assert len(edges) == 11


def test_no_tokens_or_no_live_feature_is_an_error():
    with pytest.raises(InputError, match="without tokens"):
        shares.language_shares(ACTIVE, np.array([1, 0, 1]), "raw")
    dead = shares.language_shares(np.zeros_like(ACTIVE), TOKENS, "raw")
    with pytest.raises(InputError, match="no live feature"):
        shares.variance_over_languages(dead, 0, "drop")
