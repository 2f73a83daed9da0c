"""Activations of a corpus in chunks: computed once in one LM pass, revisited from disk."""

import shutil
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from langsae.compute import Compute
from langsae.files import publish
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.models.tokens import TokenisedCorpus


class ActivationChunks(Sequence):
    """chunk i → {hook: float32 [n, d]}: the counted positions of a seeded mix of texts.

    Each chunk holds about `chunk_tokens` positions. It is computed when first asked for, by one LM
    pass for all hooks, and kept as a file in `folder` (disk, not memory, grows with the text).
    keep=False keeps none: for one epoch over more text than a disk holds.
    """

    def __init__(
        self,
        model: LanguageModel,
        hooks: Sequence[str],
        corpus: TokenisedCorpus,
        compute: Compute,
        chunk_tokens: int,
        seed: int,
        folder: Path,
        keep: bool = True,
    ) -> None:
        self.model = model
        self.hooks = [HookPoint.parse(hook) for hook in hooks]
        self.corpus = corpus
        self.folder = folder
        self.keep = keep
        self.plan = _plan(corpus, compute.batch_tokens, chunk_tokens, seed)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        label = f"activations {index + 1}/{len(self)}"
        if not self.keep:
            return self._compute(self.plan[index], label)
        path = self.folder / f"chunk{index}.safetensors"
        if not path.is_file():
            with publish(path) as temporary:
                save_file(self._compute(self.plan[index], label), temporary)
        # cloned: tensors of a mapped file are not aligned, which can change the last bit of sums
        return {hook: value.clone() for hook, value in load_file(path).items()}

    def of(self, hooks: Sequence[str]) -> "ActivationChunks":
        """The same chunks; where none is kept, of these hooks alone."""
        if self.keep:
            return self
        fewer = copy(self)
        fewer.hooks = [HookPoint.parse(hook) for hook in hooks]
        return fewer

    def head(self, tokens: int) -> dict[str, Tensor]:
        """The first `tokens` positions of chunk 0, or all of it: {hook: float32 [n, d]}."""
        if self.keep:
            return {hook: value[:tokens] for hook, value in self[0].items()}
        groups, found = [], 0
        for group in self.plan[0]:
            groups.append(group)
            found += _counted(self.corpus, group)
            if found >= tokens:
                break
        taken = self._compute(groups, "activations, a sample")
        return {hook: value[:tokens] for hook, value in taken.items()}

    def _compute(self, groups: Sequence[Sequence[int]], label: str) -> dict[str, Tensor]:
        rows: dict[HookPoint, list[Tensor]] = {hook: [] for hook in self.hooks}
        for group in tqdm(groups, desc=label, unit="batch"):
            batch = self.corpus.batch(group).to(self.model.device)
            for hook, value in self.model.activations(batch.ids, self.hooks).items():
                rows[hook].append(value[batch.counted].float().cpu())
        return {str(hook): torch.cat(parts) for hook, parts in rows.items()}

    def clear(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _plan(
    corpus: TokenisedCorpus, batch_tokens: int, chunk_tokens: int, seed: int
) -> list[list[list[int]]]:
    """Batches (text indices) of each chunk: all batches in a seeded order, cut by token count."""
    batches = corpus.batches(batch_tokens)
    chunks: list[list[list[int]]] = [[]]
    size = 0
    for index in np.random.default_rng(seed).permutation(len(batches)):
        tokens = _counted(corpus, batches[index])
        if chunks[-1] and size + tokens > chunk_tokens:
            chunks.append([])
            size = 0
        chunks[-1].append(batches[index])
        size += tokens
    return chunks


def _counted(corpus: TokenisedCorpus, texts: Sequence[int]) -> int:
    return sum(len(corpus.ids[text]) - corpus.skipped for text in texts)
