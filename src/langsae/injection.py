"""Adding what an SAE reads in one model to the activations of another (Inaba et al. 2025, Eq. 7).

    h_mid <- h_mid + alpha * u * Dec(m * Enc(h_full))

Both models read the same tokens. Enc is the SAE of the full model at one hook point, m selects
features, and Dec is the decoder without its bias, which is no feature's: with m = 0 nothing is
added. u undoes the SAE's input normalisation; where that is a vector's own L2 norm, the paper does
not say whose norm to take (`UndoL2`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.interventions import Edit, Intervention
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.perplexity import Scorer
from langsae.saes.codes import SparseCoder, SparseCodes, weighted_rows
from langsae.saes.topk import InputNorm

UndoL2 = Literal["full norm", "mid norm", "none"]


@dataclass(frozen=True)
class NormScaledEdit(Edit):
    """x becomes x + |x| * shift, by the L2 norm of each position; `keep` is not used."""

    def __call__(self, x: Tensor, where: Tensor | None = None) -> Tensor:
        """The edited x [B, T, d]; `where` bool [B, T] limits it to some positions."""
        norms = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
        edited = x + (norms * self.shift).to(x.dtype)
        return edited if where is None else torch.where(where[..., None], edited, x)

    def to(self, device: torch.device) -> "NormScaledEdit":
        """A copy on `device`."""
        return NormScaledEdit(self.shift.to(device))


@dataclass(frozen=True)
class Reading:
    """What the SAE reads in the full model.

    where: bool [B, T], the N positions that are read; codes: theirs, in row-major order; norms:
    float32 [N], the L2 norms of the full model's activations.
    """

    where: Tensor
    codes: SparseCodes
    norms: Tensor

    def masked(self, masks: Tensor) -> SparseCodes:
        """The codes of the selected features: masks bool [F], or [B, F], one a text."""
        codes = self.codes
        if masks.ndim == 1:
            keep = masks[codes.feature]
        else:
            text = self.where.nonzero()[:, 0]
            keep = masks[text[codes.token], codes.feature]
        return SparseCodes(codes.token[keep], codes.feature[keep], codes.value[keep], codes.shape)


class Injector:
    """Eq. 7 at one hook point of both models.

    bias: also add the decoder's bias (and the mean of an SAE that subtracts one), whatever the
    mask. Raises InputError for a coder without a decoder matrix.
    """

    def __init__(
        self,
        coder: SparseCoder,
        hook: HookPoint,
        undo_l2: UndoL2 = "full norm",
        bias: bool = False,
    ) -> None:
        if not hasattr(coder, "W_dec"):
            raise InputError(f"{type(coder).__name__} has no decoder to take features from")
        self.coder, self.hook, self.bias = coder, hook, bias
        self._norm = getattr(coder, "norm", InputNorm())
        self._undo = undo_l2 if self._norm.kind == "l2" else "none"

    def read(self, hidden: Tensor, where: Tensor) -> Reading:
        """Encode the full model's activations hidden [B, T, d] at the positions `where` [B, T]."""
        x = hidden[where].float()
        norms = torch.linalg.vector_norm(x, dim=-1)
        return Reading(where, self.coder.encode(x), norms)

    def addition(self, reading: Reading, masks: Tensor, alpha: Tensor | float) -> Tensor:
        """alpha * u * Dec(m * codes), float32 [B, T, d], zero elsewhere; without u = |h_mid|.

        masks: bool [F], or [B, F]; alpha: a number, or float32 [B].
        """
        codes = reading.masked(masks)
        decoded = reading.norms.new_zeros(len(reading.norms), self.coder.W_dec.shape[1])
        if len(codes.token):
            decoded = weighted_rows(codes, self.coder.W_dec)
        if self.bias:
            decoded = decoded + self.coder.b_dec
        decoded = decoded * self._norm.scale
        if self.bias and self._norm.mean is not None:
            decoded = decoded + self._norm.mean
        if self._undo == "full norm":
            decoded = decoded * reading.norms[:, None]
        if isinstance(alpha, Tensor):
            alpha = alpha[reading.where.nonzero()[:, 0], None]
        out = decoded.new_zeros(*reading.where.shape, decoded.shape[1])
        out[reading.where] = alpha * decoded
        return out

    def intervention(self, addition: Tensor) -> Intervention:
        """The change of the mid model's forward pass over the same positions."""
        if not bool(addition.any()):
            return {}  # x + 0 would be x but for the sign of zeros
        edit = NormScaledEdit if self._undo == "mid norm" else Edit
        return {self.hook: edit(addition)}


@dataclass(frozen=True)
class Prepared:
    """A batch of texts that both models have read.

    plain: float64 [B], the mid model's mean negative log-likelihood; given: float32 [B, T, d], what
    its block `block` was given there, the first one that runs differently.
    """

    ids: Tensor
    lengths: Sequence[int]
    reading: Reading
    plain: Tensor
    block: int
    given: Tensor


class InjectedScorer:
    """How well the mid model predicts texts while features of the full one are added."""

    def __init__(self, full: LanguageModel, mid: LanguageModel, injector: Injector) -> None:
        check_pair(full, mid, injector.hook)
        self.full, self.injector, self._scorer = full, injector, Scorer(mid)

    @torch.inference_mode()
    def prepare(self, ids: Tensor, lengths: Sequence[int], where: Tensor) -> Prepared:
        """ids int64 [B, T], right-padded; where bool [B, T]: the positions that are added to."""
        hook = self.injector.hook
        hidden = self.full.activations(ids, [hook])[hook]
        reading = self.injector.read(hidden, where.to(hidden.device))
        block = min(hook.layer + 1, self._scorer.model.n_layers - 1)
        plain, states = self._scorer.plain(ids, lengths, [block])
        return Prepared(ids, lengths, reading, plain, block, states[block])

    @torch.inference_mode()
    def mean_nll(self, batch: Prepared, mask: Tensor, alpha: float) -> Tensor:
        """Mean negative log-likelihood of each text, float64 [B]; mask bool [F].

        Only the blocks above the injected one are run again (the last one, if it is that).
        """
        addition = self.injector.addition(batch.reading, mask, alpha)
        change = self.injector.intervention(addition)
        if not change:
            return batch.plain
        given, hook = batch.given, self.injector.hook
        if batch.block > hook.layer:  # it is given the changed states as they are
            given, change = change[hook](given), {}
        return self._scorer.mean_nll(batch.ids, batch.lengths, change, resume=(batch.block, given))


def check_pair(full: LanguageModel, mid: LanguageModel, hook: HookPoint) -> None:
    """Refuse two models that do not read the same tokens into streams of the same width."""
    for model in (full, mid):
        model.check([hook])
    if full.d_model != mid.d_model:
        raise InputError(
            f"{hook}: the two models are {full.d_model} and {mid.d_model} wide; "
            "take two checkpoints of one model"
        )
    if full.tokenizer.get_vocab() != mid.tokenizer.get_vocab():
        raise InputError("the two models have different tokenizers; take checkpoints of one model")
