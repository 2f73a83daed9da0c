"""How well the SAEs reconstruct each language."""

from typing import Any, ClassVar

import torch

from langsae.reducers.base import Reducer, SparseBatch, exact


class Reconstruction(Reducer):
    """Sums from which squared error and FVU follow, per (hook, language).

    error: float64 [H, L], squared error summed over d and tokens; square: float64 [H, L], squared
    norm of the target, likewise; mean: float64 [H, L, d], sum of the targets; tokens: int64 [H, L].
    All in the coder's own input space (its `target`).
    """

    name = "reconstruction"
    # exact up to 2e12 and 1e11
    grids: ClassVar = {"error": 2.0**-12, "square": 2.0**-12, "mean": 2.0**-16}

    def __init__(
        self, header: dict[str, Any], hooks: int, languages: int, width: int, device: str = "cpu"
    ) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        super().__init__(
            header,
            {
                "error": zeros(hooks, languages),
                "square": zeros(hooks, languages),
                "mean": zeros(hooks, languages, width),
                "tokens": zeros(hooks, languages).long(),
            },
        )

    def update(self, batch: SparseBatch) -> None:
        target = batch.coder.target(batch.vectors).float()
        error = (batch.coder.decode(batch.codes).float() - target).double().pow(2).sum(1)
        language, hook = batch.tokens.language, batch.hook
        rows = {
            "error": exact(error, self.grids["error"]),
            "square": exact(target.double().pow(2).sum(1), self.grids["square"]),
            "mean": exact(target, self.grids["mean"]),
            "tokens": torch.ones_like(language),
        }
        for key, values in rows.items():
            self.state[key][hook].index_add_(0, language, values)
