"""The cheap part: from what the stages left to the published numbers, findings and figures' data.

A stage that a run leaves out (`langsae run` need not walk all) has empty tables and no values.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from langsae.command import run
from langsae.evidence import Recorder
from langsae.files import digest, publish, read_json, sha256
from langsae.params import section
from replications.sae_lape import classified, identified, record, tables
from replications.sae_lape.findings import PREDICATES
from replications.sae_lape.run import STUDY, Run, folder
from replications.sae_lape.tables import COLUMNS, Frames

# folders of a run, by the name of the stage's result
RESULTS = ("collected", "identified", "compared", "classified", "perplexity", "generated", "active",
           "interpreted", "directions")  # fmt: skip


def gather(folders: dict[str, Path]) -> Frames:
    """Every table of one run, with the columns of COLUMNS; those without rows, too."""
    found = identified.load(folders["identified"])
    parts: list[Frames] = [
        tables.totals(folders["collected"]),
        tables.features(found, tables.layers(folders["collected"])),
        tables.compared(folders["compared"]),
        _classified(folders["classified"]),
        tables.perplexities(folders["perplexity"]),
        tables.generated(folders["generated"]),
        tables.active(folders["active"]),
        tables.interpreted(folders["interpreted"], found),
        tables.directions(folders["directions"]),
    ]
    frames = {name: frame for part in parts for name, frame in part.items()}
    return {
        name: frames.get(name, pd.DataFrame()).reindex(columns=columns)
        for name, columns in COLUMNS.items()
    }


def _classified(folder: Path) -> Frames:
    if not folder.is_dir():
        return {}
    return {
        name: pd.DataFrame(rows)
        for name, rows in classified.tables(classified.load(folder)).items()
    }


def _predictions(folder: Path) -> Frames | None:
    """The classifiers' tables from the authors' own predictions, where a run has these."""
    path = folder / "published_predictions.csv"
    if not path.is_file():
        return None
    ours, named = classified.load(folder), pd.read_csv(path, keep_default_na=False)
    scores = {
        classifier: named[classifier].to_numpy()[:, None] == np.array(ours.languages)
        for classifier in classified.CLASSIFIERS
        if classifier in named
    }
    theirs = classified.Classified(ours.languages, ours.labels, scores, {})
    return {name: pd.DataFrame(rows) for name, rows in classified.tables(theirs).items()}


def enter_run(recorder: Recorder, name: str, chosen: Run, folders: dict[str, Path], frames: Frames,
              fasttext: str | None) -> None:  # fmt: skip
    """Record every value of one run. fasttext: path of its model; None is the shipped one."""
    enter = record.Entry.of(recorder, name, folders)
    enter.decided["fasttext_run"] = None
    if chosen.published is not None:  # stage classify reads the authors' scores itself
        enter.decided["classified"] = ("classification/",)
    record.collected(enter, frames)
    record.identified(enter, identified.load(folders["identified"]), frames)
    record.compared(enter, frames)
    model = record.SHIPPED if fasttext is None else Path(fasttext).name
    record.classified(enter, frames, model, _predictions(folders["classified"]))
    record.perplexities(enter, frames)
    record.generated(enter, frames)
    record.interpreted(enter, frames)


def find(recorder: Recorder, name: str, chosen: Run, frames: Frames) -> None:
    """Ask every finding of one run that can be asked of it."""
    basis = "rerun" if chosen.published is None else "published artefact"
    for predicate, ask in PREDICATES.items():
        answer = ask(frames)
        if answer is not None:
            recorder.find(predicate.replace("_", "-"), name, answer.holds, answer.detail, basis)


def _inputs(name: str, folders: dict[str, Path]) -> dict[str, str]:
    """Digests of what the run read: corpus, model and SAEs, or of each result made of artefacts."""
    inputs = read_json(folders["collected"] / "totals.json").get("inputs")
    if inputs is None:
        inputs = {
            result: {path.name: sha256(path) for path in sorted(place.iterdir())}
            for result, place in folders.items()
            if place.is_dir()
        }
    return {f"{name}/{key}": digest(value) for key, value in inputs.items()}


def main() -> None:
    profile = section("profile", str)
    runs = section(f"{STUDY}.runs", dict[str, Run])
    fasttext = section(f"{STUDY}.classify", dict).get("fasttext")
    places = {name: {result: folder(profile, name, result) for result in RESULTS} for name in runs}
    inputs = {key: value for name in runs for key, value in _inputs(name, places[name]).items()}
    recorder = Recorder(STUDY, profile, section("seed", int), inputs)
    parts = []
    for name, chosen in runs.items():
        frames = gather(places[name])
        enter_run(recorder, name, chosen, places[name], frames, fasttext)
        find(recorder, name, chosen, frames)
        parts.append({key: frame.assign(run=name) for key, frame in frames.items()})
    recorder.write()
    with publish(Path("results") / STUDY / "plots" / profile) as out:
        out.mkdir()
        for key, columns in COLUMNS.items():
            frame = pd.concat([part[key] for part in parts if len(part[key])] or [parts[0][key]])
            # 10 digits: more than a figure needs, fewer than differ between CPUs
            frame[["run", *columns]].to_csv(out / f"{key}.csv", index=False, float_format="%.10g")


if __name__ == "__main__":
    run(main)
