"""`langsae repro`: `dvc repro`, one at a time, stopped as a whole, never blocked by a killed one.

DVC locks the files of each stage, but what it wrote down outlives a kill: an empty or stale
`.dvc/tmp/rwlock` blocks every later run, and two runs of one stage can still meet on a shared
volume. Here one flock is held around all of `dvc repro`; the kernel drops it however its holders
end. Plain `dvc repro` still works, beside it or instead.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil  # as DVC has it

from langsae.errors import InputError
from langsae.remote_access import require_remote
from langsae.rwlock import clear_stale

LOCK = Path(".dvc", "tmp", "langsae-repro.lock")
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_ATTEMPTS, _PAUSE = 5, 0.1  # seconds: somebody who only looks (`holder`) has it for a moment
_GRACE = 8.0  # seconds that a stopped run's stages get to end; Docker kills after ten


@dataclass(frozen=True)
class Holder:
    """Who holds the lock; `dvc` is the process id of the `dvc repro` it started, once it has."""

    host: str
    process: int
    started: str
    dvc: int | None = None

    def __str__(self) -> str:
        return f"on host {self.host}, process {self._alive()}, since {self.started}"

    def _alive(self) -> int:
        """A killed runner's `dvc repro` goes on, and is then the process to wait for."""
        here = self.host == socket.gethostname()
        if here and self.dvc is not None and not psutil.pid_exists(self.process):
            return self.dvc
        return self.process


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
    with _locked(root / LOCK) as file:
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


def holder(root: Path) -> Holder | None:
    """Who runs `langsae repro` in the project at `root` now."""
    try:
        with open(root / LOCK, encoding="utf-8") as file:
            return _holder(file) if not _try(file, fcntl.LOCK_SH) else None
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Hold the lock at `path`; the file says who does, for others to read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check the folder's "
                         "owner, and that the file system is not read-only") from error  # fmt: skip
    with file:
        for attempt in range(_ATTEMPTS):
            if _try(file, fcntl.LOCK_EX):
                break
            if attempt + 1 == _ATTEMPTS:
                who = _holder(file)
                raise InputError(f"`langsae repro` already runs here, {who or 'just starting'}; "
                                 "wait for it, or end that process with SIGTERM")  # fmt: skip
            time.sleep(_PAUSE)
        started = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        _write(file, Holder(socket.gethostname(), os.getpid(), started))
        try:
            yield file
        finally:
            file.truncate(0)


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(f"{file.name}: this file system has no locks ({error.strerror}); put the "
                         "project on one that has, or take care to run plain `dvc repro` once at a "
                         "time") from error  # fmt: skip
    return True


def _holder(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):
        return None  # between taking the lock and writing, or after a power cut


def _write(file: IO[str], who: Holder) -> None:
    file.truncate(0)
    file.write(json.dumps(asdict(who)))
    file.flush()


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
        if who := _holder(lock):
            _write(lock, replace(who, dvc=child.pid))
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
