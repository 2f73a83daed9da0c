"""Language, entropy and groups of activating tokens, against SciPy, NumPy and the authors' data."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import entropy

from langsae.errors import InputError
from langsae.metrics import token_groups as module
from langsae.metrics.semantics import (
    CLASSES,
    TokenCounts,
    language_class,
    monosemanticity,
    semantic_entropy,
    token_entropy,
)
from langsae.metrics.token_groups import GROUPINGS, Similarity, token_groups
from langsae.metrics.token_language import language_of_token


def token_counts(rows: list[dict[int, int]]) -> TokenCounts:
    starts = np.cumsum([0, *map(len, rows)])
    pairs = [pair for row in rows for pair in row.items()]
    token, count = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return TokenCounts(starts, token.copy(), count.copy())


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(3)
    rows = []
    for size in (*rng.integers(1, 60, 40), 0, 1):
        tokens = rng.choice(300, size, replace=False)
        rows.append(
            {int(t): int(c) for t, c in zip(tokens, rng.integers(1, 30, size), strict=True)}
        )
    return rows, torch.from_numpy(rng.standard_normal((300, 12))).float()


def test_token_entropy_is_scipys(drawn):
    rows, _ = drawn
    measured = token_entropy(token_counts(rows))
    for row, value in zip(rows, measured, strict=True):
        expected = entropy(list(row.values())) if row else np.nan
        assert value == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert measured[-1] == 0


@pytest.mark.parametrize("grouping", ["connected", "greedy"])
def test_groups_against_dense_similarities(drawn, grouping):
    rows, embeddings = drawn
    counts = token_counts(rows)
    groups = token_groups(counts, embeddings, grouping, cosine=0.45)
    measured = semantic_entropy(counts, groups)
    unit = embeddings.double() / embeddings.double().norm(dim=1, keepdim=True)
    sizes = set()
    for f, row in enumerate(rows):
        if not row:
            assert np.isnan(measured[f])
            continue
        near = (unit[list(row)] @ unit[list(row)].T).numpy() > 0.45
        labels = components(near) if grouping == "connected" else greedy(near, row)
        mass = np.bincount(labels, weights=list(row.values()))
        assert measured[f] == pytest.approx(entropy(mass), abs=1e-12)
        sizes.add(len(mass) / len(row))
    assert min(sizes) < 0.5 < max(sizes)  # neither all alone nor all together


@pytest.mark.parametrize("cosine", [0.1, 0.4, 0.6, 0.99, -0.5])
def test_both_ways_of_grouping_agree(drawn, monkeypatch, cosine):
    """Nearly none, some and all similar; a graph of blocks of 64 tokens, and none."""
    rows, embeddings = drawn
    counts = token_counts(rows)
    monkeypatch.setattr(module, "_ROWS", 64)
    taken = []
    for name in ("_by_graph", "_by_feature"):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real, name=name: (taken.append(name), real(*a))[1]
        )
    found = []
    for small, cost in ((10**6, 1), (0, 0), (0, 1e9)):
        monkeypatch.setattr(module, "_SMALL", small)
        monkeypatch.setattr(module, "_MATRIX_COST", cost)
        found.append(Similarity(embeddings, cosine).groups(counts))
    assert taken == ["_by_graph", "_by_feature", "_by_graph", "_by_feature", "_by_feature"]
    for grouping in GROUPINGS:
        for other in found[1:]:
            np.testing.assert_array_equal(found[0][grouping], other[grouping])


def test_float64_decides_near_the_bar(monkeypatch):
    """(3, 4) and (1, 0) have a cosine of 0.6; float32 has it at 0.6 + 2e-8."""
    counts = token_counts([{0: 2, 1: 1}])
    embeddings = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    for cosine, groups in ((0.6 + 1e-7, [0, 1]), (0.6 - 1e-7, [0, 0])):
        for small in (0, 10):
            monkeypatch.setattr(module, "_SMALL", small)
            assert list(Similarity(embeddings, cosine).groups(counts)["greedy"]) == groups


def components(near: np.ndarray) -> np.ndarray:
    return connected_components(csr_array(near), directed=False)[1]


def greedy(near: np.ndarray, row: dict[int, int]) -> np.ndarray:
    tokens = list(row)
    labels = np.full(len(row), -1)
    for seed in sorted(range(len(row)), key=lambda i: (-row[tokens[i]], tokens[i])):
        if labels[seed] < 0:
            free = labels < 0
            labels[free & (near[seed] | (np.arange(len(row)) == seed))] = labels.max() + 1
    return labels


def test_the_two_groupings_differ_on_a_chain():
    """a ~ b ~ c but not a ~ c: one component; with a as the commonest, c founds its own group."""
    angles = torch.tensor([0.0, 1.0, 2.0])
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    counts = token_counts([{0: 5, 1: 2, 2: 1}])
    assert list(token_groups(counts, embeddings, "connected", 0.5)) == [0, 0, 0]
    assert list(token_groups(counts, embeddings, "greedy", 0.5)) == [0, 0, 1]


def test_groups_refuse_what_has_no_direction():
    counts = token_counts([{0: 1, 1: 1}])
    with pytest.raises(InputError, match="zero embedding"):
        token_groups(counts, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), "greedy")
    with pytest.raises(InputError, match="no row in 1"):
        token_groups(counts, torch.ones(1, 2), "greedy")


def test_monosemanticity_by_hand():
    """Two synonyms and a loner, each once: TE ln 3, SE of (2/3, 1/3)."""
    counts = token_counts([{0: 1, 1: 1, 2: 1}, {7: 4}, {}])
    semantic = semantic_entropy(counts, np.array([0, 0, 1, 0]))
    for at_zero in (0, 1):
        value, share = monosemanticity(token_entropy(counts), semantic, at_zero)
        assert value[0] == pytest.approx(1 - entropy([2, 1]) / np.log(3))
        assert value[1] == at_zero
        assert np.isnan(value[2])
        assert share == 0.5
    with pytest.raises(InputError, match="no feature"):
        monosemanticity(np.array([np.nan]), np.array([np.nan]), 0)


def test_classes_are_strict_at_the_threshold():
    classes = language_class(np.array([91, 90, 0, 10, 0]), np.array([9, 10, 3, 90, 0]))
    assert list(classes) == [0, 2, 1, 2, -1]


@pytest.mark.parametrize(
    ("tokens", "language"),
    [
        (["the"], "en"), ([" Don't"], "en"), (["猫"], "ja"), ([";"], "ja"), (["<0x0A>"], "ja"),
        (["a", "1990"], "en"), (["年", " 12"], "ja"), (["x", "1", "2"], "en"), (["7"], "ja"),
        (["1st"], "ja"),
    ],
)  # fmt: skip
def test_version_1_rule(tokens, language):
    assert language_of_token(tokens) == language


def test_the_authors_features(shared):
    """Their counts, classes and natural-log entropies, from their tokens."""
    csv.field_size_limit(sys.maxsize)
    with (shared / "reference/llmjp_demo_features.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 398
    labelled = 0
    for row in rows:
        languages = [language_of_token([t]) for t in json.loads(row["language_tokens"])]
        english, japanese = languages.count("en"), languages.count("ja")
        assert (english, japanese) == (int(row["en"]), int(row["ja"])), row["feature"]
        class_ = language_class(np.array([english]), np.array([japanese]))[0]
        assert CLASSES[class_] == row["lang_class"]
        if row["authors_entropy"]:
            kinds, count = np.unique(json.loads(row["top_tokens"]), return_counts=True)
            counts = TokenCounts(np.array([0, len(kinds)]), np.arange(len(kinds)), count)
            assert token_entropy(counts)[0] == pytest.approx(
                float(row["authors_entropy"]), abs=2e-6
            )
            labelled += 1
    assert labelled > 90
