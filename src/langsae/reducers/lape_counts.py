"""What language-activation-probability entropy (LAPE) asks of features and of neurons."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from langsae.models.tokens import TokenTable
from langsae.reducers.base import Reducer, SparseBatch, exact


class LapeCounts(Reducer):
    """Hits, texts with a hit, and sum, largest and smallest value of the hits.

    A hit is a code that the SAE yields: of a TopK SAE all k slots of a token, as sae_lape was
    published; `idle` tells how many of them have the value 0, which elsewhere is not active.
    Per (hook, language, feature): hits, examples: int64 [H, L, F]; total: float64; max, min:
    float32, -inf and inf where nothing hit. idle: int64 [H, L].

    hooks: which of the collection's hook points these are, by index; others are passed over.
    """

    name = "lape_counts"
    grids: ClassVar = {"total": 2.0**-20}  # exact up to 8.6e9
    merges: ClassVar = {"max": torch.maximum, "min": torch.minimum}

    def __init__(
        self,
        header: dict[str, Any],
        hooks: Sequence[int],
        languages: int,
        features: int,
        device: str = "cpu",
    ) -> None:
        shape = (len(hooks), languages, features)
        self.rows = {hook: row for row, hook in enumerate(hooks)}
        super().__init__(
            own_header(header, hooks),
            {
                "hits": torch.zeros(shape, dtype=torch.int64, device=device),
                "examples": torch.zeros(shape, dtype=torch.int64, device=device),
                "total": torch.zeros(shape, dtype=torch.float64, device=device),
                "max": torch.full(shape, -torch.inf, device=device),
                "min": torch.full(shape, torch.inf, device=device),
                "idle": torch.zeros(shape[:2], dtype=torch.int64, device=device),
            },
        )

    def update(self, batch: SparseBatch) -> None:
        row = self.rows.get(batch.hook)
        if row is None:
            return
        codes, language = batch.codes, batch.tokens.language
        text, count = texts(batch.tokens)
        features = self.state["hits"].shape[-1]
        # one sort brings together the hits of a cell (language, feature), and in it those of a text
        cell = language[codes.token] * features + codes.feature
        key, order = (cell * count + text[codes.token]).sort()
        value = codes.value[order]
        cells, place, hits = (key // count).unique_consecutive(
            return_inverse=True, return_counts=True
        )
        first = torch.ones_like(key)
        first[1:] = key[1:] != key[:-1]
        state = {name: tensor[row].view(-1) for name, tensor in self.state.items()}
        state["hits"][cells] += hits
        state["examples"][cells] += torch.zeros_like(hits).index_add_(0, place, first)
        sums = exact(value, self.grids["total"])
        state["total"][cells] += sums.new_zeros(len(cells)).index_add_(0, place, sums)
        for name, extreme in (("max", "amax"), ("min", "amin")):
            state[name][cells] = state[name][cells].scatter_reduce(0, place, value, extreme)
        state["idle"].index_add_(0, language[codes.token], (codes.value == 0).long())


class NeuronCounts(LapeCounts):
    """The same of neurons, read densely: a hit is a value above 0, of which there are too many
    for sparse codes to pay. `idle` stays 0."""

    name = "neuron_counts"

    def update(self, batch: SparseBatch) -> None:
        row = self.rows.get(batch.hook)
        if row is None:
            return
        values, language = batch.vectors, batch.tokens.language
        text, count = texts(batch.tokens)
        spoken = language.new_zeros(count)  # by each text
        spoken[text] = language
        # a text's hits are at most its tokens: exact in float32
        member = torch.zeros(count, len(text), device=values.device)
        member[text, torch.arange(len(text), device=values.device)] = 1
        hits = (member @ (values > 0).float()).long()
        self.state["hits"][row].index_add_(0, spoken, hits)
        self.state["examples"][row].index_add_(0, spoken, (hits > 0).long())
        for index in language.unique().tolist():
            part = values[language == index]
            self._extremes(row, index, part)
            sums = exact(part.clamp_min(0), self.grids["total"]).sum(0)
            self.state["total"][row, index] += sums

    def _extremes(self, row: int, language: int, values: Tensor) -> None:
        hit = values > 0
        for name, absent, join in (
            ("max", -torch.inf, torch.amax),
            ("min", torch.inf, torch.amin),
        ):
            found = join(values.masked_fill(~hit, absent), 0)
            state = self.state[name][row, language]
            state.copy_(self.merges[name](state, found))


def own_header(header: dict[str, Any], hooks: Sequence[int]) -> dict[str, Any]:
    """`header` of a collection, told of these of its hooks only; "active" as counted here."""
    return header | {
        "hooks": [header["hooks"][hook] for hook in hooks],
        "active": "a code of the SAE, also of value 0; a neuron above 0",
    }


def texts(tokens: TokenTable) -> tuple[Tensor, int]:
    """The number within the batch of each position's text, int64 [N], and how many there are.

    A text's positions follow one another, as `TokenBatch.table` has them.
    """
    new = torch.zeros_like(tokens.language)
    new[1:] = (tokens.language[1:] != tokens.language[:-1]) | (
        tokens.example[1:] != tokens.example[:-1]
    )
    return new.cumsum(0), int(new.sum()) + 1
