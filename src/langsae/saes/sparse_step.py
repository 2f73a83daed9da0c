"""Kernels of a TopK step: the k largest pre-activations, and gradients from the k slots a token.

No buffer of [tokens, latents] exists: tokens pass the encoder in tiles of ROWS.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Encoder = Literal["float32", "bfloat16", "int8"]

ROWS = 512  # tokens a tile: 512 x 32,768 float32 are 64 MiB
CANDIDATES = 2  # candidates of the rough encoder, in multiples of k
STAT = [0, 0]
GROUP = 32  # neighbouring columns that share one maximum in `top_columns`


def top_columns(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [T, n]: values and int64 indices, both [T, k], unordered.

    The k largest lie in the k groups of columns with the largest maxima, so only those are ranked.
    """
    rows, n = pre.shape
    groups = n // GROUP
    if n % GROUP or groups <= 2 * k:
        values, indices = pre.topk(k, dim=1, sorted=False)
        return values, indices
    best = pre.view(rows, groups, GROUP).amax(2).topk(k, dim=1, sorted=False).indices
    first = torch.arange(rows, device=pre.device)[:, None] * groups
    kept = pre.view(-1, GROUP).index_select(0, (best + first).flatten()).view(rows, -1)
    values, place = kept.topk(k, dim=1, sorted=False)
    group = best.gather(1, place.div(GROUP, rounding_mode="floor"))
    return values, group * GROUP + place % GROUP


def top_preactivations(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, encoder: Encoder = "float32"
) -> tuple[Tensor, Tensor]:
    """The k largest of W_enc x + b_enc for each row of x [N, d]: float32 and int64, both [N, k].

    With a "bfloat16" or "int8" encoder the product in that arithmetic only proposes candidates,
    which are computed again in float32 (`_screened`).
    """
    values = x.new_empty(len(x), k)
    indices = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    rough = None if encoder == "float32" else RoughEncoder(W_enc, b_enc, encoder)
    for start in range(0, len(x), ROWS):
        tile = slice(start, start + ROWS)
        if rough is None:
            values[tile], indices[tile] = top_columns(torch.addmm(b_enc, x[tile], W_enc.T), k)
        else:
            values[tile], indices[tile] = _screened(x[tile], W_enc, b_enc, k, rough)
    return values, indices


class RoughEncoder:
    """W_enc in a cheaper arithmetic; called with x [T, d] it gives about (W_enc x + b_enc) / unit.

    int8: one scale for W_enc and one for x, so the int32 sums of a row compare directly.
    """

    def __init__(self, W_enc: Tensor, b_enc: Tensor, encoder: Encoder) -> None:
        self.b_enc, self.encoder = b_enc, encoder
        self.unit = 1.0
        if encoder == "bfloat16":
            self.weights = W_enc.bfloat16()
        else:
            self.unit = _int8_unit(W_enc)
            self.weights = torch.quantize_per_tensor(W_enc, self.unit, 0, torch.qint8).int_repr()

    def __call__(self, x: Tensor) -> tuple[Tensor, float]:
        """Rough pre-activations [T, n] and their unit."""
        if self.encoder == "bfloat16":
            return torch.addmm(self.b_enc.bfloat16(), x.bfloat16(), self.weights.T), 1.0
        unit = _int8_unit(x)
        rough = torch._int_mm((x / unit).round_().to(torch.int8), self.weights.T)
        unit *= self.unit
        return rough.add_((self.b_enc / unit).round_().int()), unit


def _int8_unit(x: Tensor) -> float:
    low, high = x.aminmax()
    return max(-low.item(), high.item(), 1e-30) / 127


def _screened(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, encode: RoughEncoder
) -> tuple[Tensor, Tensor]:
    """The k largest exact pre-activations among the CANDIDATES * k largest rough ones.

    A row stands if its k-th exact value exceeds its last candidate's rough value by more than the
    largest error seen on the tile's candidates (tens of thousands); other rows are done in float32.
    """
    rough, unit = encode(x)
    guess, candidates = top_columns(rough, min(CANDIDATES * k, len(W_enc)))
    guess = guess.float() * unit
    exact = row_products(x, W_enc, candidates) + b_enc[candidates]
    values, place = exact.topk(k, dim=1, sorted=False)
    indices = candidates.gather(1, place)
    sure = values.amin(1) > guess.amin(1) + (exact - guess).abs().amax()
    redo = (~sure).nonzero().squeeze(1)
    STAT[0] += len(redo)
    STAT[1] += len(x)
    if len(redo) and candidates.shape[1] < len(W_enc):
        values[redo], indices[redo] = top_columns(torch.addmm(b_enc, x[redo], W_enc.T), k)
    return values, indices


def row_products(x: Tensor, rows: Tensor, indices: Tensor) -> Tensor:
    """<rows[indices[t, j]], x[t]> for each t, j: [N, k]; x [N, d], rows [n, d]."""
    # As a gradient: PyTorch has no forward operation for it without a [N, k, d] buffer.
    values = x.new_zeros(indices.shape, requires_grad=True)
    with torch.enable_grad():
        total = decode(values, indices, rows)
    return torch.autograd.grad(total, values, x)[0]


def decode(values: Tensor, indices: Tensor, W_dec: Tensor) -> Tensor:
    """sum_j values[t, j] W_dec[indices[t, j]] for each token t: [N, d]."""
    return F.embedding_bag(indices, W_dec, mode="sum", per_sample_weights=values)


class Slots:
    """The N x k slots of a batch ordered by latent, to sum over the tokens of each latent."""

    def __init__(self, indices: Tensor, n_latents: int) -> None:
        # int32 keys: PyTorch sorts them six times as fast as int64 on a CPU.
        latent, self.order = indices.flatten().int().sort(stable=True)
        self.token = self.order // indices.shape[1]
        every = torch.arange(n_latents, dtype=torch.int32, device=indices.device)
        self.offsets = torch.searchsorted(latent, every)

    def sum(self, values: Tensor, x: Tensor) -> Tensor:
        """sum over slots (t, j) of a latent of values[t, j] x[t]: [n, d]; values [N, k], x [N, d].

        The same order of addition on each call, so the sum is the same to the last bit.
        """
        weights = values.flatten()[self.order]
        return F.embedding_bag(self.token, x, self.offsets, mode="sum", per_sample_weights=weights)
