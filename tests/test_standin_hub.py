"""The real loaders against the stand-in hub, in a process that can reach nothing else.

Their imports cost half a minute of CPU, so one process runs every check:
`python test_standin_hub.py CHECK… COMMITS` prints what became of each.
"""

import hashlib
import json
import os
import sys
import traceback
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from safetensors.numpy import load as read_safetensors

import tiny_models
from standin_hub import TOKEN, StandinHub, run_with_hub

ATOL = 1e-5  # float32 sums of a few dozen terms, in another order
MODELS = {
    "gpt2-small": ("gpt2", "blocks.5.hook_resid_pre"),
    "pythia-70m-deduped": ("EleutherAI/pythia-70m-deduped", "blocks.3.hook_resid_post"),
}
SAES = {  # release and sae_id -> repository, folder, where its tiny files come from
    ("gpt2-small-res-jb", "blocks.{}.hook_resid_pre"): (
        "jbloom/GPT2-Small-SAEs-Reformatted",
        "blocks.{}.hook_resid_pre",
        tiny_models.gpt2_saes,
        tiny_models.GPT2_LAYERS,
    ),
    ("pythia-70m-deduped-res-sm", "blocks.{}.hook_resid_post"): (
        "ctigges/pythia-70m-deduped__res-sm_processed",
        "{}-res-sm",
        tiny_models.pythia_saes,
        tiny_models.PYTHIA_LAYERS,
    ),
}
LLAMA_SAES = "EleutherAI/sae-Llama-3.2-1B-131k"
GEMMA_SAES = "google/gemma-scope-2b-pt-res"
X = np.random.default_rng(0).standard_normal((5, tiny_models.D_MODEL)).astype(np.float32)


# In this order: by published name, then from pinned snapshots with the network gone.
CHECKS = (
    "check_models",
    "check_saes",
    "check_flores",
    "unplug",
    "check_local_models",
    "check_local_saes",
    "check_local_flores",
)


def run(hub, *checks, commits=None) -> dict[str, str]:
    """What became of each check: nothing to say, or its traceback."""
    command = [sys.executable, __file__, *checks, json.dumps(commits or {})]
    return json.loads(run_with_hub(hub, command, timeout=500).splitlines()[-1])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    with StandinHub(tmp_path_factory.mktemp("hub")) as hub:
        hub.commits = tiny_models.publish(hub)
        yield hub


def test_tiny_repositories_are_small_and_the_same_each_time(published, hub):
    files = (published.folder / "repos").rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) < 1_000_000
    assert tiny_models.publish(hub) == published.commits


@pytest.fixture(scope="module")
def outcomes(published):
    return run(published, *CHECKS, commits=published.commits)


@pytest.mark.parametrize("check", CHECKS)
def test_real_loaders(outcomes, check):
    assert not outcomes[check], outcomes[check]


def test_pinned_models_were_asked_for_by_commit(outcomes, published):
    commit = published.commits["gpt2"]
    assert f"/gpt2/resolve/{commit}/model.safetensors" in published.asked()


def test_an_old_commit_stays_pinned_and_patterns_limit_the_files(hub):
    old = hub.add_repo("org/model", {"a/x.json": b"old", "b/y.json": b"other"})
    hub.add_repo("org/model", {"a/x.json": b"new"})
    code = f"""
from pathlib import Path
from huggingface_hub import snapshot_download
root = Path(snapshot_download("org/model", revision="{old}", allow_patterns=["a/*"]))
assert root.name == "{old}" and (root / "a/x.json").read_bytes() == b"old"
assert not (root / "b").exists()
assert Path(snapshot_download("org/model"), "a/x.json").read_bytes() == b"new"
"""
    run_with_hub(hub, code)
    before = len(hub.requests)
    run_with_hub(hub, code, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == before
    assert f"/org/model/resolve/{old}/a/x.json" in hub.asked()
    assert not [path for path in hub.asked("HEAD") if path.endswith("b/y.json")]


def test_errors_are_the_hubs_own(hub):
    hub.add_repo("gpt2", {"config.json": b"{}"})
    hub.add_repo("meta-llama/Llama-3.2-1B", {"config.json": b"{}"}, gated=True)
    assert run(hub, "check_errors") == {"check_errors": ""}
    code = """
from huggingface_hub import hf_hub_download
hf_hub_download("meta-llama/Llama-3.2-1B", "config.json")
"""
    run_with_hub(hub, code, HF_TOKEN=TOKEN)


def test_paths_info_tree_and_range(hub):
    commit = hub.add_repo("org/data", {"a/b/x.txt": b"0123456789", "y.txt": b"y"}, "dataset")
    api = f"{hub.url}/api/datasets/org/data"
    tree = json.load(urlopen(f"{api}/tree/main"))
    assert [(entry["type"], entry["path"]) for entry in tree] == [
        ("directory", "a"),
        ("file", "y.txt"),
    ]
    tree = json.load(urlopen(f"{api}/tree/main/a?recursive=true"))
    assert [entry["path"] for entry in tree] == ["a/b", "a/b/x.txt"]
    info = json.load(urlopen(f"{api}/paths-info/main", data=b"paths=y.txt&paths=a&paths=none"))
    assert [entry["path"] for entry in info] == ["a", "y.txt"]
    assert json.load(urlopen(api))["sha"] == commit
    url = f"{hub.url}/datasets/org/data/resolve/main/a/b/x.txt"
    part = urlopen(Request(url, headers={"Range": "bytes=4-"}))
    assert (part.status, part.read(), part.headers["Content-Range"]) == (
        206,
        b"456789",
        "bytes 4-9/10",
    )
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{api}/tree/main/none")


@pytest.mark.parametrize("kind", ["reset", "truncate", "corrupt", "unavailable"])
def test_faults_and_what_the_client_makes_of_them(hub, kind):
    """Only a truncated transfer is resumed; a wrong byte goes unnoticed; the rest needs a retry."""
    data = bytes(range(256)) * 64
    right = hashlib.sha256(data).hexdigest()
    hub.add_repo("org/model", {"w.bin": data})
    hub.fault("w.bin", kind)
    code = """
import hashlib
from huggingface_hub import hf_hub_download
for attempt in range(2):
    try:
        file = open(hf_hub_download("org/model", "w.bin"), "rb")
        print(hashlib.sha256(file.read()).hexdigest())
    except Exception as error:
        print(type(error).__name__)
"""
    first, second = run_with_hub(hub, code).split()
    errors = {"reset": "ReadError", "unavailable": "HfHubHTTPError", "truncate": right}
    assert first == errors.get(kind, first)
    assert (second == right) == (kind != "corrupt")


# ---- what follows runs inside the process ----


def check_errors(_):
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    def refused(error, download, *args, **kwargs):
        with pytest.raises(error):
            download(*args, **kwargs)

    llama = "meta-llama/Llama-3.2-1B"
    refused(errors.GatedRepoError, hf_hub_download, llama, "config.json")
    refused(errors.GatedRepoError, snapshot_download, llama)
    refused(errors.RevisionNotFoundError, snapshot_download, "gpt2", revision="0" * 40)
    refused(errors.RevisionNotFoundError, snapshot_download, "gpt2", revision="none")
    refused(errors.RepositoryNotFoundError, snapshot_download, "org/none")
    refused(errors.EntryNotFoundError, hf_hub_download, "gpt2", "none.bin")
    assert Path(hf_hub_download(llama, "config.json", token=TOKEN)).read_bytes() == b"{}"


def check_models(commits):
    from transformer_lens import HookedTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name, (repo_id, hook) in MODELS.items():
        pin = {"revision": commits[repo_id]}
        tokenizer = AutoTokenizer.from_pretrained(repo_id, **pin)
        plain = AutoModelForCausalLM.from_pretrained(repo_id, dtype="float32", **pin)
        hooked = HookedTransformer.from_pretrained(name, device="cpu")
        _residual_is_centred(hooked, hook, plain, tokenizer)


def unplug(commits):
    """Download every snapshot by its commit; from then on a connection is an error."""
    import socket

    from huggingface_hub import constants

    for repo_id in set(commits) - {"meta-llama/Llama-3.2-1B"}:
        _snapshot(repo_id, commits)

    def refuse(_self, address):
        raise AssertionError(f"asked {address} while offline")

    constants.HF_HUB_OFFLINE = True
    socket.socket.connect = refuse


def check_local_models(commits):
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for repo_id, hook in MODELS.values():
        root = str(_snapshot(repo_id, commits))
        tokenizer = AutoTokenizer.from_pretrained(root)
        plain = AutoModelForCausalLM.from_pretrained(root, dtype="float32")
        config = loading.get_pretrained_model_config(
            root, hf_cfg=plain.config.to_dict(), fold_ln=True, device="cpu"
        )
        hooked = HookedTransformer(config, tokenizer, move_to_device=False)
        weights = loading.get_pretrained_state_dict(root, config, plain)
        hooked.load_and_process_state_dict(weights)
        _residual_is_centred(hooked, hook, plain, tokenizer)


def _residual_is_centred(hooked, hook, plain, tokenizer):
    """TransformerLens' stream is Hugging Face's less its mean over d_model, row by row."""
    import torch

    text = tokenizer("The cat sat", add_special_tokens=False)["input_ids"]
    assert tokenizer("The cat sat")["input_ids"] == text  # neither tokenizer adds BOS by itself
    ids = torch.tensor([[tokenizer.bos_token_id, *text]])
    _, cache = hooked.run_with_cache(ids, names_filter=hook)
    block = int(hook.split(".")[1]) + hook.endswith("resid_post")
    with torch.no_grad():
        raw = plain(ids, output_hidden_states=True).hidden_states[block]
    assert raw.mean(-1).abs().max() > 0.01
    assert cache[hook].mean(-1).abs().max() < ATOL
    torch.testing.assert_close(cache[hook], raw - raw.mean(-1, keepdim=True), atol=ATOL, rtol=0)


def check_saes(_):
    from functools import partial

    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import gemma_2_sae_huggingface_loader
    from sparsify import SparseCoder

    for (release, sae_id), (_repo, folder, make, n_layers) in SAES.items():
        for layer in range(n_layers):
            sae = SAE.from_pretrained(release, sae_id.format(layer), device="cpu")
            _is_relu_sae(sae, make()[f"{folder.format(layer)}/sae_weights.safetensors"])

    def tiny(cfg_overrides, **where):
        sizes = {"d_in": tiny_models.D_MODEL, "d_sae": tiny_models.D_SAE}
        return partial(gemma_2_sae_huggingface_loader, cfg_overrides=cfg_overrides | sizes)(**where)

    release, folder = "gemma-scope-2b-pt-res", tiny_models.GEMMA_FOLDER
    _is_jump_relu(SAE.from_pretrained(release, folder, device="cpu", converter=tiny))
    _is_topk(SparseCoder.load_from_hub(LLAMA_SAES, hookpoint="layers.1.mlp", device="cpu"))


def check_local_saes(commits):
    from sae_lens import SAE
    from sparsify import SparseCoder

    for repo_id, folder, make, _n in SAES.values():
        inside = folder.format(3)
        place = _snapshot(repo_id, commits) / inside
        sae = SAE.load_from_disk(place, device="cpu", dtype="float32")
        _is_relu_sae(sae, make()[f"{inside}/sae_weights.safetensors"])
    place = _snapshot(GEMMA_SAES, commits) / tiny_models.GEMMA_FOLDER
    _is_jump_relu(SAE.load_from_disk(place, "cpu", "float32", converter=_gemma_scope_from_disk))
    place = _snapshot(LLAMA_SAES, commits) / "layers.1.mlp"
    _is_topk(SparseCoder.load_from_disk(place, device="cpu"))


def _gemma_scope_from_disk(path, device="cpu", cfg_overrides=None):
    """A sae_lens disk converter that takes the sizes from the arrays."""
    import torch

    with np.load(path / "params.npz") as arrays:
        state = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays}
    d_in, d_sae = state["W_enc"].shape
    config = {"architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "device": device}
    config |= {"apply_b_dec_to_input": False, "normalize_activations": "none"}
    return config | (cfg_overrides or {}), state


def _close(tensor, expected):
    np.testing.assert_allclose(tensor.detach().numpy(), expected, atol=ATOL)


def _is_relu_sae(sae, weights: bytes):
    import torch

    w = read_safetensors(weights)
    codes = np.maximum((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0)
    assert 0 < (codes > 0).mean() < 1
    _close(sae.encode(torch.from_numpy(X)), codes)
    _close(sae.decode(torch.from_numpy(codes)), codes @ w["W_dec"] + w["b_dec"])


def _is_jump_relu(sae):
    import io

    import torch

    w = np.load(io.BytesIO(tiny_models.gemma_scope()[f"{tiny_models.GEMMA_FOLDER}/params.npz"]))
    before = X @ w["W_enc"] + w["b_enc"]  # b_dec is not subtracted here
    _close(sae.encode(torch.from_numpy(X)), before * (before > w["threshold"]))


def _is_topk(sae):
    import torch

    w = read_safetensors(tiny_models.sparsify_saes()["layers.1.mlp/sae.safetensors"])
    before = np.maximum((X - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0)
    floor = np.sort(before, axis=1)[:, -sae.cfg.k, None]
    codes = np.where(before >= floor, before, 0)
    found = sae.encode(torch.from_numpy(X))  # its top values come unsorted
    dense = torch.zeros(codes.shape).scatter(1, found.top_indices, found.top_acts)
    _close(dense, codes)
    _close(sae.decode(found.top_acts, found.top_indices), codes @ w["W_dec"] + w["b_dec"])


def check_flores(_):
    from datasets import load_dataset

    with pytest.raises(RuntimeError, match="scripts are no longer supported"):
        load_dataset("facebook/flores", "eng_Latn")
    files = {"dev": "jpn_Jpan/dev/0000.parquet"}
    parquet = {"revision": "refs/convert/parquet", "data_files": files, "split": "dev"}
    rows = load_dataset("facebook/flores", **parquet)
    assert rows["sentence"][:] == tiny_models.SENTENCES["jpn_Jpan"]
    columns = ["id", "URL", "domain", "topic", "has_image", "has_hyperlink", "sentence"]
    assert rows.column_names == columns


def check_local_flores(commits):
    from datasets import load_dataset

    file = _snapshot("facebook/flores", commits) / "eng_Latn/dev/0000.parquet"
    rows = load_dataset("parquet", data_files={"dev": str(file)}, split="dev")
    assert rows["sentence"][:] == tiny_models.SENTENCES["eng_Latn"]


def _snapshot(repo_id: str, commits: dict[str, str]) -> Path:
    from huggingface_hub import snapshot_download

    repo_type = "dataset" if repo_id == "facebook/flores" else "model"
    return Path(snapshot_download(repo_id, revision=commits[repo_id], repo_type=repo_type))


def outcome(check: str, commits: dict[str, str]) -> str:
    try:
        globals()[check](commits)
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    assert os.environ["HF_ENDPOINT"].startswith("http://127.0.0.1:")
    *checks, commits = sys.argv[1:]
    print(json.dumps({check: outcome(check, json.loads(commits)) for check in checks}))
