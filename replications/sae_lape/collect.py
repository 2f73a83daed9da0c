"""The costly pass: every text through the model, its SAEs and its neurons, counted once.

Andrylie et al. (2025) run the model text by text, keep the codes of every layer on disk, and count
them afterwards; neurons are a second run. Here one pass counts both, for all layers and languages.
"""

import argparse
from functools import partial
from pathlib import Path

from langsae import sharded, stream
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import digest, publish
from langsae.languages import by_name
from langsae.launch import settings
from langsae.launching import LOCAL, Launch
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.params import section
from langsae.paths import expand
from langsae.reducers.base import Reducer
from langsae.reducers.lape_counts import LapeCounts, NeuronCounts
from langsae.saes.bank import load_bank
from langsae.saes.codes import SparseCoder
from langsae.saes.neurons import neuron_bank
from replications.sae_lape import artefacts
from replications.sae_lape.run import STUDY, Run, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    wanted = section(f"{STUDY}.runs.{name}", Run)
    out = folder(section("profile", str), name, "collected")
    if wanted.published is not None:
        with publish(out) as part:
            part.mkdir(parents=True)
            artefacts.collect(expand(wanted.published), part)
        return
    compute = section("compute", Compute)
    compute.apply()
    collect(wanted, compute, out, Path("scratch") / STUDY, settings())


def collect(wanted: Run, compute: Compute, out: Path, scratch: Path, how: Launch = LOCAL) -> None:
    """Count `wanted` and publish totals.json and the counts of features and neurons at `out`.

    Languages are in the study's order: by English name.
    """
    opened, again = _open(wanted, compute), partial(_open, wanted, compute)
    reducers = sharded.collect(opened, again, compute, scratch, how)
    with publish(out) as part:
        part.mkdir(parents=True)
        facts = totals(_texts(wanted), opened.tokens, opened.model, reducers[0].header)
        stream.save_all(reducers, part, {"totals": facts})


def _texts(wanted: Run) -> ParallelCorpus:
    corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{wanted.corpus}.jsonl")
    return corpus.select(by_name(corpus.languages))


def _open(wanted: Run, compute: Compute) -> sharded.Pass:
    corpus = _texts(wanted)
    model = load(Path("artifacts/models") / wanted.model, compute.device)
    saes = load_bank(Path("artifacts/saes") / wanted.saes, model.device, wanted.hooks)
    model.check(saes)
    tokens = tokenise(model.tokenizer, corpus, wanted.policy)
    neurons = neuron_bank(model, dict.fromkeys(hook.layer for hook in saes))
    bank = dict(sorted((saes | neurons).items(), key=lambda item: item[0].order))
    header = stream.header(model, bank, tokens, corpus.digest())
    languages, device = len(corpus.languages), str(model.device)
    empty = partial(counters, header, bank, list(saes), languages, device)
    return sharded.Pass(model, bank, tokens, empty)


def counters(
    header: dict, bank: dict[HookPoint, SparseCoder], saes: list[HookPoint], languages: int,
    device: str,
) -> list[Reducer]:  # fmt: skip
    """The counts of the SAEs at these hooks of `bank`, and of the neurons at its others."""
    places = {hook: place for place, hook in enumerate(bank)}
    neurons = [hook for hook in bank if hook not in saes]
    return [
        kind(header, [places[hook] for hook in hooks], languages, _width(bank, hooks), device)
        for kind, hooks in ((LapeCounts, saes), (NeuronCounts, neurons))
    ]


def _width(bank: dict[HookPoint, SparseCoder], hooks: list[HookPoint]) -> int:
    widths = {bank[hook].n_features for hook in hooks}
    if len(widths) != 1:
        raise InputError(
            f"widths {sorted(widths)} at {', '.join(map(str, hooks))}: sae_lape compares layers, "
            "so all dictionaries must have one width; choose other `saes`"
        )
    return widths.pop()


def totals(
    corpus: ParallelCorpus, tokens: TokenisedCorpus, model: LanguageModel, header: dict
) -> dict:
    """What rates are shares of, and a digest of every input."""
    return {
        "tokens": tokens.counts(),
        "examples": {code: len(texts) for code, texts in corpus.texts.items()},
        "layers": model.n_layers,
        "inputs": {
            "corpus": header["corpus"],
            "model": digest(header["model"]),
            "saes": digest(header["coders"]),
        },
    }


if __name__ == "__main__":
    run(main)
