"""One run's stages as tidy tables, for figures, findings and claims.

Every function reads one stage's folder; what a run leaves out has no rows. `step` is a training
step of the language model, `layer` counts from 1.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from langsae.errors import InputError
from langsae.files import read_json
from replications.llmjp_tracing import series
from replications.llmjp_tracing.series import Series

COLUMNS = {
    "classes": ["step", "reading", "class", "share", "low", "high"],
    "classes_by_layer": ["step", "layer", "reading", "class", "count", "share", "low", "high"],
    "monosemanticity": ["step", "grouping", "at_zero", "mean", "low", "high", "zero_share"],
    "monosemanticity_by_layer": ["step", "layer", "grouping", "at_zero", "mean", "low", "high",
                                 "zero_share"],
    "spans_by_layer": ["step", "layer", "reading", "mean", "low", "high"],
    "labels": ["step", "label", "count"],
    "rates": ["rate", "sae_step", "loss", "fvu", "dead_fraction"],
    "rates_held_out": ["rate", "loss", "fvu", "selected"],
    "perplexity": ["model", "language", "tokens", "perplexity"],
    "pretraining_loss": ["step", "tokens", "lr", "loss"],
    "injection": ["add", "alpha", "features", "added", "language", "draws", "mean", "spread",
                  "change"],
    "translation": ["add", "alpha", "features", "added", "direction", "metric", "draws", "mean",
                    "spread", "change"],
    "patterns": ["step", "layer", "feature", "class", "place", "language", "pieces", "values",
                 "top"],
}  # fmt: skip
NONE = "none"  # nothing is added
SHOWN = 2  # windows of a feature in each language

Frames = dict[str, pd.DataFrame]


def described(one: Series, level: float) -> Frames:
    """Classes, monosemanticity and span length with their intervals."""
    return {
        "classes": series.classes_table(one, level),
        "classes_by_layer": series.classes_by_layer(one, level),
        "monosemanticity": series.monosemanticity_table(one, level),
        "monosemanticity_by_layer": series.monosemanticity_by_layer(one, level),
        "spans_by_layer": series.spans_by_layer(one, level),
    }


def rates(folder: Path) -> Frames:
    """Learning rates that were tried: their curves, and the loss on text held out."""
    if not (folder / "rates.json").is_file():
        return {}
    found = read_json(folder / "rates.json")
    curves = [
        {"rate": float(rate)} | {"sae_step" if k == "step" else k: v for k, v in point.items()}
        for rate, points in (found.get("curves") or {}).items()
        for point in points
    ]
    held_out = [
        {"rate": float(rate), **losses, "selected": float(rate) == found["selected"]}
        for rate, losses in (found.get("held_out") or {}).items()
    ]
    return {
        "rates": _sorted(curves, ["rate", "sae_step"]),
        "rates_held_out": _sorted(held_out, ["rate"]),
    }


def _sorted(rows: list[dict[str, Any]], by: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values(by, kind="stable") if rows else pd.DataFrame()


def perplexity(folder: Path) -> Frames:
    """Held-out perplexity of each checkpoint and of the baselines."""
    frame = _csv(folder / "perplexity.csv")
    return {"perplexity": frame.astype({"model": str}) if len(frame) else frame}


def pretraining(history: Path) -> Frames:
    """The loss of a language model that was trained here."""
    return {"pretraining_loss": _csv(history / "loss.csv")}


def injected(folder: Path, name: str) -> pd.DataFrame:
    """Table `name` of stage inject, a row a draw; `added` of `features` asked for there were."""
    frame = _csv(folder / f"{name}.csv")
    if frame.empty:
        return frame
    drawn = read_json(folder / "settings.json")["drawn"]
    added = [0 if row.add == NONE else drawn[row.add][str(row.features)]
             for row in frame.itertuples()]  # fmt: skip
    return frame.assign(added=added)


def injections(folder: Path) -> Frames:
    """Injections over their draws: mean, spread (standard deviation), change against no addition.

    change: of a perplexity in percent, of a score in points.
    """
    texts, translations = injected(folder, "perplexity"), injected(folder, "translation")
    return {
        "injection": _over_draws(texts, ["language"], "perplexity", relative=True),
        "translation": _over_draws(translations, ["direction", "metric"], "score", relative=False),
    }


def _over_draws(rows: pd.DataFrame, part: list[str], value: str, relative: bool) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame()
    grouped = rows.groupby(["add", "alpha", "features", "added", *part], sort=True)[value]
    found = grouped.agg(draws="size", mean="mean", spread="std").reset_index()
    found["spread"] = found["spread"].where(found["draws"] > 1, 0.0)
    plain = found[found["add"] == NONE].set_index(part)["mean"]
    if plain.index.has_duplicates:
        raise InputError("injection: what is without addition was measured twice")
    keys = found.set_index(part).index
    base = plain.reindex(keys).to_numpy()
    mean = found["mean"].to_numpy()
    return found.assign(change=100 * (mean / base - 1) if relative else mean - base)


def patterns(folder: Path, layers: Sequence[int]) -> Frames:
    """The windows in which chosen features of the middle layer are strongest, a row a window.

    Of each language the first SHOWN; values go with pieces.
    """
    path = folder / "patterns.json"
    found = read_json(path) if path.is_file() else []
    middle = layers[(len(layers) - 1) // 2]
    rows = []
    for one in found:
        seen: Counter[str] = Counter()
        for window in one["windows"] if one["layer"] == middle else ():
            place, code = seen[window["language"]], window["language"]
            seen[code] += 1
            if place < SHOWN:
                rows.append([one["step"], one["layer"], one["feature"], one["class"], place, code,
                             json.dumps(window["pieces"], ensure_ascii=False),
                             json.dumps(window["values"]), window["top"]])  # fmt: skip
    return {"patterns": pd.DataFrame(rows, columns=COLUMNS["patterns"])}


def _csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    return pd.read_csv(path, keep_default_na=False, na_values=[""])  # "none" is a word here
