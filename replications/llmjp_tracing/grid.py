"""The grid of SAEs: every layer of every checkpoint, one cell a checkpoint.

A cell is a bank: one pass of the checkpoint feeds the SAEs of all its layers. Finished cells wait
in a scratch folder that their inputs name, so a killed grid goes on where it was.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.files import digest, publish, read_json, write_json
from langsae.launch import each
from langsae.launching import Launch
from langsae.models.language_model import LanguageModel, load
from langsae.paths import at_step
from langsae.saes.sparse_step import ROWS
from langsae.saes.spec import HubBank, TrainedBank
from langsae.saes.train import TrainSpec
from langsae.stages.corpus import CORPORA
from langsae.stages.saes import prepare_for
from replications.llmjp_tracing.run import Run, TrainedGrid, checkpoint, hooks, steps


@dataclass(frozen=True)
class Cell:
    """One checkpoint's bank. lr: what the SAEs are trained with; None where they are fetched.

    model: the checkpoint's folder (see langsae.models.source); folder: where the finished bank
    waits, named by what it depends on; its siblings hold what a kill interrupted.
    """

    step: int
    model: Path
    run: Run
    lr: float | None
    compute: Compute
    folder: Path


def cells(
    run: Run, history: Path, lr: float | None, compute: Compute, scratch: Path
) -> dict[str, Cell]:
    """The cells of a run by name, in order of steps."""
    if run.saes.source == "none":
        return {}
    corpus = ParallelCorpus.load(CORPORA / f"{_corpus(run)}.jsonl").digest()
    # what only other stages read does not make a cell another one
    shared = run.model_dump(mode="json", include={"layers", "policy", "saes"})
    shared["saes"].pop("rates", None)
    found = {}
    for step in steps(history):
        model = checkpoint(history, step)
        key = digest([
            shared, lr, step, corpus, compute.model_dump(), read_json(model / "model.json")
        ])  # fmt: skip
        found[f"step {step}"] = Cell(step, model, run, lr, compute, scratch / key / "bank")
    return found


def make(cell: Cell) -> None:
    """Train or fetch the SAEs of one cell; its bank appears at `cell.folder` as a whole."""
    cell.compute.apply()
    model = load(cell.model, cell.compute.device)
    spec = bank_spec(cell, model)
    # a second epoch reads the activations again; else they need not wait on disk
    keep = isinstance(spec, TrainedBank) and spec.training.epochs > 1
    scratch, at_once = cell.folder.parent / "training", fitting(spec, model)
    prepare_for(model, spec, cell.compute, cell.folder, scratch, keep, at_once)


def fitting(spec: TrainedBank | HubBank, model: LanguageModel) -> int | None:
    """How many SAEs in training the GPU has room for beside the model; None: all of them.

    It does not change what is trained, only how many passes of the model that takes.
    """
    if model.device.type != "cuda" or isinstance(spec, HubBank):
        return None
    return at_once(torch.cuda.mem_get_info(model.device)[0], spec.training, model.d_model)


def at_once(free: int, training: TrainSpec, d_model: int) -> int:
    """SAEs whose weights and two moments fit into `free` bytes, with what one step takes besides.

    A step takes one SAE's gradients, some ten arrays [batch, d], and pre-activations of a tile.
    """
    weights = 2 * training.n_latents * d_model * 4  # bytes of float32
    step = weights + 4 * (10 * training.batch_tokens * d_model + 2 * ROWS * training.n_latents)
    return max(1, (free - step) // (3 * weights))


def bank_spec(cell: Cell, model: LanguageModel) -> TrainedBank | HubBank:
    """What the cell's bank is, with the hooks of the layers that are asked for."""
    run, saes = cell.run, cell.run.saes
    common = {
        "model": f"{run.history}/{cell.model.name}",
        "corpus": _corpus(run),
        "policy": run.policy,
        "hooks": tuple(map(str, hooks(run.layers, model.n_layers))),
    }
    if isinstance(saes, TrainedGrid):
        training = saes.training.model_copy(update={"lr": cell.lr})
        return TrainedBank(
            source="train", training=training, chunk_tokens=saes.chunk_tokens, **common
        )
    return HubBank(
        source="hub",
        repo=at_step(saes.repo, cell.step),
        revision=saes.revision,
        path=at_step(saes.path, cell.step),
        **common,
    )


def _corpus(run: Run) -> str:
    """The texts SAEs are trained on, or that published ones are probed with."""
    return run.training if run.saes.source == "train" else run.evaluation


def fill(grid: Mapping[str, Cell], launch: Launch) -> None:
    """Make every cell that is not there yet; InputError names those that failed."""
    missing = {name: cell for name, cell in grid.items() if not cell.folder.is_dir()}
    each(make, missing, launch, "cells of the SAE grid")


def publish_grid(grid: Mapping[str, Cell], lr: float | None, out: Path) -> None:
    """Publish all cells as `out`/step_NNNNNNN/ and grid.json, and clear what made them."""
    with publish(out) as folder:
        folder.mkdir()
        for cell in grid.values():
            shutil.copytree(cell.folder, folder / cell.model.name, copy_function=_link)
        write_json(folder / "grid.json", {"steps": [cell.step for cell in grid.values()], "lr": lr})
    for cell in grid.values():
        shutil.rmtree(cell.folder.parent, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """A grid of the paper's size has hundreds of gigabytes: no second copy where links do."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy(source, target)
