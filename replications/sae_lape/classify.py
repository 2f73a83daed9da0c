"""Telling the language of a text by which language's features it activates, and by fastText.

Andrylie et al. (2025), section on language identification: four classifiers on the WiLI-2018 test.
One pass scores every text by all lists; what follows from the scores is in classified.py.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import PositiveInt

from langsae import sharded, stream
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import digest, publish, write_json
from langsae.identify_language import LanguageIdentifier
from langsae.languages import by_name
from langsae.launch import settings as launch_settings
from langsae.launching import LOCAL, Launch
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.tokens import tokenise
from langsae.params import Spec, section
from langsae.reducers.base import Reducer
from langsae.reducers.text_scores import FeatureLists, NeuronScores, TextScores
from langsae.saes.bank import load_bank
from langsae.saes.neurons import neuron_bank
from replications.sae_lape import identified, published_scores
from replications.sae_lape.classified import column
from replications.sae_lape.run import STUDY, Run, folder

Lists = dict[HookPoint, FeatureLists]
Columns = dict[str, np.ndarray]  # [S] by name


class Classify(Spec):
    """selection: whose features are the lists (selections.csv of stage identify).

    fasttext: path of a fastText model; None is the shipped lid.176.ftz. fasttext_labels: for how
    many labels it is asked before those of other languages are dropped.
    published_scores: for a run of published artefacts, a CSV of the authors' raw scores.
    """

    selection: str = identified.ALL
    fasttext: str | None = None
    fasttext_labels: PositiveInt | None = 15
    published_scores: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile, compute = section("profile", str), section("compute", Compute)
    compute.apply()
    settings = section(f"{STUDY}.classify", Classify)
    chosen = section(f"{STUDY}.runs.{name}", Run)
    found, out = (folder(profile, name, stage) for stage in ("identified", "classified"))
    classify(chosen, settings, compute, found, out, launch_settings())


def classify(
    run: Run, settings: Classify, compute: Compute, found: Path, out: Path, how: Launch = LOCAL
) -> None:
    """Score the texts of `run.test` and publish scores.csv and lists.json at `out`.

    found: what stage identify published. Of a published run the scores are the authors' (but
    fastText's, which reads the texts), and their predictions stand in published_predictions.csv.
    """
    corpus = _texts(run)
    texts = [(row, code) for code, column in corpus.texts.items() for row in range(len(column))]
    keys = pd.DataFrame(texts, columns=["row", "label"])
    tables = {"scores": _fasttext(corpus, settings)}
    if run.published is None:
        by_classifier = _lists(identified.load(found), settings.selection, corpus)
        sizes = {name: _sizes(lists, corpus) for name, lists in by_classifier.items()}
        tables["scores"] |= _activations(run, compute, corpus, by_classifier, how)
    else:
        sizes = published_scores.list_sizes(run.published, corpus.languages)
        if settings.published_scores:
            theirs = published_scores.read(settings.published_scores, corpus.languages)
            scores, tables["published_predictions"] = theirs.of(corpus)
            tables["scores"] |= scores
    with publish(out) as part:
        part.mkdir(parents=True)
        for name, table in tables.items():
            frame = keys.assign(**table)
            frame.to_csv(part / f"{name}.csv", index=False, float_format="%.10g")
        write_json(part / "lists.json", sizes)


def _texts(run: Run) -> ParallelCorpus:
    corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{run.test}.jsonl")
    return corpus.select(by_name(corpus.languages))


def _fasttext(corpus: ParallelCorpus, settings: Classify) -> Columns:
    identifier = LanguageIdentifier(corpus.languages, settings.fasttext, settings.fasttext_labels)
    texts = (text for texts in corpus.texts.values() for text in texts)
    return _columns("fasttext", corpus, identifier.probabilities(texts))


def _columns(classifier: str, corpus: ParallelCorpus, scores: np.ndarray) -> Columns:
    """The columns of scores.csv for scores [S, L]."""
    return {column(classifier, code): scores[:, i] for i, code in enumerate(corpus.languages)}


def _lists(found: identified.Identified, selection: str, corpus: ParallelCorpus) -> dict:
    """The lists of each classifier that counts; without neurons, of SAE features only."""
    if unknown := [code for code in corpus.languages if code not in found.languages]:
        raise InputError(f"{corpus.name}: nothing was identified for {', '.join(unknown)}")
    features = feature_lists(found.selected(selection), corpus.languages)
    neurons = feature_lists(found.neurons, corpus.languages, "neuron")
    if not features:
        raise InputError(f"selection {selection} is empty; lower identify's thresholds")
    lists = {"sae-count": features, "sae-min-max": features}
    return lists | {"neuron-count": neurons} if neurons else lists


def feature_lists(rows: pd.DataFrame, languages: Sequence[str], name: str = "feature") -> Lists:
    """Lists by hook point, from rows (hook, language, `name`, and a feature's extremes).

    Rows of languages that are not asked for are left out.
    """
    lists = {}
    rows = rows[rows["language"].isin(languages)]
    for hook, part in rows.groupby("hook"):
        once = part.drop_duplicates(name).sort_values(name)
        ids = once[name].to_numpy(np.int64, copy=True)
        member = np.zeros((len(ids), len(languages)), bool)
        member[np.searchsorted(ids, part[name]), part["language"].map(languages.index)] = True
        extremes = {key: torch.from_numpy(once[key].to_numpy(np.float64, copy=True))
                    for key in ("minimum", "maximum") if key in once}  # fmt: skip
        arrays = torch.from_numpy(ids), torch.from_numpy(member)
        lists[HookPoint.parse(hook)] = FeatureLists(*arrays, **extremes)
    return lists


def _sizes(lists: Lists, corpus: ParallelCorpus) -> dict[str, int]:
    """Length of each language's list over all hook points."""
    total = sum(entry.member.sum(0) for entry in lists.values())
    return dict(zip(corpus.languages, total.tolist(), strict=True))


def _activations(
    run: Run, compute: Compute, corpus: ParallelCorpus, by_classifier: dict[str, Lists], how: Launch
) -> Columns:
    """Scores by SAE features and by neurons, from one pass over the texts."""
    again, scratch = partial(_open, run, compute, by_classifier), Path("scratch") / STUDY
    reducers = sharded.collect(again(), again, compute, scratch / "classify", how)
    state = {(r.name, key): value.cpu().numpy() for r in reducers for key, value in r.state.items()}
    states = {
        "sae-count": (TextScores.name, "hits"),
        "sae-min-max": (TextScores.name, "scaled"),
        "neuron-count": (NeuronScores.name, "hits"),
    }
    columns: Columns = {}
    for classifier in by_classifier:
        columns |= _columns(classifier, corpus, state[states[classifier]])
    return columns


def _open(run: Run, compute: Compute, by_classifier: dict[str, Lists]) -> sharded.Pass:
    corpus, model = _texts(run), load(Path("artifacts/models") / run.model, compute.device)
    features, neurons = by_classifier["sae-count"], by_classifier.get("neuron-count", {})
    bank = load_bank(Path("artifacts/saes") / run.saes, model.device, list(map(str, features)))
    bank |= neuron_bank(model, sorted(hook.layer for hook in neurons))
    tokens = tokenise(model.tokenizer, corpus, run.policy)
    # a checkpoint belongs to these lists, too, which the collection's own header does not hold
    header = stream.header(model, bank, tokens, corpus.digest()) | {
        "lists": digest({name: _record(lists) for name, lists in by_classifier.items()})
    }
    place = {hook: index for index, hook in enumerate(bank)}
    texts, device = [len(column) for column in corpus.texts.values()], str(model.device)

    def reducers() -> list[Reducer]:
        return [
            kind(header, texts, {place[hook]: lists[hook] for hook in lists}, device)
            for kind, lists in ((TextScores, features), (NeuronScores, neurons))
            if lists or kind is TextScores
        ]

    return sharded.Pass(model, bank, tokens, reducers)


def _record(lists: Lists) -> dict[str, list]:
    """Lists as JSON."""
    return {
        str(hook): [value.tolist() for value in vars(entry).values() if value is not None]
        for hook, entry in lists.items()
    }


if __name__ == "__main__":
    run(main)
