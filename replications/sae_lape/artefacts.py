"""The authors' own results, put into the files that our stages write.

`source` is a folder with what was read off the study's repository (../shared/published/sae_lape).
A stage of a run with `published:` calls its function here in place of a model; `out` is published
whole. Beside the tables lies artefact.json, which names the claims that may be decided by them,
because they are rawer than those claims. What the authors do not give is left out: empty columns
and tables, never a number in its place. Lists of features are in published_features.py: the stages
that run a model depend on this module, and shall not on the metrics behind those.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from langsae.errors import InputError
from langsae.files import publish, read_json, write_json
from langsae.languages import by_name, find

NOTE = "artefact.json"
LAYERS = 16


def decides(stage: Path) -> tuple[str, ...] | None:
    """Beginnings of the ids that a stage's folder may decide; None where it is no artefact."""
    path = stage / NOTE
    return tuple(read_json(path)["decides"]) if path.exists() else None


def collect(source: Path, out: Path) -> None:
    """Only the model's layers: counts are in archives that are in neither copy of the repository,
    and the totals of texts and tokens can only be compared with a run of ours."""
    publish_tables(out, {"totals": {"tokens": {}, "examples": {}, "layers": LAYERS}}, {}, ())


def perplexity(source: Path, out: Path) -> None:
    """Means over texts in place of the texts' own perplexities, which are not given: S is 1."""
    published = read_json(source / "ppl_change_matrices.json")
    normal = by_code(published["normal_mean_ppl"])
    codes = by_name(normal)
    plain = np.array([normal[code] for code in codes])
    arrays = {"normal": plain[:, None]}
    for name, entry in published["change_matrices"].items():
        matrix = {code: by_code(row) for code, row in by_code(entry["matrix"]).items()}
        change = np.array([[matrix[a][b] for b in codes] for a in codes])
        arrays[perplexity_setting(name)] = (plain + change)[:, :, None]
    settings = {
        "intervened": codes,
        "impacted": codes,
        "rows": 1,
        "settings": {name: {} for name in sorted(set(arrays) - {"normal"})},
    }
    with publish(out) as folder:
        folder.mkdir(parents=True)
        save_file(
            {name: arrays[name] for name in sorted(arrays)}, folder / "perplexity.safetensors"
        )
        write_tables(folder, {"settings": settings}, {}, ())


def perplexity_setting(path: str) -> str:
    """Our name of a setting that the repository calls by a path such as
    `sae_intervention/top_10/entropy/max/mult_-0.2`."""
    match path.split("/"):
        case ["neuron_intervention", fixed]:
            return f"neuron_fixed/{fixed.removeprefix('fixed_')}"
        case ["neuron_intervention", _, step]:
            sign, size = step.split("_")
            return f"neuron_scaled/{'-' if sign == 'min' else ''}{size}"
        case ["sae_intervention", selection, order, value, step]:
            chosen = selection if selection == "all" else f"{selection}_by_{order}"
            return f"sae_{chosen}_{value}/{step.removeprefix('mult_')}"
    raise InputError(f"'{path}': no setting of the study is written like that")


def generate(source: Path, out: Path) -> None:
    """The hand labels, counted in the annotators' workbook; the texts are not at hand."""
    published = read_json(source / "text_generation.json")
    which = {
        (row["Language"], row["Alpha"]): name.removeprefix("data_")
        for name, rows in published["tables"].items()
        for row in rows
    }
    labels = []
    for row in published["recount_from_annotations"]:
        table = which.get((row["language"], row["alpha"]))
        if table is None:
            continue  # annotated, but in neither table
        for changed, start in ((True, "Change"), (False, "Unchange")):
            for label, end in (("incoherent", "Incoherent"), ("partly", "Partially_Coherent"),
                               ("coherent", "Coherent")):  # fmt: skip
                labels.append([table, row["language"], row["alpha"], changed, label,
                               row[f"{start}_{end}"]])  # fmt: skip
    columns = ["table", "language", "alpha", "changed", "label", "count"]
    frame = pd.DataFrame(labels, columns=columns).sort_values(columns, ignore_index=True)
    texts = pd.DataFrame(
        columns=["setting", "language", "alpha", "positions", "reencode", "prompt", "seed", "text",
                 "detected", "confidence", "script_share", "perplexity", "distinct_1", "distinct_2",
                 "tokens"]
    )  # fmt: skip
    publish_tables(out, {}, {"texts": texts, "labels": frame}, ("generation/reached/",
                                                          "generation/labels/"))  # fmt: skip


def active(source: Path, out: Path) -> None:
    """Nothing: which features fire on which token was shown on pages only."""
    active = ["language", "sentence", "position", "piece", "hook", "layer", "feature",
              "feature_language", "value"]  # fmt: skip
    tables = {name: pd.DataFrame(columns=columns)
              for name, columns in (("active", active), ("pieces", active[:4]))}  # fmt: skip
    publish_tables(out, {}, tables, ())


def directions(source: Path, out: Path) -> None:
    """Nothing: decoder rows are in archives that are in neither copy of the repository."""
    table = pd.DataFrame(columns=["language", "layer", "feature", "x", "y"])
    publish_tables(out, {}, {"umap": table}, ())


def interpret(source: Path, out: Path) -> None:
    """The explanations, and how many contexts each told right and wrong."""
    table = specific(source)
    place = table[["language", "hook", "layer", "feature"]].assign(explainer="openai/gpt-4.1")
    said = place.assign(explanation=table["explanation"])
    counts = {"tp": "true_positives", "tn": "true_negatives", "fp": "false_positives",
              "fn": "false_negatives"}  # fmt: skip
    scores = pd.concat(
        place.assign(method=method, **{k: table[f"{method}_{v}"] for k, v in counts.items()})
        for method in ("detection", "fuzz")
    )
    publish_tables(out, {}, {"explanations": said, "scores": scores}, ("interpretation/",))


def publish_tables(
    out: Path, documents: dict[str, Any], tables: dict[str, pd.DataFrame], decided: tuple[str, ...]
) -> None:
    """Publish a folder of what `write_tables` writes."""
    with publish(out) as folder:
        folder.mkdir(parents=True)
        write_tables(folder, documents, tables, decided)


def write_tables(
    folder: Path,
    documents: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    decided: tuple[str, ...],
) -> None:
    """Write JSON documents and CSV tables by name, and which claims they may decide."""
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")
    note = {"decides": list(decided)}
    for name, document in (documents | {Path(NOTE).stem: note}).items():
        write_json(folder / f"{name}.json", document)


def specific(source: Path) -> pd.DataFrame:
    """The authors' table of language-specific features, with everything they say of each."""
    return table_of(source, "features_specific.csv")


def table_of(source: Path, name: str) -> pd.DataFrame:
    """A table of features, with language codes and hook points; InputError without the file."""
    try:
        table = pd.read_csv(source / name, comment="#", keep_default_na=False)
    except FileNotFoundError as error:
        raise InputError(f"{source / name}: no such file; set LANGSAE_REFERENCE") from error
    code = table["language"].map(lambda name: find(name).code)
    return table.assign(language=code, hook="mlp_out." + table["layer"].astype(str))


def by_code(by_language: dict[str, Any]) -> dict[str, Any]:
    """The same values by language code."""
    return {find(name).code: value for name, value in by_language.items()}
