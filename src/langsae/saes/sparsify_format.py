"""Writing TopK SAEs in the layout of EleutherAI's sparsify, which its own library loads.

An SAE is a folder named by its hook point (`layers.3.mlp`) with `cfg.json` and `sae.safetensors`;
`saes.load` reads it back.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from langsae.errors import InputError
from langsae.files import publish, write_json
from langsae.saes.topk import CONFIG, WEIGHTS, TopKSAE

# Decoder rows within this of length 1 count as normalised; training leaves them within 1e-6.
UNIT = 1e-4


def write_sparsify(sae: TopKSAE, folder: str | Path) -> None:
    """Publish `folder` with the SAE in sparsify's layout, its input normalisation folded in."""
    tensors = {name: value.cpu().contiguous() for name, value in folded(sae).items()}
    with publish(folder) as temporary:
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / WEIGHTS)
        write_json(temporary / CONFIG, config(sae))


def folded(sae: TopKSAE) -> dict[str, Tensor]:
    """The weights under sparsify's names, for inputs that are not normalised.

    With u = (x - mean) / scale, the pre-activations W (u - b) + c times `scale` are
    W (x - (mean + scale b)) + scale c, and mean + scale (V^T z + b) is V^T (scale z) +
    (mean + scale b). So the same latents are active and decoder rows keep their unit norm;
    codes come out in the model's own units: `scale` times those of `sae`.

    Raises InputError for what sparsify cannot express: L2-normalised inputs, negative codes.
    """
    if sae.norm.kind == "l2":
        raise InputError(
            f"{sae.hook}: L2 input normalisation cannot be folded into weights; "
            "train with input_norm standard or none"
        )
    if not sae.relu:
        raise InputError(f"{sae.hook}: sparsify has no codes below zero; train with relu: true")
    mean = torch.zeros_like(sae.b_dec) if sae.norm.mean is None else sae.norm.mean
    scale = sae.norm.scale
    return {
        "W_dec": sae.W_dec,
        "b_dec": mean + scale * sae.b_dec,
        "encoder.bias": scale * sae.b_enc,
        "encoder.weight": sae.W_enc,
    }


def config(sae: TopKSAE) -> dict[str, Any]:
    """What cfg.json holds: sparsify's SparseCoderConfig, and d_in."""
    return {
        "activation": "topk",
        "d_in": sae.d_in,
        # what sparsify would take were num_latents 0
        "expansion_factor": max(1, sae.n_features // sae.d_in),
        "k": sae.k,
        "multi_topk": False,
        "normalize_decoder": bool((sae.W_dec.norm(dim=1) - 1).abs().max() < UNIT),
        "num_latents": sae.n_features,
        "skip_connection": False,
        "transcode": False,
    }
