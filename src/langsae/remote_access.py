"""Whether the default DVC remote is there and checks what it serves."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langsae.errors import InputError

_SECONDS = 5  # for a store to answer before it counts as unreachable


def remote_state(root: Path) -> tuple[str, str, str]:
    """(state, what, how to mend it) of the default remote of the project at `root`.

    state: ok, note or FAIL. A folder is looked at; any other remote is asked over the network.
    """
    if not (root / ".dvc").is_dir():
        return "note", "no DVC project here", ""
    from dvc.config import Config  # seconds that only this line needs

    config = Config(str(root / ".dvc"))
    name = config["core"].get("remote")
    if name is None:
        return "note", "none: artifacts stay here; `dvc remote add -d NAME URL` adds one", ""
    remote = config["remote"].get(name)
    if remote is None:
        return "FAIL", f"'{name}' is the default, but not defined", f"`dvc remote add {name} URL`"
    what = f"{name}, {remote['url']}"
    if not remote.get("verify"):
        return ("FAIL", f"{what}: serves a damaged object as good",
                f"`dvc remote modify {name} verify true`")  # fmt: skip
    if "://" in remote["url"]:
        return _store(root, name, what, remote)
    return _folder(Path(remote["url"]), what)


def require_remote(root: Path) -> None:
    """InputError where the default remote of the project at `root` cannot be pulled from.

    DVC alone runs every stage where a folder is not mounted, and some before it says that a bucket
    is missing.
    """
    state, what, mend = remote_state(root)
    if state != "ok":
        raise InputError(f"cannot pull from remote {what}; "
                         f"{mend or 'or name another one'}, or leave --pull out")  # fmt: skip


def _folder(path: Path, what: str) -> tuple[str, str, str]:
    if not path.exists():
        return "note", f"{what}: not there yet; `dvc push --run-cache` makes it", ""
    if not os.access(path, os.R_OK | os.X_OK) or not path.is_dir():
        return "FAIL", f"{what}: cannot be read", "check the folder's owner and its mount"
    readable = "" if os.access(path, os.W_OK) else ", for reading only"
    return "ok", what + readable, ""


@contextlib.contextmanager
def _few_attempts() -> Iterator[None]:
    """To be told soon that nobody answers; DVC has no setting for it, only the environment has."""
    own = "AWS_MAX_ATTEMPTS" in os.environ
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    try:
        yield
    finally:
        if not own:
            del os.environ["AWS_MAX_ATTEMPTS"]


def _store(root: Path, name: str, what: str, remote: dict[str, Any]) -> tuple[str, str, str]:
    from dvc.repo import Repo

    on_s3 = remote["url"].startswith("s3://")
    waits = {"remote": {name: {"connect_timeout": _SECONDS, "read_timeout": _SECONDS}}}
    try:
        with _few_attempts(), Repo(str(root), config=waits if on_s3 else None) as repo:
            store = repo.cloud.get_remote_odb(name)
            if on_s3:  # `exists` answers no where nobody answers
                store.fs.fs.call_s3("head_bucket", Bucket=store.path.split("/", 1)[0])
            else:
                store.fs.exists(store.path)
    except FileNotFoundError:
        return "FAIL", f"{what}: no such bucket", "make the bucket, or mend the remote's url"
    except PermissionError:
        return "FAIL", f"{what}: refused", "check the credentials and the bucket's policy"
    except Exception as error:  # of whichever client serves this kind of URL
        reason = " ".join(str(error).split())[:160]
        return ("FAIL", f"{what}: {type(error).__name__}: {reason}",
                "check the network, endpointurl and the credentials")  # fmt: skip
    return "ok", what, ""
