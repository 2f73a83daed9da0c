"""The single pass against a dense NumPy reference, whatever the batches, shards and kills."""

import numpy as np
import pytest
import torch

from langsae import stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.metrics import reconstruction
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import TokenPolicy, tokenise
from langsae.reducers import base
from langsae.reducers.counts import FeatureCounts
from langsae.reducers.reconstruction import Reconstruction
from langsae.saes.threshold import ThresholdSAE

D, F = 32, 70
HOOKS = (HookPoint("resid_post", 0), HookPoint("resid_pre", 2))
WORDS = ["the", "of", "in", "que", "des", "und", "наш", "мир", "世界", "です", "नमस्ते", "مرحبا"]


def random_sae(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return ThresholdSAE(draw(D, F), draw(F), draw(F, D), draw(D), input_bias=draw(D))


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    prepare(TinyModel(source="tiny", d_model=D), folder / "m")
    model = load(folder / "m", "cpu")
    rng = np.random.default_rng(0)
    texts = {
        code: tuple(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(12))
        for code in ("en", "hi", "ar")
    }
    corpus = tokenise(model.tokenizer, ParallelCorpus("c", texts, aligned=False), TokenPolicy())
    return model, {hook: random_sae(seed) for seed, hook in enumerate(HOOKS)}, corpus


def fresh(setting, corpus_digest="0"):
    model, bank, corpus = setting
    header = stream.header(model, bank, corpus, corpus_digest)
    return [
        FeatureCounts(header, len(HOOKS), 3, F),
        Reconstruction(header, len(HOOKS), 3, D),
    ]


def collected(setting, tmp_path, batch_tokens=600, shards=1, seconds=60):
    model, bank, corpus = setting
    compute = Compute(device="cpu", batch_tokens=batch_tokens, checkpoint_seconds=seconds)
    whole = None
    for shard in reversed(range(shards)):
        part = fresh(setting)
        stream.collect(model, bank, corpus, part, compute, tmp_path, (shard, shards))
        if whole is None:
            whole = part
        else:
            for ours, theirs in zip(whole, part, strict=True):
                ours.merge(theirs)
    return whole


def dense_reference(setting):
    """The study's own way, in float64: text by text, every latent of every position."""
    model, bank, corpus = setting
    active = np.zeros((len(HOOKS), 3, F), np.int64)
    total = np.zeros((len(HOOKS), 3, F))
    error = np.zeros((len(HOOKS), 3))
    for ids, language in zip(corpus.ids, corpus.language, strict=True):
        taken = model.activations(torch.tensor([ids]), HOOKS)
        for at, hook in enumerate(HOOKS):
            sae = bank[hook]
            x = taken[hook][0, 1:].double().numpy()  # without the BOS
            pre = (x - sae.input_bias.double().numpy()) @ sae.W_enc.double().numpy()
            z = np.maximum(pre + sae.b_enc.double().numpy(), 0)
            active[at, language] += (z > 0).sum(0)
            total[at, language] += z.sum(0)
            x_hat = z @ sae.W_dec.double().numpy() + sae.b_dec.double().numpy()
            error[at, language] += ((x - x_hat) ** 2).sum()
    return active, total, error


def test_stream_equals_the_dense_reference(setting, tmp_path):
    counts, errors = collected(setting, tmp_path)
    active, total, error = dense_reference(setting)
    assert active.sum() > 1000
    np.testing.assert_array_equal(counts.state["active"].numpy(), active)
    np.testing.assert_allclose(counts.state["total"].numpy(), total, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(errors.state["error"].numpy(), error, rtol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
def test_batch_size_does_not_matter(setting, tmp_path, batch_tokens):
    counts, errors = collected(setting, tmp_path, batch_tokens)
    active, total, error = dense_reference(setting)
    np.testing.assert_array_equal(counts.state["active"].numpy(), active)
    np.testing.assert_allclose(counts.state["total"].numpy(), total, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(errors.state["error"].numpy(), error, rtol=1e-5)


def test_shards_in_any_order_give_the_same_bytes(setting, tmp_path):
    for name, shards in (("one", 1), ("three", 3)):
        for reducer in collected(setting, tmp_path, shards=shards):
            reducer.save(tmp_path / f"{name}.{reducer.name}")
    for reducer in fresh(setting):
        files = [tmp_path / f"{name}.{reducer.name}" for name in ("one", "three")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_killed_run_resumes_to_the_same_bytes(setting, tmp_path, monkeypatch):
    """Killed in batch after batch, each time past a checkpoint, until it is done."""
    expected = collected(setting, tmp_path / "whole", 200)
    take, calls = stream._take, []

    def fragile(*arguments):
        calls.append(1)
        if len(calls) % 4 == 0:
            raise KeyboardInterrupt
        take(*arguments)

    monkeypatch.setattr(stream, "_take", fragile)
    monkeypatch.setattr(stream.time, "monotonic", iter(range(0, 10**9, 100)).__next__)
    kills = 0
    while True:
        try:
            again = collected(setting, tmp_path / "killed", 200)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 2
    for ours, theirs in zip(again, expected, strict=True):
        assert all(torch.equal(ours.state[key], theirs.state[key]) for key in ours.state)
    assert not any((tmp_path / "killed").iterdir()), "the scratch folder goes when it is done"


def test_merging_and_loading_across_headers_is_refused(setting, tmp_path):
    counts, other = fresh(setting)[0], fresh(setting, "another corpus")[0]
    with pytest.raises(InputError, match="another corpus"):
        counts.merge(other)
    counts.save(tmp_path / "counts")
    with pytest.raises(InputError, match="another corpus"):
        other.restore(tmp_path / "counts")
    with pytest.raises(InputError, match="holds 'feature_counts'"):
        base.read(tmp_path / "counts", "reconstruction")
    (tmp_path / "counts").write_bytes((tmp_path / "counts").read_bytes()[:-8])
    with pytest.raises(InputError, match="not a whole"):
        base.read(tmp_path / "counts", "feature_counts")


def test_codes_that_are_not_finite_are_refused(setting, tmp_path):
    model, _, corpus = setting
    broken = random_sae(0)
    broken.b_enc[3] = float("inf")
    bank = {HOOKS[0]: ThresholdSAE(broken.W_enc, broken.b_enc, broken.W_dec, broken.b_dec)}
    with pytest.raises(InputError, match="not finite"):
        stream.collect(model, bank, corpus, fresh(setting), Compute(device="cpu"), tmp_path)


def test_exact_sums_do_not_depend_on_their_order():
    """Where plain float64 sums do."""
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 1e4
    shuffled = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(1))]
    plain = [float(part.numpy().cumsum(dtype=np.float32)[-1]) for part in (values, shuffled)]
    grid = 2.0**-20
    sums = float(base.exact(values, grid).sum()), float(base.exact(shuffled, grid).sum())
    assert plain[0] != plain[1]
    assert sums[0] == sums[1] == pytest.approx(float(values.double().sum()), abs=100_000 * grid)


def test_a_sum_too_large_to_be_exact_is_refused(setting, tmp_path):
    counts = fresh(setting)[0]
    counts.state["total"][0, 0, 0] = 2.0**34
    with pytest.raises(InputError, match="exact"):
        counts.save(tmp_path / "counts")


def test_unexplained_variance_against_numpy():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(40, 6)) + 3, rng.normal(size=(70, 6)) * 2]
    x_hat = [part + 0.3 * rng.normal(size=part.shape) for part in x]
    sums = {
        "error": [((a - b) ** 2).sum() for a, b in zip(x, x_hat, strict=True)],
        "square": [(a**2).sum() for a in x],
        "mean": [a.sum(0) for a in x],
        "tokens": [len(a) for a in x],
    }
    fvu = reconstruction.unexplained_variance(**{k: np.array([v]) for k, v in sums.items()})
    centre = np.concatenate(x).mean(0)
    expected = [
        ((a - b) ** 2).sum() / ((a - centre) ** 2).sum() for a, b in zip(x, x_hat, strict=True)
    ]
    np.testing.assert_allclose(fvu[0], expected)
