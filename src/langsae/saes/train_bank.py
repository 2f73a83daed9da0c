"""Training a bank: the SAEs of several hook points from one stream of activation chunks."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from langsae.errors import InputError
from langsae.files import digest, publish, write_json
from langsae.saes.topk import InputNorm
from langsae.saes.train import TopKTrainer, TrainSpec

LOG = "training.json"


def train_bank(
    chunks: Sequence[Mapping[str, Tensor]],
    specs: Mapping[str, TrainSpec],
    scratch: Path,
    out: Path,
    device: str | torch.device = "cpu",
    checkpoint_seconds: float = 60,
) -> None:
    """Train one SAE per hook of `specs` and publish `out`/HOOK/{cfg.json, sae.safetensors,
    training.json}.

    chunks[i] is {hook: activations [n, d]}; chunks are read in order, once per epoch for all hooks,
    and their tokens mixed by a permutation that (seed, epoch, chunk) decides; a last short batch is
    left out. `scratch` must belong to these inputs alone; a hook's state there is one file that is
    replaced atomically, so a training killed at any moment goes on to the same bytes (on the CPU).
    """
    members = [
        _Member(hook, spec, Path(scratch), len(chunks), device) for hook, spec in specs.items()
    ]
    with tqdm(desc="train SAEs", unit="step", initial=sum(m.steps for m in members)) as bar:
        for epoch in range(max(spec.epochs for spec in specs.values())):
            for index in range(len(chunks)):
                waiting = [member for member in members if member.wants(epoch, index)]
                chunk = chunks[index] if waiting else {}
                for member in waiting:
                    if member.hook not in chunk:
                        raise InputError(f"chunk {index} holds no activations of {member.hook}")
                    member.train(chunk[member.hook], epoch, index, checkpoint_seconds, bar)
    with publish(out) as folder:
        folder.mkdir(parents=True)
        for member in members:
            member.publish(folder / member.hook)


class _Member:
    """One SAE of the bank and its place in the stream: the next (epoch, chunk, batch)."""

    def __init__(
        self, hook: str, spec: TrainSpec, scratch: Path, chunks: int, device: str | torch.device
    ) -> None:
        self.hook, self.spec, self.chunks, self.device = hook, spec, chunks, device
        self.owner = digest([hook, spec.model_dump(mode="json"), chunks])
        self.path = scratch / f"{hook}.safetensors"
        self.place = (0, 0, 0)
        self.trainer: TopKTrainer | None = None
        self.saved_at = time.monotonic()
        for unfinished in scratch.glob(f".{self.path.name}.*.tmp"):  # of a killed run
            unfinished.unlink()
        if self.path.is_file():
            self._restore()

    @property
    def steps(self) -> int:
        return self.trainer.steps if self.trainer else 0

    def wants(self, epoch: int, chunk: int) -> bool:
        """Whether batches of this chunk are still to do."""
        return epoch < self.spec.epochs and (epoch, chunk) >= self.place[:2]

    def train(self, x: Tensor, epoch: int, chunk: int, seconds: float, bar: tqdm) -> None:
        """The batches of chunk x [n, d] that are still to do."""
        if self.trainer is None:
            norm = InputNorm.fit(self.spec.input_norm, x)
            self.trainer = TopKTrainer(self.spec, x.shape[1], self.hook, norm, self.device)
        size = self.spec.batch_tokens
        order = np.random.default_rng([self.spec.seed, epoch, chunk]).permutation(len(x))
        done = self.place[2] if self.place[:2] == (epoch, chunk) else 0
        for batch in range(done, len(x) // size):
            rows = torch.from_numpy(order[batch * size : (batch + 1) * size])
            loss = self.trainer.step(x[rows].to(self.device))
            self.place = (epoch, chunk, batch + 1)
            bar.update()
            text = f"{self.hook} loss {loss:.4g} FVU {self.trainer.fvu:.3f}"
            bar.set_postfix_str(text, refresh=False)
            if time.monotonic() - self.saved_at >= seconds:
                self._save()
        self.place = (epoch, chunk + 1, 0)
        if self.place[:2] == (self.spec.epochs - 1, self.chunks):
            self._save()

    def publish(self, folder: Path) -> None:
        """Write the SAE and its log."""
        if not self.steps:
            size = self.spec.batch_tokens
            raise InputError(
                f"{self.hook}: no chunk holds a batch of {size} tokens; "
                "give more text or lower training.batch_tokens"
            )
        self.trainer.sae().save(folder)
        write_json(folder / LOG, self.trainer.log)

    def _save(self) -> None:
        tensors, metadata = self.trainer.state()
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        metadata |= {"owner": self.owner, "place": json.dumps(self.place)}
        with publish(self.path) as temporary:
            save_file(tensors, temporary, metadata)
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("owner") != self.owner:
            raise InputError(f"{self.path}: state of another training; delete its folder")
        norm = InputNorm(self.spec.input_norm, tensors.get("mean"))
        d_in = len(tensors["b_dec"])
        self.trainer = TopKTrainer(self.spec, d_in, self.hook, norm, self.device)
        self.trainer.restore(tensors, metadata)
        self.place = tuple(json.loads(metadata["place"]))
