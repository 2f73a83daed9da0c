"""Stage rates_llmjp_tracing: the learning rate by a grid (Fig. 11, Table 2).

SAEs at the last checkpoint and the middle layer are trained with each rate, all from one pass over
the same batches; the one of lowest held-out loss trains the whole grid.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from langsae.activations import ActivationChunks
from langsae.command import run as command
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.files import digest, publish, read_json, write_json
from langsae.launch import each, settings
from langsae.launching import Launch
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.params import section
from langsae.saes.topk import TopKSAE
from langsae.saes.train_bank import LOG, train_bank
from langsae.stages.corpus import CORPORA
from replications.llmjp_tracing.run import (
    STUDY,
    Run,
    TrainedGrid,
    checkpoint,
    folder,
    history_folder,
    hooks,
    steps,
)

SCRATCH = Path("scratch") / STUDY / "rates"
RULE = "lowest loss on the evaluation corpus; of equal ones the smaller rate"


@dataclass(frozen=True)
class Trial:
    """All rates of one run; what they give appears at `folder`/rates.json."""

    run: Run
    step: int
    model: Path
    compute: Compute
    folder: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile, compute = section("profile", str), section("compute", Compute)
    chosen = section(f"{STUDY}.runs.{name}", Run)
    choose(chosen, compute, settings(), folder(profile, name, "rates"))


def choose(run: Run, compute: Compute, launch: Launch, out: Path) -> None:
    """Try the rates of `run` and publish rates.json at `out`; a run without any tries none."""
    if not isinstance(run.saes, TrainedGrid) or run.saes.rates is None:
        lr = run.saes.training.lr if isinstance(run.saes, TrainedGrid) else None
        _publish(out, {"selected": lr, "grid": [], "curves": {}, "held_out": {}})
        return
    history = history_folder(run.history)
    step = steps(history)[-1]
    model = checkpoint(history, step)
    texts = [_corpus(name).digest() for name in (run.training, run.evaluation)]
    key = digest([
        run.model_dump(mode="json", include={"layers", "policy", "saes"}), texts,
        compute.model_dump(), read_json(model / "model.json"),
    ])  # fmt: skip
    trial = Trial(run, step, model, compute, SCRATCH / key)
    found = trial.folder / "rates.json"
    each(try_rates, {} if found.is_file() else {"grid": trial}, launch, "learning rates")
    _publish(out, read_json(found))
    shutil.rmtree(trial.folder)


def try_rates(trial: Trial) -> None:
    """Train with each rate and write rates.json."""
    run, saes = trial.run, trial.run.saes
    trial.compute.apply()
    model = load(trial.model, trial.compute.device)
    hook = middle(run.layers, model.n_layers)
    specs = {
        _name(lr): saes.training.model_copy(update={"lr": lr}) for lr in sorted(set(saes.rates))
    }
    keep, texts = saes.training.epochs > 1, _corpus(run.training)
    tokens = tokenise(model.tokenizer, texts, run.policy)
    chunks = ActivationChunks(
        model, [str(hook)], tokens, trial.compute, saes.chunk_tokens, saes.training.seed,
        trial.folder / "activations", keep,
    )  # fmt: skip
    out, states = trial.folder / "saes", trial.folder / "training"
    seconds = trial.compute.checkpoint_seconds
    train_bank(Shared(chunks, str(hook), list(specs)), specs, states, out, model.device, seconds)
    trained = {name: TopKSAE.load(out / name, model.device) for name in specs}
    held_out = tokenise(model.tokenizer, _corpus(run.evaluation), run.policy)
    losses = losses_of(trained, model, hook, held_out, trial.compute.batch_tokens)
    write_json(trial.folder / "rates.json", {
        "hook": str(hook), "layer": hook.layer + 1, "step": trial.step, "rule": RULE,
        "grid": [spec.lr for spec in specs.values()],
        "curves": {str(spec.lr): read_json(out / name / LOG) for name, spec in specs.items()},
        "held_out": {str(spec.lr): losses[name] for name, spec in specs.items()},
        "selected": min((losses[name]["loss"], spec.lr) for name, spec in specs.items())[1],
    })  # fmt: skip


class Shared(Sequence):
    """chunks of one hook's activations under several names: {name: [n, d]}."""

    def __init__(self, chunks: Sequence[Mapping[str, Tensor]], hook: str, names: list[str]) -> None:
        self.chunks, self.hook, self.names = chunks, hook, names

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return dict.fromkeys(self.names, self.chunks[index][self.hook])


def middle(layers: tuple[int, ...] | None, n_layers: int) -> HookPoint:
    """The hook of the run's layer nearest to n_layers / 2 (1-based; of two the lower)."""
    return min(
        hooks(layers, n_layers), key=lambda hook: (abs(hook.layer + 1 - n_layers / 2), hook.layer)
    )


@torch.inference_mode()
def losses_of(
    saes: Mapping[str, TopKSAE],
    model: LanguageModel,
    hook: HookPoint,
    texts: TokenisedCorpus,
    batch_tokens: int,
) -> dict[str, dict[str, Any]]:
    """{name: {loss, fvu}} of SAEs of one input normalisation on all counted tokens of `texts`.

    loss: mean over tokens of the squared error summed over dimensions, as in training; fvu: that
    error over the squared distance of the targets to their mean.
    """
    errors, count, total, squares = dict.fromkeys(saes, 0.0), 0, 0, 0.0
    for group in tqdm(texts.batches(batch_tokens), desc="held-out loss", unit="batch"):
        batch = texts.batch(group).to(model.device)
        x = model.activations(batch.ids, [hook])[hook][batch.counted].float()
        target = next(iter(saes.values())).target(x)
        count += len(x)
        total = total + target.double().sum(0)
        squares += float(target.double().square().sum())
        for name, sae in saes.items():
            errors[name] += float((sae.decode(sae.encode(x)) - target).double().square().sum())
    spread = squares - float(total.square().sum()) / count
    return {
        name: {"loss": error / count, "fvu": error / spread, "tokens": count}
        for name, error in errors.items()
    }


def _corpus(name: str) -> ParallelCorpus:
    return ParallelCorpus.load(CORPORA / f"{name}.jsonl")


def _name(lr: float) -> str:
    return f"lr {lr}"


def _publish(out: Path, found: dict[str, Any]) -> None:
    with publish(out) as folder:
        folder.mkdir()
        write_json(folder / "rates.json", found)


if __name__ == "__main__":
    command(main)
