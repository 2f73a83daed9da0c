"""LAPE against definitions written out one feature at a time, and against the published lists."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from langsae.errors import InputError
from langsae.languages import by_name, find
from langsae.metrics import lape, overlap

H, L, F = 3, 5, 400


@pytest.fixture(scope="module")
def counts():
    """Counts with ties (a copied feature), dead features, and a language that never fires."""
    rng = np.random.default_rng(1)
    tokens, texts = rng.integers(900, 1500, L), rng.integers(40, 60, L)
    rate = rng.beta(0.3, 0.8, (H, 1, F)) * rng.beta(0.4, 0.8, (H, L, F))
    hits = rng.binomial(tokens[None, :, None], rate)
    examples = np.minimum(rng.binomial(texts[None, :, None], rng.beta(2, 0.7, (H, L, F))), hits)
    hits[:, 3], examples[:, 3] = 0, 0
    hits[:, :, 7], examples[:, :, 7] = 0, 0
    frequent = (hits.max(1) > 500).nonzero()
    for array in (hits, examples):  # equal entropies of features that are kept
        of = array[frequent[0][:4], :, frequent[1][:4]].T
        array[2, :, 5:9] = array[0, :, 20:24] = array[1, :, 90:94] = of
    return hits.astype(np.int64), examples.astype(np.int64), tokens, texts


def reference(counts, example_rate, token_rate, ratio, joint):
    """The definitions, feature by feature: [(entropy, hook, feature, rates, members)] sorted."""
    hits, examples, tokens, texts = counts
    found = []
    for h in range(H):
        for f in range(F):
            often = [examples[h, i, f] >= int(example_rate * int(texts[i])) for i in range(L)]
            much = [hits[h, i, f] > int(token_rate * int(tokens[i])) for i in range(L)]
            if joint:
                if not any(a and b for a, b in zip(often, much, strict=True)):
                    continue
            elif not (any(often) and any(much)):
                continue
            p = [hits[h, i, f] / tokens[i] for i in range(L)]
            q = [x / sum(p) for x in p]
            entropy = -sum(x * math.log(x) for x in q if x > 0)
            members = [i for i in range(L) if p[i] >= ratio * max(p)]
            found.append((round(entropy, 12), h, f, p, members))
    return sorted(found, key=lambda row: row[:3])


def pick(rows, language, shared_by, top, by, per_hook):
    """One language's selection, from the sorted rows, as (hook, feature)."""
    rows = [row for row in rows if language in row[4] and len(row[4]) == shared_by]
    if by == "frequency":
        rows = sorted(rows, key=lambda row: -row[3][language])
    out, taken = [], {}
    for _, h, f, *_ in rows:
        group = h if per_hook else 0
        taken[group] = taken.get(group, 0) + 1
        if top is None or taken[group] <= top:
            out.append((h, f))
    return out


@pytest.mark.parametrize("joint", [False, True])
def test_identification_equals_the_definition(counts, joint):
    hits, examples, tokens, texts = counts
    keep = lape.frequent(hits, examples, tokens, texts, 0.9, 0.2, joint)
    kept = lape.identify(hits, tokens, keep, 0.5)
    expected = reference(counts, 0.9, 0.2, 0.5, joint)
    assert 100 < len(expected) < H * F / 2
    assert [(row[1], row[2]) for row in expected] == list(
        zip(kept.hook.tolist(), kept.feature.tolist(), strict=True)
    )
    np.testing.assert_allclose(kept.entropy, [row[0] for row in expected], atol=1e-11)
    np.testing.assert_allclose(kept.rates, [row[3] for row in expected], rtol=1e-12)
    for row, member in zip(expected, kept.member, strict=True):
        assert member.nonzero()[0].tolist() == row[4]
    empty = 0
    for language in range(L):
        for shared_by in range(1, L + 1):
            for top, by, per_hook in (
                (None, "entropy", False), (10, "entropy", False), (10, "frequency", False),
                (1, "entropy", True), (2, "frequency", True),
            ):  # fmt: skip
                at = lape.select(kept, language, shared_by, top, by, per_hook)
                ours = list(zip(kept.hook[at].tolist(), kept.feature[at].tolist(), strict=True))
                assert ours == pick(expected, language, shared_by, top, by, per_hook)
                empty += not ours
    assert not kept.member[:, 3].any(), "the language that never fires has no feature"
    assert empty


def test_ties_are_in_order_of_hook_and_feature(counts):
    hits, _, tokens, _ = counts
    keep = np.zeros((H, F), bool)
    keep[2, 5:7] = keep[0, 20:22] = keep[1, 90:92] = True
    kept = lape.identify(hits, tokens, keep, 0.5)
    pairs = list(zip(kept.hook.tolist(), kept.feature.tolist(), strict=True))
    assert len(set(kept.entropy.tolist())) == 2
    for group in (pairs[:3], pairs[3:]):
        assert [hook for hook, _ in group] == [0, 1, 2]


def test_thresholds_by_hand():
    """Two languages of 100 tokens and 10 texts; each condition on its border."""
    tokens = texts = np.array([100, 10])
    texts = np.array([10, 10])
    hits = np.array([[[11, 10, 11, 11, 60], [0, 0, 0, 2, 3]]])
    examples = np.array([[[9, 9, 8, 0, 9], [0, 0, 0, 9, 3]]])
    frequent = lape.frequent(hits, examples, tokens, texts, 0.98, 0.1)
    assert frequent.tolist() == [[True, False, False, True, True]]
    joint = lape.frequent(hits, examples, tokens, texts, 0.98, 0.1, joint=True)
    assert joint.tolist() == [[True, False, False, True, True]]  # 2 of 10 tokens are above 1
    kept = lape.identify(hits, tokens, frequent, 0.5)
    assert kept.feature.tolist() == [0, 4, 3]
    assert kept.member.tolist() == [[True, False], [True, True], [True, True]]
    assert kept.entropy[0] == 0
    assert not np.signbit(kept.entropy[0])
    assert kept.entropy[1] == pytest.approx(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    low = lape.identify(hits, tokens, frequent, 0.5, entropy_threshold=0.64)
    assert low.feature.tolist() == [0, 4]


def test_the_two_conditions_may_be_met_by_two_languages():
    tokens, texts = np.array([100, 100]), np.array([10, 10])
    hits, examples = np.array([[[50], [9]]]), np.array([[[5], [9]]])
    assert lape.frequent(hits, examples, tokens, texts, 0.98, 0.1).all()
    assert not lape.frequent(hits, examples, tokens, texts, 0.98, 0.1, joint=True).any()


def test_neurons_equal_the_original_algorithm(counts):
    """kthvalue and topk of torch, as the LAPE authors' script is described."""
    import torch

    hits, _, tokens, _ = counts
    kept, bar = lape.identify_neurons(hits, tokens, 0.9, 0.05)
    p = torch.from_numpy(hits / tokens[:, None]).permute(0, 2, 1)  # [H, F, L]
    flat = p.flatten()
    assert bar == flat.kthvalue(round(0.9 * len(flat))).values.item()
    q = p / p.sum(-1, keepdim=True)
    entropy = -(q * q.log()).nan_to_num(0).sum(-1)
    entropy[(p > bar).sum(-1) == 0] = torch.inf
    values, index = entropy.flatten().sort(stable=True)
    chosen = index[: round(0.05 * H * F)]
    assert torch.isfinite(values[: len(chosen)]).all()
    assert (kept.hook * F + kept.feature).tolist() == chosen.tolist()
    np.testing.assert_allclose(kept.entropy, values[: len(chosen)], atol=1e-12)
    np.testing.assert_array_equal(kept.member, (p > bar).flatten(0, 1)[chosen].numpy())


def test_fewer_neurons_than_asked_for_are_kept():
    hits = np.zeros((1, 2, 10), np.int64)
    hits[0, 0, 4] = 7
    kept, bar = lape.identify_neurons(hits, np.array([10, 10]), 0.5, 1.0)
    assert bar == 0
    assert kept.feature.tolist() == [4]


def test_entropy_histogram_counts_every_live_feature(counts):
    hits, _, tokens, _ = counts
    edges, found = lape.entropy_histogram(hits, tokens, 20)
    assert found.sum() == (hits.sum(1) > 0).sum() < H * F
    assert edges[-1] == pytest.approx(math.log(L))
    flat = np.full((1, L, 3), 1) * tokens[None, :, None]  # equal rates: the largest entropy
    assert lape.entropy_histogram(flat, tokens, 20)[1].tolist() == [0] * 19 + [3]


def test_a_language_without_texts_or_fewer_than_two_are_refused(counts):
    hits, examples, tokens, texts = counts
    none = np.where(np.arange(L) == 1, 0, tokens)
    with pytest.raises(InputError, match="tokens and texts"):
        lape.frequent(hits, examples, none, texts, 0.9, 0.1)
    with pytest.raises(InputError, match="two or more"):
        lape.identify_neurons(hits[:, :1], tokens[:1])


def published(shared, name):
    return pd.read_csv(shared / "published/sae_lape" / name, comment="#")


def test_published_probabilities_are_misaligned_as_we_say(shared):
    """The right probabilities, put out of order our way, are the published ones."""
    rows = published(shared, "features_specific.csv")
    differ = compared = 0
    for _, part in rows.groupby("language"):
        part = part.sort_values("entropy", kind="stable")
        wrong = lape.misaligned(
            part["layer"].to_numpy(), part["feature"].to_numpy(),
            part["selected_prob_realigned"].to_numpy(),
        )  # fmt: skip
        aside = part["entropy_tie"].to_numpy() == 1  # three decimals do not tell their order
        same = np.isclose(wrong, part["selected_prob_published_misaligned"], atol=1e-9)
        # a tie may swap values among any positions, but not make or lose one
        assert sorted(wrong) == sorted(part["selected_prob_published_misaligned"])
        differ += int((~same).sum())
        compared += len(part)
        assert (~same).sum() <= 2 * aside.sum()
        if not aside.any():
            assert same.all()
    assert compared == 540
    assert differ < 0.05 * compared


def test_published_selections_by_entropy_and_frequency(shared):
    """Top 10 of each language from the published entropies and realigned probabilities."""
    rows = published(shared, "features_specific.csv")
    subsets = published(shared, "features_selected_subsets.csv")
    codes = by_name({find(name).code for name in rows["language"]})
    language = np.array([codes.index(find(name).code) for name in rows["language"]])
    rates = np.zeros((len(rows), len(codes)))
    rates[np.arange(len(rows)), language] = rows["selected_prob_realigned"]
    order = np.lexsort((rows["feature"], rows["layer"], rows["entropy"]))
    kept = lape.Kept(
        *(rows[key].to_numpy()[order] for key in ("layer", "feature", "entropy")),
        rates[order], rates[order] > 0,
    )  # fmt: skip
    settings = {
        "top_10_by_entropy": {"top": 10},
        "top_10_by_freq": {"top": 10, "by": "frequency"},
        "top_1_per_layer_by_entropy": {"top": 1, "per_hook": True},
        "top_1_per_layer_by_freq": {"top": 1, "per_hook": True, "by": "frequency"},
    }
    for name, how in settings.items():
        expected = subsets[subsets["subset"] == name]
        hit = 0
        for at, code in enumerate(codes):
            chosen = lape.select(kept, at, **how)
            ours = set(zip(kept.hook[chosen], kept.feature[chosen], strict=True))
            named = expected[expected["language"].map(lambda x: find(x).code) == code]
            theirs = set(zip(named["layer"], named["feature"], strict=True))
            assert len(ours) == len(theirs)
            hit += len(ours & theirs)
        assert len(expected) - hit <= 3, f"{name}: more than ties of rounded values differ"


def test_shared_feature_matrices_equal_the_published(shared):
    rows = published(shared, "features_shared.csv")
    with open(shared / "published/sae_lape/shared_features.json") as file:
        maps = json.load(file)
    columns = maps["feature_intersection_heatmap"]["x"]
    member = pd.crosstab([rows["layer"], rows["feature"]],
                         rows["language"].map(lambda name: find(name).code))  # fmt: skip
    both, iou = overlap.set_overlap(member[columns].to_numpy() > 0)
    flip = [columns.index(code) for code in maps["feature_intersection_heatmap"]["y"]]
    np.testing.assert_array_equal(both[flip], maps["feature_intersection_heatmap"]["z"])
    np.testing.assert_allclose(iou[flip], maps["iou_heatmap"]["z"], atol=1e-9)


def test_pearson_of_degenerate_pairs():
    """Fewer than two common tokens: 0, as published; a constant: undefined, not 0."""
    both = np.array([[3, 1, 3], [1, 2, 2], [3, 2, 3]])
    total = np.array([[6, 1, 6], [5, 9, 9], [4, 4, 6]])
    square = np.array([[14, 1, 14], [25, 41, 41], [16, 8, 12]])
    product = np.array([[14, 5, 12], [5, 41, 18], [12, 18, 12]])
    r = overlap.pearson(both, total, square, product)
    assert r[0, 1] == r[1, 0] == 0
    assert np.isnan(r[1, 2]), "feature 2 is constant where both fire"
    assert r.diagonal().tolist() == [1, 1, 1]
    assert overlap.pearson(*np.zeros((4, 0, 0))).shape == (0, 0)


def test_empty_sets_overlap_in_nothing():
    both, iou = overlap.set_overlap(np.array([[True, False, True], [True, False, False]]))
    assert both.tolist() == [[2, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert iou.tolist() == [[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]]
