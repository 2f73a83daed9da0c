"""One at a time: locks that the kernel drops however their holders end, and that name them."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil  # as DVC has it

from langsae.errors import InputError

_ATTEMPTS, _PAUSE = 5, 0.1  # seconds: somebody who only looks (`holder`) has it for a moment


class NoLocks(InputError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; `child` is the process, if any, that was given it too."""

    host: str
    process: int
    started: str
    child: int | None = None

    def __str__(self) -> str:
        return f"on host {self.host}, process {self._alive()}, since {self.started}"

    def _alive(self) -> int:
        """A killed holder's child goes on, and is then the process to wait for."""
        here = self.host == socket.gethostname()
        if here and self.child is not None and not psutil.pid_exists(self.process):
            return self.child
        return self.process


@contextlib.contextmanager
def held(path: Path, what: str) -> Iterator[IO[str]]:
    """Hold the lock at `path`, whose file says who does; the folder goes with it when empty.

    Raises InputError where another process has it (`what` it then runs) or `path` cannot be
    written, and NoLocks.
    """
    with _taken(path, what) as file:
        started = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        _write(file, Holder(socket.gethostname(), os.getpid(), started))
        try:
            yield file
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                path.parent.rmdir()


@contextlib.contextmanager
def held_if_possible(path: Path, what: str) -> Iterator[None]:
    """The same, but nothing is held where the file system has no locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(NoLocks):
            stack.enter_context(held(path, what))
        yield


def hand_to(child: int, file: IO[str]) -> None:
    """Say that process `child`, which inherited the lock `file`, has it too."""
    if who := _holder(file):
        _write(file, replace(who, child=child))


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path` now."""
    try:
        with open(path, encoding="utf-8") as file:
            return _holder(file) if not _try(file, fcntl.LOCK_SH) else None
    except FileNotFoundError:
        return None


def _taken(path: Path, what: str) -> IO[str]:
    """The locked file at `path`: not one that its last holder has just removed."""
    refused = 0
    while refused < _ATTEMPTS:
        file = _opened(path)
        if file is None:
            continue
        if not _try(file, fcntl.LOCK_EX):
            refused, who = refused + 1, _holder(file)
            time.sleep(_PAUSE)
        elif _is_at(file, path):
            return file
        file.close()
    raise InputError(f"{what} already runs here, {who or 'just starting'}; wait for it, or end "
                     "that process with SIGTERM")  # fmt: skip


def _opened(path: Path) -> IO[str] | None:
    """The file at `path`, made where it was not; None where its folder has just been removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check the folder's "
                         "owner, and that the file system is not read-only") from error  # fmt: skip


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocks(f"{file.name}: this file system has no locks ({error.strerror}); put the "
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
