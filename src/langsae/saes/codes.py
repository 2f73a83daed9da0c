"""What every sparse coder yields, and the protocol it keeps."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SparseCodes:
    """The codes of N tokens in coordinate form, ordered by token.

    token: int64 [nnz], row of the encoded batch; feature: int64 [nnz]; value: float32 [nnz];
    shape: (N, number of features). Absent pairs are zero. A TopK coder yields all of its k slots,
    also those whose value is 0: `active()` is the one definition of "active" (value > 0).
    """

    token: Tensor
    feature: Tensor
    value: Tensor
    shape: tuple[int, int]

    def active(self) -> "SparseCodes":
        """Only the entries with a value above zero."""
        keep = self.value > 0
        if bool(keep.all()):
            return self
        return SparseCodes(self.token[keep], self.feature[keep], self.value[keep], self.shape)

    def dense(self) -> Tensor:
        """The codes as a dense [N, features] tensor; for small checks only."""
        out = torch.zeros(self.shape, dtype=self.value.dtype, device=self.value.device)
        out[self.token, self.feature] = self.value
        return out


class SparseCoder(Protocol):
    """An SAE seen from the engine: vectors in, sparse codes out, and back."""

    d_in: int
    n_features: int

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of x [N, d_in]."""
        ...

    def decode(self, codes: SparseCodes) -> Tensor:
        """Reconstruction [N, d_in], in the space of `target`."""
        ...

    def target(self, x: Tensor) -> Tensor:
        """What `decode` reconstructs: x after the coder's own input normalisation, [N, d_in]."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a result header records of this coder (architecture, k, source, sha256)."""
        ...


def weighted_rows(codes: SparseCodes, rows: Tensor) -> Tensor:
    """codes @ rows for rows [features, d], without the dense codes: [N, d]."""
    starts = torch.bincount(codes.token, minlength=codes.shape[0]).cumsum(0)
    offsets = torch.cat([starts.new_zeros(1), starts[:-1]])
    return F.embedding_bag(
        codes.feature, rows, offsets, mode="sum", per_sample_weights=codes.value.to(rows.dtype)
    )
