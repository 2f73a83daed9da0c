"""`langsae repro`: `dvc repro`, one at a time, stopped as a whole, never blocked by a killed one.

DVC locks the files of each stage, but what it wrote down outlives a kill: an empty or stale
`.dvc/tmp/rwlock` blocks every later run, half a dvc.lock does, too, and two runs of one stage can
still meet on a shared volume. Here one flock is held around all of `dvc repro`; the kernel drops it
however its holders end. Plain `dvc repro` still works, beside it or instead.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from langsae import locks
from langsae.errors import InputError
from langsae.remote_access import require_remote
from langsae.rwlock import clear_stale

LOCK = Path(".dvc", "tmp", "langsae-repro.lock")
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_GRACE = 8.0  # seconds that a stopped run's stages get to end; Docker kills after ten


def run(arguments: Sequence[str]) -> int:
    """Run `dvc repro ARGUMENTS` here under the project's lock; its exit status.

    A `dvc repro` that a signal ended counts as 128 + the signal's number, as in a shell. Raises
    InputError outside a DVC project, where another run holds the lock, and where it is to pull
    (`--pull`) from a remote that cannot be used.
    """
    root = project(Path.cwd())
    if "--pull" in arguments:
        require_remote(root)
    command = [sys.executable, "-m", "langsae.dvc_repro", "repro", *arguments]
    with locks.held(root / LOCK, "`langsae repro`") as file:
        _clear(root)
        try:
            return _supervised(command, file)
        finally:
            _clear(root)  # what this run left, had it been killed


def project(folder: Path) -> Path:
    """The DVC project that `folder` lies in; InputError outside of any."""
    for root in (folder, *folder.parents):
        if (root / ".dvc").is_dir() and (root / "dvc.yaml").is_file():
            return root
    raise InputError(f"{folder}: in no DVC project; run this in the project's folder")


def holder(root: Path) -> locks.Holder | None:
    """Who runs `langsae repro` in the project at `root` now."""
    return locks.holder(root / LOCK)


def _clear(root: Path) -> None:
    for cleared in clear_stale(root / ".dvc" / "tmp"):
        print(f"langsae: cleared from .dvc/tmp/rwlock: {cleared}", file=sys.stderr)


def _supervised(command: list[str], lock: IO[str]) -> int:
    """Run `command` in a session of its own, forward signals to all of it, return its status.

    The child inherits the lock, so that it stays held if this process alone is killed.
    """
    children: list[subprocess.Popen] = []
    caught: list[int] = []

    def forward(number: int, _) -> None:
        caught.append(number)
        for child in children:
            _signal(child.pid, number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        child = subprocess.Popen(
            command, env=_environ(), start_new_session=True, pass_fds=[lock.fileno()]
        )
        children.append(child)
        for number in list(caught):  # came before there was anybody to forward it to
            _signal(child.pid, number)
        locks.hand_to(child.pid, lock)
        status = child.wait()
        if caught or status < 0:
            _end(child.pid)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _environ() -> dict[str, str]:
    """Stages run as `python -m …`: by this Python, also where its environment is not activated."""
    own = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([own, os.environ.get("PATH", os.defpath)])}


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody there, or zombies only
        return False
    return True


def _end(group: int) -> None:
    """End the stages that a stopped `dvc repro` left, so that none writes once the lock is free."""
    _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline:
        if not _signal(group, 0):
            return
        time.sleep(0.05)
    _signal(group, signal.SIGKILL)
