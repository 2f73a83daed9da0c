"""Where the parts of a stage run: one after another in this process, or as tasks on Ray.

A part publishes its own output, so which of the two ran it, and how often it was killed, does not
show in results. All machines see the same files under the same paths.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from langsae.errors import InputError
from langsae.launching import Launch, attempt
from langsae.params import load_yaml, parse

T = TypeVar("T")
PARAMS = Path("params.yaml")


def settings() -> Launch:
    """What params.yaml says; local where it says nothing."""
    params = load_yaml(PARAMS)
    given = {name: params[name] for name in Launch.model_fields if name in params}
    return parse(Launch, given, str(PARAMS))


def each(work: Callable[[T], None], tasks: Mapping[str, T], launch: Launch, what: str) -> None:
    """Call `work(task)` for every named task; each publishes its own output, atomically.

    work: a function of a module, since other processes import it; on Ray it starts with none of
    this process's settings, so it applies `Compute` itself. Tasks are picklable. what: a plural for
    progress and errors ("SAE cells"). All are tried: an InputError then names those that failed and
    why. Leave out the tasks whose output is there already.
    """
    if not tasks:
        return
    run = _one_after_another
    if launch.launch == "ray":
        from langsae.launch_ray import on_ray as run
    with tqdm(total=len(tasks), desc=what, unit="task") as bar:
        faults = run(work, tasks, launch, bar)
    failed = [f"{name}: {faults[name]}" for name in tasks if name in faults]
    if failed:
        raise InputError(f"{what}: {len(failed)} of {len(tasks)} failed; the others are kept, run "
                         f"again once these are mended: {'; '.join(failed)}")  # fmt: skip


def _one_after_another(
    work: Callable[[T], None], tasks: Mapping[str, T], launch: Launch, bar: tqdm
) -> dict[str, str]:
    """Why tasks failed, by name."""
    faults = {}
    for name, task in tasks.items():
        fault = attempt(work, task)
        if fault is not None:
            faults[name], trace = fault
            sys.stderr.write(trace)
        bar.update()
    return faults
