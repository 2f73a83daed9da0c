"""`dvc repro` as `langsae repro` starts it: DVC, and what DVC keeps to itself about a remote.

With a remote's `verify` on, DVC 3 throws a damaged object away and runs the stage instead, and says
the reason only to its debug log. Here that log is listened to, and the end of the run names the
objects and the stages in one line.

DVC also trusts whatever lies read-only in its cache, as after a power cut that left a file empty.
Here each object is hashed before it is used, once a run, and thrown away when it is another. And
it empties dvc.lock before it takes a second to write it: here the file is put in place whole.
"""

import hashlib
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from langsae.files import publish
from langsae.repro import project

TORN = Path(".dvc", "tmp", "dvc.lock.torn")
SHOWN = 5  # objects and stages that a line names before it only counts the rest
_DB = "dvc_data.hashfile.db"  # where DVC says, when debugging, that an object is damaged
_OBJECT = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
_IN_CACHE = re.compile(r"\b([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)\b")
_CLIENTS = ("botocore", "aiobotocore", "aiohttp")  # whose errors mean that a store was not reached


class Listener(logging.Handler):
    """Collects from DVC's log which objects were damaged, missing or not transferred, which stages
    ran because their outputs could not be had, and whether the store stopped answering."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.damaged: set[str] = set()
        self.missing: set[str] = set()
        self.failed: set[str] = set()
        self.stages: list[str] = []
        self.lost = False

    def emit(self, record: logging.LogRecord) -> None:
        errors = _chain(record)
        text = " ".join([record.getMessage(), *map(str, errors)])
        if text.startswith("corrupted cache file"):
            self.damaged |= {start + rest for start, rest in _IN_CACHE.findall(text)}
        elif text.startswith("Some of the cache files do not exist"):
            self.missing |= set(_OBJECT.findall(text))
        elif text.startswith("failed to transfer"):
            absent = any(isinstance(error, FileNotFoundError) for error in errors)
            (self.missing if absent else self.failed).update(_OBJECT.findall(text))
        elif text.startswith("Unable to pull data for stage: "):
            self.stages.append(text.partition("stage: ")[2].strip("'"))
        elif "is corrupted" in text:
            self.damaged |= set(_OBJECT.findall(text))
        self.lost |= any(type(error).__module__.startswith(_CLIENTS) for error in errors)

    def summary(self, pulling: bool, removed: Sequence[str]) -> str | None:
        """One line on the objects that could not be had; None where there was none.

        removed: the outputs that `discard` took away.
        """
        kinds = {"damaged": self.damaged, "missing": self.missing - self.damaged,
                 "not transferred": self.failed - self.missing - self.damaged}  # fmt: skip
        parts = [f"{kind}: {_named(sorted(map(_path, found)))}"
                 for kind, found in kinds.items() if found]  # fmt: skip
        if self.stages:
            parts.append(f"run here, not pulled: {_named(self.stages)}")
        if removed:
            parts.append(f"removed, as it was not whole: {_named(removed)}")
        if pulling and (self.damaged or self.missing):
            parts.append("to mend the remote, delete there what does not have its name's md5, then "
                         "`dvc push --run-cache` where the results are whole")  # fmt: skip
        elif self.damaged:
            parts.append("thrown away: the stages that made them run again")
        elif self.failed or self.lost:
            parts.append("look at the network and the store, then run this again: it goes on")
        return f"langsae: stored objects {'; '.join(parts)}" if parts else None


def distrust_cache() -> None:
    """Have DVC, in this process, hash what it takes from its cache."""
    from dvc_data.hashfile.db.local import LocalHashFileDB
    from dvc_objects.errors import ObjectFormatError

    trusting, known = LocalHashFileDB.check, set()

    def check(self, oid, check_hash=True, _info=None):
        meta, path = trusting(self, oid, check_hash, _info), self.oid_to_path(oid)
        if path not in known and self.hash_name == "md5":  # not the hashes of DVC 2
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != oid.removesuffix(".dir"):
                Path(path).unlink()
                logging.getLogger(_DB).debug("corrupted cache file '%s'.", path)
                raise ObjectFormatError(f"{oid} is corrupted")
            known.add(path)
        return meta

    LocalHashFileDB.check = check


def write_whole() -> None:
    """Have DVC, in this process, write its YAML files beside their places and rename them."""
    from dvc.fs import LocalFileSystem
    from dvc.utils.serialize import _common, _yaml

    in_place = _common._dump_data

    def dump(path, data, dumper, fs=None, **how):
        if fs is None or isinstance(fs, LocalFileSystem):
            with publish(path) as temporary, temporary.open("w+", encoding="utf-8") as file:
                dumper(data, file, **how)
        else:
            in_place(path, data, dumper, fs, **how)

    _common._dump_data = _yaml._dump_data = dump


def clear_torn_lock(root: Path) -> None:
    """Move a dvc.lock that DVC would not take, as a plain `dvc repro` killed while it writes leaves
    it, out of the way; one with a merge to be finished stays."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    lock = root / "dvc.lock"
    text = lock.read_bytes() if lock.is_file() else None
    if text is None or b"\n<<<<<<< " in text:
        return
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, Invalid):
        lock.replace(root / TORN)
        print(f"langsae: moved dvc.lock, which a killed `dvc repro` left half-written, to {TORN}; "
              "what DVC's run-cache knows is not computed again", file=sys.stderr)  # fmt: skip


def discard(damaged: set[str]) -> list[str]:
    """Remove the outputs that lie here as a damaged listing said; their paths.

    DVC writes a folder's files by its `.dir` object before it checks that object.
    """
    from dvc.repo import Repo

    removed = []
    with Repo() as repo:
        for out in repo.index.outs:
            if out.hash_info.value in damaged and out.exists and out.changed_checksum():
                out.remove()
                removed.append(out.def_path)
    return removed


def _chain(record: logging.LogRecord) -> list[BaseException]:
    """The exception that `record` carries, and those it came from."""
    error = record.exc_info[1] if record.exc_info else None
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _path(oid: str) -> str:
    """Where an object lies below a remote's url."""
    return f"files/md5/{oid[:2]}/{oid[2:]}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _listening() -> Listener:
    """A listener to all that DVC logs; what is on the screen stays as DVC's options have it."""
    logging.getLogger(_DB).setLevel(logging.DEBUG)
    listener = Listener()
    for name in ("dvc", "dvc_data"):
        logger = logging.getLogger(name)
        for handler in logger.handlers:
            handler.addFilter(_is_asked_for)
        logger.addHandler(listener)
    return listener


def _is_asked_for(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.getLogger(record.name.split(".")[0]).level


def main(arguments: Sequence[str]) -> int:
    """Run `dvc ARGUMENTS` in this process; its exit status."""
    from dvc.cli import main as dvc  # its import sets its loggers up

    distrust_cache()
    write_whole()
    clear_torn_lock(project(Path.cwd()))
    listener = _listening()
    status = dvc(list(arguments))
    if status == 0 and not listener.stages:
        listener.missing.clear()  # outputs that git keeps: the run-cache knows of them, no remote
    pulling = "--pull" in arguments
    listings = {name for name in listener.damaged if name.endswith(".dir")}
    removed = discard(listings) if pulling and listings else []
    if summary := listener.summary(pulling, removed):
        print(summary, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
