"""What the hub, the network and the disk do wrong, and what langsae.hub makes of it.

Expected bytes and hashes are of what the test itself put on the stand-in hub.
"""

import hashlib
import json
import os
from pathlib import Path

import pytest

from standin_hub import TOKEN, run_with_hub

WEIGHTS = bytes(range(256)) * 64
CONFIG = b'{"d_in": 3}\n'
FILES = {"config.json": CONFIG, "w.safetensors": WEIGHTS}

# Prints, per case, what became of it: {"files": {name: sha256}}, {"refused": message} or
# {"error": anything else}; and the seconds slept for it. Nothing sleeps for real.
CASES = """
import hashlib, json, logging, time
from pathlib import Path
naps = []
time.sleep = naps.append
logging.getLogger("huggingface_hub").setLevel("ERROR")
from langsae import hub
from langsae.errors import InputError

def outcome(repo, revision, patterns):
    try:
        if patterns is None:
            return {"commit": hub.commit(repo, revision)}
        root = hub.snapshot(repo, revision, patterns)
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        return {"files": hashes, "root": str(root)}
    except InputError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"error": repr(error)}

for case in CASES:
    naps.clear()
    found = outcome(*case)
    print(json.dumps(found | {"naps": [round(nap) for nap in naps]}))
"""


def snapshots(hub, *cases, **environ) -> list[dict]:
    """The outcome of each case (repository, revision, patterns or None) in one process."""
    code = CASES.replace("CASES", repr(cases))
    outcomes = [json.loads(line) for line in run_with_hub(hub, code, **environ).splitlines()]
    assert len(outcomes) == len(cases)
    return outcomes


def other_program(hub, commit: str) -> Path:
    """Where a program that is not langsae put org/model in the cache."""
    code = (
        f'from huggingface_hub import *; print(snapshot_download("org/model", revision="{commit}"))'
    )
    return Path(run_with_hub(hub, code).strip())


def hashes(files: dict[str, bytes] = FILES) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def cached(outcome: dict, name: str) -> Path:
    return Path(outcome["root"], name)


def rewrite(path: Path, data: bytes) -> None:
    """Change a cached file behind the client's back, its times kept."""
    times = path.stat()
    path.resolve().write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


# A transfer of weights, of a small file, or of metadata; how often it goes wrong
PASSING = {
    "503": ("w.safetensors", "unavailable", 3, "GET"),
    "429": ("w.safetensors", "busy", 2, "GET"),
    "reset": ("w.safetensors", "reset", 3, "GET"),
    "truncated": ("w.safetensors", "truncate", 3, "GET"),
    "corrupt": ("w.safetensors", "corrupt", 2, "GET"),
    "corrupt-small": ("config.json", "corrupt", 2, "GET"),
    "head-503": ("w.safetensors", "unavailable", 3, "HEAD"),
    "listing-503": ("", "unavailable", 3, "GET"),
}


def test_what_passes_is_waited_for(hub):
    """Faults of every kind, on a listing or on a transfer, end in the right bytes."""
    cases = []
    for name, (path, kind, times, method) in PASSING.items():
        commit = hub.add_repo(f"org/{name}", FILES, commit=hashlib.sha1(name.encode()).hexdigest())
        where = f"{commit}/{path}" if path else f"models/org/{name}/tree/{commit}"
        hub.fault(where, kind, times, method)
        cases.append((f"org/{name}", commit, ["*"]))
    for name, outcome in zip(PASSING, snapshots(hub, *cases), strict=True):
        assert outcome.get("files") == hashes(), (name, outcome)
        assert outcome["naps"], name  # the fault did happen, and it was not hammered
    assert all(fault.times == 0 for fault in hub.faults.values())


def test_pauses_grow_and_the_hubs_own_wish_is_kept(hub):
    commit = hub.add_repo("org/model", FILES)
    hub.fault("revision/main", "unavailable", 3)
    hub.add_repo("org/busy", FILES)
    hub.fault("models/org/busy/revision/main", "busy", 1)
    for name in ("org/model", "org/busy"):
        hub.repos["model", name].revisions["main"] = commit
    named, busy = snapshots(hub, ("org/model", "main", None), ("org/busy", "main", None))
    assert named == {"commit": commit, "naps": [1, 2, 4]}
    assert busy == {"commit": commit, "naps": [7]}


LASTING = {
    "unavailable": "503",
    "reset": "did not serve it",
    "corrupt": "w.safetensors comes with wrong bytes",
}


def test_what_lasts_is_refused_and_leaves_nothing_wrong_behind(hub):
    cases = []
    for kind in LASTING:
        commit = hub.add_repo(f"org/{kind}", FILES, commit=hashlib.sha1(kind.encode()).hexdigest())
        hub.fault(f"{commit}/w.safetensors", kind, times=1000)
        cases.append((f"org/{kind}", commit, ["*"]))
    outcomes = snapshots(hub, *cases)
    for (kind, message), outcome in zip(LASTING.items(), outcomes, strict=True):
        assert message in outcome.get("refused", ""), (kind, outcome)
        assert f"org/{kind}" in outcome["refused"]
        assert len(outcome["refused"].splitlines()) == 1
    for kind in LASTING:
        folder = hub.folder / "hf_home/hub" / f"models--org--{kind}/snapshots"
        assert not [path for path in folder.rglob("w.safetensors") if path.is_file()]
    hub.faults.clear()  # once the hub is well again, so is the same command
    assert [outcome.get("files") for outcome in snapshots(hub, *cases)] == [hashes()] * len(LASTING)


def test_a_used_file_is_recorded_and_refused_once_it_changed(hub):
    commit = hub.add_repo("org/model", FILES)
    case = ("org/model", commit, ["*"])
    (first,) = snapshots(hub, case)
    manifest = cached(first, ".").resolve().parents[1] / "langsae" / f"{commit}.json"
    assert json.loads(manifest.read_text()) == hashes()
    for name, data in FILES.items():
        blob = cached(first, name).resolve()
        for wrong in (flipped(data), data[:-1], b""):
            rewrite(blob, wrong)
            online, only_other = snapshots(
                hub, case, ("org/model", commit, [n for n in FILES if n != name])
            )
            assert name in online["refused"], (name, online)
            assert f"delete {blob} and run again" in online["refused"]
            assert "refused" not in only_other  # what is not asked for is not looked at
            assert blob.read_bytes() == wrong  # left for its owner to look at
        (offline,) = snapshots(hub, case, HF_HUB_OFFLINE="1")
        assert f"delete {blob}" in offline["refused"]
        blob.unlink()  # as the message says
        (mended,) = snapshots(hub, case)
        assert mended["files"] == hashes()


@pytest.mark.parametrize("name", FILES)
def test_a_broken_download_of_another_program_is_fetched_again(hub, name):
    """A file in the cache that langsae never used: wrong bytes are no reason to stop, online."""
    commit = hub.add_repo("org/model", FILES)
    hub.fault(name, "corrupt")
    root = other_program(hub, commit)
    assert (root / name).read_bytes() != FILES[name]
    case = ("org/model", commit, ["*"])
    (offline,) = snapshots(hub, case, HF_HUB_OFFLINE="1")
    assert name in offline["refused"]
    assert "corrupted" in offline["refused"]
    (online,) = snapshots(hub, case)
    assert online["files"] == hashes()


def test_a_cache_without_a_listing_is_held_to_its_first_use(hub):
    """Older clients left no listing of a commit, and a copied cache may lack it."""
    commit = hub.add_repo("org/model", FILES)
    case = ("org/model", commit, ["*.safetensors"])
    root = other_program(hub, commit)
    (root.parents[1] / "trees" / f"{commit}.json").unlink()
    first, again = snapshots(hub, case, case, HF_HUB_OFFLINE="1")
    assert first["files"] == again["files"] == hashes()
    rewrite(root / "w.safetensors", flipped(WEIGHTS))
    (changed,) = snapshots(hub, case, HF_HUB_OFFLINE="1")
    assert "w.safetensors: corrupted" in changed["refused"]
    (root / "w.safetensors").unlink()
    (missing,) = snapshots(hub, case, HF_HUB_OFFLINE="1")
    assert "w.safetensors: used before and now missing" in missing["refused"]


def test_offline_the_cache_serves_and_the_hub_is_not_asked(hub):
    commit = hub.add_repo("org/model", FILES)
    other = hub.add_repo("org/other", FILES)
    case, absent = ("org/model", commit, ["config.json"]), ("org/other", other, ["*"])
    snapshots(hub, case)
    asked = len(hub.requests)
    cases = (case, ("org/model", commit, ["*"]), absent, ("org/model", "main", None))
    here, partly, nowhere, branch = snapshots(hub, *cases, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == asked
    assert here["files"] == hashes({"config.json": CONFIG})
    for outcome in (partly, nowhere):
        assert "not whole in the cache, and HF_HUB_OFFLINE is set" in outcome["refused"]
    assert "pin a commit" in branch["refused"]
    assert not any(outcome["naps"] for outcome in (here, partly, nowhere, branch))


def test_wrong_names_pins_and_licences_are_refused_at_once(hub):
    commit = hub.add_repo("org/model", FILES)
    locked = hub.add_repo("org/locked", FILES, gated=True)
    cases = {
        "can move; pin a 40-digit commit": ("org/model", "main", ["*"]),
        f"has no revision {'0' * 40}": ("org/model", "0" * 40, ["*"]),
        "holds no file like absent.npz": ("org/model", commit, ["absent.npz"]),
        "no such repository, or not yours to see": ("org/none", commit, ["*"]),
        "is no repository name": ("a/b/c", commit, ["*"]),
        f"accept its licence on {hub.url}/org/locked": ("org/locked", locked, ["*"]),
    }
    outcomes = snapshots(hub, *cases.values())
    for (message, case), outcome in zip(cases.items(), outcomes, strict=True):
        assert message in outcome.get("refused", ""), outcome
        assert case[0] in outcome["refused"]
        assert not outcome["naps"]
    (not_granted,) = snapshots(hub, cases.popitem()[1], HF_TOKEN="another-token")
    assert "is gated" in not_granted["refused"]
    assert "another-token" not in not_granted["refused"]
    (granted,) = snapshots(hub, ("org/locked", locked, ["*"]), HF_TOKEN=TOKEN)
    assert granted["files"] == hashes()


def test_a_read_only_cache_serves(hub):
    """A cache that many share; as root nothing is read-only, so a file stands in the way."""
    commit = hub.add_repo("org/model", FILES)
    root = other_program(hub, commit)
    (root.parents[1] / "langsae").write_text("no folder can be made here")
    (found,) = snapshots(hub, ("org/model", commit, ["*"]))
    assert found["files"] == hashes()


def test_a_streamed_file_survives_faults(hub):
    commit = hub.add_repo("org/data", {"x.parquet": WEIGHTS}, "dataset")
    hub.fault("x.parquet", "unavailable", 2)
    hub.fault("paths-info/" + commit, "unavailable", 2, "POST")
    code = f"""
import time
naps = []
time.sleep = naps.append
from langsae import hub
with hub.explained("org/data", "{commit}", "dataset"):
    file = hub.stream("org/data", "{commit}", "x.parquet")
    file.seek(256)
    print(file.read(3) == bytes(range(3)), len(naps))
"""
    right, naps = run_with_hub(hub, code).split()
    assert right == "True"
    assert int(naps) >= 2
