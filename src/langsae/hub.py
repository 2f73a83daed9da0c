"""The one door to the model hub: pinned snapshots, and errors a user can act on."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from langsae.errors import InputError

_COMMIT = re.compile(r"[0-9a-f]{40}")


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
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{repo}: not in the cache and the hub did not serve it ({reason}); "
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from error


def snapshot(repo: str, revision: str, patterns: Sequence[str], repo_type: str = "model") -> Path:
    """The local folder of `repo` at commit `revision`, holding the files that match `patterns`.

    Files come from the hub's cache ($HF_HOME) where they are there. Raises InputError for a moving
    revision, an unknown or gated repository, an unknown revision, no matching file, no network.
    """
    if not _COMMIT.fullmatch(revision):
        raise InputError(f"{repo}: revision '{revision}' can move; pin a 40-digit commit hash")
    with explained(repo, revision, repo_type):
        folder = Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=list(patterns), repo_type=repo_type
            )
        )
    if not any(any(folder.rglob(pattern)) for pattern in patterns):
        raise InputError(f"{repo}@{revision[:8]}: holds no file like {', '.join(patterns)}")
    return folder


def commit(repo: str, revision: str, repo_type: str = "model") -> str:
    """The commit that `revision` (a branch, tag or commit) stands for now."""
    if _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    try:
        return HfApi().repo_info(repo, revision=revision, repo_type=repo_type).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(
            f"{repo}: '{revision}' cannot be resolved to a commit "
            f"({str(error).strip().splitlines()[0]}); check the name, the network and HF_TOKEN"
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

    Read it under `explained`, as opening it asks for no licence yet.
    """
    from huggingface_hub import HfFileSystem

    with explained(repo, revision, "dataset"):
        # Parquet is read in few large pieces, which reading ahead would only enlarge
        return HfFileSystem().open(f"datasets/{repo}@{revision}/{path}", "rb", cache_type="none")
