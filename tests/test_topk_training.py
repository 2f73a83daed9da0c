"""TopK SAEs against a dense float64 reference, two other libraries, and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from langsae.errors import InputError
from langsae.params import parse
from langsae.saes import sparse_step
from langsae.saes.topk import InputNorm, TopKSAE
from langsae.saes.train import TopKTrainer, TrainSpec, geometric_median
from langsae.saes.train_bank import LOG, train_bank

D, N, K, BATCH = 24, 512, 8, 64


@pytest.fixture(autouse=True)
def one_thread():
    """These sizes gain nothing from threads, and lose much on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec(**changes) -> TrainSpec:
    given = {"n_latents": N, "k": K, "batch_tokens": BATCH, "lr": 2e-3, "warmup_steps": 20}
    return TrainSpec(**{**given, "input_norm": "none", "log_every": 5, **changes})


def activations(tokens: int, seed: int = 0) -> torch.Tensor:
    """Sparse mixtures of 60 fixed directions, off centre, with one dimension of large values."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(60, D, generator=generator)
    generator.manual_seed(seed + 2)
    mix = torch.rand(tokens, 60, generator=generator)
    x = (mix * (mix > 0.93)) @ directions + 0.3
    x[:, 3] *= 8
    return x + 0.02 * torch.randn(tokens, D, generator=generator)


class DenseReference:
    """The same training written densely in float64 with PyTorch's autograd and its own Adam."""

    def __init__(self, trainer: TopKTrainer) -> None:
        self.spec = trainer.spec
        self.weights = {
            name: weight.detach().double().clone().requires_grad_()
            for name, weight in trainer.weights.items()
        }
        self.moments = {name: [torch.zeros_like(w)] * 2 for name, w in self.weights.items()}
        self.steps = 0

    def step(self, x: torch.Tensor) -> float:
        w = self.weights
        pre = (x - w["b_dec"]) @ w["W_enc"].T + w["b_enc"]
        keep = pre >= pre.sort(1, descending=True).values[:, K - 1 : K]
        codes = torch.where(keep, pre.relu() if self.spec.relu else pre, 0.0)
        loss = (codes @ w["W_dec"] + w["b_dec"] - x).square().sum(1).mean()
        gradients = torch.autograd.grad(loss, list(w.values()))
        self.steps += 1
        rate = self.spec.lr * min(1, self.steps / self.spec.warmup_steps)
        first, second = self.spec.adam_betas
        with torch.no_grad():
            for (name, weight), gradient in zip(w.items(), gradients, strict=True):
                if name == "b_enc" and not self.spec.encoder_bias:
                    continue
                m, v = self.moments[name]
                m = first * m + (1 - first) * gradient
                v = second * v + (1 - second) * gradient**2
                self.moments[name] = [m, v]
                scale = (v / (1 - second**self.steps)).sqrt() + self.spec.adam_eps
                weight -= rate * m / (1 - first**self.steps) / scale
            w["W_dec"] /= w["W_dec"].norm(dim=1, keepdim=True)
        return loss.item()


def losses(steps: int = 200, **changes) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the trainer and of the reference from the same start on the same batches."""
    trainer = TopKTrainer(spec(**changes), D, "hook")
    first = activations(BATCH)
    trainer.weights["b_dec"].copy_(geometric_median(first))
    reference = DenseReference(trainer)
    pairs = [
        (trainer.step(x), reference.step(x.double()))
        for x in (activations(BATCH, seed=step) for step in range(steps))
    ]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


@pytest.mark.parametrize(
    ("relu", "encoder_bias", "encoder"),
    [
        (True, True, "float32"),
        (True, False, "float32"),
        (False, True, "float32"),
        (True, True, "bfloat16"),
        (False, True, "int8"),
    ],
)
def test_loss_follows_dense_float64(relu, encoder_bias, encoder):
    ours, reference = losses(relu=relu, encoder_bias=encoder_bias, encoder=encoder)
    assert reference[-20:].mean() < 0.7 * reference[:20].mean()  # it does learn
    np.testing.assert_allclose(ours, reference, rtol=1e-4)


def test_oracle_notices_a_wrong_gradient(monkeypatch):
    right = sparse_step.Slots.sum
    monkeypatch.setattr(
        sparse_step.Slots, "sum", lambda self, values, x: right(self, values, x) + 1e-3
    )
    ours, reference = losses(steps=40)
    assert np.abs(ours / reference - 1).max() > 1e-3


def random_sae(k: int = K, n: int = N, **changes) -> TopKSAE:
    torch.manual_seed(3)
    rows = F.normalize(torch.randn(n, D), dim=1)
    given = {"W_enc": torch.randn(n, D) / 5, "b_enc": torch.randn(n) / 10, "W_dec": rows}
    return TopKSAE(**{**given, "b_dec": torch.randn(D), "k": k, "hook": "resid_post.9", **changes})


def test_encode_and_decode_equal_sparsify(monkeypatch):
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")
    sparsify = pytest.importorskip("sparsify")
    sae, x = random_sae(), activations(300)
    other = sparsify.SparseCoder(D, sparsify.SparseCoderConfig(num_latents=N, k=K))
    other.load_state_dict(
        {
            "encoder.weight": sae.W_enc,
            "encoder.bias": sae.b_enc,
            "W_dec": sae.W_dec,
            "b_dec": sae.b_dec,
        }
    )
    with torch.no_grad():
        theirs = other.encode(x)
        dense = torch.zeros(300, N).scatter(1, theirs.top_indices, theirs.top_acts)
        decoded = other.decode(theirs.top_acts, theirs.top_indices)
    codes = sae.encode(x)
    torch.testing.assert_close(codes.dense(), dense)
    torch.testing.assert_close(sae.decode(codes), decoded)
    torch.testing.assert_close(sae.decode(codes.active()), decoded)


def test_encode_equals_sae_lens():
    sae_lens = pytest.importorskip("sae_lens")
    sae, x = random_sae(), activations(300)
    other = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=D, d_sae=N, k=K))
    other.load_state_dict(
        {"W_enc": sae.W_enc.T, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    )
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x).dense(), other.encode(x))


@pytest.mark.parametrize("encoder", ["bfloat16", "int8"])
@pytest.mark.parametrize("outlier", [1.0, 100.0])
def test_screened_search_finds_the_largest(encoder, outlier):
    torch.manual_seed(4)
    x, W, b = torch.randn(1200, D), torch.randn(2048, D), torch.randn(2048)
    x[:, 5] *= outlier
    x[7] *= 1000
    pre = x.double() @ W.double().T + b.double()
    values, indices = sparse_step.top_preactivations(x, W, b, K, encoder)
    expected = pre.topk(K, dim=1).values
    torch.testing.assert_close(
        values.double().sort(1, descending=True).values, expected, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(values.double(), pre.gather(1, indices), rtol=1e-5, atol=1e-4)
    assert all(len(set(row)) == K for row in indices.tolist())


@pytest.mark.parametrize(("n", "k"), [(32 * 64, 8), (1000, 7), (64, 64)])
def test_top_columns(n, k):
    pre = torch.randn(50, n, generator=torch.Generator().manual_seed(5))
    values, indices = sparse_step.top_columns(pre, k)
    assert torch.equal(values.sort(1, descending=True).values, pre.topk(k).values)
    assert torch.equal(pre.gather(1, indices), values)


def test_every_slot_is_kept_and_ordered_by_token():
    codes = random_sae(b_enc=torch.full((N,), -100.0)).encode(activations(5))
    assert torch.equal(codes.token, torch.arange(5).repeat_interleave(K))
    assert codes.value.eq(0).all()
    assert len(codes.active().value) == 0
    assert random_sae(relu=False).encode(activations(5)).shape == (5, N)


def test_input_norms():
    x = activations(1000)
    standard = InputNorm.fit("standard", x)
    assert standard(x).mean(0).abs().max() < 1e-5
    assert standard(x).square().sum(1).mean().item() == pytest.approx(D, rel=1e-5)
    torch.testing.assert_close(InputNorm("l2")(x).norm(dim=1), torch.ones(1000))
    assert torch.equal(InputNorm()(x), x)
    with pytest.raises(InputError, match="all vectors are equal"):
        InputNorm.fit("standard", torch.ones(5, D))


def test_geometric_median_against_a_grid():
    x = torch.randn(41, 2, generator=torch.Generator().manual_seed(6)) ** 3
    axis = torch.linspace(-2, 2, 801)
    grid = torch.cartesian_prod(axis, axis)
    best = grid[torch.cdist(grid, x).sum(1).argmin()]
    torch.testing.assert_close(geometric_median(x), best, atol=0.006, rtol=0)


def test_start_and_unit_rows():
    trainer = TopKTrainer(spec(), D, "hook")
    assert torch.equal(trainer.weights["W_enc"], trainer.weights["W_dec"])
    for step in range(5):
        trainer.step(activations(BATCH, step))
        torch.testing.assert_close(trainer.weights["W_dec"].norm(dim=1), torch.ones(N))
    assert trainer.log[0]["step"] == 5
    with pytest.raises(InputError, match="lower the lr"):
        trainer.step(torch.full((BATCH, D), float("nan")))


@pytest.mark.parametrize(
    "bad",
    [
        {"k": 600},
        {"lr": 0},
        {"adam_betas": (0.9, 1.0)},
        {"encoder": "float16"},
        {"batch_tokens": 0},
        {"l1": 1},
    ],
)
def test_spec_refuses(bad):
    with pytest.raises(InputError, match="train"):
        parse(TrainSpec, {"n_latents": N, "k": K, **bad}, "train")


def test_save_and_load(tmp_path):
    for norm in (InputNorm("l2"), InputNorm.fit("standard", activations(100))):
        sae = random_sae(norm=norm, relu=False)
        sae.save(tmp_path / "sae")
        again = TopKSAE.load(tmp_path / "sae")
        assert again.describe() == sae.describe()
        assert torch.equal(again.encode(activations(9)).value, sae.encode(activations(9)).value)


def _edit(folder: Path, tensors=None, **config) -> None:
    path = folder / "sae.safetensors"
    kept = {**safetensors.torch.load_file(path), **(tensors or {})}
    kept = {name: tensor.clone() for name, tensor in kept.items() if tensor is not None}
    safetensors.torch.save_file(kept, path)
    path = folder / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": {"b_dec": None}}, r"sae\.safetensors: lacks b_dec"),
        ({"tensors": {"b_enc": torch.zeros(3)}}, r"sae\.safetensors: b_enc: shape"),
        ({"tensors": {"b_dec": torch.full((D,), torch.nan)}}, r"sae\.safetensors: b_dec: .*NaN"),
        ({"tensors": {"W_enc": torch.full((N, D), torch.inf)}}, r"sae\.safetensors: W_enc"),
        ({"tensors": {"W_enc": torch.zeros(N, D + 1)}}, r"W_enc .* not as cfg\.json says"),
        ({"k": 0}, "k is 0"),
        ({"k": N + 1}, "k is 513"),
        ({"k": "8"}, r"cfg\.json: 'k'"),
        ({"format": "other"}, r"cfg\.json: not a langsae\.topk"),
        ({"version": 2}, r"cfg\.json: version 2"),
        ({"input_norm": "standard"}, "'mean' missing"),
        ({"input_norm": "batch"}, r"cfg\.json: unknown input_norm"),
        ({"input_scale": 0.0}, "scale is 0"),
    ],
)
def test_load_refuses(tmp_path, change, message):
    random_sae().save(tmp_path / "sae")
    _edit(tmp_path / "sae", **change)
    with pytest.raises(InputError, match=message):
        TopKSAE.load(tmp_path / "sae")


def test_load_refuses_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match=r"cfg\.json: no such file"):
        TopKSAE.load(tmp_path / "none")
    random_sae().save(tmp_path / "sae")
    (tmp_path / "sae" / "sae.safetensors").write_bytes(b"\x08")
    with pytest.raises(InputError, match=r"sae\.safetensors: not a safetensors"):
        TopKSAE.load(tmp_path / "sae")
    (tmp_path / "sae" / "sae.safetensors").unlink()
    with pytest.raises(InputError, match=r"sae\.safetensors: no such file"):
        TopKSAE.load(tmp_path / "sae")


class Chunks:
    """Three chunks for two hooks; counts what was computed."""

    def __init__(self, tokens: int = 350) -> None:
        self.tokens, self.read = tokens, []

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.read.append(index)
        x = activations(self.tokens, index)
        return {"resid_post.1": x, "resid_post.2": 2 * x.flip(1)}


BANK = {
    "resid_post.1": spec(input_norm="standard", epochs=2),
    "resid_post.2": spec(input_norm="l2", epochs=2, encoder="int8"),
}


def bank(folder: Path, chunks: Chunks | None = None, **changes) -> dict[str, bytes]:
    """Train the bank in `folder`; the published files' bytes by path."""
    given = {"specs": BANK, "scratch": folder / "s", "out": folder / "out", **changes}
    train_bank(chunks or Chunks(), **given)
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_bank_publishes_and_reads_each_chunk_once_an_epoch(tmp_path):
    chunks = Chunks()
    files = bank(tmp_path, chunks)
    assert len(files) == 6
    assert chunks.read[-6:] == [0, 1, 2, 0, 1, 2]
    log = json.loads(files[f"out/resid_post.1/{LOG}"])
    assert [line["step"] for line in log] == [5, 10, 15, 20, 25, 30]  # 350 // 64 = 5 a chunk
    assert set(log[0]) == {"step", "loss", "fvu", "dead_fraction"}
    assert log[-1]["fvu"] < log[0]["fvu"]
    assert TopKSAE.load(tmp_path / "out" / "resid_post.2").norm.kind == "l2"


@pytest.mark.parametrize("at", [1, 13, 38])
def test_resumed_run_is_identical(tmp_path, monkeypatch, at):
    whole = bank(tmp_path / "whole")
    taken, step = [0], TopKTrainer.step

    def failing(self, x):
        taken[0] += 1
        if taken[0] == at:
            raise KeyboardInterrupt
        return step(self, x)

    monkeypatch.setattr(TopKTrainer, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        bank(tmp_path / "killed", checkpoint_seconds=0.01)
    assert not (tmp_path / "killed" / "out").exists()
    assert bank(tmp_path / "killed") == whole


def test_killed_process_resumes_identically(tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import test_topk_training as t;"
        "from pathlib import Path; step = t.TopKTrainer.step;"
        "t.TopKTrainer.step = lambda s, x: (time.sleep(0.05), step(s, x))[1];"
        "t.torch.set_num_threads(int(sys.argv[3]));"
        "t.bank(Path(sys.argv[2]), checkpoint_seconds=0.1)"
    )
    here, threads = str(Path(__file__).parent), str(torch.get_num_threads())
    process = subprocess.Popen([sys.executable, "-c", code, here, str(tmp_path / "k"), threads])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "k" / "s").glob("resid_post.2.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "k" / "out").exists()
    assert bank(tmp_path / "k") == bank(tmp_path / "whole")


def test_state_of_another_training_is_refused(tmp_path):
    bank(tmp_path)
    other = {hook: given.model_copy(update={"lr": 1e-3}) for hook, given in BANK.items()}
    with pytest.raises(InputError, match="state of another training"):
        bank(tmp_path, specs=other)


def test_finished_state_is_not_trained_again(tmp_path):
    whole, chunks = bank(tmp_path), Chunks()
    assert bank(tmp_path, chunks) == whole
    assert chunks.read == []


def test_lost_state_of_one_hook_is_trained_anew(tmp_path):
    whole = bank(tmp_path, checkpoint_seconds=0)
    (tmp_path / "s" / "resid_post.2.safetensors").unlink()
    assert bank(tmp_path) == whole


def test_bank_refuses_chunks_without_a_batch_or_hook(tmp_path):
    with pytest.raises(InputError, match="no chunk holds a batch of 64 tokens"):
        bank(tmp_path, Chunks(tokens=40))
    with pytest.raises(InputError, match=r"no activations of resid_post\.9"):
        bank(tmp_path, specs={"resid_post.9": spec()})
