"""Kernels of a TopK step: the k largest pre-activations, and gradients from the k slots a token.

No buffer of [tokens, latents] exists: tokens pass the encoder in tiles of ROWS.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Encoder = Literal["float32", "bfloat16", "int8"]
Rough = Callable[[Tensor], tuple[Tensor, float]]

ROWS = 512  # tokens a tile: 512 x 32,768 float32 are 64 MiB
CANDIDATES = 3  # candidates of the rough encoder, in multiples of k
SIGMAS = 6  # a normal error exceeds it once in 10^9
GROUP = 16  # columns that share one maximum in `top_columns`


def top_columns(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [T, n]: values and int64 indices, both [T, k], unordered.

    The k largest lie in the k groups of columns with the largest maxima, so only those are ranked.
    """
    rows, n = pre.shape
    groups = n // GROUP
    if n % GROUP or groups <= 2 * k:
        values, indices = pre.topk(k, dim=1, sorted=False)
        return values, indices
    # A group is every `groups`-th column: maxima over the middle axis run along memory.
    grid = pre.view(rows, GROUP, groups)
    best = grid.amax(1).topk(k, dim=1, sorted=False).indices
    kept = grid.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)
    values, place = kept.topk(k, dim=1, sorted=False)
    line = place.div(k, rounding_mode="floor")
    return values, line * groups + best.gather(1, place - line * k)


def top_preactivations(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, encoder: Encoder = "float32"
) -> tuple[Tensor, Tensor]:
    """The k largest of W_enc x + b_enc for each row of x [N, d]: float32 and int64, both [N, k].

    With a "bfloat16" or "int8" encoder the product in that arithmetic only proposes candidates,
    which are computed again in float32 (`_screened`).
    """
    values = x.new_empty(len(x), k)
    indices = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    todo = torch.arange(len(x), device=x.device)
    if encoder != "float32" and CANDIDATES * k < len(W_enc):
        rough = Int8Encoder(x, W_enc, b_enc) if encoder == "int8" else BFloat16Encoder(W_enc, b_enc)
        unsure, worthwhile = [], True
        # Rows of like size share a tile, hence one scale of the inputs.
        for rows in x.abs().amax(1).argsort().split(ROWS):
            if worthwhile:
                values[rows], indices[rows], sure = _screened(x[rows], W_enc, b_enc, k, rough)
                rows = rows[~sure]
                worthwhile = len(rows) < len(sure) / 2
            unsure.append(rows)
        todo = torch.cat(unsure)
    space = x.new_empty(min(len(todo), ROWS), len(W_enc))  # fresh memory costs a fault a page
    for rows in todo.split(ROWS) if len(todo) else ():
        pre = torch.addmm(b_enc, x[rows], W_enc.T, out=space[: len(rows)])
        values[rows], indices[rows] = top_columns(pre, k)
    return values, indices


class BFloat16Encoder:
    """W_enc x + b_enc in bfloat16."""

    def __init__(self, W_enc: Tensor, b_enc: Tensor) -> None:
        self.weights, self.bias = W_enc.bfloat16(), b_enc.bfloat16()

    def __call__(self, x: Tensor) -> tuple[Tensor, float]:
        """Rough pre-activations [T, n] of x [T, d], and their unit."""
        return torch.addmm(self.bias, x.bfloat16(), self.weights.T), 1.0


class Int8Encoder:
    """W_enc x + b_enc with 8-bit weights and inputs, in int32.

    Each dimension of x is divided by `stretch` and that of W_enc multiplied by it, so that the few
    dimensions of large activations that language models have do not use up the 8 bits
    (SmoothQuant, arXiv:2211.10438).
    """

    def __init__(self, x: Tensor, W_enc: Tensor, b_enc: Tensor) -> None:
        largest = torch.maximum(W_enc.amax(0), -W_enc.amin(0)).clamp_min_(1e-30)
        self.stretch = (x.abs().amax(0).clamp_min_(1e-30) / largest).sqrt_()
        self.unit = (largest * self.stretch).max().item() / 127
        self.bias = b_enc
        self.weights = torch.empty(W_enc.shape, dtype=torch.int8, device=x.device)
        # In blocks that stay in the processor's cache between the product and the rounding.
        for block, out in zip(W_enc.split(ROWS), self.weights.split(ROWS), strict=True):
            out.copy_((block * (self.stretch / self.unit)).round_())

    def __call__(self, x: Tensor) -> tuple[Tensor, float]:
        """Rough pre-activations [T, n] of x [T, d], and their unit."""
        x = x / self.stretch
        unit = max(x.abs().max().item(), 1e-30) / 127
        rough = torch._int_mm((x / unit).round_().to(torch.int8), self.weights.T)
        unit *= self.unit
        return rough.add_((self.bias / unit).round_().int()), unit


def _screened(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, rough_encoder: Rough
) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest exact pre-activations [T, k] among the CANDIDATES * k largest rough ones.

    Third, whether each row is sure: its k-th exact value exceeds its last candidate's rough value
    by SIGMAS standard deviations of the rough values' error, measured on the row's candidates.
    """
    rough, unit = rough_encoder(x)
    guess, candidates = top_columns(rough, CANDIDATES * k)
    guess = guess.float() * unit
    exact = row_products(x, W_enc, candidates) + b_enc[candidates]
    values, place = exact.topk(k, dim=1, sorted=False)
    error = (exact - guess).square().mean(1).sqrt()
    sure = values.amin(1) > guess.amin(1) + SIGMAS * error
    return values, candidates.gather(1, place), sure


def row_products(x: Tensor, rows: Tensor, indices: Tensor) -> Tensor:
    """<rows[indices[t, j]], x[t]> for each t, j: [N, k]; x [N, d], rows [n, d].

    This is the gradient of `decode` by its values for a gradient x by its result. Called directly,
    it needs neither the forward pass nor a buffer [N, k, d].
    """
    width = indices.shape[1]
    slots = torch.arange(indices.numel(), device=x.device)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x, rows, indices.flatten(), slots[::width].contiguous(), slots // width, 0
    )
    return products.view(indices.shape)


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
