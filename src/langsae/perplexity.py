"""How well a model predicts texts, plain and under interventions.

The perplexity of a text is exp of the mean negative log-likelihood of its tokens given those before
them; its first token (the BOS) is context only. Blocks before the first changed one are run once
for a batch: every intervention goes on from there.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.interventions import Intervention, check, intervened
from langsae.models.language_model import LanguageModel, blocks

_LOGITS = 1 << 25  # logits held at a time: 128 MB of float32
_PROBE = 8  # positions on which the head is compared with the model's own logits


class Scorer:
    """Mean negative log-likelihoods under one model."""

    def __init__(self, model: LanguageModel) -> None:
        check(model)
        self.model = model
        self._head = output_head(model)
        self._check_resuming()

    @torch.inference_mode()
    def mean_nll(
        self,
        ids: Tensor,
        lengths: Sequence[int],
        intervention: Intervention | None = None,
        context: Sequence[int] | None = None,
        resume: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood of each right-padded text: float64 [B], on the CPU.

        ids: int64 [B, T]; lengths: tokens of each; context: how many leading tokens are not scored
        (default 1). resume: a block and the hidden states [B, T, d] it was given in a plain pass,
        which then replace the blocks before it. Raises InputError where a text has nothing to score
        or a likelihood is not finite.
        """
        context = context or [1] * len(lengths)
        if any(length <= start for length, start in zip(lengths, context, strict=True)):
            raise InputError("perplexity: a text has no token after its context; drop such texts")
        with ExitStack() as stack:
            if resume is not None:
                stack.enter_context(_resumed(self.model, *resume))
            stack.enter_context(intervened(self.model, intervention or {}))
            hidden = self._hidden(ids)
        position = torch.arange(ids.shape[1] - 1)  # predicts position + 1
        starts, ends = torch.tensor(context)[:, None], torch.tensor(lengths)[:, None]
        scored = (position >= starts - 1) & (position < ends - 1)
        row, at = scored.nonzero(as_tuple=True)
        losses = self._losses(hidden, ids.to(hidden.device), row, at)
        sums = torch.zeros(len(lengths), dtype=torch.float64).index_add_(0, row, losses)
        if not bool(torch.isfinite(sums).all()):
            raise InputError("perplexity: a likelihood is not finite; lower the multipliers")
        return sums / scored.sum(1)

    def plain(
        self, ids: Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """mean_nll without intervention, and what each block of `layers` was given there."""
        with _recorded(self.model, layers) as states:
            return self.mean_nll(ids, lengths), states

    def _check_resuming(self) -> None:
        ids, last = _probe(self.model), self.model.n_layers - 1
        whole, states = self.plain(ids, [_PROBE], [last])
        resumed = self.mean_nll(ids, [_PROBE], resume=(last, states[last]))
        if not torch.equal(whole, resumed):
            raise InputError(f"{type(self.model.network).__name__}: its blocks cannot be resumed")

    def _hidden(self, ids: Tensor) -> Tensor:
        ids = ids.to(self.model.device)
        return self.model.network.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def _losses(self, hidden: Tensor, ids: Tensor, row: Tensor, at: Tensor) -> Tensor:
        size = max(1, _LOGITS // self.model.network.config.vocab_size)
        row, at = row.to(hidden.device), at.to(hidden.device)
        parts = []
        for r, t in zip(row.split(size), at.split(size), strict=True):
            logits = self._head(hidden[r, t])
            told = logits.gather(1, ids[r, t + 1, None])[:, 0]
            parts.append((logits.logsumexp(-1) - told).double().cpu())
        return torch.cat(parts)


def _probe(model: LanguageModel) -> Tensor:
    return torch.arange(_PROBE, device=model.device)[None] % model.network.config.vocab_size


def output_head(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """From last hidden states [N, d] to float32 logits, checked against the model's own."""
    network = model.network
    cap = getattr(network.config, "final_logit_softcapping", None)  # Gemma 2

    def head(hidden: Tensor) -> Tensor:
        logits = network.get_output_embeddings()(hidden)
        return (logits if cap is None else cap * torch.tanh(logits / cap)).float()

    ids = _probe(model)
    with torch.inference_mode():
        ours = head(network.base_model(input_ids=ids, use_cache=False).last_hidden_state[0])
        theirs = network(input_ids=ids, use_cache=False).logits[0].float()
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
        raise InputError(f"{type(network).__name__}: its head does more than one matrix; not read")
    return head


@contextmanager
def _recorded(model: LanguageModel, layers: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the hidden states that blocks are given."""
    states: dict[int, Tensor] = {}

    def keep(layer: int):
        def before(module, args, kwargs) -> None:
            states[layer] = args[0] if args else kwargs["hidden_states"]

        return before

    with ExitStack() as stack:
        for layer in layers:
            block = blocks(model.network, model.n_layers)[layer]
            handle = block.register_forward_pre_hook(keep(layer), with_kwargs=True)
            stack.callback(handle.remove)
        yield states


@contextmanager
def _resumed(model: LanguageModel, layer: int, hidden: Tensor) -> Iterator[None]:
    """Forward passes start at block `layer` with `hidden`; the blocks before it do nothing."""

    def given(module, args, kwargs):
        if args:
            return (hidden, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": hidden}

    every = blocks(model.network, model.n_layers)
    with ExitStack() as stack:
        for block in every[:layer]:
            block.forward = _nothing  # an attribute of this block hides its class's method
            stack.callback(block.__dict__.pop, "forward")
        handle = every[layer].register_forward_pre_hook(given, with_kwargs=True)
        stack.callback(handle.remove)
        yield


def _nothing(hidden_states: Tensor, *args, **kwargs) -> Tensor:
    return hidden_states
