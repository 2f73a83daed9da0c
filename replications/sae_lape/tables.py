"""One run's stages as tidy tables, for figures, findings and claims.

Every function reads one stage's folder; a stage that a run leaves out has no rows. Languages are
ISO 639-1 codes in the study's order, by English name.
"""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from langsae.files import read_json
from langsae.metrics import interpretation
from langsae.models.hooks import HookPoint
from replications.sae_lape import artefacts, steered
from replications.sae_lape.identified import Identified

# every feature at its largest; as the study generated, each token decoded and encoded anew, first
STEERED = ("sae_all_max_reencoded", "sae_all_max")
SHOWN = 20  # features of a language in the similarity table
BINS = 30  # of entropies that come without a histogram
SCORES = interpretation.SCORES

COLUMNS = {
    "totals": ["language", "tokens", "examples"],
    "counts": ["selection", "language", "layer", "count"],
    "features": ["language", "layer", "feature", "entropy", "probability"],
    "entropy": ["kind", "bin_left", "bin_right", "count"],
    "shared_layers": ["languages", "layer", "count"],
    "shared_languages": ["languages", "language", "count"],
    "overlap": ["a", "b", "intersection", "iou"],
    "similarity": ["measure", "language", "i", "j", "label_i", "label_j", "value"],
    "similarity_mean": ["measure", "language", "features", "mean"],
    "metrics": ["classifier", "reading", "language", "precision", "recall", "f1", "support"],
    "accuracy": ["classifier", "reading", "accuracy", "precision", "recall", "f1"],
    "confusion": ["classifier", "reading", "label", "predicted", "count"],
    "perplexity": ["setting", "intervened", "impacted", "texts", "change", "median_change",
                   "log_ratio", "largest_share"],
    "perplexity_normal": ["language", "texts", "mean", "median"],
    "generation": ["setting", "language", "alpha", "positions", "texts", "reached", "baseline",
                   "script_share", "perplexity", "distinct_1", "distinct_2", "coherence"],
    "detected": ["setting", "language", "alpha", "positions", "detected", "count"],
    "labels": ["table", "language", "alpha", "changed", "label", "count"],
    "active": ["language", "sentence", "position", "piece", "hook", "layer", "feature",
               "feature_language", "value"],
    "pieces": ["language", "sentence", "position", "piece"],
    "interpretation": ["method", "language", "features", *SCORES],
    "scores": ["method", "language", "layer", "feature", "entropy", *SCORES],
    "correlations": ["method", "metric", "features", "pearson"],
    "umap": ["language", "layer", "feature", "x", "y"],
}  # fmt: skip

Frames = dict[str, pd.DataFrame]


def layers(collected: Path) -> list[int]:
    """The layers whose SAEs were counted."""
    path = collected / "lape_counts.safetensors"
    if not path.exists():
        return list(range(read_json(collected / "totals.json")["layers"]))
    with safe_open(path, "np") as file:  # the header alone: the counts may take a gigabyte
        header = json.loads(file.metadata()["langsae"])["header"]
    return sorted(HookPoint.parse(hook).layer for hook in header["hooks"])


def totals(collected: Path) -> Frames:
    """Tokens and texts of each language."""
    facts = read_json(collected / "totals.json")
    rows = [{"language": code, "tokens": facts["tokens"][code], "examples": n}
            for code, n in facts["examples"].items()]  # fmt: skip
    return {"totals": pd.DataFrame(rows)}


def features(found: Identified, at: list[int]) -> Frames:
    """What was identified: numbers by selection, language and layer `at`, and each feature."""
    own = found.features[found.features["languages"] == 1]
    shared = found.features[found.features["languages"] > 1]
    unique = shared.drop_duplicates(["hook", "feature"])
    by_layer = unique.groupby(["languages", "layer"]).size()
    by_language = shared.groupby(["languages", "language"]).size()
    each = range(2, len(found.languages) + 1)
    return {
        "counts": pd.DataFrame(_counts(found, at)),
        "features": own[COLUMNS["features"]],
        "entropy": pd.DataFrame(_entropies(found)),
        "shared_layers": pd.DataFrame(
            {"languages": n, "layer": layer, "count": by_layer.get((n, layer), 0)}
            for n, layer in product(each, at)
        ),
        "shared_languages": pd.DataFrame(
            {"languages": n, "language": code, "count": by_language.get((n, code), 0)}
            for n, code in product(each, found.languages)
        ),
    }


def _counts(found: Identified, at: list[int]) -> Iterator[dict]:
    """Zeros, too; "neurons" only where there are any."""
    chosen = [name for name in found.summary["selections"] if not name.startswith("shared_")]
    sets = {name: found.selections[found.selections["selection"] == name] for name in chosen}
    if len(found.neurons):
        sets["neurons"] = found.neurons
    for name, rows in sets.items():
        sizes = rows.groupby(["language", "layer"]).size()
        for code in found.languages:
            for layer in at:
                count = int(sizes.get((code, layer), 0))
                yield {"selection": name, "language": code, "layer": layer, "count": count}


def _entropies(found: Identified) -> Iterator[dict]:
    """Histograms: of all features that fire, where a run has it, and of those that are kept."""
    histogram = found.summary.get("entropy")
    if histogram is None:
        edges = np.linspace(0, np.log(len(found.languages)), BINS + 1)
        values = found.features.drop_duplicates(["hook", "feature"])["entropy"]
        kept = np.histogram(values.clip(0, edges[-1]), edges)[0]
        histogram = {"edges": edges.tolist(), "kept": kept.tolist()}
    edges = histogram["edges"]
    for kind in ("alive", "kept"):
        for left, right, n in zip(edges, edges[1:], histogram.get(kind, ()), strict=False):
            yield {"kind": kind, "bin_left": left, "bin_right": right, "count": n}


def compared(folder: Path) -> Frames:
    """Overlap of the languages, and similarity of the features of each (none of artefacts)."""
    if not folder.is_dir():
        return {}
    names = {"language_a": "a", "language_b": "b"}
    means, cells = [], []
    labels = read_json(folder / "labels.json")
    with safe_open(folder / "similarity.safetensors", "np") as file:
        for measure in ("iou", "pearson"):
            for code, named in labels.items():
                matrix = file.get_tensor(f"{measure}/{code}")
                apart = matrix[~np.eye(len(matrix), dtype=bool)]
                base = {"measure": measure, "language": code}
                if np.isfinite(apart).any():
                    means.append(base | {"features": len(matrix), "mean": np.nanmean(apart)})
                if artefacts.decides(folder) is None:
                    cells += [base | row for row in _cells(matrix[:SHOWN, :SHOWN], named)]
    return {
        "overlap": pd.read_csv(folder / "shared.csv").rename(columns=names),
        "similarity": pd.DataFrame(cells),
        "similarity_mean": pd.DataFrame(means),
    }


def _cells(matrix: np.ndarray, labels: list[str]) -> Iterator[dict]:
    for (i, j), value in np.ndenumerate(matrix):
        if i < j:
            yield {"i": i, "j": j, "label_i": labels[i], "label_j": labels[j],
                   "value": round(float(value), 3)}  # fmt: skip


def perplexities(folder: Path) -> Frames:
    """Changes under every setting."""
    if not folder.is_dir():
        return {}
    matrix, normal = steered.perplexities(folder)
    return {"perplexity": matrix, "perplexity_normal": normal}


def generated(folder: Path) -> Frames:
    """What steered texts are like; hand labels stand where the texts are not at hand.

    coherence: higher is better: minus the logarithm of the median perplexity under the unsteered
    model; of hand labels the share called coherent. baseline is NaN without unsteered texts.
    """
    if not folder.is_dir():
        return {}
    labels = folder / "labels.csv"
    if labels.exists():
        frame = pd.read_csv(labels)
        return {"labels": frame, "generation": pd.DataFrame(_labelled(frame))}
    generation, detected = steered.generations(folder)
    if len(generation):
        generation["coherence"] = -np.log(generation["perplexity"])
    return {"generation": generation, "detected": detected}


def steered_rows(generation: pd.DataFrame) -> pd.DataFrame:
    """The rows of the way of steering that the study used, at every position; else of the plain."""
    rows = generation[(generation["positions"] == "all") & (generation["language"] != "")]
    ways = [rows[rows["setting"] == setting] for setting in STEERED]
    return next((way for way in ways if len(way)), rows.iloc[:0])


def _labelled(labels: pd.DataFrame) -> Iterator[dict]:
    for (language, alpha), rows in labels.groupby(["language", "alpha"], sort=True):
        total = rows["count"].sum()
        yield {
            "setting": STEERED[0],
            "language": language,
            "alpha": alpha,
            "positions": "all",
            "texts": int(total),
            "reached": rows.loc[rows["changed"], "count"].sum() / total,
            "coherence": rows.loc[rows["label"] == "coherent", "count"].sum() / total,
        }


def active(folder: Path) -> Frames:
    """Which features fire on which token of the sentences."""
    return (
        dict(zip(("active", "pieces"), steered.active(folder), strict=True))
        if folder.is_dir()
        else {}
    )


def interpreted(folder: Path, found: Identified) -> Frames:
    """Scores of every explanation, their means by language, and correlations with entropy.

    A ratio without a denominator counts as 0, as in the tool the study used.
    """
    path = folder / "scores.csv"
    counts = pd.read_csv(path) if path.exists() else pd.DataFrame()
    if counts.empty:
        return {}
    keys = ["hook", "feature"]
    entropies = found.features.drop_duplicates(keys)[[*keys, "entropy"]]
    rows = counts.merge(entropies, on=keys, validate="many_to_one")
    values = interpretation.scores(*(rows[k].to_numpy() for k in ("tp", "tn", "fp", "fn")), 0.0)
    rows = rows.assign(**values)
    means = rows.groupby(["method", "language"])[list(SCORES)].mean()
    sizes = rows.groupby(["method", "language"]).size().rename("features")
    return {
        "scores": rows,
        "interpretation": means.join(sizes).reset_index(),
        "correlations": pd.DataFrame(_correlations(rows)),
    }


def _correlations(rows: pd.DataFrame) -> Iterator[dict]:
    for method, part in rows.groupby("method", sort=True):
        for metric in SCORES:
            r = interpretation.pearson(part["entropy"].to_numpy(), part[metric].to_numpy())
            if r is not None:
                yield {"method": method, "metric": metric, "features": len(part), "pearson": r}


def directions(folder: Path) -> Frames:
    """Decoder rows of the specific features in the plane."""
    path = folder / "umap.csv"
    return {"umap": pd.read_csv(path)} if path.exists() else {}
