"""Activations of token sequences in chunks, computed when asked for and never stored."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.token_sequences import TokenSequences


class SequenceActivations(Sequence):
    """chunk i → {name: float32 [n, d]}: one LM pass for all hooks over about `chunk_tokens` tokens.

    hooks: the name of each hook point. skip: leading positions of a sequence that are left out;
    excluded: token ids whose positions are. per_pass: sequences in one forward pass.
    """

    def __init__(
        self,
        model: LanguageModel,
        hooks: Mapping[str, HookPoint],
        sequences: TokenSequences,
        chunk_tokens: int,
        per_pass: int,
        skip: int = 0,
        excluded: Iterable[int] = (),
    ) -> None:
        self.model, self.hooks, self.sequences = model, dict(hooks), sequences
        self.rows = max(1, chunk_tokens // sequences.length)
        self.per_pass, self.skip = per_pass, skip
        self.excluded = torch.tensor(sorted(set(excluded)), dtype=torch.int64)
        if skip >= sequences.length:
            raise InputError(f"sequences have {sequences.length} tokens: --skip {skip} leaves none")

    def widths(self) -> dict[str, int]:
        """The width of the activations at each hook."""
        taken = self.model.activations(self.sequences.rows(0, 1)[:, :1], self.hooks.values())
        return {name: taken[hook].shape[-1] for name, hook in self.hooks.items()}

    def __len__(self) -> int:
        return -(-len(self.sequences) // self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = range(len(self))[index]
        stop = min((index + 1) * self.rows, len(self.sequences))
        return self._of(index * self.rows, stop, f"activations {index + 1}/{len(self)}")

    def sample(self, tokens: int) -> dict[str, Tensor]:
        """The activations of the first sequences that hold about so many tokens."""
        rows = max(1, tokens // self.sequences.length)
        return self._of(0, min(rows, len(self.sequences)), "probe")

    def _of(self, start: int, stop: int, what: str) -> dict[str, Tensor]:
        """Of sequences start..stop - 1."""
        parts: dict[str, list[Tensor]] = {name: [] for name in self.hooks}
        for first in tqdm(range(start, stop, self.per_pass), desc=what, leave=False):
            ids = self.sequences.rows(first, min(first + self.per_pass, stop))
            counted = ~torch.isin(ids, self.excluded)
            counted[:, : self.skip] = False
            taken = self.model.activations(ids, self.hooks.values())
            for name, hook in self.hooks.items():
                parts[name].append(taken[hook][counted.to(self.model.device)].float().cpu())
        chunk = {name: torch.cat(values) for name, values in parts.items()}
        for name, values in chunk.items():
            if not bool(torch.isfinite(values).all()):
                raise InputError(f"{name}: the activations are not finite; check model and dtype")
        return chunk
