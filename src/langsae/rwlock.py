"""What killed runs leave in `.dvc/tmp/rwlock`, where DVC notes which process uses which path.

The file is JSON: {"write": {path: {pid, cmd}}, "read": {path: [{pid, cmd}, …]}}. DVC drops a dead
process's entry only where it is in its way, takes a process id that was given out again (always so
in containers) for the old process, and cannot start where the file was cut short.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # as DVC has it

from langsae.files import publish

_WAIT = 3.0  # seconds for a DVC that edits the file, as long as DVC itself waits


def stale(folder: Path) -> list[str]:
    """What is stale in the rwlock of `folder` (.dvc/tmp), a line each; empty where it is sound."""
    return _sorted_out(folder / "rwlock")[0]


def clear_stale(folder: Path) -> list[str]:
    """Remove what is stale in the rwlock of `folder`; what was removed, a line each."""
    path = folder / "rwlock"
    if not path.exists():
        return []
    with open(folder / "rwlock.lock", "a+", encoding="utf-8") as guard:
        if not _guarded(guard):
            return []  # somebody edits it this long: nobody who is dead
        lines, kept = _sorted_out(path)
        if lines and kept:
            with publish(path) as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")
        elif lines:
            path.unlink()
    return lines


def _guarded(file) -> bool:
    """Take the lock that DVC edits its file under; it is freed with the file."""
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _sorted_out(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The stale entries as lines, and the content without them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = list(_entries(content))
    except FileNotFoundError:
        return [], {}
    except (ValueError, TypeError, AttributeError, KeyError):
        return ["a file that a killed run cut short"], {}
    kept: dict[str, Any] = {}
    dead = set()
    for kind, used, entry in entries:
        if not _runs(entry["pid"], entry["cmd"]):
            dead.add(f"process {entry['pid']}, which is gone ({Path(entry['cmd']).name})")
        elif kind == "write":
            kept.setdefault(kind, {})[used] = entry
        else:
            kept.setdefault(kind, {}).setdefault(used, []).append(entry)
    return sorted(dead), kept


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for used, entry in content.get("write", {}).items():
        yield "write", used, {"pid": int(entry["pid"]), "cmd": str(entry["cmd"])}
    for used, entries in content.get("read", {}).items():
        for entry in entries:
            yield "read", used, {"pid": int(entry["pid"]), "cmd": str(entry["cmd"])}


def _runs(pid: int, command: str) -> bool:
    """Whether process `pid` is still the one that was started as `command` (its sys.argv)."""
    try:
        if pid == os.getpid() or pid in {parent.pid for parent in psutil.Process().parents()}:
            return False  # its number given out again: none of these is a DVC
        arguments = psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    except psutil.AccessDenied:
        return True
    return " ".join(arguments).endswith(" ".join(command.split()[1:]))
