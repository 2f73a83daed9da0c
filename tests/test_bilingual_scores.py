"""The bilingual score in its three variants against dense references written from their formulas.

The references use SciPy's softmax and relative entropy, one feature at a time, in float64.
"""

import math

import mpmath
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from scipy.stats import entropy

from langsae.errors import InputError
from langsae.metrics.bilingual import VARIANTS, bilingual_score, rotations


def random_maxima(languages=2, rows=40, features=500, seed=0):
    """Sparse maxima with ties, dead features, and features 0, 1, 2 with df 9, 10, 11."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.2, 0.6, features)
    shape = (languages, rows, features)
    maxima = np.where(rng.random(shape) < rate, rng.gamma(2, 8, shape), 0).astype(np.float32)
    maxima[:, :, 10:30] = np.ceil(maxima[:, :, 10:30] / 8) * 8  # few distinct values
    maxima[0, :, 30:40] = 0
    maxima[-1, :, 35:45] = 0
    maxima[:, :, 45] = maxima[:, :, 46]  # equal features: equal scores
    for feature, df in enumerate((9, 10, 11)):
        maxima[:, :, feature] = 0
        for text in range(df):
            maxima[text % languages, text // languages, feature] = 5 + text
    return maxima


def reference(maxima, variant, k, scale=100.0):
    """Scores, divergences and beta of live features, by id."""
    maxima = maxima.astype(np.float64)
    languages, rows, features = maxima.shape
    published = variant == "as_published"
    divergence, idf = {}, {}
    for feature in range(features):
        columns = maxima[:, :, feature]
        if not all(column.any() for column in columns):
            continue
        tops = [maxima[i].max() if published else columns[i].max() for i in range(languages)]
        p = np.stack([softmax(scale * c / top) for c, top in zip(columns, tops, strict=True)])
        mixture = p.mean(axis=0)
        if published:
            divergence[feature] = np.mean([rel_entr(mixture, part).mean() for part in p])
        else:
            divergence[feature] = np.mean([rel_entr(part, mixture).sum() for part in p])
        df = (columns > 0).sum()
        idf[feature] = 1.0 if published and df < 10 else languages * rows / df
    rising = sorted(divergence.values())
    beta = (rising[k] - rising[0]) / (max(idf.values()) - min(idf.values()))
    beta *= 1 if published else -1
    return {f: divergence[f] + beta * idf[f] for f in idf}, divergence, idf, beta


@pytest.mark.parametrize("variant", ["as_published", "as_described"])
@pytest.mark.parametrize("languages", [2, 3])
@pytest.mark.parametrize("k", [5, 300])
def test_against_the_dense_reference(variant, languages, k):
    maxima = random_maxima(languages)
    ours = bilingual_score(maxima, variant, k=k)
    score, divergence, idf, beta = reference(maxima, variant, k)
    ids = sorted(score)
    assert len(ids) == 485
    np.testing.assert_array_equal(np.flatnonzero(ours.alive), ids)
    np.testing.assert_array_equal(ours.df, (maxima > 0).sum((0, 1)))
    for mine, expected in ((ours.divergence, divergence), (ours.idf, idf), (ours.score, score)):
        expected = [expected[f] for f in ids]
        np.testing.assert_allclose(mine[ids], expected, rtol=1e-6, atol=1e-15)
        assert np.isnan(mine[~ours.alive]).all()
    assert ours.beta == pytest.approx(beta, rel=1e-6)
    assert ours.threshold == pytest.approx(sorted(divergence.values())[k], rel=1e-9)
    assert ours.order.tolist() == sorted(ids, key=lambda f: (ours.score[f], f))
    by_reference = sorted(ids, key=lambda f: score[f])
    assert np.abs(ours.ranked - [score[f] for f in by_reference]).max() < 1e-6


def test_df_of_9_10_and_11():
    published = bilingual_score(random_maxima(), "as_published", k=5)
    assert published.df[:3].tolist() == [9, 10, 11]
    assert published.idf[:3].tolist() == [1.0, 8.0, pytest.approx(80 / 11)]
    described = bilingual_score(random_maxima(), "as_described", k=5)
    assert described.idf[:3].tolist() == pytest.approx([80 / 9, 8.0, 80 / 11])


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_features_rank_by_id(variant):
    ours = bilingual_score(random_maxima(), variant)
    assert ours.score[45] == ours.score[46]
    order = ours.order.tolist()
    assert order.index(46) == order.index(45) + 1


def test_the_generalised_divergence_against_scipy():
    """For two languages, SciPy's squared Jensen-Shannon distance; for three, entropies."""
    for languages in (2, 3):
        maxima = random_maxima(languages)
        ours = bilingual_score(maxima, "corrected")
        for feature in (0, 3, 15, 300):
            p = maxima[:, :, feature] / maxima[:, :, feature].sum(axis=1, keepdims=True)
            expected = entropy(p.mean(axis=0)) - entropy(p, axis=1).mean()
            assert ours.divergence[feature] == pytest.approx(expected, abs=1e-6)
            if languages == 2:
                assert expected == pytest.approx(jensenshannon(*p) ** 2, abs=1e-6)


@pytest.mark.parametrize("variant", ["as_published", "as_described"])
def test_divergences_near_zero_keep_their_precision(variant):
    """As small as the published minimum, 1.3e-17, where float64 references cancel to noise."""
    maxima = np.zeros((2, 30, 3), np.float32)
    maxima[0, :3, 0], maxima[1, :3, 0] = (60, 30, 1), (60, 30, 1.00001)
    maxima[:, :15, 1], maxima[:, 15, 2] = 60, 60
    maxima[1, 20, 1:] = 3
    ours = bilingual_score(maxima, variant, k=1)
    with mpmath.workdps(60):
        logs = [[mpmath.mpf(float(m)) * 100 / 60 for m in row] for row in maxima[:, :, 0]]
        norms = [mpmath.log(mpmath.fsum(map(mpmath.exp, row))) for row in logs]
        p = [[mpmath.exp(x - n) for x in row] for row, n in zip(logs, norms, strict=True)]
        mixture = [(a + b) / 2 for a, b in zip(*p, strict=True)]
        if variant == "as_published":
            pairs = [(m, a) for part in p for m, a in zip(mixture, part, strict=True)]
        else:
            pairs = [(a, m) for part in p for m, a in zip(mixture, part, strict=True)]
        exact = mpmath.fsum(a * mpmath.log(a / b) for a, b in pairs) / 2
        exact /= 30 if variant == "as_published" else 1
    assert 0 < exact < 1e-40
    assert ours.divergence[0] == pytest.approx(float(exact), rel=1e-4)


def test_beyond_ln_2_only_as_published():
    """The published maximum, 42.2 nats over 500 rows, excludes a true Jensen-Shannon divergence."""
    maxima = np.zeros((2, 50, 20), np.float32)
    for feature in range(20):
        maxima[0, feature, feature] = maxima[1, feature + 1 + feature % 3, feature] = 40 + feature
        maxima[0, 30 : 30 + feature, feature] = 10
    published = bilingual_score(maxima, "as_published", k=3)
    described = bilingual_score(maxima, "as_described", k=3)
    assert published.divergence.min() > math.log(2) / 50
    assert published.ranked[-1] * 50 > 20
    assert 0.6 < described.divergence.max() <= math.log(2) + 1e-12
    assert described.ranked[-1] <= math.log(2) + 1e-12


def chance_by_hand(maxima, feature):
    """J of every pairing by rotation that `corrected` uses, from plain rolled arrays."""
    columns = maxima[:, :, feature].astype(np.float64)
    p = columns / columns.sum(axis=1, keepdims=True)
    values = []
    for turn in rotations(*maxima.shape[:2]):
        turned = np.stack([np.roll(part, -turn * index) for index, part in enumerate(p)])
        values.append(entropy(turned.mean(axis=0)) - entropy(turned, axis=1).mean())
    return np.mean(values)


@pytest.mark.parametrize("languages", [2, 3])
def test_corrected_by_hand(languages):
    maxima = random_maxima(languages)
    ours = bilingual_score(maxima, "corrected", least_df=7)
    assert ours.beta is None
    for feature in (0, 2, 15, 45, 300, 499):
        columns = maxima[:, :, feature].astype(np.float64)
        p = columns / columns.sum(axis=1, keepdims=True)
        shared = p.min(axis=0)
        support = math.exp(entropy(shared)) if shared.any() else 0.0
        chance = chance_by_hand(maxima, feature)
        divergence = entropy(p.mean(axis=0)) - entropy(p, axis=1).mean()
        gain = (chance - divergence) / math.log(languages)
        assert ours.chance[feature] == pytest.approx(chance, abs=1e-6)
        assert ours.support[feature] == pytest.approx(support, rel=1e-6)
        expected = 1 - gain * support / (support + 7)
        assert ours.score[feature] == pytest.approx(expected, abs=1e-6)


def constructed(rows=500, seed=0):
    """Features of known kind among 600 others; ids by kind."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.004, 0.3, 600)
    maxima = np.where(rng.random((2, rows, 600)) < rate, 7 + rng.exponential(10, (2, rows, 600)), 0)
    maxima[:, 3, 599] = 200  # one strong feature sets the scale of as_published

    def active(some, value=20.0):
        column = np.zeros(rows)
        column[some] = value + rng.normal(0, 2, len(some))
        return column

    pairs = rng.permutation(rows)
    kinds = {
        "bilingual": (active(pairs[:40]), active(pairs[:40])),
        "bilingual, noisy": (active(pairs[:40]), active(np.r_[pairs[:32], pairs[60:68]])),
        "one shared pair": (active(pairs[:1]), active(pairs[:1])),
        "always on": (active(np.arange(rows)), active(np.arange(rows))),
        "monolingual": (active(pairs[:40]), active(pairs[80:82], 8.0)),
        "disjoint": (active(pairs[:40]), active(pairs[100:140])),
        "weak and disjoint": (active(pairs[:5], 7.5), active(pairs[100:105], 7.5)),
    }
    for feature, columns in enumerate(kinds.values()):
        maxima[:, :, feature] = columns
    ids = {kind: feature for feature, kind in enumerate(kinds)}
    return maxima.clip(min=0).astype(np.float32), ids


def test_what_the_correction_mends():
    maxima, ids = constructed()
    scores = {variant: bilingual_score(maxima, variant) for variant in VARIANTS}
    rank = {
        variant: {kind: scored.order.tolist().index(feature) for kind, feature in ids.items()}
        for variant, scored in scores.items()
    }
    good = ("bilingual", "bilingual, noisy")
    bad = set(ids) - set(good)
    corrected = scores["corrected"].score
    assert [rank["corrected"][kind] for kind in good] == [0, 1]
    assert max(corrected[ids[kind]] for kind in good) < 0.5
    assert min(corrected[ids[kind]] for kind in bad) > 0.9
    # what it mends: the others put features first that are not bilingual
    published, described = rank["as_published"], rank["as_described"]
    assert published["one shared pair"] < published["always on"] < published["bilingual"]
    assert described["one shared pair"] == 0
    assert described["weak and disjoint"] < described["bilingual"]
    # the published divergence forgives what is weak
    divergence = scores["as_published"].divergence
    assert divergence[ids["weak and disjoint"]] < divergence[ids["bilingual, noisy"]]


def test_corrected_does_not_depend_on_units_or_rows_in_which_nothing_happens():
    maxima, _ = constructed(rows=200)
    ours = bilingual_score(maxima, "corrected")
    units = np.float32([0.5, 8])[:, None, None]
    np.testing.assert_allclose(
        bilingual_score(maxima * units, "corrected").score, ours.score, atol=1e-9
    )
    longer = bilingual_score(np.concatenate([maxima, 0 * maxima], axis=1), "corrected")
    np.testing.assert_allclose(longer.divergence, ours.divergence, atol=1e-9)
    np.testing.assert_allclose(longer.support, ours.support, rtol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_are_scored_apart(variant, monkeypatch):
    """In chunks of any size; only beta and the published scale depend on the others."""
    maxima = random_maxima()
    whole = bilingual_score(maxima, variant)
    monkeypatch.setattr("langsae.metrics.bilingual._CHUNK", 1)
    alone = bilingual_score(maxima, variant)
    np.testing.assert_allclose(alone.score, whole.score, rtol=1e-12, atol=1e-14)


def test_rotations_align_no_two_languages():
    for languages, rows in ((2, 2), (2, 500), (3, 7), (3, 500), (5, 6), (4, 4)):
        turns = rotations(languages, rows)
        assert 1 <= len(turns) <= 32
        for turn in turns:
            assert len({turn * index % rows for index in range(languages)}) == languages
    assert len(rotations(2, 500)) == 32


def test_too_few_alive_features():
    maxima = random_maxima()
    one = np.zeros_like(maxima)
    one[:, :5, 7] = maxima[:, :5, 20] + 1
    for variant in ("as_published", "as_described"):
        with pytest.raises(InputError, match=r"485 features are alive .* 486 are needed"):
            bilingual_score(maxima, variant, k=485)
        bilingual_score(maxima, variant, k=484)
        with pytest.raises(InputError, match=r"1 features are alive .* 301 are needed"):
            bilingual_score(one, variant)
    assert bilingual_score(one, "corrected").order.tolist() == [7]
    with pytest.raises(InputError, match="0 features are alive"):
        bilingual_score(np.zeros_like(maxima), "corrected")


def test_equal_idf_everywhere():
    maxima = np.full((2, 12, 4), 3, np.float32)
    maxima[0, :, 0] += np.arange(12)
    for variant in ("as_published", "as_described"):
        with pytest.raises(InputError, match="equally many texts"):
            bilingual_score(maxima, variant, k=2)
    assert len(bilingual_score(maxima, "corrected").order) == 4


def test_bad_input_is_refused():
    maxima = random_maxima()
    with pytest.raises(InputError, match="no variant"):
        bilingual_score(maxima, "as_wished")
    for wrong in (maxima[0], maxima[:1], maxima[:, :1]):
        with pytest.raises(InputError, match="at least two languages and two rows"):
            bilingual_score(wrong, "corrected")
    for scale in (0, 1000):
        with pytest.raises(InputError, match="scale"):
            bilingual_score(maxima, "as_described", scale=scale)
    with pytest.raises(InputError, match="least_df"):
        bilingual_score(maxima, "corrected", least_df=0)
    for bad in (np.nan, np.inf, -1):
        broken = maxima.copy()
        broken[0, 0, 0] = bad
        with pytest.raises(InputError, match="negative or not finite"):
            bilingual_score(broken, "corrected")
    with pytest.raises(InputError, match="too few to shuffle"):
        rotations(5, 4)
