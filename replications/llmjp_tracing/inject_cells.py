"""The costly part of stage inject: likelihoods and translations under every setting.

A cell (a batch of texts, or one translated text, under all settings) is computed whole or not at
all and kept in scratch/, so a killed run goes on where it was, and parts can run on other machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from langsae import translate
from langsae.cells import Cells
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.injection import InjectedScorer, Injector
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.saes.bank import load_bank
from langsae.tandem import Tandem
from replications.llmjp_tracing.run import Injecting, Run

Variant = tuple[float, tuple[int, ...]]  # alpha, features


@dataclass(frozen=True)
class Job:
    """What is computed for one run: every cell under all `variants`.

    full, mid: folders of the two checkpoints; saes: of the bank; languages: English and the other;
    cells: the scratch folder, whose name is a digest of everything the cells depend on.
    """

    run: Run
    compute: Compute
    variants: tuple[Variant, ...]
    languages: tuple[str, str]
    full: Path
    mid: Path
    saes: Path
    cells: Path

    @property
    def inject(self) -> Injecting:
        """The run's settings of the injection."""
        return self.run.inject

    @property
    def hook(self) -> HookPoint:
        """The output of the injected layer."""
        return HookPoint("resid_post", self.inject.layer - 1)

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """(from, to), both ways."""
        return self.languages, self.languages[::-1]

    @property
    def chunks(self) -> list[range]:
        """Variants that are written with at a time."""
        every = range(len(self.variants))
        return [every[at : at + self.inject.rows] for at in every[:: self.inject.rows]]

    def parallel(self) -> ParallelCorpus:
        """The aligned texts: examples first, then those to be translated."""
        corpus = corpus_of(self.run.parallel).select(self.languages)
        needed = self.inject.shots + self.inject.translations
        if not corpus.aligned or len(corpus) < needed:
            raise InputError(
                f"corpus {corpus.name}: translation needs {needed} aligned rows; lower "
                "`translations` or `shots`, or take another corpus"
            )
        return corpus.rows(f":{needed}")


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` of a job: every `count`-th batch and translated text."""

    job: Job
    index: int
    count: int

    @property
    def done_name(self) -> str:
        """The cell that is there once all of the part's are."""
        return f"done-{self.index}-of-{self.count}"

    @property
    def done(self) -> bool:
        """Nothing is left to be computed."""
        return (self.job.cells / f"{self.done_name}.json").is_file()


def corpus_of(name: str) -> ParallelCorpus:
    """A corpus that stage prepare_corpora published."""
    return ParallelCorpus.load(Path("artifacts/corpora") / f"{name}.jsonl")


def batch_name(number: int) -> str:
    """The cell of a batch of texts."""
    return f"texts-{number}"


def answers_name(direction: tuple[str, str], chunk: int, row: int) -> str:
    """The cell of a translated text."""
    return f"{'-'.join(direction)}-{chunk}-{row}"


def absent() -> None:
    """In place of a computation, where every cell should be there."""
    raise InputError("inject: a part of the results is gone from scratch/; run the stage again")


def work(part: Part) -> None:
    """Compute the cells of `part` that are not there yet."""
    part.job.compute.apply()
    opened = _Opened(part.job)
    opened.score(part)
    if part.job.inject.translations:
        opened.translate(part)
    opened.cells.json(part.done_name, lambda: True)


class _Opened:
    """A job with its models loaded."""

    def __init__(self, job: Job) -> None:
        self.job, self.cells = job, Cells(job.cells)
        self.full: LanguageModel = load(job.full, job.compute.device)
        self.mid: LanguageModel = load(job.mid, job.compute.device)
        device = self.full.device
        coder = load_bank(job.saes, device, [str(job.hook)])[job.hook]
        self.injector = Injector(coder, job.hook, job.inject.undo_l2, job.inject.bias)
        self.masks = torch.zeros(len(job.variants), coder.n_features, dtype=torch.bool)
        for row, (_, chosen) in enumerate(job.variants):
            self.masks[row, list(chosen)] = True
        self.masks = self.masks.to(device)

    def score(self, part: Part) -> None:
        """Per batch the summed negative log-likelihoods by language."""
        corpus = corpus_of(self.job.run.impact).select(self.job.languages)
        tokens = tokenise(self.full.tokenizer, corpus, self.job.run.policy)
        groups = tokens.batches(self.job.compute.batch_tokens)
        self.cells.json("batches", lambda: len(groups))
        scorer = InjectedScorer(self.full, self.mid, self.injector)
        mine = range(part.index, len(groups), part.count)
        for number in tqdm(mine, desc="perplexity under injection", unit="batch"):
            self.cells.array(
                batch_name(number),
                lambda number=number: self._likelihoods(scorer, tokens, groups[number]),
            )

    def _likelihoods(
        self, scorer: InjectedScorer, tokens: TokenisedCorpus, group: Sequence[int]
    ) -> np.ndarray:
        """float64 [V + 1, 2]: sums by language under each variant, then the tokens they are of.

        Every token after the first is predicted; a text's first one (the BOS) is context.
        """
        batch = tokens.batch(group)
        lengths = [len(tokens.ids[index]) for index in group]
        where = torch.arange(batch.ids.shape[1]) < torch.tensor(lengths)[:, None]
        where[:, 0] = self.job.inject.first
        ready = scorer.prepare(batch.ids, lengths, where)
        scored = torch.tensor(lengths, dtype=torch.float64) - 1
        rows = [
            scorer.mean_nll(ready, mask, alpha) * scored
            for mask, (alpha, _) in zip(self.masks, self.job.variants, strict=True)
        ]
        own = batch.language == torch.arange(len(tokens.languages))[:, None]
        return (torch.stack([*rows, scored]) @ own.double().T).numpy()

    def translate(self, part: Part) -> None:
        """Per text and way the answers under each variant."""
        corpus, shots = self.job.parallel(), self.job.inject.shots
        mine = range(part.index, len(corpus) - shots, part.count)
        rounds = list(product(self.job.directions, range(len(self.job.chunks))))
        with tqdm(total=len(rounds) * len(mine), desc="translate", unit="text") as bar:
            for direction, chunk in rounds:
                asked = _Asked(self, corpus, direction, self.job.chunks[chunk])
                for row in mine:
                    name = answers_name(direction, chunk, row)
                    self.cells.json(name, lambda row=row, asked=asked: asked.answers(row))
                    bar.update()


class _Asked:
    """Texts to be translated one way under some of the variants."""

    def __init__(
        self, opened: _Opened, corpus: ParallelCorpus, direction: tuple[str, str], chunk: range
    ) -> None:
        self.opened, self.chunk, inject = opened, chunk, opened.job.inject
        source, target = (corpus.texts[code] for code in direction)
        examples = list(zip(source, target, strict=True))[: inject.shots]
        asked = [translate.prompt(direction, examples, text) for text in source[inject.shots :]]
        self.prompts = translate.encode(opened.mid.tokenizer, asked)
        self.shared = translate.shared_prefix(self.prompts)
        self._check_length(inject.new_tokens)

    def _check_length(self, new_tokens: int) -> None:
        longest = max(map(len, self.prompts)) + new_tokens
        room = getattr(self.opened.mid.network.config, "max_position_embeddings", longest)
        if longest > room:
            raise InputError(
                f"inject: a prompt and its answer take {longest} tokens, the model {room}; "
                "lower `shots` or `new_tokens`"
            )

    def answers(self, row: int) -> list[str]:
        """What each variant writes."""
        inject, tail = self.opened.job.inject, self.prompts[row][self.shared :]
        written = self._tandem.write(tail, inject.new_tokens, self._ends, inject.least_tokens)
        return [translate.answer(self.opened.mid.tokenizer, ids) for ids in written]

    @cached_property
    def _tandem(self) -> Tandem:
        opened, chunk = self.opened, self.chunk
        return Tandem(
            opened.full,
            opened.mid,
            opened.injector,
            opened.masks[chunk.start : chunk.stop],
            [opened.job.variants[index][0] for index in chunk],
            self.prompts[0][: self.shared],
            opened.job.inject.first,
        )

    @cached_property
    def _ends(self) -> Tensor:
        return translate.ends(self.opened.mid.tokenizer, self.opened.mid.network.config.vocab_size)
