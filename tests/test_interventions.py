"""Interventions and perplexities against NumPy, transformers' own loss and hand-made SAEs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.impact import Plan, score
from langsae.interventions import (
    Edit,
    add_features,
    add_to_neurons,
    directions,
    intervened,
    set_neurons,
    stack,
)
from langsae.metrics import perplexity_change
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import TokenPolicy, tokenise
from langsae.perplexity import Scorer
from langsae.saes.neurons import Neurons
from langsae.saes.threshold import ThresholdSAE
from langsae.saes.topk import InputNorm, TopKSAE

D, LAYERS = 32, 4
MLP = HookPoint("mlp_out", LAYERS - 1)
TEXTS = {
    "en": ("all human beings are born free", "and equal", "in dignity and rights"),
    "fr": ("tous les êtres humains", "naissent libres et égaux", "en droits"),
    "hi": ("सभी मनुष्यों", "को गौरव", "और अधिकार"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    prepare(TinyModel(source="tiny", d_model=D, layers=LAYERS), folder / "m")
    return load(folder / "m", "cpu")


@pytest.fixture(scope="module")
def scorer(model):
    return Scorer(model)


@pytest.fixture(scope="module")
def tokens(model):
    corpus = ParallelCorpus("c", TEXTS)
    return tokenise(model.tokenizer, corpus, TokenPolicy())


PLAIN = InputNorm()


def two_features(norm=PLAIN):
    """Directions: twice the first axis, and the second minus the third."""
    decoder = torch.zeros(2, D)
    decoder[0, 0], decoder[1, 1], decoder[1, 2] = 2.0, 1.0, -1.0
    return TopKSAE(
        torch.ones(2, D), torch.zeros(2), decoder, torch.zeros(D), 1, str(MLP), norm=norm
    )


def logits(model, ids):
    with torch.inference_mode():
        return model.network(input_ids=ids, use_cache=False).logits


def random_edit(seed, scale=1.0):
    return Edit(scale * torch.randn(D, generator=torch.Generator().manual_seed(seed)))


def test_shift_is_the_sum_of_amounts_times_directions():
    shift = add_features(two_features(), [0, 1], [3.0, -0.5]).shift
    expected = torch.zeros(D)
    expected[0], expected[1], expected[2] = 6.0, -0.5, 0.5
    assert torch.equal(shift, expected)


def test_directions_undo_a_scalar_normalisation_and_refuse_a_vectors_own():
    plain = directions(two_features(), [1])
    scaled = two_features(InputNorm("standard", torch.full((D,), 9.0), 4.0))
    assert torch.equal(directions(scaled, [1]), 4.0 * plain)
    by_norm = two_features(InputNorm("l2"))
    with pytest.raises(InputError, match="l2_scale"):
        directions(by_norm, [1])
    assert torch.equal(directions(by_norm, [1], 7.0), 7.0 * plain)


def test_directions_are_those_along_which_the_reconstruction_moves():
    norm = InputNorm("standard", torch.randn(D), 3.0)
    sae = two_features(norm)
    x = torch.rand(5, D)
    codes = sae.encode(x)
    more = replace(codes, value=codes.value + 1.0)
    moved = (sae.decode(more) - sae.decode(codes)) * norm.scale  # back in the model's space
    assert torch.allclose(moved.double(), directions(sae, codes.feature.tolist()), atol=1e-5)


def test_directions_of_other_coders():
    relu = ThresholdSAE(torch.ones(D, 2), torch.zeros(2), torch.eye(2, D), torch.zeros(D))
    assert torch.equal(directions(relu, [1])[0], torch.eye(2, D)[1].double())
    with pytest.raises(InputError, match="no decoder"):
        directions(Neurons(8), [1])
    with pytest.raises(InputError, match=r"features 0\.\.1"):
        directions(relu, [2])


def test_perplexity_under_a_two_feature_sae_is_the_hand_computed_one(model, scorer, tokens):
    """The last MLP's output reaches the logits through the final RMSNorm and the head alone."""
    edit = add_features(two_features(), [0, 1], [0.4, -0.7])
    index = 3
    ids, length = tokens.batch([index]).ids, len(tokens.ids[index])
    resid = model.activations(ids, [HookPoint("resid_post", LAYERS - 1)])
    stream = next(iter(resid.values()))[0].double().numpy()
    stream[:, 0] += 0.4 * 2.0
    stream[:, 1] += -0.7
    stream[:, 2] -= -0.7
    norm = model.network.base_model.norm
    epsilon = model.network.config.rms_norm_eps
    scaled = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + epsilon)
    scaled *= norm.weight.detach().double().numpy()
    scores = scaled @ model.network.get_output_embeddings().weight.detach().double().numpy().T
    log_z = np.log(np.exp(scores).sum(-1))
    told = [log_z[t] - scores[t, ids[0, t + 1]] for t in range(length - 1)]
    found = scorer.mean_nll(ids, [length], {MLP: edit})
    assert found.item() == pytest.approx(np.mean(told), abs=1e-5)
    assert abs(found.item() - scorer.mean_nll(ids, [length]).item()) > 1e-3


def test_plain_perplexity_is_transformers_own_loss(model, scorer, tokens):
    group = list(range(len(tokens.ids)))
    lengths = [len(tokens.ids[i]) for i in group]
    found = scorer.mean_nll(tokens.batch(group).ids, lengths)
    for i in group:
        ids = torch.tensor([tokens.ids[i]])
        with torch.inference_mode():
            loss = model.network(input_ids=ids, labels=ids).loss
        assert found[i].item() == pytest.approx(loss.item(), abs=1e-5)


def test_context_is_not_scored(model, scorer):
    ids = torch.tensor([[0, 5, 9, 7, 3]])
    logprobs = logits(model, ids)[0].log_softmax(-1)
    expected = -(logprobs[2, 7] + logprobs[3, 3]) / 2
    found = scorer.mean_nll(ids, [5], context=[3])
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    with pytest.raises(InputError, match="no token after"):
        scorer.mean_nll(ids, [5], context=[5])


@pytest.mark.parametrize("site", ["resid_pre", "mlp_out", "resid_post"])
def test_going_on_from_hidden_states_changes_no_bit(scorer, tokens, site):
    group = [0, 4, 5]
    ids, lengths = tokens.batch(group).ids, [len(tokens.ids[i]) for i in group]
    edits = {HookPoint(site, 2): random_edit(0), HookPoint(site, 3): random_edit(1)}
    plain, states = scorer.plain(ids, lengths, [2])
    whole = scorer.mean_nll(ids, lengths, edits)
    assert torch.equal(scorer.mean_nll(ids, lengths, edits, resume=(2, states[2])), whole)
    assert torch.equal(scorer.mean_nll(ids, lengths), plain)
    assert not torch.equal(whole, plain)


def test_each_row_of_a_batch_has_its_own_intervention(scorer, tokens):
    ids = tokens.batch([3]).ids.expand(4, -1)
    lengths = [len(tokens.ids[3])] * 4
    rows = [
        {},
        {MLP: random_edit(0)},
        {HookPoint("mlp_act", 1): set_neurons(2 * D, [3, 5], 0.7)},
        {MLP: random_edit(1), HookPoint("mlp_act", 1): add_to_neurons(2 * D, [3], [2.0])},
    ]
    together = scorer.mean_nll(ids, lengths, stack(rows))
    alone = torch.cat([scorer.mean_nll(ids[:1], lengths[:1], row) for row in rows])
    assert torch.allclose(together, alone, atol=1e-6)
    assert len(set(together.tolist())) == 4


def test_neurons_are_set_and_scaled_as_a_dense_mlp_says(model):
    ids, layer = torch.tensor([[0, 9, 30, 200]]), 1
    mlp = model.network.base_model.layers[layer].mlp
    seen = {}
    handle = mlp.register_forward_hook(lambda module, args, out: seen.update(x=args[0], y=out))
    hook = HookPoint("mlp_act", layer)
    fixed, scaled = set_neurons(2 * D, [1, 40], 0.25), add_to_neurons(2 * D, [7], [-3.0])
    try:
        for edit, change in ((fixed, "set"), (scaled, "add")):
            with torch.inference_mode(), intervened(model, {hook: edit}):
                model.network.base_model(input_ids=ids)
            x = seen["x"].double()
            gate, up, down = (
                getattr(mlp, f"{name}_proj").weight.double() for name in ("gate", "up", "down")
            )
            active = torch.nn.functional.silu(x @ gate.T)
            if change == "set":
                active[..., [1, 40]] = 0.25
            else:
                active[..., 7] -= 3.0
            expected = (active * (x @ up.T)) @ down.T
            assert torch.allclose(seen["y"].double(), expected, atol=1e-5)
    finally:
        handle.remove()


def test_positions_limit_an_intervention(model):
    ids = torch.tensor([[0, 9, 30, 200]])
    hook = HookPoint("resid_post", 0)
    plain = model.activations(ids, [hook])[hook]
    where = torch.tensor([[False, False, True, False]])
    edit = random_edit(3)
    with intervened(model, {hook: edit}, where):
        changed = model.activations(ids, [HookPoint("resid_pre", 1)])[HookPoint("resid_pre", 1)]
    assert torch.equal(changed[0, [0, 1, 3]], plain[0, [0, 1, 3]])
    assert torch.allclose(changed[0, 2], plain[0, 2] + edit.shift)


def test_the_model_is_as_it_was_after_use_and_after_an_error(model, scorer):
    ids = torch.tensor([[0, 9, 30, 200]])
    before = logits(model, ids)
    _, states = scorer.plain(ids, [4], [2])
    with intervened(model, {MLP: random_edit(0)}):
        assert not torch.equal(logits(model, ids), before)
    assert torch.equal(logits(model, ids), before)
    wrong = {HookPoint("mlp_out", 2): random_edit(0), MLP: Edit(torch.ones(D + 1))}
    with pytest.raises(InputError, match="wide"):
        scorer.mean_nll(ids, [4], wrong, resume=(2, states[2]))
    assert torch.equal(logits(model, ids), before)
    assert not any(module._forward_hooks for module in model.network.modules())
    assert not any(module._forward_pre_hooks for module in model.network.modules())
    assert not any("forward" in vars(module) for module in model.network.modules())
    with (
        pytest.raises(InputError, match="layers 0"),
        intervened(model, {HookPoint("mlp_out", 9): 0}),
    ):
        pass


def plans(scale=1.0, kind="all"):
    each = {
        "en": {HookPoint("mlp_out", 1): random_edit(0, scale), MLP: random_edit(1, scale)},
        "fr": {MLP: random_edit(2, scale)},
        "hi": {},
    }
    return Plan(each, kind, {})


def run_score(scorer, tokens, tmp_path, batch_tokens=60, **kinds):
    return score(scorer, tokens, kinds, Compute(batch_tokens=batch_tokens), tmp_path)


def test_multiplier_zero_is_plain_to_the_bit(scorer, tokens, tmp_path):
    scored = run_score(scorer, tokens, tmp_path, zero=plans(0.0), one=plans())
    assert scored["zero"].shape == (3, 9)
    assert (scored["zero"] == scored["normal"]).all()
    assert (scored["one"][:2] != scored["normal"]).all()
    assert (scored["one"][2] == scored["normal"]).all()  # a language without features


def test_own_language_only_is_the_diagonal_of_the_whole(scorer, tokens, tmp_path):
    scored = run_score(scorer, tokens, tmp_path, all=plans(), own=plans(kind="own"))
    own = scored["own"].reshape(3, 3, 3)
    for i, j in np.ndindex(3, 3):
        if i == j:
            expected = scored["all"].reshape(3, 3, 3)[i, j]
            np.testing.assert_allclose(own[i, j], expected, rtol=1e-6)
        else:
            assert np.isnan(own[i, j]).all()


def test_batch_size_does_not_matter_and_texts_keep_their_order(scorer, tokens, tmp_path):
    small = run_score(scorer, tokens, tmp_path, 1, one=plans())
    large = run_score(scorer, tokens, tmp_path, 5000, one=plans())
    for name in small:
        np.testing.assert_allclose(small[name], large[name], rtol=1e-5)
    text = tokens.ids[5]
    nll = scorer.mean_nll(torch.tensor([text]), [len(text)], plans().interventions["fr"])
    assert small["one"][1, 5] == pytest.approx(np.exp(nll.item()), rel=1e-6)


def test_a_killed_run_goes_on_where_it_was(scorer, tokens, tmp_path, monkeypatch):
    whole = run_score(scorer, tokens, tmp_path / "a", one=plans(), two=plans(2.0))
    calls, real = [], scorer.mean_nll

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(scorer, "mean_nll", counted)
    with pytest.raises(KeyboardInterrupt):
        run_score(scorer, tokens, tmp_path / "b", one=plans(), two=plans(2.0))
    monkeypatch.setattr(scorer, "mean_nll", real)
    kept = list((tmp_path / "b").rglob("*.npy"))
    assert kept
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    with pytest.raises(KeyboardInterrupt):  # killed again: what was kept is not done again
        monkeypatch.setattr(
            scorer, "mean_nll", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        run_score(scorer, tokens, tmp_path / "b", one=plans(), two=plans(2.0))
    assert {path: path.stat().st_mtime_ns for path in kept} == stamps
    monkeypatch.setattr(scorer, "mean_nll", real)
    again = run_score(scorer, tokens, tmp_path / "b", one=plans(), two=plans(2.0))
    assert all((again[name] == whole[name]).all() for name in whole)
    assert not list((tmp_path / "b").rglob("*.npy"))


def test_change_matrices_by_hand():
    plain = np.array([[10.0, 20.0], [40.0, 80.0]])
    changed = np.array([[[20.0, 20.0], [40.0, 80.0]], [[11.0, 21.0], [np.e * 40, np.e * 80]]])
    assert perplexity_change.mean_change(plain, changed)[0].tolist() == [5.0, 0.0]
    np.testing.assert_allclose(perplexity_change.mean_change(plain, changed)[1, 1], 60 * (np.e - 1))
    assert perplexity_change.median_change(plain, changed)[1, 0] == 1.0
    np.testing.assert_allclose(
        perplexity_change.mean_log_ratio(plain, changed),
        [[np.log(2) / 2, 0.0], [(np.log(1.1) + np.log(1.05)) / 2, 1.0]],
    )
    share = perplexity_change.largest_share(plain, changed)
    assert share[0, 0] == 1.0
    assert np.isnan(share[0, 1])
    assert share[1, 0] == 0.5
    change = np.array([[5.0, 0.0], [6.0, 6.0]])
    assert perplexity_change.hits_itself_most(change, np.array([0, 1])).tolist() == [True, False]


def test_a_processed_model_is_refused(model):
    class Processed:
        centred = True

    with pytest.raises(InputError, match="as published"):
        Scorer(Processed())
