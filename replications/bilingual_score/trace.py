"""A closer look: the activations of the chosen features, token by token.

Maxima said which texts to look at, so only these pass through the model once more.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import pandas as pd

from langsae.command import run
from langsae.compute import Compute
from langsae.files import publish, read_json
from langsae.launch import settings
from langsae.launching import LOCAL, Launch
from langsae.params import section
from langsae.reducers.traces import FeatureTraces
from replications.bilingual_score import series
from replications.bilingual_score.run import STUDY, Run, folder
from replications.bilingual_score.source import Source, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    compute = section("compute", Compute)
    compute.apply()
    spec = section(f"{STUDY}.runs.{name}", Run)
    collected, ranked, out = (
        folder(section("profile", str), name, stage) for stage in ("collected", "ranked", "traced")
    )
    if spec.published:
        contexts = series.contexts(collected)
    else:
        contexts = trace(spec, compute, ranked, settings())
    with publish(out) as part:
        part.mkdir(parents=True)
        contexts.to_csv(part / "contexts.csv", index=False)


def trace(run: Run, compute: Compute, ranked: Path, how: Launch = LOCAL) -> pd.DataFrame:
    """A row per (feature, aligned text, language) of what stage rank chose: see `series.CONTEXTS`.

    `place` counts a feature's texts, the strongest first; pieces and activations are JSON lists.
    """
    rows = {entry["feature"]: entry["rows"] for entry in read_json(ranked / "texts.json")}
    source = open_source(run, compute)
    wanted = sorted({row for places in rows.values() for row in places})
    empty = partial(_traces, sorted(rows), wanted)
    [traces] = source.collect(empty, Path("scratch") / STUDY, how, wanted)
    return _contexts(source, traces, rows)


def _traces(features: list[int], rows: list[int], source: Source) -> list[FeatureTraces]:
    # a checkpoint belongs to this choice, too, which the source's own header does not hold
    header = source.header | {"features": features, "rows": rows}
    return [FeatureTraces(header, {0: features}, masked=True)]


def _contexts(source: Source, traces: FeatureTraces, rows: dict[int, list[int]]) -> pd.DataFrame:
    columns = pd.DataFrame(traces.columns()).drop(columns="hook")
    texts = dict(list(columns.groupby(["feature", "example", "language"], sort=False)))
    found = []
    for feature, places in rows.items():
        for place, row in enumerate(places):
            for at, code in enumerate(source.languages):
                words = source.pieces(at, row)
                values: list[float] = [0] * len(words)  # 0, not 0.0: most of the file
                part = texts.get((feature, row, at))
                if part is not None:
                    for position, value in zip(part["position"], part["value"], strict=True):
                        values[position] = float(f"{value:.6g}")
                found.append((feature, place, row, code, json.dumps(words[source.skipped :]),
                              json.dumps(values[source.skipped :])))  # fmt: skip
    return pd.DataFrame(found, columns=series.CONTEXTS)


if __name__ == "__main__":
    run(main)
