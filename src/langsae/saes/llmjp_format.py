"""SAEs in the layout of the LLM-jp tracing study (llm-jp/llm-jp-sae).

Both versions of its code use an nn.Linear as encoder (weight [n, d], bias [n]) and `b_dec` [d]. The
first keeps the decoder as `W_dec` [n, d] and writes `sae.pth`, a state dict; the second as
`decoder.weight` [d, n] and writes config.json and model.safetensors with transformers. Inputs are
divided by their L2 norm, negative pre-activations count as 0. Which files the published
repositories hold could not be seen, so all of these are read; see `_state` for the pickle.
"""

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from langsae.errors import InputError
from langsae.files import read_json
from langsae.params import Spec, parse

CONFIG, WEIGHTS, PICKLE = "config.json", "model.safetensors", "sae.pth"
# All published ones (llm-jp-3-1.8b-sae-l12-k32-16x-c*) have this k; a state dict does not tell it.
K = 32


class _Config(Spec, extra="ignore"):
    """Of config.json; the number of latents had several names in the authors' work."""

    d_in: int | None = None
    num_latents: int | None = None
    n_dim: int | None = None
    expansion_factor: float | None = None
    k: int | None = None


def read(folder: Path) -> tuple[dict[str, Tensor], int]:
    """W_enc [n, d], b_enc [n], W_dec [n, d], b_dec [d] as float32, and k.

    Raises InputError for a file that is no state dict, or sizes other than its config's; KeyError
    for a missing tensor.
    """
    path = folder / CONFIG
    config = parse(_Config, read_json(path), str(path)) if path.is_file() else _Config()
    state = _state(folder)
    decoder = state["W_dec"] if "W_dec" in state else state["decoder.weight"].T
    weights = {
        "W_enc": state["encoder.weight"],
        "b_enc": state["encoder.bias"],
        "W_dec": decoder,
        "b_dec": state["b_dec"],
    }
    _as_configured(folder, weights["W_enc"], config)
    # cloned: tensors of a mapped file are not aligned, which can change the last bit of sums
    found = {name: value.float().contiguous().clone() for name, value in weights.items()}
    return found, config.k or K


def _state(folder: Path) -> dict[str, Tensor]:
    """The state dict, from safetensors where there are some.

    `sae.pth` is a pickle, and the only form the first version wrote. PyTorch's restricted reader
    (weights_only) builds tensors and plain containers and refuses every other name in it, so no
    code of the file runs.
    """
    if (folder / WEIGHTS).is_file():
        return load_file(folder / WEIGHTS)
    path = folder / PICKLE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise InputError(f"{path}: not a state dict of tensors ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: not a state dict of tensors")
    return state


def _as_configured(folder: Path, encoder: Tensor, config: _Config) -> None:
    latents = config.num_latents or config.n_dim
    if latents is None and config.d_in and config.expansion_factor:
        latents = round(config.d_in * config.expansion_factor)
    wanted = (latents, config.d_in)
    if any(want not in (None, size) for want, size in zip(wanted, encoder.shape, strict=False)):
        raise InputError(
            f"{folder}: encoder {tuple(encoder.shape)} is not of the sizes in {CONFIG}, "
            f"{latents} latents of width {config.d_in}"
        )
