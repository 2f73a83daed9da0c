"""Which language-specific features fire on which token of given sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.files import publish, write_json
from langsae.languages import by_name, find
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.pieces import pieces
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.params import Spec
from langsae.saes.bank import load_bank
from langsae.saes.codes import SparseCoder
from replications.sae_lape import artefacts, identified, stage
from replications.sae_lape.run import Run

ACTIVE = ("language", "sentence", "position", "piece", "hook", "layer", "feature",
          "feature_language", "value")  # fmt: skip
PIECES = ("language", "sentence", "position", "piece")


class Active(Spec):
    """Which sentences, and the features of which selection: those of these rows of `run.impact` in
    each of its languages, then `sentences`, by language.
    """

    selection: str = identified.ALL
    rows: str | None = ":1"
    sentences: dict[str, tuple[str, ...]] = Field(default={})


def main() -> None:
    stage.main(__doc__, ("active", Active), "active", active, artefacts.active)


def active(run: Run, settings: Active, compute: Compute, found: Path, out: Path) -> None:
    """Publish active.csv (a row a token, feature and language of the feature), pieces.csv (every
    token's display text) and settings.json at `out`; found: what stage identify published.
    """
    model = load(Path("artifacts/models") / run.model, compute.device)
    tokens = tokenise(model.tokenizer, sentences(run, settings), run.policy)
    features = identified.load(found).selected(settings.selection)
    bank = load_bank(Path("artifacts/saes") / run.saes, model.device, run.hooks)
    shown = display(model.tokenizer, tokens)
    fired = fire(model, bank, tokens, features, compute.batch_tokens)
    with publish(out) as part:
        part.mkdir(parents=True)
        table = fired.merge(shown, on=["language", "sentence", "position"], validate="many_to_one")
        for name, frame, columns in (("active", table, ACTIVE), ("pieces", shown, PIECES)):
            frame = _sorted(frame[list(columns)], tokens.languages)
            frame.to_csv(part / f"{name}.csv", index=False, float_format="%.10g")
        write_json(part / "settings.json", settings.model_dump(mode="json"))


def sentences(run: Run, settings: Active) -> ParallelCorpus:
    """The asked sentences by language, in the order of the English names."""
    texts: dict[str, list[str]] = {}
    if settings.rows is not None:
        corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{run.impact}.jsonl")
        texts = {code: list(part) for code, part in corpus.rows(settings.rows).texts.items()}
    for language, own in settings.sentences.items():
        texts.setdefault(find(language).code, []).extend(own)
    ordered = {code: tuple(texts[code]) for code in by_name(texts)}
    return ParallelCorpus("sentences", ordered, aligned=False)


def display(tokenizer, tokens: TokenisedCorpus) -> pd.DataFrame:
    """PIECES of every token, BOS included."""
    rows = [
        (tokens.languages[language], example, position, piece)
        for ids, language, example in zip(tokens.ids, tokens.language, tokens.example, strict=True)
        for position, piece in enumerate(pieces(tokenizer, ids))
    ]
    return pd.DataFrame(rows, columns=list(PIECES))


def fire(
    model: LanguageModel,
    bank: Mapping[HookPoint, SparseCoder],
    tokens: TokenisedCorpus,
    features: pd.DataFrame,
    batch_tokens: int,
) -> pd.DataFrame:
    """ACTIVE but for the piece: counted tokens on which a feature of `features` has a value > 0.

    A feature that several languages share has a row for each of them.
    """
    hooks = {HookPoint.parse(name): part for name, part in features.groupby("hook")}
    parts = [pd.DataFrame(columns=[column for column in ACTIVE if column != "piece"])]
    for group in tokens.batches(batch_tokens):
        batch = tokens.batch(group)
        table, counted = batch.table(), batch.counted.to(model.device)
        activations = model.activations(batch.ids, hooks)
        for hook, wanted in hooks.items():
            token, feature, value = _codes(bank[hook], activations[hook][counted])
            frame = pd.DataFrame(
                {
                    "language": [tokens.languages[i] for i in table.language[token].tolist()],
                    "sentence": table.example[token].numpy(),
                    "position": table.position[token].numpy(),
                    "feature": feature.numpy(),
                    "value": value.numpy(),
                }
            )
            mine = wanted[["hook", "layer", "feature", "language"]]
            mine = mine.rename(columns={"language": "feature_language"})
            parts.append(frame.merge(mine, on="feature"))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _codes(coder: SparseCoder, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode():
        codes = coder.encode(vectors.float()).active()
    return codes.token.cpu(), codes.feature.cpu(), codes.value.cpu()


def _sorted(frame: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Language by language, then in the order of the text, layers and features."""
    keys = [key for key in ("sentence", "position", "layer", "feature") if key in frame]
    places = frame["language"].map(languages.index)
    frame = frame.assign(place=places)
    last = ["feature_language"] if "feature_language" in frame else []
    return frame.sort_values(["place", *keys, *last], kind="stable").drop(columns="place")


if __name__ == "__main__":
    run(main)
