"""SAEs written in sparsify's layout, against what sparsify itself reads and computes."""

import os

import pytest
import torch

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.saes.load import load_sae
from langsae.saes.sparsify_format import write_sparsify
from langsae.saes.topk import InputNorm, TopKSAE

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its CPU decode crashes where Triton is installed
D, N, K = 12, 48, 5
GENERATOR = torch.Generator().manual_seed(0)
X = 30 + 7 * torch.randn(200, D, generator=GENERATOR)


def sae(norm="none", **changes) -> TopKSAE:
    def draw(*shape):
        return torch.randn(*shape, generator=GENERATOR)

    weights = {
        "W_enc": draw(N, D),
        "b_enc": draw(N),
        "W_dec": torch.nn.functional.normalize(draw(N, D), dim=1),
        "b_dec": draw(D),
    }
    options = {"k": K, "hook": "mlp_out.3", "norm": InputNorm.fit(norm, X)}
    return TopKSAE(**weights | options | changes)


def theirs(folder):
    """sparsify's dense codes of X and its reconstruction."""
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(folder, device="cpu")
    with torch.no_grad():
        out = coder.encode(X)
        dense = torch.zeros(len(X), coder.num_latents)
        dense.scatter_(1, out.top_indices, out.top_acts)
        return coder, dense, coder.decode(out.top_acts, out.top_indices)


def test_sparsify_computes_the_same_codes(tmp_path):
    own = sae()
    write_sparsify(own, tmp_path / "layers.3.mlp")
    coder, dense, decoded = theirs(tmp_path / "layers.3.mlp")
    codes = own.encode(X)
    assert coder.cfg.k == K
    assert dense.count_nonzero() == len(X) * K
    torch.testing.assert_close(codes.dense(), dense, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(own.decode(codes), decoded, rtol=1e-5, atol=1e-4)


def test_input_normalisation_is_folded(tmp_path):
    """The same latents, in the model's units, and the reconstruction of what was not normalised."""
    own = sae("standard")
    write_sparsify(own, tmp_path / "sae")
    coder, dense, decoded = theirs(tmp_path / "sae")
    codes = own.encode(X)
    scale, mean = own.norm.scale, own.norm.mean
    assert scale > 5
    torch.testing.assert_close(scale * codes.dense(), dense, rtol=1e-4, atol=1e-3)
    assert torch.equal(codes.dense() > 0, dense > 0)
    torch.testing.assert_close(scale * own.decode(codes) + mean, decoded, rtol=1e-4, atol=1e-3)
    assert coder.cfg.normalize_decoder
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.ones(N))


def test_langsae_reads_it_back(tmp_path):
    write_sparsify(sae("standard"), tmp_path / "layers.3.mlp")
    read = load_sae(tmp_path / "layers.3.mlp", HookPoint("mlp_out", 3), "topk")
    _, dense, _ = theirs(tmp_path / "layers.3.mlp")
    torch.testing.assert_close(read.encode(X).dense(), dense, rtol=1e-4, atol=1e-3)


def test_many_hook_points_load_at_once(tmp_path):
    from sparsify import SparseCoder

    for layer in (0, 1, 10):
        write_sparsify(sae(), tmp_path / f"layers.{layer}.mlp")
    many = SparseCoder.load_many(str(tmp_path), local=True)
    assert list(many) == ["layers.0.mlp", "layers.1.mlp", "layers.10.mlp"]


def test_equal_saes_are_equal_files(tmp_path):
    own = sae("standard")
    for name in ("a", "b"):
        write_sparsify(own, tmp_path / name)
    for file in ("cfg.json", "sae.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_decoder_without_unit_norm_is_not_called_normalised(tmp_path):
    own = sae(W_dec=torch.randn(N, D, generator=GENERATOR))
    write_sparsify(own, tmp_path / "sae")
    coder, dense, _ = theirs(tmp_path / "sae")
    assert not coder.cfg.normalize_decoder
    torch.testing.assert_close(own.encode(X).dense(), dense, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"norm": "l2"}, "cannot be folded"), ({"relu": False}, "no codes below zero")],
)
def test_what_sparsify_cannot_express_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        write_sparsify(sae(**change), tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []
