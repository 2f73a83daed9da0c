"""The one door to the model hub: pinned snapshots, checked bytes, and errors a user can act on.

What may pass (a 5xx, 429, a reset, wrong bytes) is tried again; huggingface_hub itself does so only
for listings and metadata. Every file handed out was compared with the hub's listing of its commit,
and with the manifest of earlier uses: `langsae/COMMIT.json` beside the repository's snapshots in
the cache, {file: sha256}. A commit never changes, so neither may a file of it.
"""

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from huggingface_hub import is_offline_mode, snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP client: also what a transfer ends in that breaks half-way
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from langsae.errors import InputError
from langsae.files import read_json, sha256, write_json

T = TypeVar("T")
_log = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WAITS = (1, 2, 4, 8, 16)  # seconds before each further try
_LONGEST_WAIT = 300  # seconds; the hub counts requests in windows of five minutes
_BUSY = (408, 429)  # besides 5xx: timed out, too many requests
_hashes: dict[tuple[str, int, int, int], str] = {}  # of this process: a file is read once


class _WrongBytesError(OSError):
    """A download that is not what the hub's listing says."""


@contextlib.contextmanager
def explained(repo: str, revision: str, repo_type: str = "model") -> Iterator[None]:
    """Turn what goes wrong with `repo` at a pinned `revision` into an InputError."""
    try:
        yield
    except GatedRepoError as error:
        page = f"{ENDPOINT}/{'datasets/' if repo_type == 'dataset' else ''}{repo}"
        raise InputError(
            f"{repo} is gated: accept its licence on {page}, then set HF_TOKEN to a token of yours"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repo}: has no revision {revision}; check the pin") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{repo}: no such repository, or not yours to see; check the name and HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise InputError(f"'{repo}' is no repository name; write owner/name") from error
    except _WrongBytesError as error:
        raise InputError(
            f"{repo}@{revision[:8]}: {error}, however often it is fetched; "
            "check the proxy or mirror that HF_ENDPOINT names"
        ) from error
    except (HTTPError, OSError) as error:
        if is_offline_mode():
            raise InputError(
                f"{repo}@{revision[:8]}: not whole in the cache, and HF_HUB_OFFLINE is set; "
                "fetch it once with HF_HUB_OFFLINE=0"
            ) from error
        raise InputError(
            f"{repo}: not in the cache and the hub did not serve it ({_reason(error)}); "
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from error


def snapshot(repo: str, revision: str, patterns: Sequence[str], repo_type: str = "model") -> Path:
    """The local folder of `repo` at commit `revision`, holding the files that match `patterns`.

    Files come from the hub's cache ($HF_HOME) where they are there, and are checked before use.
    Raises InputError for a moving revision, an unknown or gated repository, an unknown revision, no
    matching file, no network, a cached file that changed since its first use, and a hub that goes
    on serving other bytes than it lists.
    """
    if not _COMMIT.fullmatch(revision):
        raise InputError(f"{repo}: revision '{revision}' can move; pin a 40-digit commit hash")
    with explained(repo, revision, repo_type):
        return _patiently(partial(_checked_snapshot, repo, revision, patterns, repo_type), repo)


def commit(
    repo: str, revision: str, repo_type: str = "model", waits: Sequence[int] = _WAITS
) -> str:
    """The commit that `revision` (a branch, tag or commit) stands for now.

    waits: seconds before each further try; few where somebody sits and waits.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    ask = partial(HfApi().repo_info, repo, revision=revision, repo_type=repo_type)
    try:
        return _patiently(ask, repo, waits).sha
    except (HTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{repo}: '{revision}' cannot be resolved to a commit "
            f"({_reason(error)}); check the name, the network and HF_TOKEN, or pin a commit"
        ) from error


def file_names(repo: str, revision: str, pattern: str, repo_type: str = "dataset") -> list[str]:
    """The files of `repo` at a commit that match `pattern`, sorted; InputError for none."""
    from huggingface_hub import HfApi

    with explained(repo, revision, repo_type):
        names = HfApi().list_repo_files(repo, revision=revision, repo_type=repo_type)
    matching = sorted(name for name in names if fnmatchcase(name, pattern))
    if not matching:
        raise InputError(f"{repo}@{revision[:8]}: holds no file like {pattern}")
    return matching


def stream(repo: str, revision: str, path: str) -> BinaryIO:
    """A file of data set `repo` at a commit, of which only what is read is fetched.

    Read it under `explained`, as opening it asks for no licence yet. Parts of a file cannot be
    compared with the hash of the whole: where that matters, use `snapshot`.
    """
    from huggingface_hub import HfFileSystem

    # Parquet is read in few large pieces, which reading ahead would only enlarge
    name = f"datasets/{repo}@{revision}/{path}"
    with explained(repo, revision, "dataset"):
        return _patiently(lambda: HfFileSystem().open(name, "rb", cache_type="none"), repo)


def _checked_snapshot(repo: str, revision: str, patterns: Sequence[str], repo_type: str) -> Path:
    """Fetch what the cache lacks, and compare every matching file; see `snapshot`."""
    folder = Path(
        snapshot_download(
            repo, revision=revision, allow_patterns=list(patterns), repo_type=repo_type
        )
    )
    manifest = folder.parents[1] / "langsae" / f"{revision}.json"
    used = read_json(manifest) if manifest.is_file() else {}
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    known = sorted(names | set(used))
    asked = [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not asked:
        raise InputError(f"{repo}@{revision[:8]}: holds no file like {', '.join(patterns)}")
    listing = _listing(folder)
    found = {name: _checked(folder / name, used.get(name), listing.get(name)) for name in asked}
    if not found.items() <= used.items():
        try:
            manifest.parent.mkdir(exist_ok=True)
            write_json(manifest, used | found)
        except OSError as error:  # a cache that many share is often read-only
            _log.warning("%s: the manifest of used files is not written: %s", manifest, error)
    return folder


def _listing(folder: Path) -> dict[str, dict[str, str]]:
    """What the hub says of each file, kept in the cache; {} where an older client filled that.

    Read from huggingface_hub's own file, as its get_cached_repo_tree leaves the SHA-256 out.
    """
    kept = folder.parents[1] / "trees" / f"{folder.name}.json"
    listing = read_json(kept) if kept.is_file() else {}
    return listing["files"] if listing.get("format_version") == 1 else {}


def _checked(path: Path, used: str | None, listed: dict[str, str] | None) -> str:
    """The sha256 of a cached file, equal to that of its first use and to what the hub lists.

    A wrong file that was never used is a broken download: it is removed, to be fetched again. The
    same of a used one is a fault of this machine, which its owner must hear of.
    """
    if not path.is_file():
        raise InputError(f"{path}: used before and now missing from the cache; fetch it again")
    found = _sha256(path)
    if (used is None or used == found) and (listed is None or _as_listed(path, found, listed)):
        return found
    blob = path.resolve()  # removing the link alone would bring back the same content
    if used is not None or is_offline_mode():
        raise InputError(
            f"{path}: corrupted: its sha256 is {found[:12]}…, not what it was when fetched; "
            f"delete {blob} and run again"
        )
    blob.unlink()
    raise _WrongBytesError(f"{path.name} comes with wrong bytes (sha256 {found[:12]}…)")


def _as_listed(path: Path, found: str, listed: dict[str, str]) -> bool:
    """Whether a file is what the hub lists: by SHA-256 where it is in LFS, else by git's SHA-1."""
    if "lfs_sha256" in listed:
        return found == listed["lfs_sha256"]
    content = path.read_bytes()  # at most 10 MB, more is in LFS
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == listed["blob_id"]


def _sha256(path: Path) -> str:
    state = path.stat()
    key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = sha256(path)
    return _hashes[key]


def _patiently(action: Callable[[], T], repo: str, waits: Sequence[int] = _WAITS) -> T:
    """`action()`, tried again after growing pauses while what goes wrong may pass."""
    for wait in waits:
        try:
            return action()
        except (HTTPError, OSError) as error:
            if not _may_pass(error):
                raise
            pause = min(max(wait, _asked_to_wait(error)), _LONGEST_WAIT)
            _log.warning("%s: %s; trying again in %d s", repo, _reason(error), pause)
        time.sleep(pause)
    return action()


def _may_pass(error: Exception) -> bool:
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return False  # huggingface_hub has tried again already, or may not ask at all
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in _BUSY
    # Its own complaint of a body that ended early is a bare OSError
    short = str(error).startswith("Consistency check failed")
    return isinstance(error, HTTPError | _WrongBytesError | ConnectionError) or short


def _asked_to_wait(error: Exception) -> int:
    """The seconds of a Retry-After header, 0 without one."""
    headers = error.response.headers if isinstance(error, HfHubHTTPError) else {}
    asked = headers.get("Retry-After", "")
    return int(asked) if asked.isdecimal() else 0


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
    error = cause or error
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
