"""Artifacts by way of a folder and of an S3 store: nothing recomputed, and every fault of either.

A small project stands for ours: its stages make folders, one measures, one gives verdicts. The
store is moto's server, which checks signatures and rights; objects are spoilt in it as they lie.
Each fault is there once without -m slow, which adds the other kind of remote to it.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from s3fs import S3FileSystem

from langsae import dvc_repro, remote_access, verify
from langsae.errors import InputError
from s3_server import BUCKET, S3Server
from working_copy import ROOT, Done, WorkingCopy

MAKE = """
import pathlib, sys
out = pathlib.Path("artifacts", sys.argv[1])
out.mkdir(parents=True)
for i in range(3):
    (out / f"{i}.bin").write_bytes(f"{sys.argv[1]} {i} ".encode() * 500)
"""
MEASURE = """
import pathlib
from langsae.evidence import Recorder
files = sorted(pathlib.Path("artifacts/whole").iterdir())
recorder = Recorder("toy", "paper", 0, {})
recorder.measure("size/bytes", "as published", sum(file.stat().st_size for file in files))
recorder.measure("size/files", "as published", len(files))
recorder.write()
"""
PUBLISHED = """
study: toy
sources: {paper: none}
tolerances: {exact: {absolute: 0, why: counts}}
claims:
  - {id: size/bytes, value: 12000, unit: bytes, source: paper, tolerance: exact}
  - {id: size/files, value: 4, unit: files, source: paper, tolerance: exact}
"""
# A stage each whose stored objects are spoilt so; "listing" is DVC's object that names the files.
FAULTS = ("flipped", "truncated", "missing", "listing_cut", "listing_renamed", "listing_missing")
STAGES = {f"make@{name}" for name in ("whole", *FAULTS)} | {"measure", "verify"}
PIPELINE = f"""
stages:
  make:
    foreach: [whole, {", ".join(FAULTS)}]
    do: {{cmd: "python make.py ${{item}}", deps: [make.py], outs: ["artifacts/${{item}}"]}}
  measure:
    cmd: python measure.py
    deps: [artifacts/whole, measure.py]
    metrics: [{{results/toy/paper.json: {{cache: false}}}}]
  verify:
    cmd: python -m langsae.verify
    deps: [results/toy/paper.json, replications/toy/published.yaml]
    outs: [{{results/verification.json: {{cache: false, persist: true}}}}]
"""
VERDICTS = [
    {"study": "toy", "variant": "as published", "basis": "rerun", "id": id, "verdict": verdict}
    for id, verdict in (("size/bytes", "reproduced"), ("size/files", "differs"))
]
REMOTE = """
['remote "store"']
    url = s3://{bucket}/dvc
    endpointurl = {url}
    verify = true
"""


class FolderStore:
    """A folder remote, its objects by the keys that an S3 remote has them under."""

    def __init__(self, root: Path):
        self.root = root

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        self.delete(key)
        (self.root / key).write_bytes(data)

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)


class BucketStore:
    """The same of an S3 remote."""

    def __init__(self, server: S3Server):
        self.server = server

    def read(self, key: str) -> bytes:
        return self.server.read(f"dvc/{key}")

    def write(self, key: str, data: bytes) -> None:
        self.server.write(f"dvc/{key}", data)

    def delete(self, key: str) -> None:
        self.server.delete(f"dvc/{key}")


class Project(NamedTuple):
    copy: WorkingCopy
    server: S3Server
    stores: dict[str, FolderStore | BucketStore]  # by the remote's name
    pushes: list[Done]

    def clone(self, name: str, remote: str, **environ: str) -> WorkingCopy:
        """A fresh clone that pulls from `remote`."""
        copy = self.copy.clone(self.copy.root.with_name(name))
        copy.environ.update(environ)
        local = copy.root / ".dvc" / "config.local"
        local.write_text(f"[core]\n    remote = {remote}\n")
        return copy

    def listing(self, stage: str) -> str:
        """The key of the object that lists the files of a stage's folder."""
        lock = yaml.safe_load((self.copy.root / "dvc.lock").read_text())
        return key_of(lock["stages"][f"make@{stage}"]["outs"][0]["md5"])

    def file(self, stage: str) -> str:
        """The key of one of the files in it."""
        return key_of(json.loads(self.stores["folder"].read(self.listing(stage)))[1]["md5"])


def key_of(oid: str) -> str:
    return f"files/md5/{oid[:2]}/{oid[2:]}"


def last_line(done: Done) -> str:
    return done.errors.strip().splitlines()[-1]


def refused(done: Done) -> str:
    """The one line of a command that refuses."""
    assert done.status == 2, done
    assert done.stages == []
    assert len(done.errors.strip().splitlines()) == 1, done.errors
    return done.errors


@pytest.fixture(scope="module")
def server():
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def project(server, tmp_path_factory) -> Project:
    """A project that ran, and pushed to a folder and, in two goes, to a store."""
    root = tmp_path_factory.mktemp("remotes") / "one"
    (root / "replications" / "toy").mkdir(parents=True)
    (root / "replications" / "toy" / "published.yaml").write_text(PUBLISHED)
    (root / "make.py").write_text(MAKE)
    (root / "measure.py").write_text(MEASURE)
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "results").mkdir()
    (root / verify.VERIFICATION).write_text(json.dumps(VERDICTS))
    (root / ".gitignore").write_text("artifacts/\n*.manifest.json\n")
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
    with open(root / ".dvc" / "config", "a") as config:
        config.write(REMOTE.format(bucket=BUCKET, url=server.url))
    copy = WorkingCopy(root, **server.environ, PYTHONPATH=f"{ROOT / 'src'}")
    copy.run("git", "init", "--quiet")
    assert set(copy.run("langsae", "repro").stages) == STAGES
    copy.commit()
    copy.run("dvc", "push", "--run-cache")
    with server.stop_after(5):
        cut_short = copy.run("dvc", "push", "--run-cache", "--remote", "store", check=False)
    pushes = [cut_short, copy.run("dvc", "push", "--run-cache", "--remote", "store")]
    stores = {"folder": FolderStore(root.with_name("langsae-remote")),
              "store": BucketStore(server)}  # fmt: skip
    return Project(copy, server, stores, pushes)


def test_a_push_that_a_stopping_server_cut_short_is_finished_by_the_next(project):
    first, second = project.pushes
    assert first.status != 0
    assert "ERROR" in first.errors
    assert second.status == 0
    stored = {key.removeprefix("dvc/") for key in project.server.keys("dvc/files/")}
    folder = project.stores["folder"].root
    assert stored == {path.relative_to(folder).as_posix()
                      for path in (folder / "files").rglob("*") if path.is_file()}  # fmt: skip
    assert len(stored) == 4 * (1 + len(FAULTS))


@pytest.mark.parametrize("remote", [pytest.param("folder", marks=pytest.mark.slow), "store"])
def test_a_fresh_clone_recomputes_nothing_and_gives_the_same_verdicts(project, remote):
    """Without dvc.lock, only the run-cache knows what the stages gave."""
    clone = project.clone(f"good-{remote}", remote, **project.server.environ)
    (clone.root / "dvc.lock").unlink()
    pulled = clone.run("langsae", "repro", "--pull")
    assert set(pulled.stages) <= {"measure", "verify"}  # whose results are git's, not DVC's
    assert "langsae:" not in pulled.errors
    assert clone.tree("artifacts") == project.copy.tree("artifacts")
    assert clone.tree("results").keys() >= {"results/toy/paper.json"}
    assert (clone.root / verify.VERIFICATION).read_bytes() == (
        project.copy.root / verify.VERIFICATION
    ).read_bytes()
    assert (clone.root / "dvc.lock").read_bytes() == (project.copy.root / "dvc.lock").read_bytes()


# --- objects that are spoilt where they lie


class Spoilt(NamedTuple):
    project: Project
    clone: WorkingCopy
    run: Done
    again: Done  # with the objects as they were
    left: dict[str, bytes]  # artifacts after the first run


@contextlib.contextmanager
def spoilt_objects(project: Project, store: FolderStore | BucketStore) -> Iterator[None]:
    """Each stage of FAULTS with an object as its name says, while it lasts."""
    keys = {name: project.listing(name) if "listing" in name else project.file(name)
            for name in FAULTS}  # fmt: skip
    good = {key: store.read(key) for key in keys.values()}
    for name, key in keys.items():
        data = good[key]
        if name.endswith("missing"):
            store.delete(key)
        elif name == "flipped":
            store.write(key, data[:-1] + bytes([data[-1] ^ 1]))
        elif name == "listing_renamed":
            store.write(key, data.replace(b"0.bin", b"9.bin"))
        else:
            store.write(key, data[: len(data) // 2])
    try:
        yield
    finally:
        for key, data in good.items():
            store.write(key, data)


@pytest.fixture(scope="module", params=["folder", pytest.param("store", marks=pytest.mark.slow)])
def spoilt(request, project) -> Spoilt:
    clone = project.clone(f"spoilt-{request.param}", request.param, **project.server.environ)
    with spoilt_objects(project, project.stores[request.param]):
        run = clone.run("langsae", "repro", "--pull", "--keep-going", check=False)
    left = clone.tree("artifacts")
    return Spoilt(project, clone, run, clone.run("langsae", "repro", "--pull"), left)


@pytest.mark.parametrize("name", FAULTS)
def test_a_spoilt_object_is_named_and_gives_a_correct_result_or_none(spoilt, name):
    project, _, run, _, left = spoilt
    key = project.listing(name) if "listing" in name else project.file(name)
    kind = "missing" if "missing" in name else "damaged"
    parts = dict(part.split(": ", 1) for part in
                 last_line(run).removeprefix("langsae: stored objects ").split("; ")
                 if ": " in part)  # fmt: skip
    assert key in parts[kind].split(", ")
    mine = {path: data for path, data in left.items() if path.startswith(f"artifacts/{name}/")}
    good = {path: data for path, data in project.copy.tree("artifacts").items()
            if path.startswith(f"artifacts/{name}/")}  # fmt: skip
    ran = f"make@{name}" in run.stages
    assert mine == (good if ran else {})
    assert ran == (f"make@{name}" in parts.get("run here, not pulled", ""))
    assert ran or run.status != 0


def test_what_is_whole_is_pulled_all_the_same(spoilt):
    assert not set(spoilt.run.stages) - {f"make@{name}" for name in FAULTS}
    good = spoilt.project.copy.tree("artifacts/whole")
    assert {path: spoilt.left[path] for path in good} == good
    assert "`dvc push --run-cache` where the results are whole" in last_line(spoilt.run)


def test_once_the_remote_is_mended_the_same_clone_pulls(spoilt):
    assert spoilt.again.stages == []
    assert "langsae:" not in spoilt.again.errors
    assert spoilt.clone.tree("artifacts") == spoilt.project.copy.tree("artifacts")


# --- remotes that cannot be used


def test_wrong_credentials_are_refused_in_one_line(project, tmp_path):
    environ = project.server.environ | {"AWS_SECRET_ACCESS_KEY": "someone-elses"}
    clone = project.clone(tmp_path.name, "store", **environ)
    line = refused(clone.run("langsae", "repro", "--pull", check=False))
    assert line.startswith("langsae: error: cannot pull from remote store, s3://langsae/dvc: ")
    assert "refused; check the credentials" in line
    assert "someone-elses" not in line
    assert clone.tree("artifacts") == {}


@pytest.mark.parametrize(
    ("environ", "config", "words"),
    [
        ({}, "", None),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "", "refused; check the credentials"),
        ({"AWS_ACCESS_KEY_ID": ""}, "", "Unable to locate credentials"),
        ({}, "url = s3://nobodys/dvc", "no such bucket; make the bucket"),
        ({}, "endpointurl = http://127.0.0.1:9", "check the network, endpointurl"),
        ({}, "verify = false", "serves a damaged object as good"),
    ],
    ids=["sound", "unknown key", "no key", "no bucket", "nobody there", "not verified"],
)
def test_a_store_that_cannot_be_used(project, monkeypatch, tmp_path, environ, config, words):
    """What `langsae repro --pull` asks first, without DVC's start each time."""
    shutil.copytree(project.copy.root / ".dvc", tmp_path / ".dvc",
                    ignore=shutil.ignore_patterns("cache", "tmp"))  # fmt: skip
    local = f"[core]\n    remote = store\n    no_scm = true\n['remote \"store\"']\n    {config}\n"
    (tmp_path / ".dvc" / "config.local").write_text(local)
    for name, value in (project.server.environ | environ).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    if words is None:
        remote_access.require_remote(tmp_path)
        return
    with pytest.raises(InputError, match=re.escape(words)) as error:
        remote_access.require_remote(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert "or leave --pull out" in str(error.value)


def test_a_folder_that_is_not_mounted_is_refused_in_one_line(project, tmp_path):
    """DVC alone would run every stage."""
    clone = project.clone(tmp_path.name, "folder")
    with open(clone.root / ".dvc" / "config.local", "a") as local:
        local.write(f"['remote \"folder\"']\n    url = {tmp_path / 'nowhere'}\n")
    line = refused(clone.run("langsae", "repro", "--pull", check=False))
    assert f"remote folder, {tmp_path / 'nowhere'}: not there yet" in line
    (clone.root / ".dvc" / "config.local").write_text("[core]\n    remote = other\n")
    line = refused(clone.run("langsae", "repro", "--pull", check=False))
    assert "'other' is the default, but not defined" in line


# --- a store that fails on the way


def test_a_server_that_stops_half_way_and_then_comes_back(project):
    clone = project.clone("stopped", "store", **project.server.environ)
    before = len(project.server.moved)
    with project.server.stop_after(6):
        stopped = clone.run("langsae", "repro", "--pull", check=False)
    assert stopped.status != 0
    assert stopped.stages == []
    assert last_line(stopped).startswith("langsae: stored objects")
    assert "look at the network and the store, then run this again" in last_line(stopped)
    good = project.copy.tree("artifacts")
    assert clone.tree("artifacts").items() <= good.items()
    came = files_moved(project.server, since=before)
    again = clone.run("langsae", "repro", "--pull")
    assert again.stages == []
    assert clone.tree("artifacts") == good
    assert came
    assert not came & files_moved(project.server, since=before + 6)  # nothing is fetched twice


def files_moved(server: S3Server, since: int) -> set[str]:
    """The files, not the listings, that came or went after the first `since` objects."""
    return {path for path in server.moved[since:] if not path.endswith(".dir")}


def test_answers_cut_short_and_a_store_that_is_busy(project):
    """Neither is taken for the object; the others come."""
    clone = project.clone("cut", "store", **project.server.environ)
    cut, busy = project.file("flipped"), project.file("truncated")
    with project.server.fault(cut, "cut"), project.server.fault(busy, "unavailable"):
        done = clone.run("langsae", "repro", "--pull", "--keep-going", check=False)
    assert done.status != 0
    assert done.stages == []
    line = last_line(done)
    assert "not transferred: " in line
    assert cut in line
    assert busy in line
    good = project.copy.tree("artifacts")
    spoilt = ("artifacts/flipped/", "artifacts/truncated/")
    assert clone.tree("artifacts") == {path: data for path, data in good.items()
                                       if not path.startswith(spoilt)}  # fmt: skip


@pytest.mark.slow
def test_a_fresh_users_path_is_timed(project, tmp_path):
    script, environ = str(ROOT / "bench" / "fresh_user.sh"), project.copy.environ
    settings = {"CHECKOUT": str(project.copy.root), "SETUP": "mkdir .venv"}
    here = WorkingCopy(tmp_path, **environ | settings)
    done = here.run("bash", script, str(tmp_path / "fresh"))
    assert [line.split("|")[1].strip() for line in done.output.splitlines()[1:]] == [
        "step", "---", "clone", "environment", "artifacts, `langsae repro --pull`",
        "verdicts, `langsae verify`", "in all",
    ]  # fmt: skip
    assert f"remote {project.copy.root}/.dvc/../../langsae-remote" in done.output
    here.environ["REMOTE"] = str(tmp_path / "nowhere")
    failed = here.run("bash", script, str(tmp_path / "other"), check=False)
    assert failed.status != 0
    assert "cannot pull from remote folder" in failed.errors


# --- what is said, without DVC


def test_a_summary_counts_what_it_does_not_name():
    listener = dvc_repro.Listener()
    assert listener.summary(True, []) is None
    listener.damaged = {f"{i:032x}.dir" for i in range(7)}
    line = listener.summary(True, ["artifacts/one"])
    assert f"damaged: files/md5/00/{0:030x}.dir" in line
    assert " and 2 more; removed, as it was not whole: artifacts/one; to mend" in line
    assert listener.summary(False, []).endswith("run again")


# --- our own pipeline


@pytest.mark.slow
@pytest.mark.timeout(2400)  # it computes the whole profile
def test_the_smoke_profile_by_way_of_a_store(server, tmp_path):
    copy = WorkingCopy.make(tmp_path / "one", **server.environ)
    with open(copy.root / ".dvc" / "config", "a") as config:
        config.write(REMOTE.format(bucket=BUCKET, url=server.url).replace("/dvc", "/smoke"))
    copy.run("dvc", "remote", "default", "store")
    copy.run("langsae", "profile", "smoke")
    copy.run("langsae", "repro")
    copy.commit()
    copy.run("dvc", "push", "--run-cache")
    clone = copy.clone(tmp_path / "two")
    clone.environ.update(server.environ)
    pulled = clone.run("langsae", "repro", "--pull")
    assert pulled.stages == []
    assert clone.tree("artifacts") == copy.tree("artifacts")
    assert clone.run("langsae", "verify").output == copy.run("langsae", "verify").output
