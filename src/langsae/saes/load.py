"""Reading one SAE from its folder, whichever library wrote it.

The layout of the folder decides: `params.npz` is GemmaScope's, `cfg.json` with
`sae_weights.safetensors` is sae-lens', `cfg.json` with `sae.safetensors` is sparsify's or our own,
`model.safetensors` or `sae.pth` is LLM-jp's.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from langsae.errors import InputError
from langsae.files import read_json, sha256
from langsae.models.hooks import HookPoint
from langsae.params import Spec, parse
from langsae.saes import llmjp_format
from langsae.saes.codes import SparseCoder
from langsae.saes.npz_format import read_npz
from langsae.saes.threshold import ThresholdSAE
from langsae.saes.topk import FORMAT, InputNorm, TopKSAE

# The files of each library's layout. Those of LLM-jp are a model's too, hence last.
_LAYOUTS = (
    ("params.npz", "cfg.json", "sae_weights.safetensors", "sae.safetensors"),
    (llmjp_format.CONFIG, llmjp_format.WEIGHTS, llmjp_format.PICKLE),
)
FILES = tuple(name for layout in _LAYOUTS for name in layout)


class _Config(Spec, extra="allow"):
    """Types in a cfg.json, of what is more than compared."""

    sae_lens_version: str | None = None
    metadata: dict[str, Any] | None = None


def load_sae(folder: str | Path, hook: HookPoint, architecture: str | None = None) -> SparseCoder:
    """The SAE in `folder`, to be used at `hook`.

    architecture: what the caller holds it to be (relu, jumprelu, topk), if anything. Raises
    InputError for an unknown layout, a missing or misshapen tensor, NaN or infinite weights, an
    SAE trained at another hook, or another architecture.
    """
    folder = Path(folder)
    reader = _reader(folder)
    try:
        sae = reader(folder, hook)
    except (SafetensorError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{folder}: weights are not whole ({error}); fetch them again") from error
    except KeyError as error:
        raise InputError(f"{folder}: {error} is missing from its weights or config") from error
    found = sae.describe()["architecture"]
    if architecture not in (None, found):
        raise InputError(f"{folder}: is a {found} SAE, not {architecture}; mend `architecture`")
    return sae


def weight_files(folder: Path) -> list[Path]:
    """The files of an SAE folder that its loader reads."""
    found = ([folder / name for name in layout if (folder / name).is_file()] for layout in _LAYOUTS)
    return next((paths for paths in found if paths), [])


def _reader(folder: Path):
    names = {path.name for path in weight_files(folder)}
    if "params.npz" in names:
        return _gemma_scope
    if {"cfg.json", "sae_weights.safetensors"} <= names:
        return _sae_lens
    if {"cfg.json", "sae.safetensors"} <= names:
        ours = _config(folder).get("format") == FORMAT
        return _own if ours else _sparsify
    if names & {llmjp_format.WEIGHTS, llmjp_format.PICKLE}:
        return _llmjp
    raise InputError(
        f"{folder}: no SAE there; expected params.npz, or cfg.json with sae_weights.safetensors "
        "(sae-lens) or sae.safetensors (sparsify, langsae), or model.safetensors (llm-jp)"
    )


def _config(folder: Path) -> dict[str, Any]:
    """What cfg.json holds; InputError for what is no mapping."""
    path = folder / "cfg.json"
    return parse(_Config, read_json(path), str(path)).model_dump(exclude_unset=True)


def _k(folder: Path, found: Any) -> int:
    return parse(int, found, f"{folder / 'cfg.json'}: k")


def _own(folder: Path, hook: HookPoint) -> TopKSAE:
    sae = TopKSAE.load(folder)
    _same_hook(folder, sae.hook, hook)
    return sae


def _gemma_scope(folder: Path, hook: HookPoint) -> ThresholdSAE:
    arrays = read_npz(folder / "params.npz")
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return _threshold_sae(folder, weights, "gemma_scope", weights["threshold"], None)


def _sae_lens(folder: Path, hook: HookPoint) -> SparseCoder:
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    config = handle_config_defaulting(_config(folder))
    trained_at = (config.get("metadata") or {}).get("hook_name")
    if trained_at:
        _same_hook(folder, str(trained_at), hook)
    for key, plain in (("normalize_activations", "none"), ("reshape_activations", "none"),
                       ("rescale_acts_by_decoder_norm", False)):  # fmt: skip
        if config.get(key, plain) not in (plain, None):
            raise InputError(f"{folder}: {key}={config[key]} is not supported; fold it first")
    weights = {key: value.float() for key, value in _tensors(folder, "sae_weights").items()}
    architecture = config.get("architecture", "standard")
    shift = weights["b_dec"] if config.get("apply_b_dec_to_input", True) else None
    if architecture == "topk":
        if shift is None:
            raise InputError(f"{folder}: a topk SAE with apply_b_dec_to_input=false is not read")
        return _topk_sae(folder, weights["W_enc"].T, weights, _k(folder, config["k"]), hook)
    if architecture not in ("standard", "jumprelu"):
        raise InputError(f"{folder}: architecture '{architecture}' is not supported")
    bar = weights["threshold"] if architecture == "jumprelu" else None
    return _threshold_sae(folder, weights, "sae_lens", bar, shift)


def _sparsify(folder: Path, hook: HookPoint) -> TopKSAE:
    config = _config(folder)
    for key in ("transcode", "skip_connection"):
        if config.get(key):
            raise InputError(f"{folder}: {key} is set; transcoders are not SAEs")
    if config.get("activation", "topk") != "topk":
        raise InputError(f"{folder}: activation '{config['activation']}' is not supported")
    raw = {key: value.float() for key, value in _tensors(folder, "sae").items()}
    weights = {"W_dec": raw["W_dec"], "b_enc": raw["encoder.bias"], "b_dec": raw["b_dec"]}
    # k is the SAE's own; sparsify's default where the config has none is 32
    k = _k(folder, config.get("k") or 32)
    return _topk_sae(folder, raw["encoder.weight"], weights, k, hook)


def _llmjp(folder: Path, hook: HookPoint) -> TopKSAE:
    weights, k = llmjp_format.read(folder)
    return _topk_sae(folder, weights["W_enc"], weights, k, hook, "l2")


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    # cloned: tensors of a mapped file are not aligned, which can change the last bit of sums
    return {k: v.clone() for k, v in load_file(folder / f"{name}.safetensors").items()}


def _topk_sae(folder, W_enc, weights, k, hook, norm_kind="none") -> TopKSAE:
    try:
        return TopKSAE(
            W_enc=W_enc.contiguous(),
            b_enc=weights["b_enc"],
            W_dec=weights["W_dec"],
            b_dec=weights["b_dec"],
            k=k,
            hook=str(hook),
            relu=True,
            norm=InputNorm(norm_kind),
        )
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def _threshold_sae(folder, weights, library, threshold, input_bias) -> ThresholdSAE:
    W_enc, W_dec = weights["W_enc"], weights["W_dec"]
    d, features = W_enc.shape if W_enc.ndim == 2 else (0, 0)
    shapes = {"W_enc": (d, features), "b_enc": (features,), "W_dec": (features, d), "b_dec": (d,)}
    if threshold is not None:
        shapes["threshold"] = (features,)
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape or not d:
            raise InputError(
                f"{folder}: {name} has shape {tuple(weights[name].shape)}, not {shape}"
            )
        if not bool(torch.isfinite(weights[name]).all()):
            raise InputError(f"{folder}: {name} holds NaN or infinite values")
    description: dict[str, Any] = {
        "library": library,
        "sha256": {path.name: sha256(path) for path in weight_files(folder)},
    }
    return ThresholdSAE(
        W_enc.contiguous(), weights["b_enc"], W_dec.contiguous(), weights["b_dec"],
        threshold, input_bias, description,
    )  # fmt: skip


def _same_hook(folder: Path, trained_at: str, hook: HookPoint) -> None:
    if HookPoint.parse(trained_at) != hook:
        raise InputError(f"{folder}: was trained at {trained_at}, not at {hook}; mend the hook")
