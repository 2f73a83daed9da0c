"""MLP neurons seen as a coder, so that one pass feeds SAEs and neurons."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.saes.codes import SparseCodes


@dataclass(frozen=True)
class Neurons:
    """The neurons of one MLP at its activation function's output (hook `mlp_act`).

    A neuron is active where its value is above 0. Most reducers on neurons read the vectors, as
    about half of all neurons are active: `encode` is for those that want codes.
    """

    width: int

    @property
    def d_in(self) -> int:
        return self.width

    @property
    def n_features(self) -> int:
        return self.width

    def encode(self, x: Tensor) -> SparseCodes:
        """The positive entries of x [N, width]."""
        token, feature = (x > 0).nonzero(as_tuple=True)
        return SparseCodes(token, feature, x[token, feature], (len(x), self.width))

    def decode(self, codes: SparseCodes) -> Tensor:
        """x with what is not active set to 0, [N, width]."""
        return codes.dense()

    def target(self, x: Tensor) -> Tensor:
        """Neurons stand for themselves."""
        return x

    def describe(self) -> dict[str, Any]:
        """For result headers; the model's own record identifies the weights."""
        return {"architecture": "neurons", "features": self.width}


def neuron_bank(model: LanguageModel, layers: Iterable[int]) -> dict[HookPoint, Neurons]:
    """The neurons of these layers of `model`, by hook point, in the order given."""
    hooks = [HookPoint("mlp_act", layer) for layer in layers]
    # asked of the model itself: configurations call the width by many names, or leave it out
    taken = model.activations(torch.zeros(1, 1, dtype=torch.int64), hooks)
    return {hook: Neurons(taken[hook].shape[-1]) for hook in hooks}
