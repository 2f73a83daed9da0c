"""Texts written by the model while a language's features are added, and what language they are in.

The original's outcomes were judged by hand. Here fastText judges the language reached, with the
share of letters of that language's script beside it; perplexity under the unsteered model and
distinct-n stand for coherence.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import NonNegativeInt, PositiveInt
from tqdm import tqdm

from langsae.cells import Cells
from langsae.command import run
from langsae.compute import Compute
from langsae.errors import InputError
from langsae.files import digest, publish, write_json
from langsae.generate import Continuation, Generation, Generator, Request, Sampling
from langsae.identify_language import LanguageIdentifier
from langsae.interventions import Intervention, fingerprint
from langsae.languages import find
from langsae.metrics.generation import distinct, script_share
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenIds, TokenisedCorpus, TokenPolicy
from langsae.params import Spec
from langsae.perplexity import Scorer
from langsae.saes.bank import load_bank
from replications.sae_lape import artefacts, identified, stage
from replications.sae_lape.run import STUDY, Run
from replications.sae_lape.steering import FeatureSetting, feature_interventions

BASELINE = "baseline"
COLUMNS = (
    "setting", "language", "alpha", "positions", "reencode", "prompt", "seed", "text", "detected",
    "confidence", "script_share", "perplexity", "distinct_1", "distinct_2", "tokens",
)  # fmt: skip


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


def main() -> None:
    stage.main(__doc__, ("generate", Generate), "generated", generate, artefacts.generate)


def generate(
    run: Run,
    settings: Generate,
    compute: Compute,
    found: Path,
    out: Path,
    scratch: Path = Path("scratch") / STUDY,
) -> None:
    """Publish texts.csv and settings.json at `out`; found: what stage identify published."""
    model = load(Path("artifacts/models") / run.model, compute.device)
    made = variants(run, settings, identified.load(found))
    rows = list(write(model, made, settings, scratch))
    identifier = LanguageIdentifier(settings.identify_among, settings.fasttext)
    frame = judge(rows, model, identifier, compute.batch_tokens)
    facts = {"identifier": identifier.description, "settings": settings.model_dump(mode="json")}
    with publish(out) as part:
        part.mkdir(parents=True)
        frame.to_csv(part / "texts.csv", index=False, float_format="%.10g")
        write_json(part / "settings.json", facts)


def variants(run: Run, settings: Generate, features: identified.Identified) -> list[Variant]:
    """Unsteered texts first, then every setting, language and alpha that moves anything."""
    bank = load_bank(Path("artifacts/saes") / run.saes, torch.device("cpu"), run.hooks)
    base = {"new_tokens": settings.new_tokens, "sampling": settings.sampling}
    made = []
    for reencode in sorted({steering.reencode for steering in settings.steering}):
        how = Continuation(**base, reencode=reencode, bos=run.policy.bos)
        made.append(Variant(_name(BASELINE, reencode), "", 0.0, {}, how))
    for steering in settings.steering:
        how = Continuation(**base, positions=steering.positions, reencode=steering.reencode,
                           bos=run.policy.bos)  # fmt: skip
        name = _name(steering.name, steering.reencode)
        for amount in sorted({a for code in features.languages for a in steering.of(code)}):
            each = feature_interventions(features, bank, steering, amount, settings.l2_scale)
            made += [
                Variant(name, code, amount, each[code], how)
                for code in features.languages
                if each[code] and amount in steering.of(code)
            ]
    keys = [(each.setting, each.language, each.alpha, each.how.positions) for each in made]
    if len(set(keys)) < len(keys):
        raise InputError(f"{STUDY}.generate: a setting of `steering` is listed twice")
    return made


def _name(setting: str, reencode: bool) -> str:
    return f"{setting}_reencoded" if reencode else setting


def write(
    model: LanguageModel, made: Sequence[Variant], settings: Generate, scratch: Path
) -> Iterator[tuple[Variant, str, int, Generation]]:
    """(variant, prompt, seed, text) of all; each batch is kept in scratch/ once it is written."""
    generator, cells = Generator(model), Cells(scratch / _key(model, made, settings))
    batches = list(_batches(made, settings))
    total = sum(map(len, batches)) * settings.new_tokens
    with tqdm(total=total, desc="generate", unit="tok") as bar:
        for number, batch in enumerate(batches):
            how = batch[0][0].how
            requests = [Request(prompt, seed, each.intervention) for each, prompt, seed in batch]
            kept = cells.json(str(number), partial(_written, generator, requests, how))
            for (variant, prompt, seed), text in zip(batch, kept, strict=True):
                whole = Generation(text["text"], tuple(text["ids"]), text["context"])
                yield variant, prompt, seed, whole
            bar.update(len(batch) * settings.new_tokens)
    cells.remove()


def _batches(
    made: Sequence[Variant], settings: Generate
) -> Iterator[list[tuple[Variant, str, int]]]:
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


def judge(
    rows: Sequence[tuple[Variant, str, int, Generation]],
    model: LanguageModel,
    identifier: LanguageIdentifier,
    batch_tokens: int,
) -> pd.DataFrame:
    """One row a text, by COLUMNS; what a text without any token or letter does not have is NaN."""
    found = identifier.identify(text.text for _, _, _, text in rows)
    perplexities = _perplexities(Scorer(model), [text for *_, text in rows], batch_tokens)
    table = []
    for (variant, prompt, seed, text), (code, sure), perplexity in zip(
        rows, found, perplexities, strict=True
    ):
        new = text.ids[text.context :]
        script = find(variant.language).script if variant.language else None
        share = script_share(text.text, script) if script else float("nan")
        place = (variant.setting, variant.language, variant.alpha, variant.how.positions)
        table.append(
            (*place, variant.how.reencode, prompt, seed, text.text, code, sure, share, perplexity,
             distinct(new, 1), distinct(new, 2), len(new))
        )  # fmt: skip
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    return frame.sort_values(["setting", "language", "alpha", "positions", "prompt", "seed"],
                             kind="stable")  # fmt: skip


def _perplexities(scorer: Scorer, texts: Sequence[Generation], batch_tokens: int) -> np.ndarray:
    """Of what was added, given BOS and prompt, under the unsteered model; NaN where nothing was."""
    out = np.full(len(texts), np.nan)
    some = [i for i, text in enumerate(texts) if len(text.ids) > text.context]
    ids = TokenIds(texts[i].ids for i in some)
    zeros = (0,) * len(some)
    corpus = TokenisedCorpus(("",), ids, zeros, tuple(some), TokenPolicy())
    for group in corpus.batches(batch_tokens):
        batch = [texts[some[i]] for i in group]
        lengths, context = [len(text.ids) for text in batch], [text.context for text in batch]
        nll = scorer.mean_nll(corpus.batch(group).ids, lengths, context=context)
        out[[some[i] for i in group]] = np.exp(nll.numpy())
    return out


if __name__ == "__main__":
    run(main)
