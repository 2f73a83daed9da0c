"""The command line that stages on identified features share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langsae.compute import Compute
from langsae.params import section
from langsae.paths import expand
from replications.sae_lape.run import STUDY, Run, folder


def main(
    description: str,
    settings: tuple[str, Any],
    out: str,
    act: Callable[[Run, Any, Compute, Path, Path], None],
    read: Callable[[Path, Path], None],
) -> None:
    """Act on the run that the command line names, or read what its authors published.

    settings: a section of the study's params and its class; out: the stage's folder; act takes run,
    settings, compute, what stage identify published, and the folder to publish; read takes the
    authors' folder and the folder to publish.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile, compute = section("profile", str), section("compute", Compute)
    compute.apply()
    chosen = section(f"{STUDY}.runs.{name}", Run)
    wanted = section(f"{STUDY}.{settings[0]}", settings[1])
    place = folder(profile, name, out)
    if chosen.published is not None:
        read(expand(chosen.published), place)
        return
    act(chosen, wanted, compute, folder(profile, name, "identified"), place)
