"""SAEs whose latents fire on their own: ReLU and JumpReLU."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langsae.saes.codes import SparseCodes, weighted_rows

# Pre-activations of one tile: 16 MB of float32, near the last-level cache instead of in memory.
_TILE_ELEMENTS = 1 << 22


@dataclass
class ThresholdSAE:
    """value = pre where pre > threshold else 0; pre = (x - input_bias) W_enc + b_enc.

    W_enc [d, F], b_enc [F], W_dec [F, d], b_dec [d], all float32. threshold: [F] of a JumpReLU
    (GemmaScope), or None for a ReLU. input_bias [d] is subtracted first, where an SAE does so.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None = None
    input_bias: Tensor | None = None
    description: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.d_in, self.n_features = self.W_enc.shape
        # (x - b) W + c = x W + (c - b W): one bias instead of a subtraction per batch
        shift = 0 if self.input_bias is None else self.input_bias @ self.W_enc
        self._bias = self.b_enc - shift
        threshold = 0.0 if self.threshold is None else self.threshold.clamp_min(0.0)
        # x W + c > t as x W > t - c: only the few codes get the bias, not every pre-activation
        self._bar = threshold - self._bias

    def to(self, device: torch.device) -> "ThresholdSAE":
        """The same SAE on another device."""
        return ThresholdSAE(
            *(
                None if value is None else value.to(device)
                for value in (self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.threshold,
                              self.input_bias)
            ),
            description=self.description,
        )  # fmt: skip

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of x [N, d]: the positive latents, in column tiles (row tiles reread W_enc)."""
        width = min(max(1, _TILE_ELEMENTS // max(1, len(x))), self.n_features)
        space = x.new_empty(len(x) * width)
        parts = [self._tile(x, start, width, space) for start in range(0, self.n_features, width)]
        token, feature, value = map(torch.cat, zip(*parts, strict=True))
        order = token.argsort(stable=True)
        shape = (len(x), self.n_features)
        return SparseCodes(token[order], feature[order], value[order], shape)

    def _tile(self, x: Tensor, start: int, width: int, space: Tensor) -> tuple[Tensor, ...]:
        columns = slice(start, min(start + width, self.n_features))
        width = columns.stop - start
        pre = space[: len(x) * width].view(len(x), width)
        torch.mm(x, self.W_enc[:, columns], out=pre)
        at = _above(pre, self._bar[columns])
        token = at // width
        feature = at - token * width + start
        return token, feature, pre.view(-1)[at] + self._bias[feature]

    def decode(self, codes: SparseCodes) -> Tensor:
        """Reconstruction [N, d]."""
        return weighted_rows(codes, self.W_dec) + self.b_dec

    def target(self, x: Tensor) -> Tensor:
        """These SAEs reconstruct x itself."""
        return x

    def describe(self) -> dict[str, Any]:
        """For result headers."""
        kind = "relu" if self.threshold is None else "jumprelu"
        return {"architecture": kind, "features": self.n_features, **self.description}


def _above(pre: Tensor, bar: Tensor) -> Tensor:
    """Where pre [N, w] > bar [w], as positions in the flattened `pre`."""
    if pre.device.type == "cpu":
        # NumPy skips what is False eight at a time; torch's nonzero took ten times as long.
        return torch.from_numpy(np.flatnonzero(pre.numpy() > bar.numpy()))
    return (pre > bar).view(-1).nonzero().squeeze(1)
