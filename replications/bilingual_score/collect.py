"""The costly pass: the largest activation of every feature in every text, and all positive values.

Gómez (2024) kept every activation of 500 pairs dense, padded to the longest text (13.8 GiB). His
score needs the maxima alone, his thresholds the multiset of positive values. Both are collected
twice in one pass: with the padding of the shorter text of a pair, as he did, and without it.
"""

import argparse
from pathlib import Path

from langsae import stream
from langsae.command import run
from langsae.compute import Compute
from langsae.files import digest, publish
from langsae.launch import settings
from langsae.launching import LOCAL, Launch
from langsae.params import section
from langsae.reducers.base import Reducer
from langsae.reducers.example_maxima import ExampleMaxima
from langsae.reducers.positive_values import PositiveValues
from replications.bilingual_score.run import STUDY, Run, folder
from replications.bilingual_score.series import write_series
from replications.bilingual_score.source import Source, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    compute = section("compute", Compute)
    compute.apply()
    out = folder(section("profile", str), name, "collected")
    wanted = section(f"{STUDY}.runs.{name}", Run)
    collect(wanted, compute, out, Path("scratch") / STUDY, settings())


def collect(run: Run, compute: Compute, out: Path, scratch: Path, how: Launch = LOCAL) -> None:
    """Publish the reducers and `facts.json` at `out`; of a `published` run, its series."""
    if run.published:
        with publish(out) as part:
            write_series(run.published, part)
        return
    source = open_source(run, compute)
    reducers = source.collect(_reducers, scratch, how)
    facts = source.facts() | {
        "languages": source.languages,
        "rows": source.rows,
        "features": source.features,
        "inputs": {
            "corpus": source.header["corpus"],
            "model": digest(source.header["model"]),
            "saes": digest(source.header["coders"]),
        },
    }
    with publish(out) as part:
        part.mkdir(parents=True)
        stream.save_all(reducers, part, {"facts": facts})


def _reducers(source: Source) -> list[Reducer]:
    header, languages = source.header, len(source.languages)
    found: list[Reducer] = []
    for masked in (False, True):
        found += [
            ExampleMaxima(header, 1, languages, source.rows, source.features, masked),
            PositiveValues(header, 1, languages, masked),
        ]
    return found


if __name__ == "__main__":
    run(main)
