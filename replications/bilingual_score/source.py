"""Where activations come from: a model and its SAE here, or the data set the author published."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from langsae import sharded, stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.launching import Launch
from langsae.models.language_model import load
from langsae.models.pieces import pieces
from langsae.models.tokens import TokenIds, TokenisedCorpus, tokenise
from langsae.reducers.base import Reducer
from langsae.saes.bank import load_bank
from replications.bilingual_score.activations import PublishedActivations
from replications.bilingual_score.run import Run

Empty = Callable[["Source"], list[Reducer]]


class Source(Protocol):
    """Aligned texts with the activations of one SAE."""

    header: dict[str, Any]
    languages: tuple[str, ...]
    rows: int
    features: int
    skipped: int  # leading positions of a text that do not count

    def collect(
        self, empty: Empty, scratch: Path, how: Launch, rows: Sequence[int] | None = None
    ) -> list[Reducer]:
        """Reducers that the texts of these rows (None: all) went through; one hook, index 0.

        empty: makes them, from the source; picklable.
        """
        ...

    def pieces(self, language: int, row: int) -> list[str]:
        """The text at each position, BOS included, padding not."""
        ...

    def facts(self) -> dict[str, Any]:
        """Sizes and the first row, for results."""
        ...


def open_source(run: Run, compute: Compute) -> Source:
    """The source that `run` names; InputError where it cannot be had."""
    if run.activations is not None:
        return PublishedActivations(run.activations, run.policy)
    return ModelSource(run, compute)


class ModelSource:
    """Texts of a prepared corpus, through a prepared model and one SAE of a prepared bank."""

    def __init__(self, run: Run, compute: Compute) -> None:
        self.run, self.compute = run, compute
        corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{run.corpus}.jsonl")
        self.corpus = corpus if run.languages is None else corpus.select(run.languages)
        if not corpus.aligned or len(self.corpus.languages) < 2:
            raise InputError(f"corpus {run.corpus}: rows must be aligned, in two languages or more")
        self.model = load(Path("artifacts/models") / run.model, compute.device)
        hooks = None if run.hook is None else [run.hook]
        self.bank = load_bank(Path("artifacts/saes") / run.saes, self.model.device, hooks)
        if len(self.bank) != 1:
            raise InputError(f"saes {run.saes}: has {', '.join(map(str, self.bank)) or 'no SAE'}; "
                             "name one as the run's `hook`")  # fmt: skip
        self.model.check(self.bank)
        self.tokens = tokenise(self.model.tokenizer, self.corpus, run.policy)
        self.header = stream.header(self.model, self.bank, self.tokens, self.corpus.digest())
        self.languages, self.rows = self.tokens.languages, len(self.corpus)
        self.features = next(iter(self.bank.values())).n_features
        self.skipped = self.tokens.skipped

    def collect(
        self, empty: Empty, scratch: Path, how: Launch, rows: Sequence[int] | None = None
    ) -> list[Reducer]:
        again = partial(_pass, self.run, self.compute, empty, rows)
        return sharded.collect(self._pass(empty, rows), again, self.compute, scratch, how)

    def _pass(self, empty: Empty, rows: Sequence[int] | None) -> sharded.Pass:
        tokens = self.tokens if rows is None else _only(self.tokens, rows)
        return sharded.Pass(self.model, self.bank, tokens, partial(empty, self))

    def pieces(self, language: int, row: int) -> list[str]:
        at = language * self.rows + row  # texts are ordered by language, then row
        ids = self.tokens.ids[at]
        padding = self.tokens.padding[at] if self.tokens.padding else 0
        return pieces(self.model.tokenizer, ids[: len(ids) - padding])

    def facts(self) -> dict[str, Any]:
        lengths = self.tokens.ids.lengths()
        return {
            "positions": sum(lengths),
            "padding": sum(self.tokens.padding),
            "longest": max(lengths),
            "first": self.corpus.ids[0] if self.corpus.ids else None,
        }


def _pass(run: Run, compute: Compute, empty: Empty, rows: Sequence[int] | None) -> sharded.Pass:
    return ModelSource(run, compute)._pass(empty, rows)


def _only(tokens: TokenisedCorpus, rows: Sequence[int]) -> TokenisedCorpus:
    """The texts of these rows, which keep their numbers."""
    wanted = set(rows)
    kept = [at for at, row in enumerate(tokens.example) if row in wanted]
    return replace(
        tokens,
        ids=TokenIds(tokens.ids[at] for at in kept),
        language=tuple(tokens.language[at] for at in kept),
        example=tuple(tokens.example[at] for at in kept),
        padding=tuple(tokens.padding[at] for at in kept) if tokens.padding else (),
    )
