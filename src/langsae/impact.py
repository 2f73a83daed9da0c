"""Perplexities of many texts under many interventions, a batch of texts at a time.

The first, plain pass over a batch leaves the hidden states from which the changed ones go on, so
blocks below the first intervened layer run once. Each cell (a batch under one setting) is kept in a
scratch folder until all are there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from langsae.cells import Cells
from langsae.compute import Compute
from langsae.files import digest
from langsae.interventions import Intervention, fingerprint, stack
from langsae.models.tokens import TokenisedCorpus
from langsae.perplexity import Scorer

Impacted = Literal["all", "own"]


@dataclass(frozen=True)
class Plan:
    """One setting: what is done for each intervened language ({}: nothing).

    impacted: texts of all languages are scored under each intervention, or those of the intervened
    language only. fields: what results say of the setting.
    """

    interventions: dict[str, Intervention]
    impacted: Impacted
    fields: dict[str, Any]


@dataclass(frozen=True)
class Scoring:
    """The matrix of texts and settings. Its cells lie in a folder under `scratch` that is named by
    a digest of all they depend on: shards of it may be filled by any process that sees the folder.
    """

    scorer: Scorer
    tokens: TokenisedCorpus
    plans: Mapping[str, Plan]
    compute: Compute
    scratch: Path

    def fill(self, shard: tuple[int, int] = (0, 1)) -> None:
        """Compute the cells of shard (i, of n) of the batches that are not there yet."""
        groups = self._groups()
        for _ in self._cells(self._folder(), groups, range(len(groups))[shard[0] :: shard[1]]):
            pass

    def results(self) -> dict[str, np.ndarray]:
        """Perplexities of the N texts: `normal` [N] and per setting [L, N], float64."""
        groups, cells = self._groups(), self._folder()
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ("normal", *self.plans)}
        for name, values in self._cells(cells, groups, range(len(groups))):
            parts[name].append(values)
        order = np.argsort(np.concatenate([np.array(group) for group in groups]))
        scored = {name: np.concatenate(part, axis=-1)[..., order] for name, part in parts.items()}
        cells.remove()
        return scored

    def _groups(self) -> list[list[int]]:
        return self.tokens.batches(self.compute.batch_tokens)

    def _folder(self) -> Cells:
        key = _key(self.scorer, self.tokens, self.plans, self.compute.batch_tokens)
        return Cells(self.scratch / key)

    def _cells(
        self, cells: Cells, groups: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Setting and values of each cell of the batches `numbers`."""
        names = ("normal", *self.plans)
        with tqdm(total=len(numbers) * len(names), desc="perplexity", unit="cell") as bar:
            for number in numbers:
                batch = _Batch(self.scorer, self.tokens, groups[number], self.plans)
                for index, name in enumerate(names):
                    yield name, cells.array(f"{number}-{index}", partial(batch.of, name))
                    bar.update()


def score(
    scorer: Scorer,
    tokens: TokenisedCorpus,
    plans: Mapping[str, Plan],
    compute: Compute,
    scratch: Path,
) -> dict[str, np.ndarray]:
    """`Scoring.results`, in this process."""
    return Scoring(scorer, tokens, plans, compute, scratch).results()


class _Batch:
    """The texts of one batch: a plain pass, from whose hidden states the others go on."""

    def __init__(
        self,
        scorer: Scorer,
        tokens: TokenisedCorpus,
        group: Sequence[int],
        plans: Mapping[str, Plan],
    ) -> None:
        self.scorer, self.plans = scorer, plans
        self.ids = tokens.batch(group).ids
        self.lengths = [len(tokens.ids[index]) for index in group]
        self.languages = [tokens.languages[tokens.language[index]] for index in group]
        self._plain: tuple[np.ndarray, dict[int, torch.Tensor]] | None = None

    def of(self, name: str) -> np.ndarray:
        """`normal` [B], or a setting's [L, B]."""
        if name == "normal":
            return self._pass()[0]
        plan = self.plans[name]
        if plan.impacted == "all":
            return np.stack([self._under(each) for each in plan.interventions.values()])
        rows = [plan.interventions.get(code, {}) for code in self.languages]
        own = self._under(stack(rows))
        out = np.full((len(plan.interventions), len(own)), np.nan)
        for row, code in enumerate(plan.interventions):
            mine = np.array(self.languages) == code
            out[row, mine] = own[mine]
        return out

    def _under(self, intervention: Intervention) -> np.ndarray:
        plain, states = self._pass()
        if not intervention:
            return plain
        first = min(hook.layer for hook in intervention)
        nll = self.scorer.mean_nll(
            self.ids, self.lengths, intervention, resume=(first, states[first])
        )
        return np.exp(nll.numpy())

    def _pass(self) -> tuple[np.ndarray, dict[int, torch.Tensor]]:
        if self._plain is None:
            every = [each for plan in self.plans.values() for each in plan.interventions.values()]
            layers = {min(hook.layer for hook in each) for each in every if each}
            nll, states = self.scorer.plain(self.ids, self.lengths, sorted(layers))
            self._plain = np.exp(nll.numpy()), states
        return self._plain


def _key(
    scorer: Scorer, tokens: TokenisedCorpus, plans: Mapping[str, Plan], batch_tokens: int
) -> str:
    texts = [list(text) for text in tokens.ids]
    prints = {
        name: {code: fingerprint(each) for code, each in plan.interventions.items()}
        for name, plan in plans.items()
    }
    kinds = [plan.impacted for plan in plans.values()]
    inputs = [scorer.model.description, texts, tokens.languages, tokens.language]
    return digest([*inputs, batch_tokens, list(prints), prints, kinds])
