"""Stage prepare_saes: train or fetch one bank of params.yaml, probe it and publish its folder."""

import argparse
from pathlib import Path

import torch

from langsae.activations import ActivationChunks
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.files import digest, publish, write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import tokenise
from langsae.params import section
from langsae.saes.bank import folder_of, locate, write_index
from langsae.saes.load import load_sae
from langsae.saes.probe import check_fit
from langsae.saes.spec import BankSpec, EmptyBank, LoadedBank, TrainedBank
from langsae.saes.train_bank import train_bank

SAES = Path("artifacts/saes")
SCRATCH = Path("scratch/saes")
# Tokens an SAE is probed with before it is used.
PROBE_TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of `saes` in params.yaml")
    name = parser.parse_args().name
    compute = section("compute", Compute)
    compute.apply()
    prepare(section(f"saes.{name}", BankSpec), compute, SAES / name)


def prepare(spec: BankSpec, compute: Compute, out: Path) -> None:
    """Train or fetch the bank of `spec` and publish it at `out`."""
    if isinstance(spec, EmptyBank):
        with publish(out) as bank:
            bank.mkdir(parents=True)
            write_json(bank / "bank.json", {"spec": spec.model_dump(mode="json"), "saes": {}})
        return
    model = load(Path("artifacts/models") / spec.model, compute.device)
    prepare_for(model, spec, compute, out, SCRATCH)


def prepare_for(
    model: LanguageModel,
    spec: TrainedBank | LoadedBank,
    compute: Compute,
    out: Path,
    scratch: Path,
    keep: bool = True,
    at_once: int | None = None,
) -> None:
    """Train or fetch the bank of `spec` for a model at hand and publish it at `out`.

    scratch: where a killed training goes on from; keep: whether activations wait on disk, which
    more than one epoch needs; at_once: SAEs in training at a time (None: all), each such group
    with passes of its own over activations that are not kept.
    """
    chunks = _activations(spec, model, compute, scratch, keep)
    with publish(out) as bank:
        bank.mkdir(parents=True)
        if isinstance(spec, TrainedBank):
            _train(spec, chunks, bank, compute, model.device, at_once or len(spec.hooks))
            places = {hook: {"path": f"saes/{hook}"} for hook in spec.hooks}
        else:
            places = locate(spec)
        write_index(bank, spec, places, _probe(spec, places, bank, model, chunks))
    chunks.clear()


def _train(
    spec: TrainedBank,
    chunks: ActivationChunks,
    bank: Path,
    compute: Compute,
    device: torch.device,
    at_once: int,
) -> None:
    """Train the SAEs of `spec`, `at_once` at a time, into `bank`/saes/HOOK/."""
    specs, states = spec.specs(), chunks.folder / "training"
    (bank / "saes").mkdir()
    for start in range(0, len(spec.hooks), at_once):
        group = spec.hooks[start : start + at_once]
        part, own = bank / "part", {hook: specs[hook] for hook in group}
        train_bank(chunks.of(group), own, states, part, device, compute.checkpoint_seconds)
        for hook in group:
            (part / hook).rename(bank / "saes" / hook)
        part.rmdir()


def _activations(
    spec: TrainedBank | LoadedBank,
    model: LanguageModel,
    compute: Compute,
    scratch: Path,
    keep: bool,
) -> ActivationChunks:
    """The activations of the bank's texts; a loaded bank only needs enough for the probe."""
    trained = isinstance(spec, TrainedBank)
    corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{spec.corpus}.jsonl")
    key = digest([
        spec.model_dump(mode="json"), compute.model_dump(), corpus.digest(), model.description
    ])  # fmt: skip
    return ActivationChunks(
        model,
        spec.hooks,
        tokenise(model.tokenizer, corpus, spec.policy),
        compute,
        spec.chunk_tokens if trained else PROBE_TOKENS,
        spec.training.seed if trained else 0,
        scratch / key,
        keep and trained,
    )


def _probe(spec, places, bank: Path, model: LanguageModel, chunks: ActivationChunks) -> dict:
    coders = {}
    for hook, place in places.items():
        point = HookPoint.parse(hook)
        sae = load_sae(folder_of(place, bank), point, getattr(spec, "architecture", None))
        coders[point] = sae.to(model.device)
    sample = {
        HookPoint.parse(hook): value.to(model.device)
        for hook, value in chunks.head(PROBE_TOKENS).items()
    }
    return check_fit(coders, [sample])


if __name__ == "__main__":
    run(main)
