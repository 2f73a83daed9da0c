"""Does an SAE fit the activations it is about to read? A look at a few batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.saes.codes import SparseCoder


@torch.inference_mode()
def probe(coder: SparseCoder, x: Tensor) -> dict[str, float]:
    """FVU and mean number of active latents (L0) of `coder` on activations x [N, d]."""
    target = coder.target(x)
    codes = coder.encode(x)
    error = (coder.decode(codes) - target).double().pow(2).sum()
    spread = (target - target.mean(0)).double().pow(2).sum()
    return {
        "fvu": float(error / spread),
        "l0": len(codes.active().value) / len(x),
        "tokens": len(x),
    }


def check_fit(
    bank: Mapping[HookPoint, SparseCoder], batches: Iterable[Mapping[HookPoint, Tensor]]
) -> dict[str, dict[str, Any]]:
    """Probe each SAE on the activations of `batches`; {hook: figures}.

    Raises InputError where an SAE's width is not the model's, or it explains less than the mean
    would (FVU > 1): then it was trained on another stream than this one.
    """
    taken = list(batches)
    figures = {}
    for hook, coder in bank.items():
        x = torch.cat([batch[hook] for batch in taken])
        if x.shape[1] != coder.d_in:
            raise InputError(
                f"{hook}: the SAE reads width {coder.d_in}, the model has {x.shape[1]}"
            )
        figures[str(hook)] = probe(coder, x)
        fvu = figures[str(hook)]["fvu"]
        if not fvu <= 1:
            raise InputError(
                f"{hook}: FVU {fvu:.2f} on a probe of {len(x)} tokens: this SAE was trained on "
                "another stream; check hook, layer, weight processing and input normalisation"
            )
    return figures
