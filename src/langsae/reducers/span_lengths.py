"""Over how many consecutive positions each feature stays active."""

from typing import Any

import torch
from torch import Tensor

from langsae.models.tokens import TokenTable
from langsae.reducers.base import Reducer, SparseBatch, add_at


class SpanLengths(Reducer):
    """Active positions, and runs of consecutive ones, per (hook, language, feature).

    Active: a value above 0, for a TopK coder one that TopK left. A run ends with its text, with the
    token policy's padding, and at a position that does not count. Their ratio is the mean span
    length of Inaba et al. (2025) in that reading; the other reading needs the final maximum and is
    taken from reducers.activating_tokens.

    tokens, runs: int64 [H, L, F].
    """

    name = "span_lengths"

    def __init__(
        self, header: dict[str, Any], hooks: int, languages: int, features: int, device: str = "cpu"
    ) -> None:
        shape = (hooks, languages, features)
        state = {
            name: torch.zeros(shape, dtype=torch.int64, device=device)
            for name in ("tokens", "runs")
        }
        super().__init__(header, state)

    def update(self, batch: SparseBatch) -> None:
        codes, table = batch.codes.active(), batch.tokens
        kept = ~table.padding[codes.token]
        token, feature = codes.token[kept], codes.feature[kept]
        rows, features = codes.shape
        key = torch.sort(feature * (rows + 1) + token).values  # + 1: no feature follows another
        feature, token = key // (rows + 1), key % (rows + 1)
        begins = torch.ones_like(key, dtype=torch.bool)
        begins[1:] = (key[1:] - key[:-1] != 1) | text_starts(table)[token[1:]]
        index = table.language[token] * features + feature
        for name, counted in (("tokens", index), ("runs", index[begins])):
            target = self.state[name][batch.hook].view(-1)
            add_at(target, counted, torch.ones_like(counted))


def text_starts(table: TokenTable) -> Tensor:
    """Rows of a token table that do not continue the row before them: bool [N]."""
    first = torch.ones(len(table), dtype=torch.bool, device=table.token.device)
    first[1:] = (
        (table.language[1:] != table.language[:-1])
        | (table.example[1:] != table.example[:-1])
        | (table.position[1:] != table.position[:-1] + 1)
    )
    return first
