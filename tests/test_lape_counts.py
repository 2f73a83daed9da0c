"""Counting for LAPE against a plain loop over tokens, whatever the batches and shards."""

import math

import numpy as np
import pytest
import torch

from langsae import stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.metrics import overlap
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import TokenPolicy, tokenise
from langsae.reducers.lape_counts import LapeCounts, NeuronCounts
from langsae.reducers.pair_counts import PairCounts
from langsae.saes.neurons import Neurons, neuron_bank
from langsae.saes.topk import TopKSAE

D, F, K = 32, 60, 7
LAYERS = (0, 2)
WORDS = ["the", "of", "in", "que", "des", "und", "наш", "мир", "世界", "です"]
# per language, features to be compared, at both hooks
CHOSEN = [[(0, 33), (1, 6), (0, 41), (1, 1)], [], [(1, 6), (0, 27), (1, 18)]]


def random_sae(seed):
    draw = torch.Generator().manual_seed(seed)
    tensors = {"W_enc": (F, D), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
    weights = {name: torch.randn(*shape, generator=draw) for name, shape in tensors.items()}
    weights["W_enc"] *= 1000  # the tiny model's activations are near 0.001
    weights["b_dec"] /= 1000
    weights["b_enc"] -= 6  # so that some of a token's slots have the value 0
    return TopKSAE(**weights, k=K, hook="mlp_out.0")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    prepare(TinyModel(source="tiny", d_model=D), folder / "m")
    model = load(folder / "m", "cpu")
    rng = np.random.default_rng(0)
    texts = {
        code: tuple(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(10))
        for code in ("bg", "zh", "en")
    }
    corpus = ParallelCorpus("c", texts, aligned=False)
    tokens = tokenise(model.tokenizer, corpus, TokenPolicy(count_bos=True))
    saes = {HookPoint("mlp_out", layer): random_sae(layer) for layer in LAYERS}
    bank = {**saes, **neuron_bank(model, LAYERS)}
    return model, dict(sorted(bank.items(), key=lambda item: item[0].order)), tokens


def fresh(setting):
    model, bank, tokens = setting
    header = stream.header(model, bank, tokens, "0")
    sites = [hook.site for hook in bank]
    saes = [at for at, site in enumerate(sites) if site == "mlp_out"]
    neurons = [at for at, site in enumerate(sites) if site == "mlp_act"]
    chosen = [[(saes[layer], feature) for layer, feature in part] for part in CHOSEN]
    return [
        LapeCounts(header, saes, 3, F),
        NeuronCounts(header, neurons, 3, 2 * D),
        PairCounts(header, chosen, F),
    ]


def collected(setting, tmp_path, batch_tokens=300, shards=1):
    model, bank, tokens = setting
    compute = Compute(device="cpu", batch_tokens=batch_tokens, threads=1)
    whole = None
    for shard in reversed(range(shards)):
        part = fresh(setting)
        stream.collect(model, bank, tokens, part, compute, tmp_path, (shard, shards))
        for ours, theirs in zip(whole or (), part, strict=True) if whole else ():
            ours.merge(theirs)
        whole = whole or part
    return whole


def fired(setting):
    """Every (layer, kind, language, text, position, feature, value), text by text."""
    model, bank, tokens = setting
    for number, (ids, language) in enumerate(zip(tokens.ids, tokens.language, strict=True)):
        taken = model.activations(torch.tensor([ids]), bank)
        for hook, coder in bank.items():
            x = taken[hook][0]
            if hook.site == "mlp_act":
                slots = [
                    (t, i) for t, row in enumerate(x.tolist()) for i, v in enumerate(row) if v > 0
                ]
                value = x
            else:
                pre = (x - coder.b_dec) @ coder.W_enc.T + coder.b_enc
                slots = [(t, i) for t, row in enumerate(pre.topk(K).indices.tolist()) for i in row]
                value = pre.relu()
            for t, i in slots:
                layer = LAYERS.index(hook.layer)
                yield hook.site, layer, language, number, t, i, float(value[t, i])


def reference(setting):
    """Counts in plain dictionaries."""
    counts = {}
    for site, layer, language, number, _, i, value in fired(setting):
        cell = counts.setdefault((site, layer, language, i), ([], set()))
        cell[0].append(value)
        cell[1].add(number)
    return counts


@pytest.mark.parametrize("batch_tokens", [1, 90, 5000])
def test_counts_equal_a_loop_over_tokens(setting, tmp_path, batch_tokens):
    features, neurons, _ = collected(setting, tmp_path, batch_tokens)
    expected = reference(setting)
    zeros = np.zeros((len(LAYERS), 3), np.int64)
    for reducer, site in ((features, "mlp_out"), (neurons, "mlp_act")):
        state = {key: value.numpy() for key, value in reducer.state.items()}
        cells = 0
        for place in np.ndindex(state["hits"].shape):
            values, texts = expected.get((site, *place), ([], set()))
            cells += bool(values)
            assert state["hits"][place] == len(values)
            assert state["examples"][place] == len(texts)
            assert state["total"][place] == pytest.approx(sum(values), rel=1e-4, abs=1e-5)
            assert state["max"][place] == pytest.approx(max(values, default=-math.inf), rel=1e-4)
            assert state["min"][place] == pytest.approx(
                min(values, default=math.inf), rel=1e-3, abs=1e-5
            )
            if site == "mlp_out":
                zeros[place[:2]] += sum(value == 0 for value in values)
        assert cells > 50
    assert zeros.sum() > 0, "the case of empty slots is there"
    np.testing.assert_array_equal(features.state["idle"].numpy(), zeros)
    assert features.header["hooks"] == ["mlp_out.0", "mlp_out.2"]
    assert neurons.header["hooks"] == ["mlp_act.0", "mlp_act.2"]


def test_pairs_equal_the_published_way_of_comparing(setting, tmp_path):
    """Sets of (text, token) and lists of rounded values, compared with scipy."""
    from scipy.stats import pearsonr

    pairs = collected(setting, tmp_path)[2]
    series = [[{} for _ in part] for part in CHOSEN]
    for site, layer, language, number, t, i, value in fired(setting):
        if site == "mlp_out" and (layer, i) in CHOSEN[language]:
            at = CHOSEN[language].index((layer, i))
            series[language][at][number, t] = round(value, 3)
    correlated = 0
    for language in (0, 2):
        sums = [pairs.state[f"{name}/{language}"].numpy() for name in
                ("both", "sum", "square", "product")]  # fmt: skip
        iou, r = overlap.iou(sums[0]), overlap.pearson(*sums)
        for a, one in enumerate(series[language]):
            for b, other in enumerate(series[language]):
                if a == b:
                    assert iou[a, b] == r[a, b] == 1
                    continue
                both = sorted(one.keys() & other.keys())
                assert iou[a, b] == pytest.approx(len(both) / len(one.keys() | other.keys()))
                expected = 0
                if len(both) > 1:
                    expected = pearsonr([one[x] for x in both], [other[x] for x in both])[0]
                    correlated += 1
                assert r[a, b] == pytest.approx(expected, abs=1e-3)
    assert correlated >= 4
    assert pairs.state["both/1"].shape == (0, 0)


def test_shards_in_any_order_give_the_same_bytes(setting, tmp_path):
    for name, shards in (("one", 1), ("three", 3)):
        for reducer in collected(setting, tmp_path, shards=shards):
            reducer.save(tmp_path / f"{name}.{reducer.name}")
    for reducer in fresh(setting):
        files = [tmp_path / f"{name}.{reducer.name}" for name in ("one", "three")]
        assert files[0].read_bytes() == files[1].read_bytes()
        reducer.restore(files[0])


def test_sums_of_pairs_too_large_to_be_exact_are_refused(setting, tmp_path):
    pairs = fresh(setting)[2]
    pairs.state["square/0"][0, 0] = 2.0**53
    with pytest.raises(InputError, match="exact"):
        pairs.save(tmp_path / "pairs")


def test_neurons_as_a_coder():
    x = torch.tensor([[0.5, -0.1, 0.0], [0.0, 2.0, -3.0]])
    codes = Neurons(3).encode(x)
    assert codes.token.tolist() == [0, 1]
    assert codes.feature.tolist() == [0, 1]
    assert Neurons(3).decode(codes).tolist() == [[0.5, 0, 0], [0, 2, 0]]
