"""Sampling texts from a model under interventions, many at a time, each with a seed of its own.

Two ways to go on after a token. `reencode: false` keeps the keys and values of earlier positions.
`reencode: true` is how SAE-LAPE steered all tokens: the text so far is decoded and encoded anew
before each token, so the model may see other tokens than it chose, and a character of which only
the first bytes were chosen becomes U+FFFD for good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from langsae.errors import InputError
from langsae.interventions import Intervention, intervened, stack
from langsae.models.language_model import LanguageModel
from langsae.params import Spec
from langsae.perplexity import output_head


class Sampling(Spec):
    """In the order in which transformers applies them; top_k null keeps the whole vocabulary."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class Continuation(Spec):
    """How texts go on. positions: intervene on every position, or on the last of what is fed in.

    With kept keys and values "last" is the prompt's last token and every chosen one, as in the
    original; with `reencode` it is the last position alone.
    """

    new_tokens: PositiveInt
    sampling: Sampling = Sampling()
    positions: Literal["all", "last"] = "all"
    reencode: bool = False
    bos: Literal["prepend", "none"] = "prepend"


@dataclass(frozen=True)
class Request:
    """One text to write."""

    prompt: str
    seed: int
    intervention: Intervention


@dataclass(frozen=True)
class Generation:
    """`ids` is the whole sequence, of which the first `context` are BOS and prompt; `text` is what
    was added, without an end token."""

    text: str
    ids: tuple[int, ...]
    context: int


def pick(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """One token id a row of logits [B, V]: the inverse of the distribution function at `uniform`
    (float64 [B] in [0, 1)), the tokens ordered from the likeliest. int64 [B].
    """
    scaled = logits.double() / sampling.temperature
    if sampling.top_k is None:
        values, order = scaled.sort(dim=-1, descending=True, stable=True)
    else:
        values, order = scaled.topk(min(sampling.top_k, scaled.shape[-1]), dim=-1)
    chances = values.softmax(-1)
    before = chances.cumsum(-1) - chances
    chances = chances.masked_fill(before >= sampling.top_p, 0.0)
    chances[:, 0] = values.softmax(-1)[:, 0]  # the likeliest always stays
    summed = chances.cumsum(-1)
    at = torch.searchsorted(summed, (uniform.to(summed) * summed[:, -1])[:, None], right=True)
    last = (chances > 0).sum(-1, keepdim=True) - 1
    return order.gather(-1, at.minimum(last))[:, 0]


class Generator:
    """Writes texts with one model."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._head: Callable[[Tensor], Tensor] = output_head(model)

    @torch.inference_mode()
    def write(self, requests: Sequence[Request], how: Continuation) -> list[Generation]:
        """The texts of `requests`, which share one prompt and form one batch.

        The same request gives the same draws in any batch. Raises InputError where prompts differ,
        or an empty prompt meets a tokenizer without BOS.
        """
        prompts = {request.prompt for request in requests}
        if len(prompts) != 1:
            raise InputError("generate: a batch needs one prompt; split the requests by prompt")
        start = self._encode(prompts.pop(), how)
        if not start:
            raise InputError("generate: an empty prompt needs a tokenizer with a BOS token")
        draws = torch.stack([_draws(request.seed, how.new_tokens) for request in requests])
        interventions = [request.intervention for request in requests]
        write = self._reencoding if how.reencode else self._keeping
        rows = write([list(start) for _ in requests], interventions, draws, how)
        pairs = zip(rows, requests, strict=True)
        return [self._finished(ids, request, start, how) for ids, request in pairs]

    def _keeping(
        self, rows: list[list[int]], edits: list[Intervention], draws: Tensor, how: Continuation
    ) -> list[list[int]]:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.network.config)
        running, stacked = list(range(len(rows))), stack(edits)
        fed = torch.tensor(rows)
        for step in range(how.new_tokens):
            where = None
            if how.positions == "last":
                where = torch.arange(fed.shape[1]).eq(fed.shape[1] - 1).expand(fed.shape)
            hidden = self._forward(fed, stacked, where, cache)[:, -1]
            chosen = pick(self._head(hidden), how.sampling, draws[running, step]).tolist()
            alive = self._append(rows, running, chosen)
            if not alive:
                break
            if len(alive) < len(running):
                running = [running[i] for i in alive]
                cache.batch_select_indices(torch.tensor(alive, device=self.model.device))
                stacked = stack([edits[i] for i in running])
            fed = torch.tensor([[rows[i][-1]] for i in running])
        return rows

    def _reencoding(
        self, rows: list[list[int]], edits: list[Intervention], draws: Tensor, how: Continuation
    ) -> list[list[int]]:
        running, stacked = list(range(len(rows))), stack(edits)
        for step in range(how.new_tokens):
            last = torch.tensor([len(rows[i]) - 1 for i in running])
            fed = torch.zeros(len(running), int(last.max()) + 1, dtype=torch.int64)
            for at, i in enumerate(running):
                fed[at, : len(rows[i])] = torch.tensor(rows[i])
            where = torch.arange(fed.shape[1]).eq(last[:, None])
            hidden = self._forward(fed, stacked, where if how.positions == "last" else None)
            hidden = hidden[torch.arange(len(running)), last]
            chosen = pick(self._head(hidden), how.sampling, draws[running, step]).tolist()
            alive = self._append(rows, running, chosen)
            if not alive:
                break
            if len(alive) < len(running):
                running = [running[i] for i in alive]
                stacked = stack([edits[i] for i in running])
            for i in running:
                rows[i] = self._encode(self._decode(rows[i], how), how)
        return rows

    def _append(self, rows: list[list[int]], running: list[int], chosen: list[int]) -> list[int]:
        """Add a token to each running row; which of them go on."""
        for i, token in zip(running, chosen, strict=True):
            rows[i].append(token)
        return [at for at, i in enumerate(running) if rows[i][-1] not in self._ends()]

    def _ends(self) -> set[int]:
        return {self.model.tokenizer.eos_token_id} - {None}

    def _forward(self, ids: Tensor, edits: Intervention, where: Tensor | None, cache=None):
        device = self.model.device
        where = None if where is None else where.to(device)
        with intervened(self.model, edits, where):
            return self.model.network.base_model(
                input_ids=ids.to(device), past_key_values=cache, use_cache=cache is not None
            ).last_hidden_state

    def _encode(self, text: str, how: Continuation) -> list[int]:
        ids = self.model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if how.bos == "none" or self.model.tokenizer.bos_token_id is None:
            return ids
        return [self.model.tokenizer.bos_token_id, *ids]

    def _decode(self, ids: list[int], how: Continuation) -> str:
        return self.model.tokenizer.decode(ids[len(self._encode("", how)) :])

    def _finished(
        self, ids: list[int], request: Request, start: list[int], how: Continuation
    ) -> Generation:
        while len(ids) > len(start) and ids[-1] in self._ends():
            ids = ids[:-1]
        whole = self._decode(ids, how)
        return Generation(whole[len(request.prompt) :], tuple(ids), len(start))


def _draws(seed: int, steps: int) -> Tensor:
    return torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
