"""The costly pass: every text through the model and its SAEs, counted as the study counts.

Belieni (2025) recorded, per layer, language and feature, the sum of activations, the number of
active tokens, and the squared reconstruction error. One pass collects all of it for all layers.
"""

import argparse
from functools import partial
from pathlib import Path

from pydantic import PositiveInt

from langsae import sharded, stream
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import publish
from langsae.launch import settings
from langsae.launching import LOCAL, Launch
from langsae.models.language_model import LanguageModel, pick_device
from langsae.models.source import LoadedModel, load_source
from langsae.models.tokens import TokenPolicy, tokenise
from langsae.params import Spec, section
from langsae.reducers.base import Reducer
from langsae.reducers.counts import FeatureCounts
from langsae.reducers.reconstruction import Reconstruction
from langsae.saes.bank import load_bank
from langsae.saes.spec import Hooks

STUDY = "flores_exploration"


class Run(Spec):
    """One model of the study: names from params.yaml, and how its texts are counted.

    hooks: which of the bank's SAEs; None is all.
    features: dictionary size of its SAEs, which the published token counts carry as a factor;
    to be given where no SAE is loaded, and checked where one is.
    """

    model: str
    corpus: str
    saes: str
    hooks: Hooks | None = None
    features: PositiveInt | None = None
    policy: TokenPolicy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    compute = section("compute", Compute)
    compute.apply()
    out = Path("artifacts") / STUDY / section("profile", str) / name
    wanted = section(f"{STUDY}.runs.{name}", Run)
    collect(wanted, compute, out, Path("scratch") / STUDY, settings())


def collect(run: Run, compute: Compute, out: Path, scratch: Path, how: Launch = LOCAL) -> None:
    """Count `run` and publish `tokens.json` and, where there are SAEs, the reducers at `out`."""
    source, corpus = load_source(Path("artifacts/models") / run.model), _texts(run)
    tokens = tokenise(source.tokenizer, corpus, run.policy)
    facts = {
        "counts": tokens.counts(),
        "features": run.features,
        "inputs": {"corpus": corpus.digest(), "model": source.description},
    }
    reducers: list[Reducer] = []
    if source.network is not None:
        opened, again = _open(run, compute, source), partial(_open, run, compute)
        reducers = sharded.collect(opened, again, compute, scratch, how)
    with publish(out) as part:
        part.mkdir(parents=True)
        stream.save_all(reducers, part, {"tokens": facts})


def _texts(run: Run) -> ParallelCorpus:
    return ParallelCorpus.load(Path("artifacts/corpora") / f"{run.corpus}.jsonl")


def _open(run: Run, compute: Compute, source: LoadedModel | None = None) -> sharded.Pass:
    """The pass of `run`; source: its model, where it is loaded already."""
    source = source or load_source(Path("artifacts/models") / run.model)
    corpus, model = _texts(run), LanguageModel(source, pick_device(compute.device))
    tokens = tokenise(source.tokenizer, corpus, run.policy)
    bank = load_bank(Path("artifacts/saes") / run.saes, model.device, run.hooks)
    model.check(bank)
    widths = {coder.n_features for coder in bank.values()}
    if len(widths) > 1 or run.features not in (None, *widths):
        raise InputError(f"saes {run.saes}: have widths {widths}, the run says {run.features}")
    header = stream.header(model, bank, tokens, corpus.digest())
    shape, width, device = (len(bank), len(tokens.languages)), widths.pop(), str(model.device)

    def reducers() -> list[Reducer]:
        return [
            FeatureCounts(header, *shape, width, device),
            Reconstruction(header, *shape, model.d_model, device),
        ]

    return sharded.Pass(model, bank, tokens, reducers)


if __name__ == "__main__":
    run(main)
