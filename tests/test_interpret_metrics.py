"""Scores of explanations: against scikit-learn, SciPy, and the published ones."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from langsae.metrics import interpretation

COUNTS = ("true_positives", "true_negatives", "false_positives", "false_negatives")
METRICS = {"accuracy": "accuracy", "f1": "f1_score", "precision": "precision", "recall": "recall"}


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, said = rng.integers(0, 2, (2, 50))
        counts = [
            np.array([((truth == a) & (said == b)).sum()])
            for a, b in ((1, 1), (0, 0), (0, 1), (1, 0))
        ]
        found = interpretation.scores(*counts)
        assert found["accuracy"][0] == pytest.approx(
            sklearn_metrics.balanced_accuracy_score(truth, said)
        )
        for name in ("precision", "recall", "f1"):
            oracle = getattr(sklearn_metrics, f"{name}_score")(truth, said)
            assert found[name][0] == pytest.approx(oracle)


def test_what_has_no_denominator_is_undefined():
    never = interpretation.scores([0], [10], [0], [10])  # said 0 throughout
    assert np.isnan(never["precision"][0])
    assert (never["recall"][0], never["f1"][0], never["accuracy"][0]) == (0, 0, 0.5)
    assert interpretation.scores([0], [10], [0], [10], undefined=0.0)["precision"][0] == 0
    assert np.isnan(interpretation.scores([0], [0], [3], [0])["accuracy"][0])
    with pytest.raises(ValueError, match="negative"):
        interpretation.scores([1], [-1], [0], [0])


def test_undefined_scores_stay_out_of_means_and_correlations():
    values = {"precision": np.array([np.nan, 0.5, 1.0, np.nan])}
    found = interpretation.means(values, np.array(["ja", "en", "en", "ja"]))
    assert found == {"en": {"precision": 0.75}, "ja": {}}
    x, y = [1, 2, 3, np.nan, 5], [2, 1, 4, 9, np.nan]
    assert interpretation.pearson(x, y) == pytest.approx(stats.pearsonr([1, 2, 3], [2, 1, 4])[0])
    assert interpretation.pearson([1, 2], [3, 4]) is None
    assert interpretation.pearson([1, 2, 3], [4, 4, 4]) is None


def test_chance_is_fishers_exact_test():
    for tp, tn, fp, fn in ((9, 8, 2, 1), (5, 5, 5, 5), (0, 10, 0, 10), (10, 0, 10, 0)):
        oracle = stats.fisher_exact([[tp, fn], [fp, tn]], alternative="greater").pvalue
        assert interpretation.beyond_chance(tp, tn, fp, fn) == pytest.approx(oracle)


@pytest.fixture
def published(shared):
    return shared / "published" / "sae_lape"


@pytest.mark.parametrize("method", ["detection", "fuzz"])
def test_the_published_scores_follow_from_the_published_counts(published, method):
    table = pd.read_csv(published / "features_specific.csv", comment="#")
    found = interpretation.scores(*(table[f"{method}_{name}"].to_numpy() for name in COUNTS))
    for ours, theirs in METRICS.items():
        assert np.abs(found[ours] - table[f"{method}_{theirs}"]).max() <= 0.0005 + 1e-9, ours
    stated = json.loads((published / "interpretation_scores.json").read_text())
    means = interpretation.means(found, table["language"].to_numpy())
    assert len(means) == 15
    for language, scores in means.items():
        for ours, theirs in METRICS.items():
            value = stated["published_per_language"][language][method][theirs]
            assert scores[ours] == pytest.approx(value, abs=0.0015), (language, ours)
    overall = stated["overall"][method]
    for ours, theirs in METRICS.items():
        assert found[ours].mean() == pytest.approx(overall["micro_mean"][theirs], abs=0.0001)
    pooled = interpretation.scores(*([table[f"{method}_{name}"].sum()] for name in COUNTS))
    assert pooled["accuracy"][0] == pytest.approx(overall["pooled"]["balanced_accuracy"])
    assert pooled["f1"][0] == pytest.approx(overall["pooled"]["f1"])


@pytest.mark.parametrize("method", ["detection", "fuzz"])
def test_the_published_correlations_with_entropy(published, method):
    table = pd.read_csv(published / "features_specific.csv", comment="#")
    stated = json.loads((published / "entropy_score_correlations.json").read_text())
    found = interpretation.scores(*(table[f"{method}_{name}"].to_numpy() for name in COUNTS))
    for ours, theirs in METRICS.items():
        entry = stated[f"{method}/{theirs}_vs_entropy"]
        ours_r = interpretation.pearson(table["entropy"], found[ours])
        assert ours_r == pytest.approx(entry["published_pearson_r"], abs=0.0006)
        assert ours_r == pytest.approx(entry["recomputed_r"], abs=0.0005)
