"""Every SAE loader against its library's own encode, and what must be refused."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.saes import threshold
from langsae.saes.bank import load_bank, locate, write_index
from langsae.saes.load import load_sae
from langsae.saes.npz_format import read_npz
from langsae.saes.probe import check_fit, probe
from langsae.saes.spec import FolderBank
from langsae.saes.threshold import ThresholdSAE

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its CPU decode crashes where Triton is installed
X = torch.from_numpy(
    np.random.default_rng(1).standard_normal((50, tiny_models.D_MODEL), dtype=np.float32)
)


def unpack(files, prefix, folder):
    """Write those of `files` (path → bytes) that lie under `prefix` into `folder`."""
    for path, content in files.items():
        if path.startswith(f"{prefix}/"):
            (folder / path.rsplit("/", 1)[1]).write_bytes(content)
    return folder


@pytest.fixture
def res_jb(tmp_path):
    return unpack(tiny_models.gpt2_saes(), "blocks.1.hook_resid_pre", tmp_path)


def assert_same(sae, expected):
    codes = sae.encode(X)
    assert expected.count_nonzero() > 0
    torch.testing.assert_close(codes.dense(), expected, rtol=1e-5, atol=1e-5)
    assert bool((codes.token.diff() >= 0).all()), "codes are ordered by token"


def test_sae_lens_relu(res_jb):
    from sae_lens import SAE

    sae = load_sae(res_jb, HookPoint("resid_pre", 1), "relu")
    theirs = SAE.load_from_disk(res_jb, device="cpu", dtype="float32")
    with torch.no_grad():
        assert_same(sae, theirs.encode(X))
        torch.testing.assert_close(sae.decode(sae.encode(X)), theirs(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_sae_lens_other_architectures(tmp_path, architecture):
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    if architecture == "jumprelu":
        theirs = JumpReLUSAE(JumpReLUSAEConfig(d_in=tiny_models.D_MODEL, d_sae=64))
        torch.nn.init.uniform_(theirs.threshold, 0.1, 1.0)
    else:
        theirs = TopKSAE(TopKSAEConfig(d_in=tiny_models.D_MODEL, d_sae=64, k=5))
    torch.nn.init.normal_(theirs.b_dec)
    torch.nn.init.normal_(theirs.b_enc)
    theirs.save_model(tmp_path)
    with torch.no_grad():
        expected = theirs.encode(X)
    assert_same(load_sae(tmp_path, HookPoint("resid_post", 0), architecture), expected.to_dense())


def test_sparsify(tmp_path):
    from sparsify import SparseCoder

    folder = unpack(tiny_models.sparsify_saes(), "layers.1.mlp", tmp_path)
    theirs = SparseCoder.load_from_disk(folder, device="cpu")
    sae = load_sae(folder, HookPoint.parse("layers.1.mlp"), "topk")
    with torch.no_grad():
        out = theirs.encode(X[:, : theirs.d_in])
        dense = torch.zeros(len(X), theirs.num_latents).scatter_(1, out.top_indices, out.top_acts)
    assert sae.k == theirs.cfg.k
    assert_same(sae, dense)


def test_gemma_scope_npz_is_a_jumprelu(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "W_enc": rng.standard_normal((tiny_models.D_MODEL, 40)),
        "b_enc": rng.standard_normal(40),
        "W_dec": rng.standard_normal((40, tiny_models.D_MODEL)),
        "b_dec": rng.standard_normal(tiny_models.D_MODEL),
        "threshold": rng.uniform(0.5, 2, 40),
    }
    np.savez(tmp_path / "params.npz", **{k: v.astype(np.float32) for k, v in arrays.items()})
    pre = X.double().numpy() @ arrays["W_enc"] + arrays["b_enc"]  # JumpReLU, by its definition
    expected = torch.from_numpy(np.where(pre > arrays["threshold"], pre, 0)).float()
    assert_same(load_sae(tmp_path, HookPoint("resid_post", 20), "jumprelu"), expected)


@pytest.mark.parametrize("tile", [1, 700, 1 << 22])
@pytest.mark.parametrize("jump", [False, True])
def test_tiles_of_latents_do_not_change_the_codes(monkeypatch, tile, jump):
    """One latent at a time, an uneven last tile, or all at once, against the dense definition."""
    draw = np.random.default_rng(2).standard_normal
    d = tiny_models.D_MODEL
    W_enc, b_enc, shift = draw((d, 40)), draw(40), draw(d)
    bar = np.abs(draw(40)) if jump else np.zeros(40)
    pre = (X.double().numpy() - shift) @ W_enc + b_enc
    tensors = [torch.from_numpy(a).float() for a in (W_enc, b_enc, W_enc.T, shift, bar, shift)]
    if not jump:
        tensors[4] = None
    monkeypatch.setattr(threshold, "_TILE_ELEMENTS", tile)
    expected = torch.from_numpy(np.where(pre > bar, pre, 0)).float()
    assert_same(ThresholdSAE(*tensors), expected)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_npz_floats_of_any_kind_come_as_they_were(tmp_path, dtype):
    """Packed and in either order of axes too; NumPy's own reader is the oracle."""
    drawn = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", a=drawn, b=np.asfortranarray(drawn), c=drawn[:0])
        found = read_npz(tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as expected:
            assert found.keys() == set(expected.files)
            for name, array in found.items():
                assert array.dtype == np.float32
                np.testing.assert_array_equal(array, expected[name].astype(np.float32))


def test_a_relative_folder_starts_where_the_command_runs(tmp_path, monkeypatch):
    """Not in the bank's folder, which is a hidden one while it is being made."""
    unpack(tiny_models.gpt2_saes(), "blocks.1.hook_resid_pre", _made(tmp_path / "own" / "sae.1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWN", "own")
    spec = FolderBank(source="folder", path="$OWN/sae.{layer}", model="m", corpus="c",
                      hooks=("resid_pre.1",))  # fmt: skip
    bank = _made(tmp_path / "artifacts" / "saes" / ".own.tmp")
    write_index(bank, spec, locate(spec), {})
    bank = bank.rename(bank.with_name("own"))
    coders = load_bank(bank, torch.device("cpu"))
    expected = load_sae(tmp_path / "own" / "sae.1", HookPoint("resid_pre", 1))
    assert torch.equal(coders[HookPoint("resid_pre", 1)].W_enc, expected.W_enc)
    assert str(tmp_path) not in (bank / "bank.json").read_text()  # it may move with its project


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def spoil(folder, change):
    weights = load_file(folder / "sae_weights.safetensors")
    weights = {key: value.clone() for key, value in weights.items()}
    change(weights)
    save_file(weights, folder / "sae_weights.safetensors")


def set_nan(weights):
    weights["W_dec"][0, 0] = float("nan")


def set_infinite(weights):
    weights["b_enc"][0] = float("inf")


def cut_width(weights):
    weights["W_dec"] = weights["W_dec"][:, :-1].contiguous()


def drop_bias(weights):
    del weights["b_enc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [(set_nan, "NaN"), (set_infinite, "infinite"), (cut_width, "shape"), (drop_bias, "missing")],
)
def test_spoiled_weights_are_refused(res_jb, change, message):
    spoil(res_jb, change)
    with pytest.raises(InputError, match=message):
        load_sae(res_jb, HookPoint("resid_pre", 1))


def test_wrong_hook_architecture_and_truncation_are_refused(res_jb, tmp_path):
    with pytest.raises(InputError, match="trained at"):
        load_sae(res_jb, HookPoint("resid_pre", 0))
    with pytest.raises(InputError, match="is a relu SAE, not topk"):
        load_sae(res_jb, HookPoint("resid_pre", 1), "topk")
    weights = res_jb / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="not whole"):
        load_sae(res_jb, HookPoint("resid_pre", 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no SAE there"):
        load_sae(tmp_path / "empty", HookPoint("resid_pre", 1))


def test_topk_sae_lens_config_is_not_read_as_relu(res_jb):
    config = json.loads((res_jb / "cfg.json").read_text())
    config |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    (res_jb / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="is a topk SAE, not relu"):
        load_sae(res_jb, HookPoint("resid_pre", 1), "relu")
    assert len(load_sae(res_jb, HookPoint("resid_pre", 1)).encode(X).value) == 4 * len(X)


def identity_sae(scale=1.0):
    """Reconstructs x exactly (times `scale`): positive and negative part of each dimension."""
    eye = torch.eye(8)
    return ThresholdSAE(
        torch.cat([eye, -eye], 1), torch.zeros(16), scale * torch.cat([eye, -eye]), torch.zeros(8)
    )


def test_probe_and_refusal_of_a_misfit():
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    hook = HookPoint("resid_post", 0)
    figures = probe(identity_sae(), x)
    assert figures["fvu"] < 1e-12
    assert figures["l0"] == 8
    # scale s leaves (1 - s) x: FVU is about (1 - s)²
    assert probe(identity_sae(0.5), x)["fvu"] == pytest.approx(0.25, rel=0.02)
    with pytest.raises(InputError, match="another stream"):
        check_fit({hook: identity_sae(-1.0)}, [{hook: x}])
    with pytest.raises(InputError, match="width"):
        check_fit({hook: identity_sae()}, [{hook: x[:, :7]}])
