"""Muon: each matrix moves by its momentum, made orthogonal (Jordan et al., 2024).

All singular values of an update are near one, so that directions which few tokens ask for move as
far as the common ones; a small budget of text goes further than with AdamW. In float32, where
torch.optim.Muon works in bfloat16, which not every CPU has arithmetic for.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

# Of the quintic iteration a x + (b x x' + c (x x')^2) x: chosen by its authors to raise small
# singular values fast; it ends within about 0.7..1.2, not at 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalised(x: Tensor) -> Tensor:
    """About U V' of each matrix U S V' of x [N, r, c], by Newton-Schulz iteration."""
    if x.shape[1] > x.shape[2]:
        return orthogonalised(x.mT).mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


class Muon:
    """Momentum of matrices by name, and the steps they take; matrices of one shape go together."""

    def __init__(
        self, matrices: Mapping[str, Parameter], weight_decay: float, momentum: float = 0.95
    ) -> None:
        self.weight_decay, self.momentum = weight_decay, momentum
        self.state = {name: torch.zeros_like(value) for name, value in matrices.items()}
        self._groups: dict[torch.Size, dict[str, Parameter]] = {}
        for name, value in matrices.items():
            self._groups.setdefault(value.shape, {})[name] = value

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step along the gradients, with Nesterov's momentum and decoupled weight decay."""
        for (rows, columns), group in self._groups.items():
            ahead = []
            for name, value in group.items():
                self.state[name].lerp_(value.grad, 1 - self.momentum)
                ahead.append(value.grad.lerp(self.state[name], self.momentum))
            # tall matrices go further: an output then changes by as much as from a square one
            size = lr * max(1, rows / columns) ** 0.5
            for value, update in zip(
                group.values(), orthogonalised(torch.stack(ahead)), strict=True
            ):
                value.mul_(1 - lr * self.weight_decay).sub_(update, alpha=size)
                value.grad = None
