"""How often and how strongly each feature is active in each language."""

from typing import Any, ClassVar

import torch

from langsae.reducers.base import Reducer, SparseBatch, add_at, exact


class FeatureCounts(Reducer):
    """Active tokens and summed activation per (hook, language, feature).

    active: int64 [H, L, F], tokens with a value above 0; total: float64 [H, L, F], the sum of
    those values.
    """

    name = "feature_counts"
    grids: ClassVar = {"total": 2.0**-20}  # exact up to 8.6e9

    def __init__(
        self, header: dict[str, Any], hooks: int, languages: int, features: int, device: str = "cpu"
    ) -> None:
        shape = (hooks, languages, features)
        super().__init__(
            header,
            {
                "active": torch.zeros(shape, dtype=torch.int64, device=device),
                "total": torch.zeros(shape, dtype=torch.float64, device=device),
            },
        )

    def update(self, batch: SparseBatch) -> None:
        codes = batch.codes.active()
        features = self.state["active"].shape[-1]
        index = batch.tokens.language[codes.token] * features + codes.feature
        active = self.state["active"][batch.hook].view(-1)
        add_at(active, index, torch.ones_like(index))
        total = self.state["total"][batch.hook].view(-1)
        add_at(total, index, exact(codes.value, self.grids["total"]))
