"""Steered texts in batches, each batch written once and kept until all are there."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt
from tqdm import tqdm

from langsae.cells import Cells
from langsae.files import digest
from langsae.generate import Continuation, Generation, Generator, Request, Sampling
from langsae.interventions import Intervention, fingerprint
from langsae.models.language_model import LanguageModel
from langsae.params import Spec
from replications.sae_lape.steering import FeatureSetting


class Steering(FeatureSetting):
    """alphas: multipliers for every language, or by language (others are then left out)."""

    alphas: tuple[float, ...] | dict[str, tuple[float, ...]]
    positions: Literal["all", "last"] = "all"
    reencode: bool = False

    def of(self, code: str) -> tuple[float, ...]:
        """The multipliers of one language."""
        return self.alphas.get(code, ()) if isinstance(self.alphas, dict) else self.alphas


class Generate(Spec):
    """seeds: texts a prompt and setting, from first_seed on. Each way of going on (reencode or
    not) also writes unsteered texts. identify_among: the languages a text can be found to be in,
    None for all of fastText's 176; fasttext: another model than the shipped lid.176.ftz.
    """

    steering: tuple[Steering, ...]
    prompts: tuple[str, ...] = ("",)
    seeds: PositiveInt
    first_seed: NonNegativeInt = 0
    new_tokens: PositiveInt
    sampling: Sampling
    batch_rows: PositiveInt = 64
    l2_scale: float | None = None
    identify_among: tuple[str, ...] | None = None
    fasttext: str | None = None


@dataclass(frozen=True)
class Variant:
    """One kind of text: who is steered how far, and how the text goes on."""

    setting: str
    language: str
    alpha: float
    intervention: Intervention
    how: Continuation


Batch = list[tuple[Variant, str, int]]  # variant, prompt, seed


@dataclass(frozen=True)
class Writing:
    """All texts; each batch of them is kept in `scratch` once it is written."""

    model: LanguageModel
    made: Sequence[Variant]
    settings: Generate
    scratch: Path

    def fill(self, shard: tuple[int, int] = (0, 1)) -> None:
        """Write the batches of shard (i, of n) that are not there yet."""
        for _ in self._kept(self._cells(), slice(shard[0], None, shard[1])):
            pass

    def texts(self) -> Iterator[tuple[Variant, str, int, Generation]]:
        """(variant, prompt, seed, text) of all."""
        cells = self._cells()
        for batch, kept in self._kept(cells, slice(None)):
            for (variant, prompt, seed), text in zip(batch, kept, strict=True):
                whole = Generation(text["text"], tuple(text["ids"]), text["context"])
                yield variant, prompt, seed, whole
        cells.remove()

    def _cells(self) -> Cells:
        return Cells(self.scratch / _key(self.model, self.made, self.settings))

    def _kept(self, cells: Cells, part: slice) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
        """These batches, and what was written for each row."""
        generator = Generator(self.model)
        batches = list(enumerate(_batches(self.made, self.settings)))[part]
        new_tokens = self.settings.new_tokens
        total = sum(len(batch) for _, batch in batches) * new_tokens
        with tqdm(total=total, desc="generate", unit="tok") as bar:
            for number, batch in batches:
                how = batch[0][0].how
                requests = [Request(prompt, seed, row.intervention) for row, prompt, seed in batch]
                written = partial(_written, generator, requests, how)
                yield batch, cells.json(str(number), written)
                bar.update(len(batch) * new_tokens)


def _batches(made: Sequence[Variant], settings: Generate) -> Iterator[Batch]:
    """What is written together: texts of one prompt that go on in one way."""
    ways: dict[Continuation, list[Variant]] = {}
    for variant in made:
        ways.setdefault(variant.how, []).append(variant)
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    for prompt, group in itertools.product(settings.prompts, ways.values()):
        wanted = [(variant, prompt, seed) for variant in group for seed in seeds]
        for start in range(0, len(wanted), settings.batch_rows):
            yield wanted[start : start + settings.batch_rows]


def _written(
    generator: Generator, requests: Sequence[Request], how: Continuation
) -> list[dict[str, Any]]:
    return [vars(text) for text in generator.write(requests, how)]


def _key(model: LanguageModel, made: Sequence[Variant], settings: Generate) -> str:
    prints = [[v.how.model_dump(mode="json"), fingerprint(v.intervention)] for v in made]
    counts = [settings.first_seed, settings.seeds, settings.batch_rows, settings.prompts]
    return digest([model.description, prints, counts])
