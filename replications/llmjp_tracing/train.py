"""Stage train_llmjp_tracing: SAEs of every checkpoint and layer of a run, trained or fetched."""

import argparse
from pathlib import Path

from langsae.command import run as command
from langsae.compute import Compute
from langsae.files import read_json
from langsae.launch import settings
from langsae.launching import Launch
from langsae.params import section
from replications.llmjp_tracing.grid import cells, fill, publish_grid
from replications.llmjp_tracing.run import STUDY, Run, folder, history_folder

SCRATCH = Path("scratch") / STUDY / "saes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile, compute = section("profile", str), section("compute", Compute)
    chosen = section(f"{STUDY}.runs.{name}", Run)
    rates = read_json(folder(profile, name, "rates") / "rates.json")
    train(chosen, rates["selected"], compute, settings(), folder(profile, name, "saes"))


def train(run: Run, lr: float | None, compute: Compute, launch: Launch, out: Path) -> None:
    """Fill the grid of `run` with learning rate `lr` and publish it at `out`.

    Raises InputError that names every cell that failed; the others are kept for the next try.
    """
    grid = cells(run, history_folder(run.history), lr, compute, SCRATCH)
    fill(grid, launch)
    publish_grid(grid, lr, out)


if __name__ == "__main__":
    command(main)
