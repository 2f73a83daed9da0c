"""The costly pass: evaluation texts through each checkpoint and its SAEs, all layers at once.

Inaba et al. (2025) look, for every feature, at the tokens above 70 % of its maximum. One pass of
each checkpoint finds them (see reducers/activating_tokens.py), the lengths of active spans, and the
texts in which each feature is strongest.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

from langsae import launch, stream
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import digest, publish, read_json, sha256, write_json
from langsae.launching import Launch
from langsae.metrics.token_language import vocabulary_languages
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.params import Spec, section
from langsae.paths import expand
from langsae.reducers.activating_tokens import ActivatingTokens
from langsae.reducers.contexts import TopContexts
from langsae.reducers.span_lengths import SpanLengths
from langsae.saes.bank import load_bank
from replications.llmjp_tracing import patterns
from replications.llmjp_tracing.run import (
    STUDY,
    Run,
    checkpoint,
    folder,
    history_folder,
    hooks,
    steps,
)


class Collecting(Spec):
    """bar: the share of its maximum above which a feature's tokens are kept. contexts: texts of
    each language in which a feature is strongest. shown: features of each kind and layer that are
    followed along these texts.
    """

    bar: float = Field(default=0.7, gt=0, lt=1)
    contexts: PositiveInt = 4
    shown: NonNegativeInt = 2


@dataclass(frozen=True)
class Cell:
    """One checkpoint's pass: where everything lies, and where its folder is published."""

    run: Run
    collecting: Collecting
    compute: Compute
    model: Path
    saes: Path
    corpus: Path
    out: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile = section("profile", str)
    wanted = section(f"{STUDY}.runs.{name}", Run)
    out = folder(profile, name, "collected")
    if wanted.published is not None:
        with publish(out) as part:
            part.mkdir(parents=True)
            known = {"published": sha256(expand(wanted.published))}
            write_json(part / "totals.json", {"tokens": {}, "inputs": known})
        return
    compute = section("compute", Compute)
    compute.apply()
    collecting = section(f"{STUDY}.collect", Collecting)
    saes = folder(profile, name, "saes")
    collect(wanted, collecting, compute, saes, out, Path("scratch") / STUDY, launch.settings())


def collect(
    wanted: Run, collecting: Collecting, compute: Compute, saes: Path, out: Path, scratch: Path,
    how: Launch,
) -> None:  # fmt: skip
    """Collect every checkpoint of `wanted` and publish their folders and totals.json at `out`.

    A checkpoint's folder waits in `scratch` until all are there, so a killed run goes on where it
    was. Raises InputError that names the checkpoints that failed.
    """
    history = history_folder(wanted.history)
    corpus = Path("artifacts/corpora") / f"{wanted.evaluation}.jsonl"
    names = {f"step_{step:07d}": checkpoint(history, step) for step in steps(history)}
    key = digest([
        wanted.model_dump(mode="json"), collecting.model_dump(), compute.batch_tokens,
        compute.threads, compute.device, sha256(corpus),
        {name: [sha256(model / "model.json"), sha256(saes / name / "bank.json")]
         for name, model in names.items()},
    ])  # fmt: skip
    waiting = scratch / f"collect-{key}"
    cells = {name: Cell(wanted, collecting, compute, model, saes / name, corpus, waiting / name)
             for name, model in names.items()}  # fmt: skip
    missing = {name: cell for name, cell in cells.items() if not cell.out.is_dir()}
    launch.each(collect_checkpoint, missing, how, "collected checkpoints")
    totals = [read_json(cell.out / "totals.json") for cell in cells.values()]
    inputs = {part: digest([total["inputs"][part] for total in totals])
              for part in ("model", "saes")}  # fmt: skip
    whole = {**totals[0], "inputs": {"corpus": totals[0]["inputs"]["corpus"], **inputs}}
    with publish(out) as part:
        shutil.copytree(waiting, part, ignore=shutil.ignore_patterns(".*"))
        write_json(part / "totals.json", whole)
    shutil.rmtree(waiting)


def collect_checkpoint(cell: Cell) -> None:
    """One pass of one checkpoint; publishes its reducers, patterns.json and totals.json."""
    cell.compute.apply()
    corpus = two_languages(ParallelCorpus.load(cell.corpus))
    model = load(cell.model, cell.compute.device)
    places = [str(hook) for hook in hooks(cell.run.layers, model.n_layers)]
    bank = load_bank(cell.saes, model.device, places)
    tokens = tokenise(model.tokenizer, corpus, cell.run.policy)
    header = stream.header(model, bank, tokens, corpus.digest())
    reducers = _reducers(cell, model, bank, header)
    scratch = cell.out.parent.with_name(f"{cell.out.parent.name}-stream")
    stream.collect(model, bank, tokens, reducers, cell.compute, scratch)
    near, _, contexts = reducers
    shown = patterns.trace(model, bank, tokens, near, contexts, cell.collecting.shown,
                           cell.compute, scratch)  # fmt: skip
    totals = _totals(tokens, model, header)
    with publish(cell.out) as part:
        part.mkdir(parents=True)
        stream.save_all(reducers, part, {"totals": totals, "patterns": shown})


def two_languages(corpus: ParallelCorpus) -> ParallelCorpus:
    """The corpus with English first; InputError where it is not English and one other language."""
    others = [code for code in corpus.languages if code != "en"]
    if len(others) != 1 or len(corpus.languages) != 2:
        raise InputError(
            f"corpus {corpus.name}: has {', '.join(corpus.languages)}; {STUDY} asks for English "
            "and one other language"
        )
    return corpus.select(["en", *others])


def _reducers(
    cell: Cell, model: LanguageModel, bank: stream.Bank, header: dict
) -> tuple[ActivatingTokens, SpanLengths, TopContexts]:
    widths = {coder.n_features for coder in bank.values()}
    if len(widths) != 1:
        raise InputError(f"{cell.saes}: widths {sorted(widths)}; {STUDY} compares layers, so all "
                         "dictionaries must have one width")  # fmt: skip
    features, device = widths.pop(), str(model.device)
    ids = [[id] for id in range(len(model.tokenizer))]
    texts = model.tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
    near = ActivatingTokens(header, len(bank), features, vocabulary_languages(texts),
                            cell.collecting.bar, spill=cell.out.parent, device=device)  # fmt: skip
    spans = SpanLengths(header, len(bank), 2, features, device)
    return near, spans, TopContexts(header, len(bank), 2, features, cell.collecting.contexts)


def _totals(tokens: TokenisedCorpus, model: LanguageModel, header: dict) -> dict:
    """Counted tokens, the size of the vocabulary, and a digest of every input."""
    return {
        "tokens": tokens.counts(),
        "vocabulary": len(model.tokenizer),
        "inputs": {
            "corpus": header["corpus"],
            "model": digest(header["model"]),
            "saes": digest(header["coders"]),
        },
    }


if __name__ == "__main__":
    run(main)
