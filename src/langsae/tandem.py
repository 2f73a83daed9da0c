"""Writing with two models in tandem: the full one reads along, its features are added to the mid's.

Greedy decoding with the keys and values of both models kept. All rows are one text's prompt under
different masks, so nothing is padded. What all prompts begin with is computed once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor
from transformers import DynamicCache

from langsae.injection import Injector, check_pair
from langsae.interventions import intervened
from langsae.models.language_model import LanguageModel, blocks
from langsae.perplexity import output_head


class Tandem:
    """S rows after one `prefix`: row s has features masks[s] (bool [S, F]) added alphas[s] times.

    inject_first: also add at the first position of all, the BOS, which the study's SAEs never saw.
    A row whose mask is empty is written by the mid model alone.
    """

    @torch.inference_mode()
    def __init__(
        self,
        full: LanguageModel,
        mid: LanguageModel,
        injector: Injector,
        masks: Tensor,
        alphas: Sequence[float],
        prefix: Sequence[int] = (),
        inject_first: bool = False,
    ) -> None:
        check_pair(full, mid, injector.hook)
        self.full, self.mid, self.injector = full, mid, injector
        self.masks = masks.to(full.device)
        self.alphas = torch.tensor(list(alphas), dtype=torch.float32, device=full.device)
        self.inject_first = inject_first
        self._head = output_head(mid)
        self._full_cache = DynamicCache(config=full.network.config)
        self._mid_cache = DynamicCache(config=mid.network.config)
        if prefix:
            self._together(prefix)

    @torch.inference_mode()
    def write(
        self, tail: Sequence[int], new_tokens: int, ends: Tensor, least: int = 0
    ) -> list[list[int]]:
        """The tokens that each row adds after prefix and `tail`, at most `new_tokens`.

        ends: bool [V], the tokens after which a row stops; such a token is still in it, and is not
        taken before the row has `least` others. The rows start anew at each call.
        """
        kept = self._mid_cache.get_seq_length()
        rows: list[list[int]] = [[] for _ in self.masks]
        ends = ends.to(self.mid.device)
        try:
            hidden = self._together(tail)
            running = torch.ones(len(rows), dtype=torch.bool, device=self.mid.device)
            for step in range(new_tokens):
                logits = self._head(hidden)
                if step < least:
                    logits = logits.masked_fill(ends, -torch.inf)
                chosen = logits.argmax(-1)
                for row, token in zip(running.nonzero()[:, 0].tolist(),
                                      chosen[running].tolist(), strict=True):  # fmt: skip
                    rows[row].append(token)
                running &= ~ends[chosen]
                if step + 1 == new_tokens or not bool(running.any()):
                    break
                hidden = self._apart(chosen[:, None])
        finally:
            self._back_to(kept)
        return rows

    def _together(self, ids: Sequence[int]) -> Tensor:
        """All rows read the same `ids`: the mid model's last hidden state [S, d]."""
        rows, fed = len(self.masks), torch.tensor([list(ids)], device=self.full.device)
        first = self._full_cache.get_seq_length() == 0
        where = torch.ones_like(fed, dtype=torch.bool)
        where[:, 0] = self.inject_first or not first
        if first:  # one row stands for all until they are told apart
            reading = self.injector.read(self._read(fed), where)
            self._full_cache.batch_repeat_interleave(rows)
        else:
            hidden = self._read(fed.expand(rows, -1))[:1]
            reading = self.injector.read(hidden, where)
        parts = [
            self.injector.addition(reading, self.masks[row], float(self.alphas[row]))
            for row in range(rows)
        ]
        return self._changed(fed.expand(rows, -1), torch.cat(parts))

    def _apart(self, fed: Tensor) -> Tensor:
        """Each row reads its own token of fed [S, 1]."""
        reading = self.injector.read(self._read(fed), torch.ones_like(fed, dtype=torch.bool))
        return self._changed(fed, self.injector.addition(reading, self.masks, self.alphas))

    def _read(self, fed: Tensor) -> Tensor:
        """The full model's activations [B, T, d] at the hook; it goes no further."""
        with _tapped(self.full, self.injector.hook.layer) as taken, suppress(_Reached):
            self.full.network.base_model(
                input_ids=fed, past_key_values=self._full_cache, use_cache=True
            )
        return taken[0]

    def _changed(self, fed: Tensor, addition: Tensor) -> Tensor:
        with intervened(self.mid, self.injector.intervention(addition)):
            out = self.mid.network.base_model(
                input_ids=fed, past_key_values=self._mid_cache, use_cache=True
            )
        return out.last_hidden_state[:, -1]

    def _back_to(self, length: int) -> None:
        if length == 0:
            self._full_cache.reset()
            self._mid_cache.reset()
            return
        for cache in (self._full_cache, self._mid_cache):
            if (beyond := cache.get_seq_length() - length) > 0:
                cache.crop(-beyond)


class _Reached(Exception):
    """Ends the full model's forward pass."""


@contextmanager
def _tapped(model: LanguageModel, layer: int) -> Iterator[list[Tensor]]:
    """Within the block, a forward pass leaves block `layer`'s output in the list and stops."""
    taken: list[Tensor] = []

    def keep(module, args, out) -> None:
        taken.append(out[0] if isinstance(out, tuple) else out)
        raise _Reached

    handle = blocks(model.network, model.n_layers)[layer].register_forward_hook(keep)
    try:
        yield taken
    finally:
        handle.remove()
