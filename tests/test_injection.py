"""Eq. 7 against dense arithmetic in float64, and writing in tandem against plain forward passes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dense_injection import dense
from langsae import translate
from langsae.errors import InputError
from langsae.injection import InjectedScorer, Injector, check_pair
from langsae.interventions import intervened
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.saes.topk import InputNorm, TopKSAE
from langsae.tandem import Tandem

D, N, K = 32, 48, 8
HOOK = HookPoint("resid_post", 1)
UNDO = ("full norm", "mid norm", "none")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two random checkpoints of one shape and tokenizer: (full, mid)."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        prepare(TinyModel(source="tiny", d_model=D, layers=4, seed=seed), root / str(seed))
    return load(root / "0", "cpu"), load(root / "1", "cpu")


def coder(kind="l2", k=K) -> TopKSAE:
    draw = torch.Generator().manual_seed(5)
    encoder = torch.randn(N, D, generator=draw)
    bias = 0.1 * torch.randn(D, generator=draw)
    norm = InputNorm("standard", torch.ones(D), 0.25) if kind == "standard" else InputNorm(kind)
    decoder = F.normalize(torch.randn(N, D, generator=draw), dim=1)
    return TopKSAE(encoder, torch.zeros(N), decoder, bias, k, str(HOOK), norm=norm)


def identity() -> TopKSAE:
    eye, zeros = torch.eye(D), torch.zeros(D)
    return TopKSAE(eye, zeros, eye, zeros, D, str(HOOK), relu=False)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(1, 257, (3, 12), generator=torch.Generator().manual_seed(2))


def everywhere(ids):
    return torch.ones_like(ids, dtype=torch.bool)


def after(mid, ids, change):
    with intervened(mid, change):
        return mid.activations(ids, [HOOK])[HOOK]


def test_an_identity_coder_adds_the_full_models_activations_exactly(models, ids):
    _, mid = models
    h_full, h_mid = (model.activations(ids, [HOOK])[HOOK] for model in models)
    injector = Injector(identity(), HOOK)
    reading = injector.read(h_full, everywhere(ids))
    change = injector.intervention(injector.addition(reading, torch.ones(D).bool(), 1.0))
    assert torch.equal(after(mid, ids, change), h_mid + h_full)
    assert not torch.equal(h_full, h_mid)


@pytest.mark.parametrize("undo", UNDO)
def test_a_zero_mask_changes_nothing_to_the_bit(models, ids, undo):
    full, mid = models
    injector = Injector(coder(), HOOK, undo)
    reading = injector.read(full.activations(ids, [HOOK])[HOOK], everywhere(ids))
    change = injector.intervention(injector.addition(reading, torch.zeros(N).bool(), 0.7))
    with torch.inference_mode():
        plain = mid.network(ids).logits
        with intervened(mid, change):
            changed = mid.network(ids).logits
    assert plain.numpy().tobytes() == changed.numpy().tobytes()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "undo"),
    [*(("l2", undo) for undo in UNDO), ("none", "full norm"), ("standard", "none")],
)
def test_equation_seven_is_the_dense_one(models, ids, kind, undo, bias):
    _, mid = models
    sae, mask = coder(kind), torch.arange(N) % 3 == 0
    h_full, h_mid = (model.activations(ids, [HOOK])[HOOK] for model in models)
    injector = Injector(sae, HOOK, undo, bias)
    reading = injector.read(h_full, everywhere(ids))
    got = after(mid, ids, injector.intervention(injector.addition(reading, mask, 0.3)))
    expected = dense(sae, h_full, h_mid, mask, 0.3, undo, bias)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    assert (got - h_mid).abs().max() > 0.01  # the mask hits features that fire


def test_each_text_may_have_its_own_mask_and_strength(models, ids):
    full, _ = models
    injector = Injector(coder(), HOOK)
    reading = injector.read(full.activations(ids, [HOOK])[HOOK], everywhere(ids))
    masks = torch.rand(3, N, generator=torch.Generator().manual_seed(0)) < 0.5
    alphas = torch.tensor([0.0, 0.5, 2.0])
    together = injector.addition(reading, masks, alphas)
    for row in range(3):
        alone = injector.addition(reading, masks[row], float(alphas[row]))
        torch.testing.assert_close(together[row], alone[row], rtol=0, atol=0)
    assert not together[0].any()
    assert together[1].any()


def test_positions_that_are_left_out_get_nothing(models, ids):
    full, _ = models
    where = everywhere(ids)
    where[:, 0] = False
    hidden = full.activations(ids, [HOOK])[HOOK]
    injector, mask = Injector(coder(), HOOK, bias=True), torch.ones(N).bool()
    some = injector.addition(injector.read(hidden, where), mask, 1.0)
    whole = injector.addition(injector.read(hidden, everywhere(ids)), mask, 1.0)
    assert not some[:, 0].any()
    torch.testing.assert_close(some[:, 1:], whole[:, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("undo", UNDO)
@pytest.mark.parametrize("layer", [0, 1, 3])  # 3: the last block, after which only the head comes
def test_likelihoods_are_those_of_a_whole_pass_with_the_sum_put_in(models, ids, undo, layer):
    full, mid = models
    hook = HookPoint("resid_post", layer)
    sae, mask = replace(coder(), hook=str(hook)), torch.arange(N) % 2 == 0
    where, lengths = everywhere(ids), [12, 9, 5]
    where[:, 0] = False
    scorer = InjectedScorer(full, mid, Injector(sae, hook, undo))
    got = scorer.mean_nll(scorer.prepare(ids, lengths, where), mask, 0.4)

    h_full, h_mid = (model.activations(ids, [hook])[hook] for model in models)
    put = dense(sae, h_full, h_mid, mask, 0.4, undo).float()
    put[:, 0] = h_mid[:, 0]
    handle = mid.network.model.layers[layer].register_forward_hook(lambda *_: put)
    with torch.inference_mode():
        logits = mid.network(ids).logits.double()
    handle.remove()
    told = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    expected = [told[row, : length - 1].mean().item() for row, length in enumerate(lengths)]
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)
    plain = scorer.mean_nll(scorer.prepare(ids, lengths, where), torch.zeros(N).bool(), 0.4)
    assert not torch.allclose(plain, got, rtol=1e-4)


def test_models_that_do_not_fit_are_refused(models, tmp_path):
    full, mid = models
    prepare(TinyModel(source="tiny", d_model=16, layers=4), tmp_path / "narrow")
    with pytest.raises(InputError, match="32 and 16 wide"):
        check_pair(full, load(tmp_path / "narrow", "cpu"), HOOK)
    with pytest.raises(InputError, match=r"layers 0\.\.3"):
        check_pair(full, mid, HookPoint("resid_post", 4))
    with pytest.raises(InputError, match="no decoder"):
        Injector(object(), HOOK)


NEVER = torch.zeros(257, dtype=torch.bool)


def masks_of(rows):
    draw = torch.rand(rows, N, generator=torch.Generator().manual_seed(7))
    return draw < torch.tensor([0.0, 0.3, 0.6, 1.0])[:rows, None]


def naive(models, sae, prompt, mask, alpha, undo, steps):
    """Greedy decoding without any cache: both models read everything before each token."""
    _, mid = models
    ids = list(prompt)
    for _ in range(steps):
        fed = torch.tensor([ids])
        h_full, h_mid = (model.activations(fed, [HOOK])[HOOK] for model in models)
        put = dense(sae, h_full, h_mid, mask, alpha, undo).float()
        put[:, 0] = h_mid[:, 0]
        handle = mid.network.model.layers[HOOK.layer].register_forward_hook(lambda *_, put=put: put)
        with torch.inference_mode():
            ids.append(int(mid.network(fed).logits[0, -1].argmax()))
        handle.remove()
    return ids[len(prompt) :]


@pytest.mark.parametrize("undo", UNDO)
@pytest.mark.parametrize("shared", [0, 5])
def test_tandem_writes_what_passes_over_everything_write(models, undo, shared):
    full, mid = models
    sae, prompts = coder(), [[0, 10, 20, 30, 40, 50, 60], [0, 10, 20, 30, 40, 99]]
    masks, alphas = masks_of(4), [1.0, 1.0, 2.0, 3.0]
    tandem = Tandem(full, mid, Injector(sae, HOOK, undo), masks, alphas, prompts[0][:shared])
    written = [tandem.write(prompt[shared:], 6, NEVER) for prompt in prompts]
    for prompt, rows in zip(prompts, written, strict=True):
        for mask, alpha, row in zip(masks, alphas, rows, strict=True):
            assert row == naive(models, sae, prompt, mask, alpha, undo, 6)
    assert len({tuple(row) for row in written[0]}) > 1  # what is added changes what is written
    assert tandem.write(prompts[0][shared:], 6, NEVER) == written[0]


def test_an_empty_mask_writes_what_the_mid_model_writes_alone(models):
    full, mid = models
    prompt = [0, 7, 8, 9]
    rows = Tandem(full, mid, Injector(coder(), HOOK), masks_of(2), [1.0, 5.0]).write(
        prompt, 8, NEVER
    )
    with torch.inference_mode():
        alone = mid.network.generate(
            torch.tensor([prompt]), max_new_tokens=8, min_new_tokens=8, do_sample=False
        )
    expected = alone[0, len(prompt) :].tolist()
    assert rows[0] == expected


def test_a_row_stops_after_an_ending_token_and_the_others_go_on(models):
    full, mid = models
    masks, alphas = masks_of(4), [1.0, 1.0, 2.0, 3.0]
    tandem = Tandem(full, mid, Injector(coder(), HOOK), masks, alphas)
    free = tandem.write([0, 10, 20], 8, NEVER)
    stop = next(token for token in free[0][1:] if any(token not in row for row in free))
    ends = NEVER.clone()
    ends[stop] = True
    cut = [row[: row.index(stop) + 1] if stop in row else row for row in free]
    assert tandem.write([0, 10, 20], 8, ends) == cut
    assert len({len(row) for row in cut}) > 1


def test_a_row_does_not_stop_before_it_has_the_least_tokens(models):
    full, mid = models
    tandem = Tandem(full, mid, Injector(coder(), HOOK), masks_of(1), [1.0])
    free = tandem.write([0, 10, 20], 8, NEVER)[0]
    ends = NEVER.clone()
    ends[free[0]] = True  # what it would begin with
    held = tandem.write([0, 10, 20], 8, ends, least=3)[0]
    assert tandem.write([0, 10, 20], 8, ends)[0] == free[:1]
    assert free[0] not in held[:3]
    with torch.inference_mode():
        alone = mid.network.generate(
            torch.tensor([[0, 10, 20]]), max_new_tokens=8, min_new_tokens=3, do_sample=False,
            eos_token_id=free[0],
        )  # fmt: skip
    assert held == alone[0, 3:].tolist()


def test_what_ends_an_answer(models):
    _, mid = models
    ends = translate.ends(mid.tokenizer, 257)
    newline = mid.tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert ends.nonzero()[:, 0].tolist() == sorted([0, *newline])
