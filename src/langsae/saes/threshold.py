"""SAEs whose latents fire on their own: ReLU and JumpReLU."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from langsae.saes.codes import SparseCodes, weighted_rows

# Pre-activations of one tile stay near the last-level cache instead of filling memory.
_TILE_ELEMENTS = 1 << 21


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
        """Codes of x [N, d]: the positive latents, in row tiles."""
        rows = max(1, _TILE_ELEMENTS // self.n_features)
        token, feature, value = zip(
            *(self._tile(x[start : start + rows], start) for start in range(0, len(x), rows)),
            strict=True,
        )
        shape = (len(x), self.n_features)
        return SparseCodes(torch.cat(token), torch.cat(feature), torch.cat(value), shape)

    def _tile(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        pre = torch.addmm(self._bias, x, self.W_enc)
        bar = 0.0 if self.threshold is None else self.threshold.clamp_min(0.0)
        token, feature = (pre > bar).nonzero(as_tuple=True)
        return token + start, feature, pre[token, feature]

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
