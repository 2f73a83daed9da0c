"""Pretraining one small Llama: the loss, its schedule, and the state between two steps."""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from langsae.errors import InputError
from langsae.files import publish
from langsae.pretrain.muon import Muon
from langsae.pretrain.packing import NOT_SCORED, PackedBatch
from langsae.pretrain.spec import LlamaShape, Pretraining


def build_llama(shape: LlamaShape, vocabulary: int, begin: int, end: int, seed: int) -> nn.Module:
    """A random LlamaForCausalLM of transformers; the same for the same arguments."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        initializer_range=shape.initial_std,
        bos_token_id=begin,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def schedule(spec: Pretraining, step: int) -> float:
    """The share of the peak rate at step 0, 1, …: linear warm-up, then a cosine to `final_lr`."""
    if step < spec.warmup_steps:
        return (step + 1) / spec.warmup_steps
    whole = max(1, spec.steps - 1 - spec.warmup_steps)
    fallen = 0.5 * (1 - math.cos(math.pi * min(1.0, (step - spec.warmup_steps) / whole)))
    return 1 - (1 - spec.final_lr) * fallen


class Pretrainer:
    """A network in training: weights, the optimisers' moments, the steps done and the log.

    The loss is the mean cross-entropy of the tokens that a batch scores, in nats.
    """

    def __init__(self, network: nn.Module, spec: Pretraining, device: str = "cpu") -> None:
        self.network, self.spec = network.to(device).train(), spec
        self.device = torch.device(device)
        self._named = dict(self.network.named_parameters())  # a tied head is listed once
        matrices = {name: value for name, value in self._named.items() if value.ndim > 1}
        within = {name: value for name, value in matrices.items() if ".layers." in name}
        self._muon = Muon(within if spec.muon_lr else {}, spec.weight_decay)
        self._adamed = {n: v for n, v in self._named.items() if n not in self._muon.state}
        groups = [
            {
                "params": [v for n, v in self._adamed.items() if (n in matrices) == decayed],
                "weight_decay": spec.weight_decay if decayed else 0.0,
            }
            for decayed in (True, False)
        ]
        self._adam = torch.optim.AdamW(groups, spec.lr, spec.betas, fused=True)
        self.steps = 0
        self.log: list[dict[str, float]] = []
        self._losses: list[float] = []  # since the log's last line

    def step(self, batch: PackedBatch) -> float:
        """One optimiser step on `batch`; the loss before it, in nats a token."""
        loss = self._loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(f"pretraining: loss {value} at step {self.steps + 1}; lower the lr")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._named.values(), self.spec.clip)
        self._descend()
        self._note(value, batch.ids.numel())
        return value

    def _descend(self) -> None:
        share = schedule(self.spec, self.steps)
        for group in self._adam.param_groups:
            group["lr"] = share * self.spec.lr
        self._adam.step()
        self._adam.zero_grad()
        if self.spec.muon_lr:
            self._muon.step(share * self.spec.muon_lr)
        self.steps += 1

    def _loss(self, batch: PackedBatch) -> Tensor:
        ids, positions = batch.ids.to(self.device), batch.positions.to(self.device)
        hidden = self.network.base_model(input_ids=ids, position_ids=positions, use_cache=False)
        logits = self.network.get_output_embeddings()(hidden.last_hidden_state)
        labels = batch.labels.to(self.device)
        return F.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NOT_SCORED
        )

    def _note(self, loss: float, tokens: int) -> None:
        """A line of the log holds the mean loss since the line before."""
        self._losses.append(loss)
        if self.steps % self.spec.log_every == 0 or self.steps == self.spec.steps:
            mean = math.fsum(self._losses) / len(self._losses)
            rate = self._adam.param_groups[0]["lr"]
            line = {"step": self.steps, "loss": mean, "lr": rate, "tokens": self.steps * tokens}
            self.log.append(line)
            self._losses = []

    def save(self, path: Path, owner: str) -> None:
        """Write all that the next step depends on; `owner` says what it is the state of."""
        tensors = {f"weight.{name}": value.detach() for name, value in self._named.items()}
        tensors |= {f"muon.{name}": moment for name, moment in self._muon.state.items()}
        for name, value in self._adamed.items():
            for key, moment in self._adam.state[value].items():
                tensors[f"adam.{key}.{name}"] = moment
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        state = {"owner": owner, "steps": self.steps, "log": self.log, "losses": self._losses}
        with publish(path) as temporary:
            save_file(tensors, temporary, {"pretraining": json.dumps(state)})

    @torch.no_grad()
    def restore(self, path: Path, owner: str) -> None:
        """Go on from what `save` wrote, to the last bit on the CPU; InputError if not `owner`'s."""
        with safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {}).get("pretraining", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if state.get("owner") != owner:
            raise InputError(f"{path}: state of another pretraining; delete its folder")
        self.steps, self.log, self._losses = state["steps"], state["log"], state["losses"]
        for name, value in self._named.items():
            value.copy_(tensors[f"weight.{name}"])
        for name, moment in self._muon.state.items():
            moment.copy_(tensors[f"muon.{name}"])
        for name, value in self._adamed.items():
            # Cloned: a file's mapped tensors are not aligned as PyTorch's own are.
            moments = {
                key: tensors[f"adam.{key}.{name}"].clone().to(self.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{key}.{name}" in tensors
            }
            self._adam.state[value] = moments
