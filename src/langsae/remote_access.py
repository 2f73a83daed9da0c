"""Whether the default DVC remote is there and checks what it serves."""

import os
from pathlib import Path
from typing import Any

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


def _folder(path: Path, what: str) -> tuple[str, str, str]:
    if not path.exists():
        return "note", f"{what}: not there yet; `dvc push --run-cache` makes it", ""
    if not os.access(path, os.R_OK | os.X_OK) or not path.is_dir():
        return "FAIL", f"{what}: cannot be read", "check the folder's owner and its mount"
    readable = "" if os.access(path, os.W_OK) else ", for reading only"
    return "ok", what + readable, ""


def _store(root: Path, name: str, what: str, remote: dict[str, Any]) -> tuple[str, str, str]:
    from dvc.repo import Repo

    on_s3 = remote["url"].startswith("s3://")
    waits = {"connect_timeout": _SECONDS, "read_timeout": _SECONDS}
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")  # to be told soon; DVC has no setting for it
    try:
        with Repo(str(root), config={"remote": {name: waits}} if on_s3 else None) as repo:
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
