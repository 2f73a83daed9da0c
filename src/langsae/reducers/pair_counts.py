"""On which tokens the features of a language are active together, and how they vary there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from langsae.reducers.base import Reducer, SparseBatch

SUMS = ("both", "sum", "square", "product")


class PairCounts(Reducer):
    """Sums over the tokens of language l on which features i and j of its list are both active.

    For each language: float64 [n, n] of whole numbers, exact below 2**53.
    `both/l`: number of such tokens; `sum/l`: of i's values; `square/l`: of i's squared values;
    `product/l`: of i's times j's values. Values are in units of 10**-decimals, rounded, as
    sae_lape was published with 3 decimals. Active means what the coder yields, as in LapeCounts.

    features: per language its features as (hook index, feature), which may lie at different hooks.
    """

    name = "pair_counts"

    def __init__(
        self,
        header: dict[str, Any],
        features: Sequence[Sequence[tuple[int, int]]],
        width: int,
        decimals: int = 3,
        device: str = "cpu",
    ) -> None:
        self.scale, self.width = 10**decimals, width
        self.sizes = [len(chosen) for chosen in features]
        self.grids = {f"{name}/{at}": 1.0 for name in SUMS for at in self._spoken()}
        self.places = _places(features, width, device)
        self.last = max(self.places, default=-1)
        self.pending: tuple[Tensor, Tensor] | None = None  # of the batch being taken in
        chosen = [[list(place) for place in part] for part in features]
        state = {
            f"{name}/{at}": torch.zeros(size, size, dtype=torch.float64, device=device)
            for name in SUMS
            for at, size in enumerate(self.sizes)
        }
        super().__init__(header | {"features": chosen, "decimals": decimals}, state)

    def _spoken(self) -> list[int]:
        """Languages that have features."""
        return [at for at, size in enumerate(self.sizes) if size]

    def update(self, batch: SparseBatch) -> None:
        if batch.hook not in self.places:
            return
        if self.pending is None:
            shape = (len(batch.tokens), max(self.sizes))
            values = torch.zeros(shape, dtype=torch.float64, device=batch.vectors.device)
            self.pending = values, torch.zeros_like(values)
        values, active = self.pending
        keys, columns = self.places[batch.hook]
        codes = batch.codes
        key = batch.tokens.language[codes.token] * self.width + codes.feature
        at = torch.searchsorted(keys, key).clamp_max(len(keys) - 1)
        known = keys[at] == key
        token, column = codes.token[known], columns[at[known]]
        values[token, column] = (codes.value[known].double() * self.scale).round()
        active[token, column] = 1
        if batch.hook == self.last:
            self._flush(batch.tokens.language)

    def _flush(self, language: Tensor) -> None:
        """All hooks of a batch are there: add its pairs."""
        values, active = self.pending
        self.pending = None
        for at in self._spoken():
            rows, n = language == at, self.sizes[at]
            x, on = values[rows, :n], active[rows, :n]
            found = {"both": on.T @ on, "sum": x.T @ on, "square": x.square().T @ on}
            for name, matrix in {**found, "product": x.T @ x}.items():
                self.state[f"{name}/{at}"] += matrix


def _places(
    features: Sequence[Sequence[tuple[int, int]]], width: int, device: str
) -> dict[int, tuple[Tensor, Tensor]]:
    """Per hook: sorted keys language * width + feature, and their columns in the lists."""
    found: dict[int, list[tuple[int, int]]] = {}
    for language, chosen in enumerate(features):
        for column, (hook, feature) in enumerate(chosen):
            found.setdefault(hook, []).append((language * width + feature, column))
    return {
        hook: tuple(torch.tensor(part, device=device) for part in zip(*sorted(rows), strict=True))
        for hook, rows in sorted(found.items())
    }
