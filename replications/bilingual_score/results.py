"""What the stages of one run left, as frames: from a model, or from the author's own series."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langsae.evidence import Basis
from langsae.files import read_json
from langsae.metrics.activation_frequency import QUANTILES, frequency_curves, thresholds
from langsae.reducers.positive_values import PositiveValues
from replications.bilingual_score import series as published
from replications.bilingual_score.readings import load_maxima
from replications.bilingual_score.run import PUBLISHED, Run, folder

PADDING = {"counted": False, "masked": True}
ALL = "global"  # the group of the texts of all languages


@dataclass
class RunResults:
    """One run. model: the name figures and findings give it; subject: that of its claims.

    thresholds: padding, group, threshold, value. summaries: padding, group, threshold, any, all,
    half, tenth, mean. curves: (padding, group, threshold) → falling shares [F], with the number of
    texts. readings: reading of the ranking → variant of its claims.
    """

    name: str
    model: str
    subject: str
    basis: Basis
    rows: int
    languages: tuple[str, ...]
    inputs: dict[str, str]
    ranking: pd.DataFrame
    contexts: pd.DataFrame
    readings: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    thresholds: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: dict[tuple[str, str, str], tuple[np.ndarray, int]] = field(default_factory=dict)
    series: dict[str, Any] | None = None
    summaries: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        rows = [(*key, *_summary(curve)) for key, (curve, _) in self.curves.items()]
        columns = ["padding", "group", "threshold", "any", "all", "half", "tenth", "mean"]
        self.summaries = pd.DataFrame(rows, columns=columns)

    def histograms(self) -> pd.DataFrame:
        """Each curve without loss: in exactly `texts` of `of` texts so many features exceed it.

        With padding counted, as published; the summaries have both.
        """
        parts = []
        for (padding, group, threshold), (curve, of) in self.curves.items():
            if PADDING[padding]:
                continue
            texts, features = np.unique(np.rint(curve * of).astype(int), return_counts=True)
            parts.append(pd.DataFrame({
                "group": group, "threshold": threshold,
                "texts": texts, "of": of, "features": features,
            }))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def score_points(self, points: int) -> pd.DataFrame:
        """Reading, rank and score at `points` even ranks and as many even in logarithm."""
        sizes = self.ranking.groupby("reading", sort=False)["rank"].transform("size")
        kept = pd.Series(False, index=self.ranking.index)
        for size in sizes.unique():
            ranks = [*np.geomspace(1, size, points) - 1, *np.linspace(0, size - 1, points)]
            kept |= (sizes == size) & self.ranking["rank"].isin(np.rint(ranks))
        return self.ranking.loc[kept, ["reading", "rank", "score"]]

    def best(self, count: int) -> pd.DataFrame:
        """The first `count` features of each reading."""
        return self.ranking[self.ranking["rank"] < count]


def load(name: str, run: Run, profile: str) -> RunResults:
    """What the stages of one run published."""
    collected, ranked, traced = (
        folder(profile, name, stage) for stage in ("collected", "ranked", "traced")
    )
    facts = read_json(collected / "facts.json")
    common = {
        "name": name,
        "model": run.subject if run.subject and not run.activations else name,
        "subject": run.subject or name,
        "inputs": facts["inputs"],
        "ranking": pd.read_csv(ranked / "ranking.csv"),
        "contexts": pd.read_csv(traced / "contexts.csv"),
    }
    if run.published:
        return _of_series(collected, facts, common)
    readings = {PUBLISHED: "authors' activations"} if run.activations else None
    languages = tuple(facts["languages"])
    levels = _thresholds(collected, languages)
    return RunResults(
        **common,
        basis="published artefact" if run.activations else "rerun",
        rows=facts["rows"],
        languages=languages,
        facts=facts,
        summary=read_json(ranked / "summary.json"),
        thresholds=levels,
        curves=_curves(collected, languages, levels),
        readings=readings or {r: r for r in common["ranking"]["reading"].unique()},
    )


def _of_series(collected: Path, facts: dict[str, Any], common: dict[str, Any]) -> RunResults:
    series = read_json(collected / "series.json")
    groups = {group: series["curves"]["notebook"][group] for group in (ALL, *published.LANGUAGES)}
    levels = [
        ("counted", group, name, value)
        for group, entry in groups.items()
        for name, value in entry["thresholds"].items()
    ]
    curves = {
        ("counted", group, name): (curve, entry["n_sentences"])
        for group, entry in groups.items()
        for name, curve in published.curve(entry).items()
    }
    languages = published.LANGUAGES
    return RunResults(
        **common,
        basis="published artefact",
        rows=groups[languages[0]]["n_sentences"],
        languages=languages,
        facts=facts,
        thresholds=pd.DataFrame(levels, columns=["padding", "group", "threshold", "value"]),
        curves=curves,
        readings={PUBLISHED: PUBLISHED},
        series=series,
    )


def _groups(languages: tuple[str, ...]) -> dict[str, list[int]]:
    return {ALL: list(range(len(languages)))} | {c: [at] for at, c in enumerate(languages)}


def _thresholds(collected: Path, languages: tuple[str, ...]) -> pd.DataFrame:
    """Mean and quantiles of the positive values of each group of languages."""
    rows = []
    for padding, masked in PADDING.items():
        name = "positive_values_masked" if masked else "positive_values"
        values = PositiveValues.load(collected / f"{name}.safetensors", masked)
        for group, members in _groups(languages).items():
            quantiles = values.quantiles(0, members, QUANTILES)
            for threshold, value in thresholds(values.mean(0, members), quantiles).items():
                rows.append((padding, group, threshold, value))
    return pd.DataFrame(rows, columns=["padding", "group", "threshold", "value"])


def _curves(collected: Path, languages: tuple[str, ...], levels: pd.DataFrame) -> dict:
    found = {}
    for padding, masked in PADDING.items():
        maxima = load_maxima(collected, masked)
        for group, members in _groups(languages).items():
            chosen = levels[(levels["padding"] == padding) & (levels["group"] == group)]
            wanted = dict(zip(chosen["threshold"], chosen["value"], strict=True))
            texts = len(members) * maxima.shape[1]
            for threshold, curve in frequency_curves(maxima[members], wanted).items():
                found[padding, group, threshold] = (curve, texts)
    return found


def _summary(curve: np.ndarray) -> tuple[int, int, int, int, float]:
    """Features above it in any text, all texts, half and a tenth of them; mean share of texts."""
    counts = [int((curve > 0).sum()), *(int((curve >= share).sum()) for share in (1, 0.5, 0.1))]
    return *counts, float(curve.mean())
