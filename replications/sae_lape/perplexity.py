"""Perplexities of every language's texts while another language's features are moved.

Each text is scored plainly, then under every intervention: settings x intervened languages. A cell
(a batch of texts under one setting) is computed whole or not at all and kept in scratch/ until all
are there, so a killed run goes on where it was.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from langsae import sharded
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import publish, write_json
from langsae.impact import Impacted, Plan, Scoring
from langsae.interventions import Intervention
from langsae.languages import by_name
from langsae.launch import settings as launch_settings
from langsae.launching import LOCAL, Launch
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import tokenise
from langsae.params import Spec
from langsae.perplexity import Scorer
from langsae.saes.bank import load_bank
from langsae.saes.neurons import neuron_bank
from replications.sae_lape import artefacts, identified, stage
from replications.sae_lape.run import STUDY, Run
from replications.sae_lape.steering import (
    FeatureSetting,
    NeuronSetting,
    feature_interventions,
    neuron_interventions,
)


class FeatureMatrix(FeatureSetting):
    """One matrix a multiplier. impacted: texts of all languages, or of the intervened one only."""

    multipliers: tuple[float, ...]
    impacted: Impacted = "all"


class NeuronMatrix(NeuronSetting):
    """One matrix an amount: a value (fixed) or a multiplier (scaled)."""

    amounts: tuple[float, ...]
    impacted: Impacted = "all"


class Perplexity(Spec):
    """rows: which of the texts of `run.impact`, None all; l2_scale: see interventions.directions"""

    features: tuple[FeatureMatrix, ...] = ()
    neurons: tuple[NeuronMatrix, ...] = ()
    rows: str | None = None
    l2_scale: float | None = None


def main() -> None:
    act = partial(perplexity, how=launch_settings())
    stage.main(__doc__, ("perplexity", Perplexity), "perplexity", act, artefacts.perplexity)


def perplexity(
    run: Run,
    settings: Perplexity,
    compute: Compute,
    found: Path,
    out: Path,
    scratch: Path = Path("scratch") / STUDY,
    how: Launch = LOCAL,
) -> None:
    """Publish perplexity.safetensors and settings.json at `out`; found: what identify published.

    Of the L languages with intervened features, the M of `run.impact` (both by English name) and
    its S rows: `normal` float64 [M, S] and per setting [L, M, S], NaN where it was not asked for.
    """
    again = partial(_open, run, settings, compute, found, scratch)
    scoring, corpus = again(), _texts(run, settings)
    sharded.fill(again, compute, how, "perplexities")
    scored = scoring.results()
    shape = (len(corpus.languages), len(corpus))
    facts = {
        "intervened": list(identified.load(found).languages),
        "impacted": list(corpus.languages),
        "rows": len(corpus),
        "tokens": scoring.tokens.counts(),
        "settings": {name: plan.fields for name, plan in scoring.plans.items()},
    }
    with publish(out) as part:
        part.mkdir(parents=True)
        # save_file writes the memory of an array, whatever its strides
        tensors = {
            name: np.ascontiguousarray(values.reshape(*values.shape[:-1], *shape))
            for name, values in scored.items()
        }
        save_file(tensors, part / "perplexity.safetensors")
        write_json(part / "settings.json", facts)


def _texts(run: Run, settings: Perplexity) -> ParallelCorpus:
    corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{run.impact}.jsonl")
    corpus = corpus.select(by_name(corpus.languages))
    corpus = corpus if settings.rows is None else corpus.rows(settings.rows)
    if not corpus.aligned:
        raise InputError(f"corpus {run.impact}: perplexities are compared on aligned rows only")
    return corpus


def _open(run: Run, settings: Perplexity, compute: Compute, found: Path, scratch: Path) -> Scoring:
    model = load(Path("artifacts/models") / run.model, compute.device)
    tokens = tokenise(model.tokenizer, _texts(run, settings), run.policy)
    plans = plan(run, settings, identified.load(found), model)
    return Scoring(Scorer(model), tokens, plans, compute, scratch)


def plan(
    run: Run, settings: Perplexity, features: identified.Identified, model: LanguageModel
) -> dict[str, Plan]:
    """Every setting by name (`sae_all_max/-0.2`), in the order of the configuration."""
    plans: dict[str, Plan] = {}
    bank = load_bank(Path("artifacts/saes") / run.saes, torch.device("cpu"), run.hooks)
    for matrix in settings.features:
        for amount in matrix.multipliers:
            made = feature_interventions(features, bank, matrix, amount, settings.l2_scale)
            _add(plans, matrix, amount, made)
    if settings.neurons:
        layers = sorted(set(features.neurons["layer"].astype(int)))
        widths = {hook: coder.width for hook, coder in neuron_bank(model, layers).items()}
        for matrix in settings.neurons:
            for amount in matrix.amounts:
                made = neuron_interventions(features, widths, matrix, amount)
                _add(plans, matrix, amount, made)
    return plans


def _add(
    plans: dict[str, Plan],
    matrix: FeatureMatrix | NeuronMatrix,
    amount: float,
    made: dict[str, Intervention],
) -> None:
    name = f"{matrix.name}/{amount:g}"
    if name in plans:
        raise InputError(f"{STUDY}.perplexity: setting {name} is listed twice")
    fields = matrix.model_dump(mode="json", exclude={"multipliers", "amounts"})
    plans[name] = Plan(made, matrix.impacted, fields | {"amount": amount})


if __name__ == "__main__":
    run(main)
