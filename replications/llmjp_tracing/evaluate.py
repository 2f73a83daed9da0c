"""Held-out perplexity of each checkpoint by language, beside a unigram's and a bigram's.

The texts are the run's evaluation corpus under its token policy: the tokens that features are
measured on. Every token after a text's first (the BOS) is predicted; a perplexity is exp of the
mean over all of a language's tokens. The n-gram models are fitted on the training corpus, both
languages together, as a language model is.
"""

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from langsae import launch
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import digest, publish, read_json, sha256, write_json
from langsae.launching import Launch
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.ngrams import Bigram, NGram, Unigram, transitions
from langsae.params import section
from langsae.perplexity import Scorer
from replications.llmjp_tracing.run import STUDY, Run, checkpoint, folder, history_folder, steps

COLUMNS = ("model", "language", "perplexity", "tokens")
_BASELINES = "baselines"
_NGRAMS: dict[str, type[NGram]] = {"unigram": Unigram, "bigram": Bigram}


@dataclass(frozen=True)
class Cell:
    """What is evaluated in one go, and the JSON that it publishes.

    fit: the corpus that n-gram models are fitted on; None evaluates the model itself.
    """

    run: Run
    compute: Compute
    model: Path
    texts: Path
    fit: Path | None
    out: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    wanted = section(f"{STUDY}.runs.{name}", Run)
    compute = section("compute", Compute)
    compute.apply()
    out = folder(section("profile", str), name, "evaluated")
    evaluate(wanted, compute, out, Path("scratch") / STUDY, launch.settings())


def evaluate(wanted: Run, compute: Compute, out: Path, scratch: Path, how: Launch) -> None:
    """Publish perplexity.csv at `out`: a row a model and language, the baselines last.

    Models that are done wait in `scratch`, so a killed run goes on where it was. Raises InputError
    that names what failed, and for checkpoints whose vocabularies differ.
    """
    cells = {} if wanted.published is not None else _cells(wanted, compute, scratch)
    missing = {name: cell for name, cell in cells.items() if not cell.out.is_file()}
    launch.each(evaluate_cell, missing, how, "held-out perplexities")
    found = {name: read_json(cell.out) for name, cell in cells.items()}
    for name, one in found.items():
        if one["vocabulary"] != found[_BASELINES]["vocabulary"]:
            raise InputError(
                f"checkpoint {name}: its tokenizer is not the last checkpoint's, so their "
                "perplexities are not of the same tokens; give checkpoints of one model"
            )
    rows = [row for one in found.values() for row in one["rows"]]
    with publish(out) as part:
        part.mkdir(parents=True)
        with (part / "perplexity.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for cell in cells.values():
        cell.out.unlink()


def _cells(wanted: Run, compute: Compute, scratch: Path) -> dict[str, Cell]:
    history = history_folder(wanted.history)
    corpora = Path("artifacts/corpora")
    texts = corpora / f"{wanted.evaluation}.jsonl"
    fit = corpora / f"{wanted.pretraining or wanted.training}.jsonl"
    models = {f"{step}": checkpoint(history, step) for step in steps(history)}
    if not models:
        raise InputError(f"history {wanted.history}: has no checkpoint to evaluate")
    key = digest([
        wanted.policy.model_dump(), compute.batch_tokens, compute.threads, compute.device,
        sha256(texts), sha256(fit), [sha256(model / "model.json") for model in models.values()],
    ])  # fmt: skip
    waiting = scratch / f"evaluate-{key}"
    cells = {name: Cell(wanted, compute, model, texts, None, waiting / f"{name}.json")
             for name, model in models.items()}  # fmt: skip
    *_, last = models.values()
    baselines = Cell(wanted, compute, last, texts, fit, waiting / f"{_BASELINES}.json")
    return {**cells, _BASELINES: baselines}


def evaluate_cell(cell: Cell) -> None:
    """Evaluate one checkpoint, or both baselines; publishes {"rows", "vocabulary"}."""
    cell.compute.apply()
    model = load(cell.model, cell.compute.device)
    texts = tokenise(model.tokenizer, ParallelCorpus.load(cell.texts), cell.run.policy)
    if cell.fit is None:
        losses = {cell.out.stem: model_losses(model, texts, cell.compute.batch_tokens)}
    else:
        whole = cell.run.policy.model_copy(update={"max_tokens": None})
        fit = tokenise(model.tokenizer, ParallelCorpus.load(cell.fit), whole)
        size = model.network.config.vocab_size
        losses = {name: ngram_losses(kind(fit.ids, size), texts) for name, kind in _NGRAMS.items()}
    tokens = predicted(texts)
    rows = [
        {"model": name, "language": language, "perplexity": math.exp(loss / n), "tokens": int(n)}
        for name, found in losses.items()
        for language, loss, n in zip(texts.languages, found, tokens, strict=True)
    ]
    vocabulary = digest(sorted(model.tokenizer.get_vocab().items()))
    write_json(cell.out, {"rows": rows, "vocabulary": vocabulary})


def predicted(texts: TokenisedCorpus) -> np.ndarray:
    """How many tokens of each language are predicted, int64 [languages]."""
    lengths = np.array(texts.ids.lengths())
    totals = np.zeros(len(texts.languages), np.int64)
    np.add.at(totals, np.array(texts.language), lengths - 1)
    return totals


def model_losses(model: LanguageModel, texts: TokenisedCorpus, batch_tokens: int) -> np.ndarray:
    """Negative log-likelihood in nats of each language's texts, float64 [languages]."""
    scorer = Scorer(model)
    totals = np.zeros(len(texts.languages))
    for group in tqdm(texts.batches(batch_tokens), desc="perplexity", unit="batch"):
        batch = texts.batch(group)
        lengths = [len(texts.ids[index]) for index in group]
        means = scorer.mean_nll(batch.ids, lengths).numpy()
        np.add.at(totals, batch.language.numpy(), means * (np.array(lengths) - 1))
    return totals


def ngram_losses(ngram: NGram, texts: TokenisedCorpus) -> np.ndarray:
    """The same under an n-gram model."""
    losses = -ngram.log_probability(*transitions(texts.ids))
    language = np.repeat(texts.language, np.array(texts.ids.lengths()) - 1)
    return np.bincount(language, losses, len(texts.languages))


if __name__ == "__main__":
    run(main)
