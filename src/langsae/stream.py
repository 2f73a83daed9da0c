"""The single pass: texts through a language model and its SAEs into reducers."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from langsae.cells import discard
from langsae.compute import Compute
from langsae.errors import InputError
from langsae.files import digest, publish, write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.models.tokens import TokenisedCorpus
from langsae.reducers.base import Reducer, SparseBatch
from langsae.saes.codes import SparseCoder

Bank = Mapping[HookPoint, SparseCoder]


def header(model: LanguageModel, bank: Bank, corpus: TokenisedCorpus, corpus_digest: str) -> dict:
    """What a collection is true of; reducers refuse to mix two of these."""
    return {
        "active": "value > 0",
        "corpus": corpus_digest,
        "coders": {str(hook): coder.describe() for hook, coder in bank.items()},
        "hooks": [str(hook) for hook in bank],
        "languages": list(corpus.languages),
        "model": model.description,
        "policy": corpus.policy.model_dump(),
    }


def collect(
    model: LanguageModel,
    bank: Bank,
    corpus: TokenisedCorpus,
    reducers: Sequence[Reducer],
    compute: Compute,
    scratch: str | Path,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Feed shard (i, of n) of the corpus to `reducers`: one LM pass for all hooks of `bank`.

    Memory does not grow with the text. State is checkpointed under `scratch`, in a folder named by
    a digest of the header, so a killed run goes on where it was; the folder goes when it is done.
    """
    groups = corpus.batches(compute.batch_tokens)[shard[0] :: shard[1]]
    key = digest([reducers[0].header, compute.batch_tokens, shard, [r.name for r in reducers]])
    checkpoint = _Checkpoint(Path(scratch) / key, reducers, compute.checkpoint_seconds)
    done = checkpoint.restore()
    lengths = corpus.ids.lengths()
    sizes = [sum(lengths[index] for index in group) for group in groups]
    progress = {"total": sum(sizes), "initial": sum(sizes[:done]), "unit": "tok"}
    with tqdm(**progress, desc="collect", smoothing=0.05) as bar:
        for number, group in enumerate(groups[done:], start=done + 1):
            _take(model, bank, corpus, group, reducers)
            bar.update(sizes[number - 1])
            checkpoint.maybe_save(number)
    checkpoint.remove()


def _take(
    model: LanguageModel,
    bank: Bank,
    corpus: TokenisedCorpus,
    group: Sequence[int],
    reducers: Sequence[Reducer],
) -> None:
    batch = corpus.batch(group).to(model.device)
    table = batch.table()
    activations = model.activations(batch.ids, bank)
    with torch.inference_mode():
        for index, (hook, coder) in enumerate(bank.items()):
            vectors = activations.pop(hook)[batch.counted].float()
            if not bool(torch.isfinite(vectors).all()):
                raise InputError(f"{hook}: the activations are not finite; check model and dtype")
            seen = SparseBatch(index, table, vectors, coder, str(hook))
            for reducer in reducers:
                reducer.update(seen)


class _Checkpoint:
    """Reducer states after so many finished batches, each in a folder named by that number.

    A folder's content never changes once it is there, so states of two numbers are not mixed even
    where a worker that its cluster gave up still writes while another has taken over.
    """

    def __init__(self, folder: Path, reducers: Sequence[Reducer], seconds: float) -> None:
        self.folder, self.reducers, self.seconds = folder, reducers, seconds
        self.saved_at = time.monotonic()

    def restore(self) -> int:
        """Load the last checkpoint; 0 where there is none."""
        batches = max(self._kept(), default=0)
        for reducer in self.reducers if batches else ():
            reducer.restore(self.folder / f"{batches}" / f"{reducer.name}.safetensors")
        return batches

    def maybe_save(self, batches: int) -> None:
        """Save if the interval has passed."""
        if time.monotonic() - self.saved_at < self.seconds:
            return
        with publish(self.folder / f"{batches}") as folder:
            folder.mkdir()
            save_all(self.reducers, folder, {})
        for older in self._kept():
            if older < batches:
                shutil.rmtree(self.folder / f"{older}", ignore_errors=True)
        self.saved_at = time.monotonic()

    def _kept(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]

    def remove(self) -> None:
        """The collection is complete."""
        discard(self.folder)


def save_all(reducers: Sequence[Reducer], folder: Path, extra: dict[str, Any]) -> None:
    """Write each reducer and each JSON of `extra` (name → content) into `folder`."""
    for reducer in reducers:
        reducer.save(folder / f"{reducer.name}.safetensors")
    for name, content in extra.items():
        write_json(folder / f"{name}.json", content)
