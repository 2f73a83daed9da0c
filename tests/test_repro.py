"""`langsae repro` against real DVC: one at a time, signals, exit status, what kills leave."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from langsae import dvc_repro, repro, rwlock
from langsae.errors import InputError

# Says that it runs and which signals it got, and ends when told to, or after a minute.
STAGE = """
import os, pathlib, signal, time
def noted(number, _):
    with open("signals", "a") as file:
        file.write(f"{number}\\n")
    raise SystemExit(1)
signal.signal(signal.SIGTERM, noted)
signal.signal(signal.SIGINT, noted)
pathlib.Path("pid").write_text(str(os.getpid()))
deadline = time.monotonic() + 60
while not pathlib.Path("go").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
pathlib.Path("out").write_text("made")
"""
PIPELINE = "stages: {slow: {cmd: python stage.py, outs: [out]}, bad: {cmd: python -c 'exit(3)'}}\n"


class Project:
    def __init__(self, root: Path):
        self.root = root
        (root / ".dvc" / "tmp").mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        (root / "dvc.yaml").write_text(PIPELINE)
        (root / "stage.py").write_text(STAGE)
        self.rwlock = root / ".dvc" / "tmp" / "rwlock"
        self.running: list[subprocess.Popen] = []

    def start(self, *arguments: str, plain: bool = False) -> subprocess.Popen:
        command = ["dvc", "repro"] if plain else ["langsae.cli", "repro"]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, *arguments], cwd=self.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"DVC_SITE_CACHE_DIR": str(self.root / "site")},
        )  # fmt: skip
        self.running.append(process)
        return process

    def run(self, *arguments: str, plain: bool = False) -> tuple[int, str]:
        process = self.start(*arguments, plain=plain)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output + errors

    def stage(self) -> int:
        """The process id of the stage, once it runs."""
        path, deadline = self.root / "pid", time.monotonic() + 30
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return int(path.read_text())

    def go(self) -> None:
        (self.root / "go").touch()

    def stop(self) -> None:
        self.go()
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    yield project
    project.stop()


def gone(pid: int) -> bool:
    """Whether the process ends within seconds (one that nobody has waited for yet counts)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


def test_arguments_and_exit_status_are_dvcs(project):
    project.go()
    status, output = project.run("--dry", "slow")
    assert status == 0
    assert "Running stage 'slow'" in output
    assert not (project.root / "out").exists()
    assert project.run("-s", "slow")[0] == 0
    assert (project.root / "out").read_text() == "made"
    assert project.run("bad")[0] == project.run("bad", plain=True)[0] != 0
    assert repro.holder(project.root) is None


def test_a_second_run_is_refused_and_sigterm_ends_the_whole_of_the_first(project):
    first = project.start("slow")
    stage = project.stage()
    status, output = project.run("slow")
    assert status == 2
    message = output.strip().splitlines()
    assert len(message) == 1
    assert f"on host {socket.gethostname()}, process {first.pid}, since 20" in message[0]
    held = repro.holder(project.root)
    assert held.process == first.pid
    age = datetime.now(UTC) - datetime.fromisoformat(held.started)
    assert timedelta(0) <= age < timedelta(minutes=1)

    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)
    assert first.returncode == 128 + signal.SIGTERM
    assert gone(stage)
    assert (project.root / "signals").read_text() == f"{int(signal.SIGTERM)}\n"
    assert rwlock.stale(project.rwlock.parent) == []
    project.go()
    assert project.run("slow")[0] == 0  # it resumes
    assert (project.root / "out").read_text() == "made"


def test_an_interrupt_reaches_the_stage_once(project):
    first = project.start("slow")
    project.stage()
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert (project.root / "signals").read_text() == f"{int(signal.SIGINT)}\n"
    assert first.returncode not in (0, 2)
    assert repro.holder(project.root) is None


def test_a_killed_runner_leaves_its_dvc_the_lock(project):
    first = project.start("slow")
    project.stage()
    dvc = repro.holder(project.root).child
    first.kill()
    first.wait()
    status, output = project.run("slow")
    assert status == 2
    assert f"process {dvc}," in output
    project.go()
    assert gone(dvc)
    assert (project.root / "out").read_text() == "made"
    assert repro.holder(project.root) is None
    assert project.run("slow")[0] == 0


def test_a_killed_dvc_takes_its_stage_with_it(project):
    """As the kernel does when memory is short: no stage goes on once the lock is free."""
    first = project.start("slow")
    stage = project.stage()
    os.kill(repro.holder(project.root).child, signal.SIGKILL)
    first.communicate(timeout=30)
    assert first.returncode == 128 + signal.SIGKILL
    assert (project.root / "signals").read_text() == f"{int(signal.SIGTERM)}\n"
    assert gone(stage)
    assert rwlock.stale(project.rwlock.parent) == []


def test_what_a_killed_dvc_leaves_is_cleared(project):
    """SIGKILL leaves entries of processes that are gone, or an empty file, and then DVC stops."""
    first = project.start("slow", plain=True)
    stage = project.stage()
    os.killpg(first.pid, signal.SIGKILL)
    assert gone(stage)
    first.communicate()
    assert f'"pid": {first.pid}' in project.rwlock.read_text()
    project.go()
    status, output = project.run("slow")
    assert status == 0
    assert f"process {first.pid}, which is gone" in output

    project.rwlock.write_text("")
    assert project.run("slow", plain=True)[0] != 0  # or clearing it would prove nothing
    assert project.run("slow")[0] == 0


def test_only_stale_entries_go(tmp_path):
    """A live process stays; a number given out again, to us or anybody, does not."""
    other = subprocess.Popen([sys.executable, "-c", "input()", "dvc", "repro"],
                             stdin=subprocess.PIPE)  # fmt: skip
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    live = {"pid": other.pid, "cmd": "/usr/bin/dvc dvc repro"}
    reused = {"pid": other.pid, "cmd": "/usr/bin/dvc exp run"}
    ours = {"pid": os.getpid(), "cmd": " ".join(sys.argv)}
    dead = {"pid": ended.pid, "cmd": "/usr/bin/dvc repro"}
    path = tmp_path / "rwlock"
    path.write_text(json.dumps({
        "write": {"/a": live, "/b": reused, "/c": ours},
        "read": {"/d": [dead, live], "/e": [dead]},
    }))  # fmt: skip
    before = path.read_text()
    assert len(rwlock.stale(tmp_path)) == 3
    assert path.read_text() == before
    assert len(rwlock.clear_stale(tmp_path)) == 3
    assert json.loads(path.read_text()) == {"write": {"/a": live}, "read": {"/d": [live]}}
    other.communicate(b"\n")
    assert len(rwlock.clear_stale(tmp_path)) == 1
    assert not path.exists()
    for broken in ("", "{", "[]", '{"write": {"/a": {"cmd": "x"}}}', '{"read": 3}'):
        path.write_text(broken)
        assert rwlock.clear_stale(tmp_path) == ["a file that a killed run cut short"]
        assert not path.exists()
    path.write_text("{}")
    assert rwlock.clear_stale(tmp_path) == []


def test_outside_a_project_and_on_a_read_only_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="in no DVC project"):
        repro.run([])
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "tmp").touch()  # root may write anywhere, but in no file
    with pytest.raises(InputError, match="cannot be written"):
        repro.run([])


@pytest.mark.parametrize("left", [b"MADE", b""], ids=["a flipped bit", "a power cut"])
def test_a_damaged_object_of_the_cache_is_thrown_away(project, left):
    """DVC itself trusts it, because it is read-only."""
    project.go()
    assert project.run("slow")[0] == 0
    name = hashlib.md5(b"made").hexdigest()
    cached = project.root / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    assert cached.read_bytes() == b"made"
    cached.chmod(0o644)
    cached.write_bytes(left)
    cached.chmod(0o444)
    (project.root / "out").unlink()
    status, output = project.run("slow")
    assert status == 0
    assert (project.root / "out").read_bytes() == cached.read_bytes() == b"made"
    assert "Running stage 'slow'" in output
    assert f"langsae: stored objects damaged: files/md5/{name[:2]}/{name[2:]}" in output


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.8])
def test_half_a_dvc_lock_does_not_stop_the_next_run(project, share):
    (project.root / "dvc.yaml").write_text(PIPELINE.replace("outs:", "deps: [stage.py], outs:"))
    project.go()
    assert project.run("slow")[0] == 0
    lock = project.root / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[: int(share * len(whole))])
    assert share or project.run("slow", plain=True)[0] != 0
    status, output = project.run("slow")
    assert status == 0
    assert "Running stage" not in output  # the run-cache knows it
    assert lock.read_bytes() == whole
    assert (project.root / "out").read_text() == "made"


def test_a_dvc_lock_to_be_merged_is_left_alone(project):
    text = "schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\n"
    (project.root / "dvc.lock").write_text(text)
    dvc_repro.clear_torn_lock(project.root)
    assert (project.root / "dvc.lock").read_text() == text


def test_a_kill_while_dvc_writes_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    from dvc.fs import localfs
    from dvc.utils.serialize import _common, _yaml

    class Unwritable:
        pass

    path = tmp_path / "dvc.lock"
    path.write_text("stages: {}\n")
    monkeypatch.setattr(_common, "_dump_data", _common._dump_data)  # put back afterwards
    monkeypatch.setattr(_yaml, "_dump_data", _yaml._dump_data)
    dvc_repro.write_whole()
    with _yaml.modify_yaml(path, fs=localfs) as content:
        content["stages"]["first"] = {"cmd": "true"}
    assert path.read_text() == "stages:\n  first:\n    cmd: 'true'\n"
    before = path.read_bytes()
    with pytest.raises(Exception, match="Unwritable"), _yaml.modify_yaml(path, fs=localfs) as both:
        both["stages"]["second"] = Unwritable()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
