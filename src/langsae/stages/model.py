"""Stage prepare_model: obtain one model of params.yaml and publish its folder."""

import argparse
from pathlib import Path

from langsae.command import run
from langsae.models.source import prepare
from langsae.models.spec import ModelSpec
from langsae.params import section

MODELS = Path("artifacts/models")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of `models` in params.yaml")
    name = parser.parse_args().name
    prepare(section(f"models.{name}", ModelSpec), MODELS / name)


if __name__ == "__main__":
    run(main)
