"""Locks, and that a stage runs once at a time in a folder."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langsae import locks
from langsae.errors import InputError

# a stage that waits until a file `go` is there
STAGE = """
import sys, time
from pathlib import Path
from langsae.command import run
def main():
    Path(f"started-{sys.argv[1]}").touch()
    while not Path("go").exists():
        time.sleep(0.02)
    Path(f"done-{sys.argv[1]}").touch()
run(main)
"""


def start(folder: Path, name: str) -> subprocess.Popen:
    (folder / "waits.py").write_text(STAGE)
    return subprocess.Popen(
        [sys.executable, "-m", "waits", name], cwd=folder, stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_the_same_stage_again_is_refused_and_names_the_first(tmp_path):
    first = start(tmp_path, "a")
    wait_for(tmp_path / "started-a")
    second = start(tmp_path, "a")
    said = second.communicate(timeout=60)[1]
    assert second.returncode == 2
    assert said.count("\n") == 1
    assert f"`waits a` already runs here, on host {socket.gethostname()}" in said
    assert f"process {first.pid}," in said
    other = start(tmp_path, "b")  # another key of the stage is not in the way
    wait_for(tmp_path / "started-b")
    (tmp_path / "go").touch()
    assert first.wait(timeout=60) == other.wait(timeout=60) == 0
    assert (tmp_path / "done-a").exists()
    assert not (tmp_path / "scratch").exists()


def test_a_killed_stage_is_not_in_the_way(tmp_path):
    first = start(tmp_path, "a")
    wait_for(tmp_path / "started-a")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert list((tmp_path / "scratch").iterdir()) != []  # what it held lies there still
    (tmp_path / "go").touch()
    assert start(tmp_path, "a").wait(timeout=60) == 0
    assert not (tmp_path / "scratch").exists()


def test_without_locks_in_the_file_system_a_stage_runs_and_the_runner_says_so(
    tmp_path, monkeypatch
):
    def unable(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unable)
    with locks.held_if_possible(tmp_path / "lock", "it"):
        pass
    with pytest.raises(InputError, match="has no locks"), locks.held(tmp_path / "lock", "it"):
        pass


def test_a_lock_that_its_holder_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Between opening the file and locking it the last holder may remove it, folder and all."""
    path, opened = tmp_path / "folder" / "lock", []

    def removed_once(file, kind, flock=fcntl.flock):
        if not opened:
            path.unlink()
            path.parent.rmdir()
        opened.append(file)
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", removed_once)
    with locks.held(path, "it"):
        assert len(opened) == 2
        assert locks.holder(path).process == os.getpid()
    assert not path.parent.exists()
    assert locks.holder(path) is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "scratch").write_text("a file")
    with (
        pytest.raises(InputError, match="cannot be written"),
        locks.held(tmp_path / "scratch" / "lock", "it"),
    ):
        pass
