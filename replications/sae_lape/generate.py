"""Texts written by the model while a language's features are added, and what language they are in.

The original's outcomes were judged by hand. Here fastText judges the language reached, with the
share of letters of that language's script beside it; perplexity under the unsteered model and
distinct-n stand for coherence.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from langsae import sharded
from langsae.command import run
from langsae.compute import Compute
from langsae.errors import InputError
from langsae.files import publish, write_json
from langsae.generate import Continuation, Generation
from langsae.identify_language import LanguageIdentifier
from langsae.languages import find
from langsae.launch import settings as launch_settings
from langsae.launching import LOCAL, Launch
from langsae.metrics.generation import distinct, script_share
from langsae.models.language_model import LanguageModel, load
from langsae.models.tokens import TokenIds, TokenisedCorpus, TokenPolicy
from langsae.perplexity import Scorer
from langsae.saes.bank import load_bank
from replications.sae_lape import artefacts, identified, stage
from replications.sae_lape.run import STUDY, Run
from replications.sae_lape.steering import feature_interventions
from replications.sae_lape.writing import Generate, Variant, Writing

BASELINE = "baseline"
COLUMNS = (
    "setting", "language", "alpha", "positions", "reencode", "prompt", "seed", "text", "detected",
    "confidence", "script_share", "perplexity", "distinct_1", "distinct_2", "tokens",
)  # fmt: skip


def main() -> None:
    act = partial(generate, how=launch_settings())
    stage.main(__doc__, ("generate", Generate), "generated", act, artefacts.generate)


def generate(
    run: Run,
    settings: Generate,
    compute: Compute,
    found: Path,
    out: Path,
    scratch: Path = Path("scratch") / STUDY,
    how: Launch = LOCAL,
) -> None:
    """Publish texts.csv and settings.json at `out`; found: what stage identify published."""
    again = partial(_open, run, settings, compute, found, scratch)
    writing = again()
    sharded.fill(again, compute, how, "texts")
    rows = list(writing.texts())
    identifier = LanguageIdentifier(settings.identify_among, settings.fasttext)
    frame = judge(rows, writing.model, identifier, compute.batch_tokens)
    facts = {"identifier": identifier.description, "settings": settings.model_dump(mode="json")}
    with publish(out) as part:
        part.mkdir(parents=True)
        frame.to_csv(part / "texts.csv", index=False, float_format="%.10g")
        write_json(part / "settings.json", facts)


def _open(run: Run, settings: Generate, compute: Compute, found: Path, scratch: Path) -> Writing:
    model = load(Path("artifacts/models") / run.model, compute.device)
    return Writing(model, variants(run, settings, identified.load(found)), settings, scratch)


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
