"""An explaining model on this machine, out of `models` in params.yaml.

A small one explains little: what it scores says how far its answers can be trusted.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from transformers import DynamicCache

from langsae.errors import InputError
from langsae.interpret.answers import Question
from langsae.interpret.prompts import Message
from langsae.models.source import LoadedModel
from langsae.params import Spec


class LocalSpec(Spec):
    """model: a key of `models`; max_tokens: of an explanation."""

    source: Literal["local"]
    model: str
    max_tokens: PositiveInt = 60


class LocalModel:
    """Answers greedily: with one line of text, or with the likelier digit at each place of a list.

    An answer depends on the question alone: what comes before the last turn is computed apart, in
    one pass, and kept for the next questions that begin so.
    """

    workers = 1

    def __init__(self, loaded: LoadedModel, device: str = "cpu") -> None:
        if loaded.network is None or loaded.processed:
            raise InputError("a local explainer needs a model with `weights: as published`")
        self._tokenizer, self._description = loaded.tokenizer, loaded.description
        self._network = loaded.network.to(device).eval()
        self._longest = getattr(loaded.network.config, "max_position_embeddings", None)
        self._device = device
        self._head: tuple[tuple[int, ...], DynamicCache] | None = None
        self._digits = [self._single(digit) for digit in "01"]

    def _single(self, text: str) -> int:
        ids = self._encode(text)
        if len(ids) != 1:
            raise InputError(f"the local explainer's tokenizer cuts '{text}' up; take another")
        return ids[0]

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def describe(self) -> dict[str, Any]:
        """The model, by its files."""
        return {"source": "local", "model": self._description}

    @torch.inference_mode()
    def answer(self, question: Question) -> str:
        """The answer, opening included; InputError for a question beyond the model's context.

        A list of digits is written by the form asked for; each digit is the one of higher logit (0
        where they are equal).
        """
        head, tail = self._ids(question.messages)
        length = len(head) + len(tail)
        room = 2 * question.digits + 1 if question.digits else question.max_tokens
        if self._longest is not None and length + room > self._longest:
            raise InputError(
                f"a question of {length} tokens is too long for the local explainer, which takes "
                f"{self._longest}; lower contexts.shown"
            )
        cache = self._cache(head)
        try:
            if question.digits:
                return self._list(tail, question.digits, cache)
            return self._line(tail, question, cache)
        finally:
            if (beyond := cache.get_seq_length() - len(head)) > 0:
                cache.crop(-beyond)

    def _ids(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids up to the last turn, and from there to where the answer starts."""
        whole = tuple(self._encode(self._render(messages, True)))
        head = tuple(self._encode(self._render(messages[:-1], False)))
        if whole[: len(head)] != head:
            return (), whole
        return head, whole[len(head) :]

    def _render(self, messages: Sequence[Message], answer: bool) -> str:
        if self._tokenizer.chat_template:
            return self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=answer
            )
        turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages)
        return turns + ("Assistant: " if answer else "")

    def _cache(self, head: tuple[int, ...]) -> DynamicCache:
        if self._head is None or self._head[0] != head:
            cache = DynamicCache()
            if head:
                self._logits(head, cache)
            self._head = head, cache
        return self._head[1]

    def _logits(self, ids: Sequence[int], cache: DynamicCache) -> Tensor:
        """Logits [vocabulary] after `ids`, which follow what the cache holds."""
        done = self._network(
            torch.tensor([ids], device=self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return done.logits[0, -1]

    def _list(self, tail: Sequence[int], n: int, cache: DynamicCache) -> str:
        digits: list[int] = []
        fed = [*tail, *self._encode("[")]
        for _ in range(n):
            zero, one = self._logits(fed, cache)[self._digits].tolist()
            digits.append(int(one > zero))
            fed = [self._digits[digits[-1]], *self._encode(",")]
        return f"[{','.join(map(str, digits))}]"

    def _line(self, tail: Sequence[int], question: Question, cache: DynamicCache) -> str:
        out: list[int] = []
        fed = [*tail, *self._encode(question.opening)]
        for _ in range(question.max_tokens):
            token = int(self._logits(fed, cache).argmax())
            if token == self._tokenizer.eos_token_id:
                break
            out.append(token)
            fed = [token]
            if "\n" in self._tokenizer.decode(out).lstrip():
                break
        text = self._tokenizer.decode(out, skip_special_tokens=True)
        return question.opening + text.rstrip()
