"""SAEs in the layout of the LLM-jp tracing study (llm-jp/llm-jp-sae).

Both versions of its code use an nn.Linear as encoder (weight [n, d], bias [n]) and `b_dec` [d]. The
first keeps the decoder as `W_dec` [n, d] and writes `sae.pth`, a state dict; the second as
`decoder.weight` [d, n] and writes config.json and model.safetensors with transformers. Inputs are
divided by their L2 norm, negative pre-activations count as 0. Which files the published
repositories hold could not be seen, so all of these are read; see `_state` for the pickle.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from langsae.errors import InputError
from langsae.files import read_json

CONFIG, WEIGHTS, PICKLE = "config.json", "model.safetensors", "sae.pth"
# All published ones (llm-jp-3-1.8b-sae-l12-k32-16x-c*) have this k; a state dict does not tell it.
K = 32


def read(folder: Path) -> tuple[dict[str, Tensor], int]:
    """W_enc [n, d], b_enc [n], W_dec [n, d], b_dec [d] as float32, and k.

    Raises InputError for a file that is no state dict, or sizes other than its config's; KeyError
    for a missing tensor.
    """
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
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
    return {name: value.float().contiguous().clone() for name, value in weights.items()}, int(
        config.get("k") or K
    )


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


def _as_configured(folder: Path, encoder: Tensor, config: dict[str, Any]) -> None:
    d_in = config.get("d_in")
    # the number of latents had several names in the course of the authors' work
    latents = config.get("num_latents") or config.get("n_dim")
    if latents is None and d_in and config.get("expansion_factor"):
        latents = d_in * config["expansion_factor"]
    wanted = (latents, d_in)
    if any(want not in (None, size) for want, size in zip(wanted, encoder.shape, strict=False)):
        raise InputError(
            f"{folder}: encoder {tuple(encoder.shape)} is not of the sizes in {CONFIG}, "
            f"{latents} latents of width {d_in}"
        )
