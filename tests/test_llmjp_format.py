"""The study's own SAE layout, against the formulas of its released code written out in NumPy."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save as to_safetensors

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.saes.load import load_sae
from standin_hub import run_with_hub

D, N, K = 8, 96, 5
HOOK = "resid_post.11"
REPO = "llm-jp/llm-jp-3-1.8b-sae-l12-k32-16x-c{step}"

# Locates, indexes and loads the SAE of `repo`; a copy in our own layout shows what was read.
FETCH = f"""
import os
from pathlib import Path
from langsae.saes.bank import load_bank, locate, write_index
from langsae.saes.spec import HubBank
folder = Path(os.environ["folder"])
spec = HubBank(source="hub", model="m", corpus="c", hooks=["{HOOK}"], repo=os.environ["repo"],
               path=".")
write_index(folder, spec, locate(spec), {{}})
[sae] = load_bank(folder, "cpu").values()
sae.save(folder / "copy")
"""


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((N, D)).astype(np.float32)
    return {
        "encoder.weight": rows + 0.1 * rng.standard_normal((N, D)).astype(np.float32),
        "encoder.bias": 0.1 * rng.standard_normal(N).astype(np.float32),
        "W_dec": rows / np.linalg.norm(rows, axis=1, keepdims=True),
        "b_dec": 0.1 * rng.standard_normal(D).astype(np.float32),
    }


def second_version(tensors: dict[str, np.ndarray], **config) -> dict[str, bytes]:
    """As save_pretrained leaves it: an nn.Linear as decoder, hence [d, n]."""
    named = {name: value for name, value in tensors.items() if name != "W_dec"}
    named["decoder.weight"] = np.ascontiguousarray(tensors["W_dec"].T)
    settings = {"model_type": "topk_sae", "d_in": D, "num_latents": N, "k": K, **config}
    return {
        "config.json": json.dumps(settings).encode(),
        "model.safetensors": to_safetensors(named, metadata={"format": "pt"}),
    }


def expected(tensors: dict[str, np.ndarray], x: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Codes [N, n] and reconstruction [N, d]: x / |x|, ReLU, then the k largest."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    acts = (x - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"]
    acts = np.maximum(acts, 0)
    codes = np.where(acts >= np.sort(acts, axis=1)[:, -k][:, None], acts, 0)
    return codes, codes @ tensors["W_dec"] + tensors["b_dec"]


def write(folder, files: dict[str, bytes]):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def as_pickle(folder, state) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "sae.pth")


def check(sae, tensors, k: int, tolerance: float = 1e-5) -> None:
    x = 7 * np.random.default_rng(1).standard_normal((40, D)).astype(np.float32)
    codes, decoded = expected(tensors, x, k)
    ours = sae.encode(torch.from_numpy(x))
    np.testing.assert_allclose(ours.dense().numpy(), codes, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(sae.decode(ours).numpy(), decoded, rtol=tolerance, atol=tolerance)
    assert (codes.astype(bool).sum(1) == k).any(), "k decides for some token"
    assert sae.describe()["k"] == k


def test_second_version(tmp_path):
    folder = write(tmp_path / "sae", second_version(weights()))
    check(load_sae(folder, HookPoint.parse(HOOK), "topk"), weights(), K)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_first_version(tmp_path, dtype):
    state = {name: torch.from_numpy(value).to(dtype) for name, value in weights().items()}
    as_pickle(tmp_path, state)
    rounded = {name: value.float().numpy() for name, value in state.items()}
    # its state dict does not tell k; all published SAEs have 32
    check(load_sae(tmp_path, HookPoint.parse(HOOK)), rounded, 32)
    (tmp_path / "config.json").write_text(json.dumps({"d_in": D, "n_dim": N, "k": K}))
    check(load_sae(tmp_path, HookPoint.parse(HOOK)), rounded, K)


def test_published_repositories(hub, tmp_path):
    """One repository a checkpoint, the SAE at its root; only the SAE's files are fetched."""
    commit = hub.add_repo(
        REPO.format(step=10), {**second_version(weights()), "README.md": b"", "notes.bin": b"1"}
    )
    run_with_hub(hub, FETCH, folder=str(tmp_path), repo=REPO.format(step=10))
    index = json.loads((tmp_path / "bank.json").read_text())["saes"][HOOK]
    assert index["place"] == {"repo": REPO.format(step=10), "revision": commit, "path": "."}
    assert set(index["sha256"]) == {"config.json", "model.safetensors"}
    assert not any(path.endswith("notes.bin") for path in hub.asked())
    written = load_sae(tmp_path / "copy", HookPoint.parse(HOOK))
    check(written, weights(), K)


class _Opens:
    """A pickle that would run code."""

    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"encoder.weight": _Opens()}, "not a state dict of tensors"),
        ([torch.ones(2)], "not a state dict"),
        ({"encoder.weight": 3}, "not a state dict"),
        ({"encoder.weight": torch.ones(N, D)}, "encoder.bias|decoder.weight.*missing"),
    ],
)
def test_other_pickles_are_refused(tmp_path, state, message):
    as_pickle(tmp_path, state)
    with pytest.raises(InputError, match=message) as caught:
        load_sae(tmp_path, HookPoint.parse(HOOK))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", pickle.dumps(_Opens(), 2)])
def test_broken_pickles_are_refused(tmp_path, content):
    write(tmp_path, {"sae.pth": content})
    with pytest.raises(InputError, match=r"sae\.pth: not a state dict"):
        load_sae(tmp_path, HookPoint.parse(HOOK))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_latents": N + 1}, "not of the sizes"),
        ({"num_latents": None, "n_dim": 2 * N}, "not of the sizes"),
        ({"num_latents": None, "expansion_factor": 2}, "not of the sizes"),
        ({"d_in": D + 1}, "not of the sizes"),
        ({"k": N + 1}, f"k is {N + 1}"),
    ],
)
def test_config_and_weights_must_agree(tmp_path, config, message):
    with pytest.raises(InputError, match=message):
        load_sae(write(tmp_path, second_version(weights(), **config)), HookPoint.parse(HOOK))


def test_spoiled_weights_are_refused(tmp_path):
    spoiled = weights()
    spoiled["W_dec"][3, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        load_sae(write(tmp_path, second_version(spoiled)), HookPoint.parse(HOOK))
    files = second_version(weights())
    files["model.safetensors"] = files["model.safetensors"][:-9]
    with pytest.raises(InputError, match="not whole"):
        load_sae(write(tmp_path / "cut", files), HookPoint.parse(HOOK))


def test_a_language_model_is_no_sae(tmp_path):
    lm = to_safetensors({"model.embed_tokens.weight": np.ones((3, 2), np.float32)})
    with pytest.raises(InputError, match="is missing from its weights"):
        load_sae(write(tmp_path, {"config.json": b"{}", "model.safetensors": lm}),
                 HookPoint.parse(HOOK))  # fmt: skip
