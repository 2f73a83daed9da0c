"""Training a bank: the SAEs of several hook points from one stream of activation chunks."""

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
from langsae.files import publish, write_json
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

    chunks[i] is {hook: activations [n, d]}; chunks are read in order, once per epoch, and their
    tokens mixed by a permutation that (seed, epoch, chunk) decides; a last short batch is left
    out. All specs share epochs, batch size and seed. State lies in `scratch`, which must belong to
    these inputs alone; a killed training goes on from there to the same bytes (on the CPU).
    """
    spec = next(iter(specs.values()))
    state = _State(scratch, specs, chunks, device, checkpoint_seconds)
    with tqdm(desc="train SAEs", unit="step", initial=state.steps) as bar:
        while state.epoch < spec.epochs:
            chunk = chunks[state.chunk]
            _train_chunk(chunk, state, spec, bar)
            state.next_chunk(len(chunks))
    if not state.steps:
        raise InputError(
            f"no chunk holds a whole batch of {spec.batch_tokens} tokens: "
            "give more text or lower training.batch_tokens"
        )
    with publish(out) as folder:
        folder.mkdir(parents=True)
        for hook, trainer in state.trainers.items():
            trainer.sae().save(folder / hook)
            write_json(folder / hook / LOG, trainer.log)


def _train_chunk(chunk: Mapping[str, Tensor], state: "_State", spec: TrainSpec, bar: tqdm) -> None:
    order = _order(spec.seed, state.epoch, state.chunk, len(next(iter(chunk.values()))))
    batches = order[: len(order) // spec.batch_tokens * spec.batch_tokens].view(
        -1, spec.batch_tokens
    )
    for rows in batches[state.batch :]:
        for hook, trainer in state.trainers.items():
            trainer.step(chunk[hook][rows].to(state.device))
        state.batch += 1
        bar.update()
        fvu = {hook: f"{trainer.fvu:.3f}" for hook, trainer in state.trainers.items()}
        bar.set_postfix(fvu, refresh=False)
        state.maybe_save()


def _order(seed: int, epoch: int, chunk: int, size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch, chunk]).permutation(size))


class _State:
    """The trainers and the place in the stream: (epoch, chunk, batch), saved together."""

    def __init__(self, folder, specs, chunks, device, seconds) -> None:
        self.folder, self.device, self.seconds = Path(folder), device, seconds
        self.epoch = self.chunk = self.batch = 0
        first = chunks[0]
        self.trainers = {
            hook: TopKTrainer(
                spec,
                first[hook].shape[1],
                hook,
                InputNorm.fit(spec.input_norm, first[hook]),
                device,
            )
            for hook, spec in specs.items()
        }
        self._restore()
        self.saved_at = time.monotonic()

    @property
    def steps(self) -> int:
        return next(iter(self.trainers.values())).steps

    def next_chunk(self, chunks: int) -> None:
        """Move on to the following chunk, or epoch."""
        self.chunk, self.batch = self.chunk + 1, 0
        if self.chunk == chunks:
            self.epoch, self.chunk = self.epoch + 1, 0

    def maybe_save(self) -> None:
        """Save everything if the interval has passed."""
        if time.monotonic() - self.saved_at < self.seconds:
            return
        with publish(self.folder) as folder:
            folder.mkdir(parents=True)
            place = f"{self.epoch} {self.chunk} {self.batch}"
            for hook, trainer in self.trainers.items():
                tensors, metadata = trainer.state()
                tensors = {name: value.detach().contiguous() for name, value in tensors.items()}
                save_file(tensors, folder / f"{hook}.safetensors", metadata | {"place": place})
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        for hook, trainer in self.trainers.items():
            path = self.folder / f"{hook}.safetensors"
            if not path.is_file():
                return
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                trainer.restore({key: file.get_tensor(key) for key in file.keys()}, metadata)  # noqa: SIM118
            self.epoch, self.chunk, self.batch = map(int, metadata["place"].split())
