"""Stage prepare_history: train or fetch one training history of params.yaml and publish it."""

import argparse
from pathlib import Path

from langsae.command import run
from langsae.compute import Compute
from langsae.histories import HistorySpec, prepare_history
from langsae.params import section

CORPORA = Path("artifacts/corpora")
HISTORIES = Path("artifacts/histories")
SCRATCH = Path("scratch/histories")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of `histories` in params.yaml")
    name = parser.parse_args().name
    compute = section("compute", Compute)
    compute.apply()
    spec = section(f"histories.{name}", HistorySpec)
    prepare_history(spec, compute, CORPORA, SCRATCH, HISTORIES / name)


if __name__ == "__main__":
    run(main)
