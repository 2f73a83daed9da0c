"""A pretraining with its history: from texts to checkpoint folders and a loss curve."""

import csv
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tqdm import tqdm

from langsae.files import publish
from langsae.models.source import write_own
from langsae.models.spec import PretrainedModel
from langsae.pretrain.packing import PackedTexts
from langsae.pretrain.spec import SPECIAL, LlamaShape, Pretraining, TokenizerSpec
from langsae.pretrain.tokenizer import encode, learn_tokenizer, save
from langsae.pretrain.train import Pretrainer, build_llama

_STATE = "state.safetensors"


def pretrain(
    texts: Sequence[str],
    tokenizer: TokenizerSpec,
    shape: LlamaShape,
    training: Pretraining,
    checkpoints: Sequence[int],
    scratch: Path,
    out: Path,
    device: str = "cpu",
    checkpoint_seconds: float = 60,
) -> list[int]:
    """Train on `texts` and write `out`/{step_%07d/, loss.csv}; returns the steps kept, rising.

    Kept are step 0 (the random network), `checkpoints` and the last step; each is a model folder as
    langsae.models.source.prepare publishes. `scratch` must belong to these inputs alone: its name
    is the state's owner. A training killed at any moment goes on to the same bytes (on the CPU).
    """
    scratch.mkdir(parents=True, exist_ok=True)
    words = _tokenizer(texts, tokenizer, scratch)
    begin, end = words.token_to_id(SPECIAL[1]), words.token_to_id(SPECIAL[2])
    packed = PackedTexts(
        encode(words, texts), begin, end, training.rows, training.row_tokens, training.seed
    )
    network = build_llama(shape, words.get_vocab_size(), begin, end, training.seed)
    trainer = Pretrainer(network, training, device)
    kept = sorted({0, *checkpoints, training.steps})
    for step in _train(trainer, packed, kept, scratch, checkpoint_seconds):
        _keep(trainer, words, scratch / step_folder(step), step)
    out.mkdir(parents=True, exist_ok=True)
    for step in kept:
        shutil.copytree(scratch / step_folder(step), out / step_folder(step))
    _write_loss(trainer.log, out / "loss.csv")
    return kept


def step_folder(step: int) -> str:
    """The folder of a checkpoint within its history."""
    return f"step_{step:07d}"


def _tokenizer(texts: Sequence[str], spec: TokenizerSpec, scratch: Path) -> Tokenizer:
    path = scratch / "tokenizer.json"
    if not path.is_file():
        with publish(path) as temporary:
            learn_tokenizer(texts, spec).save(str(temporary))
    return Tokenizer.from_file(str(path))


def _train(
    trainer: Pretrainer, packed: PackedTexts, kept: Sequence[int], scratch: Path, seconds: float
) -> Iterator[int]:
    """Train to the last step, from the state in `scratch` where there is one.

    Yields at each step to keep, before the state is saved there: a kill in between repeats it.
    """
    state, saved_at = scratch / _STATE, time.monotonic()
    if state.is_file():
        trainer.restore(state, scratch.name)
    elif 0 in kept:
        yield 0
    total = trainer.spec.steps
    with tqdm(total=total, initial=trainer.steps, desc="pretrain", unit="step") as bar:
        while trainer.steps < total:
            loss = trainer.step(packed.batch(trainer.steps))
            bar.update()
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            due = time.monotonic() - saved_at >= seconds
            if trainer.steps in kept:
                yield trainer.steps
                due = True
            if due:
                trainer.save(state, scratch.name)
                saved_at = time.monotonic()


def _keep(trainer: Pretrainer, tokenizer: Tokenizer, folder: Path, step: int) -> None:
    with publish(folder) as temporary:
        temporary.mkdir(parents=True)
        trainer.network.save_pretrained(temporary)
        save(tokenizer, temporary)
        write_own(PretrainedModel(source="pretrained", step=step), temporary)


def _write_loss(log: list[dict[str, float]], path: Path) -> None:
    with publish(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("step", "loss", "lr", "tokens"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)
