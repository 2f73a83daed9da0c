"""Which hub repositories a profile asks for, and whether the hub hands them to this user."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    scan_cache_dir,
)
from huggingface_hub.errors import (
    CacheNotFound,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
)

from langsae import hub
from langsae.errors import InputError
from langsae.paths import at_step
from langsae.report_lines import Line, failing

_ANY_FILE = ".gitattributes"  # that every repository has; where not, the answer says as much
_TIMEOUT = 10.0  # seconds
_OF_MODELS = {"models", "saes", "histories"}  # keys under which a repository is a model's


class Repository(NamedTuple):
    """A repository of the hub; kind: model or dataset."""

    kind: str
    repo: str
    revision: str


def repositories(params: dict[str, Any]) -> list[Repository]:
    """What the composed `params` name on the hub, each once, sorted.

    Raises InputError for a release that sae-lens' registry does not have.
    """
    histories = params.get("histories") or {}
    steps = {name: _steps(history) for name, history in histories.items()}
    return sorted(set(_found(params, "dataset", steps, [0])))


def _steps(history: dict[str, Any]) -> list[int]:
    """The checkpoints that the groups of a history name."""
    return [step for group in history.get("groups", ()) for step in group["steps"]]


def _found(
    node: Any, kind: str, histories: dict[str, list[int]], steps: list[int]
) -> Iterator[Repository]:
    """What `node` names; `{step}` stands for each of `steps`, those of the nearest group or run."""
    if isinstance(node, list):
        for child in node:
            yield from _found(child, kind, histories, steps)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("repo"), str):
        for step in steps:
            places = (node["repo"], node.get("revision", "main"))
            yield Repository(kind, *(at_step(place, step) for place in places))
    elif node.get("source") == "sae_lens":
        yield Repository("model", _of_release(node["release"]), node.get("revision", "main"))
    steps = node.get("steps") or histories.get(str(node.get("history"))) or steps
    for name, child in node.items():
        yield from _found(child, "model" if name in _OF_MODELS else kind, histories, steps)


def _of_release(name: str) -> str:
    # sae-lens takes seconds to import, and only profiles that name a release need it
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    registry = get_pretrained_saes_directory()
    if name not in registry:
        raise InputError(f"sae-lens has no release '{name}'; see its table of SAEs")
    return registry[name].repo_id


def _refusal(repository: Repository) -> str | None:
    """Why the hub does not hand out `repository`, and how to mend it; None where it does."""
    kind, repo, revision = repository
    url = hf_hub_url(repo, _ANY_FILE, revision=revision, repo_type=kind)
    try:
        with hub.explained(repo, revision, kind):
            _head(url)
    except InputError as error:
        return str(error)
    return None


def _head(url: str) -> None:
    try:
        get_hf_file_metadata(url, timeout=_TIMEOUT)
    except RemoteEntryNotFoundError:
        return  # the repository opened
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            raise _NoAnswer(f"status {error.response.status_code}") from error
        raise
    except Exception as error:  # of whichever HTTP client the hub's library uses
        raise _NoAnswer(type(error).__name__) from error


class _NoAnswer(Exception):
    """The hub itself fails: no use in asking it for the next repository."""


def _refusals(wanted: list[Repository]) -> tuple[dict[Repository, str], str | None]:
    """Why each refused repository of `wanted` is, and why the hub does not answer at all, if so.

    Asks for the head of one small file of each, and stops where the hub itself fails.
    """
    found = {}
    for repository in wanted:
        try:
            reason = _refusal(repository)
        except _NoAnswer as error:
            return found, str(error)
        if reason:
            found[repository] = reason
    return found, None


def cached(wanted: list[Repository]) -> tuple[list[Repository], int]:
    """Those of `wanted` of which the hub's cache here has the revision, and their bytes."""
    try:
        held = {(info.repo_type, info.repo_id): info for info in scan_cache_dir().repos}
    except CacheNotFound:
        return [], 0
    there = []
    for repository in wanted:
        info = held.get((repository.kind, repository.repo))
        names = {
            name
            for revision in (info.revisions if info else ())
            for name in (revision.commit_hash, *revision.refs)
        }
        if repository.revision in names:
            there.append(repository)
    size = sum(held[kind, repo].size_on_disk for kind, repo in {item[:2] for item in there})
    return there, size


def lines(params: dict[str, Any]) -> Iterator[Line]:
    """Whether the hub hands out what the composed `params` name; asks nothing where none."""
    wanted = repositories(params)
    if not wanted:
        yield Line("ok", "hub", "not needed by this profile")
        return
    there, _ = cached(wanted)
    if constants.HF_HUB_OFFLINE:
        missing = sorted({item.repo for item in wanted} - {item.repo for item in there})
        text = f"offline; {len(wanted) - len(there)} of {len(wanted)} repositories not cached"
        mend = f"unset HF_HUB_OFFLINE, or copy a cache with {', '.join(missing)}"
        yield Line("FAIL" if missing else "ok", "hub", text, mend)
        return
    refused, silence = _refusals(wanted)
    if silence:
        left = len(wanted) - len(there)
        text = f"{constants.ENDPOINT} does not answer ({silence}); {left} repositories not cached"
        mend = "check the network, the proxies and HF_ENDPOINT"
        yield Line("FAIL" if left else "note", "hub", text, mend)
    else:
        token = "with" if get_token() else "without"
        text = f"{len(wanted) - len(refused)} of {len(wanted)} repositories open, {token} a token"
        yield Line("note" if refused else "ok", "hub", text)
    for reason in refused.values():
        yield failing("licence" if "gated" in reason else "repository", reason, "check conf/")
