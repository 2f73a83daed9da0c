"""One run of the study: names from params.yaml, and where each stage leaves its results."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from langsae.models.tokens import TokenPolicy
from langsae.params import Spec

STUDY = "bilingual_score"
# Readings of the score: readings.py says what each is.
PUBLISHED, MASKED = "as published", "padding masked"
DESCRIBED, CORRECTED = "as described", "corrected"


class Activations(Spec):
    """A published data set of activations, to start from in place of a model.

    Parquet with a row per aligned text: `values` float lists [languages, positions, features],
    `tokens` int lists [languages, positions] (padding included), `words` a struct of string lists
    by language (BOS, no padding), `id`. languages: what the first axis of `values` stands for.
    """

    repo: str
    revision: str
    files: str = "data/*.parquet"
    languages: Annotated[tuple[str, ...], Field(min_length=2)]
    values: str = "sae_features"
    tokens: str = "tokens"
    words: str = "str_tokens"
    id: str = "id"
    rows_at_once: PositiveInt = 4  # 2 x 226 x 16,384 float32 a row at most: 30 MB


class Run(Spec):
    """What the stages of one run load.

    hook: the SAE of the bank to use; None where it has one only. languages: of the corpus, in the
    order of the maxima's first axis; None is all. subject: the model in whose name published
    values are measured; None is the run's own. published: a folder with the study's own series;
    activations: its own activations; with either no model is run.
    """

    model: str
    corpus: str
    saes: str
    hook: str | None = None
    languages: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    policy: TokenPolicy = TokenPolicy(pad_rows=True)
    subject: str | None = None
    published: str | None = None
    activations: Activations | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Run":
        if self.published and self.activations:
            raise ValueError("give `published` or `activations`, not both")
        return self


class Score(Spec):
    """Constants of the score: the rank that scales the rarity term, the maximum that maxima are
    scaled to before the softmax, the document frequency below which rarity does not count.
    """

    k: PositiveInt
    scale: Annotated[float, Field(gt=0)]
    least_df: PositiveInt


class Trace(Spec):
    """What is looked at closely: the best features of each reading and others by id, each in the
    aligned texts where it is strongest in one of the languages.
    """

    candidates: PositiveInt
    contexts: PositiveInt
    features: tuple[int, ...] = ()


def folder(profile: str, run: str, stage: str) -> Path:
    """Where `stage` (collected, ranked, traced) of a run publishes its results."""
    return Path("artifacts") / STUDY / profile / run / stage
