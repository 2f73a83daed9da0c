"""The cheap part: from counts to what the post published, its findings, and data for figures."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import PositiveInt

from langsae.command import run
from langsae.errors import InputError
from langsae.evidence import Recorder
from langsae.files import digest, publish, read_json
from langsae.metrics import reconstruction, shares
from langsae.params import Spec, section
from langsae.reducers.base import read
from replications.flores_exploration.findings import PREDICATES, Series, applicable

STUDY = "flores_exploration"
DEAD = {"zero": "as zeros", "drop": "dropped"}


class Measure(Spec):
    """Thresholds and readings; see conf/common.yaml."""

    monolingual_threshold: float
    group_threshold: float
    groups: PositiveInt
    histogram_bins: PositiveInt
    readings: tuple[shares.Reading, ...]
    ddof: tuple[Literal[0, 1], ...]
    dead: tuple[Literal["drop", "zero"], ...]


@dataclass(frozen=True)
class Counts:
    """One run's collection; `active` is None where no SAE was asked for.

    features: dictionary size of the run's SAEs, also where only their number is known.
    """

    model: str
    tokens: dict[str, int]
    features: int
    inputs: dict[str, str]
    active: np.ndarray | None = None  # int64 [H, L, F]
    layers: tuple[int, ...] = ()
    errors: dict[str, np.ndarray] | None = None


def load(folder: Path, model: str) -> Counts:
    """Read what stage collect published for one run."""
    facts = read_json(folder / "tokens.json")
    inputs = {f"{model}/{name}": digest(value) for name, value in facts["inputs"].items()}
    path = folder / "feature_counts.safetensors"
    if not path.is_file():
        return Counts(model, facts["counts"], facts["features"], inputs)
    header, state = read(path, "feature_counts")
    _, errors = read(folder / "reconstruction.safetensors", "reconstruction")
    inputs[f"{model}/saes"] = digest(header["coders"])
    return Counts(
        model,
        {code: facts["counts"][code] for code in header["languages"]},
        state["active"].shape[-1],
        inputs,
        state["active"].numpy(),
        tuple(int(hook.split(".")[1]) for hook in header["hooks"]),
        {key: value.numpy() for key, value in errors.items()},
    )


def variance_name(reading: str, ddof: int, dead: str) -> str:
    """How published.yaml calls one reading of the mean variance."""
    return f"{reading} share, ddof {ddof}, dead {DEAD[dead]}"


def tables(counts: Counts, settings: Measure) -> dict[str, list[dict[str, Any]]]:
    """Every published quantity of one model as tidy rows, by table."""
    rows: dict[str, list[dict[str, Any]]] = {
        "tokens": [
            {"model": counts.model, "language": code, "n_tokens": n}
            for code, n in counts.tokens.items()
        ]
    }
    if counts.active is None:
        return rows
    for reading in settings.readings:
        share = shares.language_shares(
            counts.active, np.array(list(counts.tokens.values())), reading
        )
        for name, part in _share_tables(counts, share, reading, settings).items():
            rows.setdefault(name, []).extend(part)
    rows["reconstruction"] = _reconstruction(counts)
    return rows


def _share_tables(counts: Counts, share: np.ndarray, reading: str, settings: Measure) -> dict:
    base = {"model": counts.model, "reading": reading}
    languages = tuple(counts.tokens)
    mono = shares.monolingual_counts(share, settings.monolingual_threshold)
    groups = shares.language_groups(share, languages, settings.group_threshold, settings.groups)
    edges, histogram = shares.share_histogram(share, settings.histogram_bins)
    out: dict[str, list] = {"monolingual": [], "variance": [], "groups": [], "shares": []}
    for at, layer in enumerate(counts.layers):
        here = base | {"layer": layer}
        out["monolingual"] += [
            here | {"language": code, "count": int(mono[at, i])} for i, code in enumerate(languages)
        ]
        out["groups"] += [
            here | {"rank": rank, "languages": ";".join(sorted(group)), "count": size}
            for rank, (group, size) in enumerate(groups[at], 1)
        ]
        out["shares"] += [
            here | {"bin_left": float(a), "bin_right": float(b), "count": int(n)}
            for a, b, n in zip(edges[:-1], edges[1:], histogram[at], strict=True)
        ]
    for ddof, dead in itertools.product(settings.ddof, settings.dead):
        values = shares.variance_over_languages(share, ddof, dead)
        out["variance"] += [
            base | {"reading": variance_name(reading, ddof, dead), "layer": layer, "value": value}
            for layer, value in zip(counts.layers, values.tolist(), strict=True)
        ]
    return out


def _reconstruction(counts: Counts) -> list[dict[str, Any]]:
    sums = counts.errors
    expected = np.array(list(counts.tokens.values()))
    if not (sums["tokens"] == expected).all():
        raise InputError(f"{counts.model}: tokens of the stream and of the texts differ")
    mse = reconstruction.mean_squared_error(sums["error"], sums["tokens"])
    fvu = reconstruction.unexplained_variance(
        sums["error"], sums["square"], sums["mean"], sums["tokens"]
    )
    return [
        {"model": counts.model, "layer": layer, "language": code,
         "mse": float(mse[h, i]), "fvu": float(fvu[h, i])}
        for h, layer in enumerate(counts.layers)
        for i, code in enumerate(counts.tokens)
    ]  # fmt: skip


def record(recorder: Recorder, frames: dict[str, pd.DataFrame], features: dict[str, int]) -> None:
    """Enter every measured value under the id and variant that published.yaml gives it.

    features: dictionary size per model; the published token counts carry it as a factor.
    """
    for row in frames["tokens"].itertuples():
        id = f"tokens/{row.model}/{row.language}"
        recorder.measure(id, "corrected", row.n_tokens)
        recorder.measure(id, "as published", row.n_tokens * features[row.model])
    for row in frames["monolingual"].itertuples():
        id = f"monolingual/{row.model}/{row.language}/L{row.layer}"
        recorder.measure(id, f"{row.reading} share", row.count)
    for row in frames["variance"].itertuples():
        recorder.measure(f"variance/{row.model}/L{row.layer}", row.reading, row.value)
    for row in frames["groups"].itertuples():
        id = f"groups/{row.model}/L{row.layer}/rank{row.rank}"
        recorder.measure(id, f"{row.reading} share", row.languages.split(";"))


def find(recorder: Recorder, frames: dict[str, pd.DataFrame], settings: Measure) -> None:
    """Ask every finding of every model, on the first reading of each quantity."""
    first = settings.readings[0]
    variance = variance_name(first, settings.ddof[0], settings.dead[0])
    series = Series(
        frames["tokens"],
        *(frames[name].query("reading == @wanted") for name, wanted in
          (("monolingual", first), ("variance", variance), ("groups", first))),
    )  # fmt: skip
    for model in frames["tokens"]["model"].unique():
        for name in applicable(series, model):
            answer = PREDICATES[name](series, model)
            recorder.find(name.replace("_", "-"), model, answer.holds, answer.detail)


COLUMNS = {
    "tokens": ["model", "language", "n_tokens"],
    "monolingual": ["model", "reading", "layer", "language", "count"],
    "variance": ["model", "reading", "layer", "value"],
    "groups": ["model", "reading", "layer", "rank", "languages", "count"],
    "shares": ["model", "reading", "layer", "bin_left", "bin_right", "count"],
    "reconstruction": ["model", "layer", "language", "mse", "fvu"],
}


def main() -> None:
    profile = section("profile", str)
    settings = section(f"{STUDY}.measure", Measure)
    runs = section(f"{STUDY}.runs", dict)
    collected = [load(Path("artifacts") / STUDY / profile / name, name) for name in runs]
    parts = [tables(counts, settings) for counts in collected]
    frames = {
        name: pd.DataFrame([row for part in parts for row in part.get(name, [])], columns=columns)
        for name, columns in COLUMNS.items()
    }
    inputs = {name: key for counts in collected for name, key in counts.inputs.items()}
    recorder = Recorder(STUDY, profile, section("seed", int), inputs)
    record(recorder, frames, {counts.model: counts.features for counts in collected})
    find(recorder, frames, settings)
    recorder.write()
    with publish(Path("results") / STUDY / "plots" / profile) as folder:
        folder.mkdir()
        for name, frame in frames.items():
            # 10 digits: more than a figure needs, fewer than differ between CPUs
            frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")


if __name__ == "__main__":
    run(main)
