"""The authors' lists of features in the files of stages identify and compare; see artefacts.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from langsae.files import publish, read_json
from langsae.languages import by_name
from langsae.metrics import lape, overlap
from replications.sae_lape import artefacts, identified

TOP = {"entropy": "entropy", "freq": "frequency"}  # how selections and `lape.select` call an order


def identify(source: Path, out: Path) -> None:
    """The lists of features with their entropies and probabilities, and selections made anew.

    Neurons are left out: of these only the numbers per layer are known.
    """
    table = features(source)
    result, names = kept(table)
    wanted: dict[str, dict[str, Any]] = {identified.ALL: {}}
    for label, by in TOP.items():
        wanted[f"top_10_by_{label}"] = {"top": 10, "by": by}
        wanted[f"top_1_per_layer_by_{label}"] = {"top": 1, "by": by, "per_hook": True}
    wanted |= {f"shared_{n}": {"shared_by": n} for n in range(2, len(names) + 1)}
    parts = [
        _selection(result, name, code, lape.select(result, language, **how))
        for name, how in wanted.items()
        for language, code in enumerate(names)
    ]
    tables = {
        "features": table.reindex(columns=identified.FEATURES),
        "neurons": pd.DataFrame(columns=identified.NEURONS),
        "selections": pd.concat(parts, ignore_index=True),
    }
    summary = {
        "languages": names,
        "selections": list(wanted),
        "settings": {},
        "totals": {},
        "kept": len(result.hook),
        "shared_by": {str(n): int((result.languages == n).sum()) for n in range(1, len(names) + 1)},
    }
    decided = ("identified/", "features/all/", "features/top_", "lists/", "shared/")
    with publish(out) as folder:
        folder.mkdir(parents=True)
        identified.write(folder, tables)
        artefacts.write_tables(folder, {"summary": summary}, {}, decided)


def compare(source: Path, out: Path) -> None:
    """Similarity within a language as published; overlap of languages from the shared features."""
    published = read_json(source / "feature_similarity_within_language.json")
    arrays: dict[str, np.ndarray] = {}
    labels = {}
    for code, entry in artefacts.by_code(published).items():
        for measure in ("iou", "pearson"):
            arrays[f"{measure}/{code}"] = np.array(entry[measure]["matrix"], np.float64)
        labels[code] = entry["iou"]["labels"]
    result, names = kept(features(source))
    shared = result.where(result.languages > 1)  # as published: specific features are left out
    both, iou = overlap.set_overlap(shared.member)
    rows = [
        {"language_a": a, "language_b": b, "intersection": int(both[i, j]), "iou": float(iou[i, j])}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    with publish(out) as folder:
        folder.mkdir(parents=True)
        save_file(arrays, folder / "similarity.safetensors")
        artefacts.write_tables(
            folder, {"labels": labels}, {"shared": pd.DataFrame(rows)}, ("overlap/",)
        )


def features(source: Path) -> pd.DataFrame:
    """features.csv without the extremes: specific and shared, a row a feature and language."""
    own = artefacts.specific(source).rename(
        columns={"selected_prob_realigned": "probability",
                 "selected_prob_published_misaligned": "probability_as_published"}
    )  # fmt: skip
    shared = artefacts.table_of(source, "features_shared.csv").rename(
        columns={"shared_count": "languages", "entropy_2dp": "entropy",
                 "prob_realigned_2dp": "probability"}
    )  # fmt: skip
    table = pd.concat([own.assign(languages=1), shared], ignore_index=True)
    table = table.reindex(columns=identified.FEATURES)
    place = table["language"].map(by_name(set(table["language"])).index)
    order = ["languages", "place", "layer", "feature"]
    return table.assign(place=place).sort_values(order, ignore_index=True).drop(columns="place")


def kept(table: pd.DataFrame) -> tuple[lape.Kept, list[str]]:
    """The features of `features` as SAE-LAPE gives them, and the languages' codes in order.

    A feature's rate is known, and set, in the languages it belongs to only.
    """
    codes = by_name(set(table["language"]))
    place = {code: i for i, code in enumerate(codes)}
    once = table.drop_duplicates(["layer", "feature"]).sort_values(
        ["entropy", "layer", "feature"], ignore_index=True
    )
    row = {key: i for i, key in enumerate(zip(once["layer"], once["feature"], strict=True))}
    rates = np.zeros((len(once), len(codes)))
    member = np.zeros(rates.shape, bool)
    for entry in table.itertuples():
        at = row[entry.layer, entry.feature], place[entry.language]
        rates[at], member[at] = entry.probability, True
    columns = (once[name].to_numpy() for name in ("layer", "feature", "entropy"))
    return lape.Kept(*columns, rates, member), codes


def _selection(result: lape.Kept, name: str, code: str, at: np.ndarray) -> pd.DataFrame:
    part = result.where(at)
    columns = {
        "selection": name,
        "language": code,
        "hook": [f"mlp_out.{layer}" for layer in part.hook],
        "layer": part.hook,
        "feature": part.feature,
        "rank": np.arange(1, len(at) + 1),
    }
    return pd.DataFrame(columns, index=range(len(at)))
