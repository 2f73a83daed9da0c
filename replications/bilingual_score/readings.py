"""All readings of the score on one collection, as one table of ranked features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langsae.metrics.activation_frequency import alive_counts
from langsae.metrics.bilingual import bilingual_score
from langsae.reducers.example_maxima import ExampleMaxima
from replications.bilingual_score.run import (
    CORRECTED,
    DESCRIBED,
    MASKED,
    PUBLISHED,
    Score,
    Trace,
)

# reading → (formula, whether padding is left out)
FORMULAS = {
    PUBLISHED: ("as_published", False),
    MASKED: ("as_published", True),
    DESCRIBED: ("as_described", False),
    CORRECTED: ("corrected", True),
}


@dataclass(frozen=True)
class Ranking:
    """table: reading, rank, feature, score, divergence, idf, df, together, and per language
    texts:CODE and peak:CODE; best first. summary: by reading alive and dead counts, and where the
    formula has a rarity term beta and j (divergence at rank k less the smallest).
    """

    table: pd.DataFrame
    summary: dict[str, dict[str, Any]]


def load_maxima(collected: Path, masked: bool) -> np.ndarray:
    """Maxima float32 [L, S, F] that stage collect left."""
    name = "example_maxima_masked" if masked else "example_maxima"
    return ExampleMaxima.load(collected / f"{name}.safetensors", masked).dense(0)


def rank(
    counted: np.ndarray, masked: np.ndarray, languages: tuple[str, ...], settings: Score
) -> Ranking:
    """Every reading on maxima [L, S, F] with padding counted and masked."""
    tables, summary = [], {}
    for reading, (formula, without_padding) in FORMULAS.items():
        maxima = masked if without_padding else counted
        table, facts = _reading(maxima, formula, languages, settings)
        tables.append(table.assign(reading=reading))
        summary[reading] = facts
    whole = pd.concat(tables, ignore_index=True)
    return Ranking(whole[["reading", *whole.columns.drop("reading")]], summary)


def _reading(
    maxima: np.ndarray, formula: str, languages: tuple[str, ...], settings: Score
) -> tuple[pd.DataFrame, dict[str, Any]]:
    scores = bilingual_score(maxima, formula, **settings.model_dump())
    order = scores.order
    active = maxima > 0
    texts = active.sum(axis=1)
    columns = {
        "rank": np.arange(len(order)),
        "feature": order,
        "score": scores.score[order],
        "divergence": scores.divergence[order],
        "idf": scores.idf[order],
        "df": scores.df[order],
        "together": together(active)[order],
    }
    for at, code in enumerate(languages):
        columns[f"texts:{code}"] = texts[at, order]
        columns[f"peak:{code}"] = maxima[at].max(axis=0)[order]
    counts = alive_counts(maxima)
    facts: dict[str, Any] = {
        "alive": counts.alive,
        "dead": dict(zip(languages, counts.dead, strict=True)),
        "dead_either": counts.dead_somewhere,
    }
    if scores.beta is not None:
        smallest = float(scores.divergence[order].min())
        facts |= {"beta": scores.beta, "j": scores.threshold - smallest}
    return pd.DataFrame(columns), facts


def together(active: np.ndarray) -> np.ndarray:
    """Of the aligned texts where a feature is active in any language, the share where it is in all.

    active: bool [L, S, F]; float64 [F], 0 where it never is.
    """
    some = active.any(axis=0).sum(axis=0)
    return active.all(axis=0).sum(axis=0) / np.maximum(some, 1)


def candidates(table: pd.DataFrame, settings: Trace) -> list[int]:
    """The best features as published and corrected, then those asked for by id; each once."""
    best = [
        int(feature)
        for reading in (PUBLISHED, CORRECTED)
        for feature in table.loc[table["reading"] == reading, "feature"][: settings.candidates]
    ]
    return list(dict.fromkeys([*best, *settings.features]))


def strongest_rows(maxima: np.ndarray, feature: int, count: int) -> list[int]:
    """The `count` aligned texts of each language with the feature's largest maxima [L, S, F].

    Ordered by the larger share of a language's own peak, then by number; none where it is dead.
    """
    values = maxima[:, :, feature]
    peaks = values.max(axis=1, keepdims=True)
    share = (values / np.where(peaks > 0, peaks, 1)).max(axis=0)
    chosen = {
        int(row)
        for language in values
        for row in np.argsort(-language, kind="stable")[:count]
        if language[row] > 0
    }
    return sorted(chosen, key=lambda row: (-share[row], row))
