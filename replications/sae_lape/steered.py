"""Reading what the stages that intervene left, as tidy rows for measures and figures.

Without torch: stage measure reads a run's folders `perplexity/`, `generated/` and `active/` here.
"""

from pathlib import Path

import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from langsae.errors import InputError
from langsae.files import read_json
from langsae.metrics.perplexity_change import (
    largest_share,
    mean_change,
    mean_log_ratio,
    median_change,
)

# text cells may hold "null" or nothing at all: only numbers can be missing
_NUMBERS = ("alpha", "confidence", "script_share", "perplexity", "distinct_1", "distinct_2")


def perplexities(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables `perplexity` and `perplexity_normal` of a run's folder.

    perplexity: setting, intervened, impacted, texts, change, median_change, log_ratio and
    largest_share (of the sum of absolute changes, carried by 1% of the texts), a row for each cell
    that was run. perplexity_normal: language, texts, mean, median.
    """
    facts = read_json(folder / "settings.json")
    arrays = _arrays(folder / "perplexity.safetensors")
    plain = arrays["normal"]
    cells = []
    for setting in facts["settings"]:
        changed = arrays[setting]
        measures = [f(plain, changed) for f in (mean_change, median_change, mean_log_ratio,
                                                largest_share)]  # fmt: skip
        for i, intervened in enumerate(facts["intervened"]):
            for j, impacted in enumerate(facts["impacted"]):
                cells.append((setting, intervened, impacted, plain.shape[-1],
                              *(float(values[i, j]) for values in measures)))  # fmt: skip
    names = ["setting", "intervened", "impacted", "texts", "change", "median_change", "log_ratio",
             "largest_share"]  # fmt: skip
    matrix = pd.DataFrame(cells, columns=names).dropna(subset="change")
    normal = pd.DataFrame(
        {
            "language": facts["impacted"],
            "texts": plain.shape[-1],
            "mean": plain.mean(-1),
            "median": pd.DataFrame(plain.T).median().to_numpy(),
        }
    )
    return matrix.reset_index(drop=True), normal


def _arrays(path: Path) -> dict:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run stage perplexity_sae_lape first") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); delete it") from error


def texts(folder: Path) -> pd.DataFrame:
    """texts.csv of a run; language "" is unsteered text, an empty text stays a text."""
    return _table(folder / "texts.csv", _NUMBERS)


def generations(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables `generation` and `detected` of a run's folder.

    generation: setting, language, alpha, positions, texts, reached (share found to be in
    `language`), baseline (that share among unsteered texts that went on the same way),
    script_share, perplexity (median), distinct_1, distinct_2 (means). detected: texts found in each
    language.
    """
    frame = texts(folder)
    keys = ["setting", "language", "alpha", "positions"]
    rows = []
    for key, part in frame.groupby(keys, sort=False):
        code = key[1]
        unsteered = frame[
            (frame["language"] == "") & (frame["reencode"] == part["reencode"].iloc[0])
        ]
        named = dict(zip(keys, key, strict=True))
        rows.append(named | {
            "texts": len(part),
            "reached": (part["detected"] == code).mean() if code else float("nan"),
            "baseline": (unsteered["detected"] == code).mean() if code else float("nan"),
            "script_share": part["script_share"].mean(),
            "perplexity": part["perplexity"].median(),
            "distinct_1": part["distinct_1"].mean(),
            "distinct_2": part["distinct_2"].mean(),
        })  # fmt: skip
    counts = frame.groupby([*keys, "detected"], sort=True).size().rename("count").reset_index()
    return pd.DataFrame(rows), counts


def active(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """active.csv and pieces.csv of a run."""
    return _table(folder / "active.csv", ("value",)), _table(folder / "pieces.csv", ())


def _table(path: Path, numbers: tuple[str, ...]) -> pd.DataFrame:
    try:
        missing = dict.fromkeys(numbers, "")
        return pd.read_csv(path, keep_default_na=False, na_values=missing, lineterminator="\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run its stage first") from error
