"""What the author published as plots: sorted scores, activation-frequency curves, token strips.

Files, in the folder a run names as `published`: bi_loss_sorted_{notebook,post}.csv,
activation_frequency_{global,es,en}_notebook.json and …_{es,en}_post.json, candidates.json,
feature10194_token_activations.json. A strip's texts begin after the entries that read EN and ES.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langsae.errors import InputError
from langsae.files import digest, read_json, write_json
from langsae.paths import expand
from replications.bilingual_score.run import PUBLISHED

LANGUAGES = ("es", "en")  # in the author's order
RUNS = ("notebook", "post")  # the author ran his code twice; the post's table is the notebook's
CONTEXTS = ["feature", "place", "row", "language", "pieces", "activations"]  # of contexts.csv
_LABEL = re.compile(r"\s*<b>(\w\w):</b>\s*")


def write_series(folder: str, out: Path) -> None:
    """Gather the published series of `folder` in `out`/series.json; InputError for a gap."""
    root = expand(folder)
    found = {
        "scores": {run: _scores(root / f"bi_loss_sorted_{run}.csv") for run in RUNS},
        "curves": {
            run: {
                group: read_json(root / f"activation_frequency_{group}_{run}.json")
                for group in (("global", *LANGUAGES) if run == "notebook" else LANGUAGES)
            }
            for run in RUNS
        },
        "ranks": {
            str(entry["feature"]): entry["rank"]
            for entry in read_json(root / "candidates.json")["notebook_other_findings"]
        },
        "strips": _strips(read_json(root / "feature10194_token_activations.json")),
    }
    out.mkdir(parents=True)
    write_json(out / "series.json", found)
    write_json(out / "facts.json", {"inputs": {"series": digest(found)}})


def ranking(collected: Path) -> pd.DataFrame:
    """The notebook's sorted scores as a ranking: reading, rank, score."""
    scores = read_json(collected / "series.json")["scores"]["notebook"]
    return pd.DataFrame({"reading": PUBLISHED, "rank": range(len(scores)), "score": scores})


def contexts(collected: Path) -> pd.DataFrame:
    """The strips in the columns of CONTEXTS."""
    strips = read_json(collected / "series.json")["strips"]
    rows = [
        (strip["feature"], place, place, code, json.dumps(pieces), json.dumps(values))
        for place, strip in enumerate(strips)
        for code, (pieces, values) in strip["texts"].items()
    ]
    return pd.DataFrame(rows, columns=CONTEXTS)


def curve(entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """A published plot's falling shares of texts by threshold, float64 [F], from its histogram."""
    curves = {}
    for name, histogram in entry["histogram"].items():
        texts, features = np.array(histogram).T
        if features.sum() != entry["n_features"]:
            raise InputError(f"{entry['title']}: {name} has {features.sum()} features, not "
                             f"{entry['n_features']}")  # fmt: skip
        curves[name] = np.repeat(texts, features)[::-1] / entry["n_sentences"]
    return curves


def spread(series: dict[str, Any]) -> dict[str, float | int]:
    """How far the author's two runs lie apart, by the last part of the ids in published.yaml."""
    first, second = (np.array(series["scores"][run]) for run in RUNS)
    away = np.abs(second / first - 1)
    weights = [np.float32(scores[0]) for scores in (first, second)]
    found: dict[str, float | int] = {
        "beta": abs(float(weights[1]) / float(weights[0]) - 1),
        "score-median": float(np.median(away)),
        "score-largest": float(away.max()),
    }
    for group in LANGUAGES:
        one, other = (series["curves"][run][group] for run in RUNS)
        pairs = zip(curve(one).values(), curve(other).values(), strict=True)
        moved = sum(np.abs(a - b).sum() for a, b in pairs) * one["n_sentences"]
        found[f"curve-{group}"] = round(moved)
    return found


def _scores(path: Path) -> list[float]:
    try:
        table = pd.read_csv(path, comment="#")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; set LANGSAE_REFERENCE to the folder that holds "
                         "published/") from error  # fmt: skip
    scores = table["bi_loss"].to_numpy()
    if not (np.isfinite(scores).all() and (np.diff(scores) >= 0).all()):
        raise InputError(f"{path}: scores are not finite and rising")
    return scores.tolist()


def _strips(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The notebook's strips: feature, and by language (pieces, values)."""
    found = []
    for example in content["examples"]:
        if "notebook" not in example["source"]:
            continue
        texts: dict[str, tuple[list[str], list[float]]] = {}
        code = None
        for piece, value in zip(example["tokens"], example["activations"], strict=True):
            if label := _LABEL.fullmatch(piece):
                code = label[1].lower()
                texts[code] = ([], [])
            else:
                texts[code][0].append(piece)
                texts[code][1].append(value)
        found.append({"feature": example["feature"], "texts": texts})
    return found
