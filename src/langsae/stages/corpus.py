"""Stage prepare_corpora: build one corpus of params.yaml and publish it."""

import argparse
from pathlib import Path

from langsae.command import run
from langsae.corpora.build import build
from langsae.corpora.parallel import ParallelCorpus
from langsae.corpora.spec import CorpusSpec
from langsae.params import section

CORPORA = Path("artifacts/corpora")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of `corpora` in params.yaml")
    name = parser.parse_args().name
    corpus: ParallelCorpus = build(section(f"corpora.{name}", CorpusSpec), name)
    corpus.save(CORPORA / f"{name}.jsonl")


if __name__ == "__main__":
    run(main)
