"""Training one TopK SAE: the loss and its schedule; `bank` trains many from one stream."""

import json
import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import Parameter

from langsae.errors import InputError
from langsae.params import Spec
from langsae.saes.sparse_step import Encoder, Slots, decode, row_products, top_preactivations
from langsae.saes.topk import InputNorm, NormKind, TopKSAE


class TrainSpec(Spec):
    """How one TopK SAE is trained; the defaults are those of the llm-jp tracing study.

    batch_tokens: tokens a step. warmup_steps: the learning rate rises linearly over these.
    encoder: arithmetic of the search for the k largest pre-activations; their values and all
    gradients are float32 in each. log_every: steps. dead_tokens: a latent that was not active on
    the last so many tokens counts as dead.
    """

    n_latents: int = Field(32_768, ge=1)
    k: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(500, ge=0)
    batch_tokens: int = Field(32_768, ge=1)
    epochs: int = Field(1, ge=1)
    adam_eps: float = Field(6.25e-10, gt=0)
    adam_betas: tuple[float, float] = (0.9, 0.999)
    seed: int = Field(0, ge=0)
    relu: bool = True
    encoder_bias: bool = True
    input_norm: NormKind = "l2"
    encoder: Encoder = "float32"
    log_every: int = Field(10, ge=1)
    dead_tokens: int = Field(1_000_000, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSpec":
        if self.k > self.n_latents:
            raise ValueError(f"k is {self.k}, above n_latents {self.n_latents}")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError("adam_betas must lie in [0, 1)")
        return self


def geometric_median(x: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point [d] of least summed distance to the rows of x [N, d], by Weiszfeld's iteration."""
    point = x.mean(0)
    for _ in range(iterations):
        weights = 1 / torch.linalg.vector_norm(x - point, dim=1).clamp_min(1e-12)
        moved = weights @ x / weights.sum()
        close = tolerance * torch.linalg.vector_norm(moved)
        if torch.linalg.vector_norm(moved - point) <= close:
            return moved
        point = moved
    return point


class TopKTrainer:
    """One TopK SAE in training: weights, Adam's moments, step count and log.

    loss = mean over tokens of the squared error summed over d. Adam with a constant learning rate
    after the warm-up; decoder rows return to unit norm after each step; no auxiliary loss, no
    clipping (the llm-jp study).
    """

    def __init__(
        self,
        spec: TrainSpec,
        d_in: int,
        hook: str,
        norm: InputNorm | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.spec, self.hook = spec, hook
        self.norm = (norm or InputNorm(spec.input_norm)).to(device)
        if self.norm.kind != spec.input_norm or (spec.input_norm == "standard" and norm is None):
            raise InputError(f"{hook}: give a fitted '{spec.input_norm}' InputNorm")
        generator = torch.Generator().manual_seed(spec.seed)
        rows = F.normalize(torch.randn(spec.n_latents, d_in, generator=generator), dim=1)
        start = {
            "W_enc": rows,
            "b_enc": torch.zeros(spec.n_latents),
            "W_dec": rows,
            "b_dec": torch.zeros(d_in),
        }
        self.weights = {
            # Gradients are written by `_gradients`; autograd would make dense [B, n] ones.
            name: Parameter(tensor.clone().to(device), requires_grad=False)
            for name, tensor in start.items()
        }
        self.adam = torch.optim.Adam(
            self.weights.values(), spec.lr, spec.adam_betas, spec.adam_eps, fused=True
        )
        self.active_at = torch.zeros(spec.n_latents, dtype=torch.int64, device=device)
        self.steps = 0
        self.fvu = math.nan
        self.log: list[dict[str, float]] = []

    @torch.no_grad()
    def step(self, x: Tensor) -> float:
        """One optimiser step on activations x [B, d], not yet normalised; the loss before it."""
        W_enc, b_enc, W_dec, b_dec = self.weights.values()
        target = self.norm(x)
        if self.steps == 0:
            b_dec.copy_(geometric_median(target))
        centred = target - b_dec
        values, indices = top_preactivations(centred, W_enc, b_enc, self.spec.k, self.spec.encoder)
        if self.spec.relu:
            values.relu_()
        error = decode(values, indices, W_dec).add_(b_dec).sub_(target)
        squared = error.square().sum().item()
        loss = squared / len(x)
        if not math.isfinite(loss):
            raise InputError(f"{self.hook}: loss {loss} at step {self.steps + 1}; lower the lr")
        by_error = error.mul_(2 / len(x))
        by_value = row_products(by_error, W_dec, indices)
        if self.spec.relu:
            by_value.mul_(values > 0)
        self._gradients(centred, by_error, values, by_value, indices)
        self._descend()
        self.fvu = squared / (target - target.mean(0)).square().sum().item()
        self._note(loss, values, indices)
        return loss

    def _gradients(
        self, centred: Tensor, by_error: Tensor, values: Tensor, by_value: Tensor, indices: Tensor
    ) -> None:
        """Write each weight's gradient: sums over the slots of a latent."""
        W_enc, b_enc, W_dec, b_dec = self.weights.values()
        slots = Slots(indices, self.spec.n_latents)
        W_dec.grad = slots.sum(values, by_error)
        W_enc.grad = slots.sum(by_value, centred)
        by_bias = slots.sum(by_value, torch.ones_like(centred[:, :1])).squeeze(1)
        # b_dec is added to the reconstruction and taken from the encoder's input.
        b_dec.grad = by_error.sum(0) - by_bias @ W_enc
        b_enc.grad = by_bias if self.spec.encoder_bias else None

    def _descend(self) -> None:
        """Adam at the warmed-up learning rate, then decoder rows back to unit norm."""
        self.steps += 1
        warm = min(1.0, self.steps / self.spec.warmup_steps) if self.spec.warmup_steps else 1.0
        self.adam.param_groups[0]["lr"] = self.spec.lr * warm
        self.adam.step()
        self.adam.zero_grad()
        W_dec = self.weights["W_dec"]
        W_dec.div_(torch.linalg.vector_norm(W_dec, dim=1, keepdim=True))

    def _note(self, loss: float, values: Tensor, indices: Tensor) -> None:
        """Record which latents were active, and every `log_every` steps a line of the log."""
        self.active_at[indices[values > 0]] = self.steps
        if self.steps % self.spec.log_every == 0:
            silent = (self.steps - self.active_at) * self.spec.batch_tokens
            dead = (silent >= self.spec.dead_tokens).double().mean().item()
            line = {"step": self.steps, "loss": loss, "fvu": self.fvu, "dead_fraction": dead}
            self.log.append(line)

    def sae(self) -> TopKSAE:
        """The SAE as it is now, on the CPU; independent of further steps."""
        weights = {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}
        spec = self.spec
        return TopKSAE(
            **weights, k=spec.k, hook=self.hook, relu=spec.relu, norm=self.norm.to("cpu")
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """All that the next step depends on, as tensors and string metadata for safetensors."""
        tensors: dict[str, Tensor] = {**self.weights, "active_at": self.active_at}
        for name, weight in self.weights.items():
            for key, value in self.adam.state[weight].items():
                tensors[f"adam.{name}.{key}"] = value
        if self.norm.mean is not None:
            tensors["mean"] = self.norm.mean
        numbers = {"steps": self.steps, "log": self.log, "scale": self.norm.scale}
        return tensors, {"trainer": json.dumps(numbers)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Continue from what `state` gave, to the last bit."""
        numbers: dict[str, Any] = json.loads(metadata["trainer"])
        self.steps, self.log = numbers["steps"], numbers["log"]
        self.active_at.copy_(tensors["active_at"])
        norm = InputNorm(self.norm.kind, tensors.get("mean"), numbers["scale"])
        self.norm = norm.to(self.active_at.device)
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])
            prefix = f"adam.{name}."
            # Cloned: a file's mapped tensors are not aligned as PyTorch's own are.
            self.adam.state[weight] = {
                key.removeprefix(prefix): value.clone().to(weight.device)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
