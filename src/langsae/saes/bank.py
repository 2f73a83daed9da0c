"""Obtaining a bank of SAEs once (training or fetching), and loading it again.

Stage prepare_saes writes `artifacts/saes/NAME/`: `bank.json` (per hook: where the SAE is, a sha256
of each of its files, its FVU on a probe) and, for SAEs trained here, their folders.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from langsae import hub
from langsae.errors import InputError
from langsae.files import read_json, sha256, write_json
from langsae.models.hooks import HookPoint
from langsae.paths import expand
from langsae.saes.codes import SparseCoder
from langsae.saes.load import FILES, load_sae, weight_files
from langsae.saes.spec import BankSpec, FolderBank, HubBank, SaeLensBank


def locate(spec: SaeLensBank | HubBank | FolderBank) -> dict[str, dict[str, str]]:
    """Where each hook's SAE is: {hook: {repo, revision (a commit), path} or {folder}}.

    Raises InputError for a release or id that sae-lens' registry does not have.
    """
    if isinstance(spec, FolderBank):
        return {hook: {"folder": _fill(spec.path, hook)} for hook in spec.hooks}
    places = _hub_paths(spec)
    commits = {
        repo: hub.commit(repo, spec.revision) for repo in {repo for repo, _ in places.values()}
    }
    return {
        hook: {"repo": repo, "revision": commits[repo], "path": path}
        for hook, (repo, path) in places.items()
    }


def _hub_paths(spec: SaeLensBank | HubBank) -> dict[str, tuple[str, str]]:
    """{hook: (repository, path in it)}."""
    if isinstance(spec, HubBank):
        return {hook: (_fill(spec.repo, hook), _fill(spec.path, hook)) for hook in spec.hooks}
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    registry = get_pretrained_saes_directory()
    if spec.release not in registry:
        raise InputError(f"sae-lens has no release '{spec.release}'; see its table of SAEs")
    release = registry[spec.release]
    paths = {}
    for hook in spec.hooks:
        identifier = _fill(spec.id, hook)
        if identifier not in release.saes_map:
            raise InputError(f"release {spec.release} has no SAE '{identifier}'")
        paths[hook] = (release.repo_id, release.saes_map[identifier])
    return paths


def _fill(path: str, hook: str) -> str:
    return path.replace("{layer}", str(HookPoint.parse(hook).layer))


def folder_of(place: dict[str, str], bank: Path) -> Path:
    """The local folder of a located SAE; `bank` holds those that were trained here, by `path`."""
    if "folder" in place:
        return expand(place["folder"])
    if "repo" not in place:
        return bank / place["path"]
    patterns = [(PurePosixPath(place["path"]) / name).as_posix() for name in FILES]
    if place["path"].endswith(".npz"):
        patterns = [place["path"]]
    root = hub.snapshot(place["repo"], place["revision"], patterns)
    found = root / place["path"]
    return found.parent if found.suffix == ".npz" else found


def write_index(
    bank: Path, spec: BankSpec, places: dict[str, dict[str, str]], probe: dict[str, Any]
) -> None:
    """Write bank.json: the spec, and per hook its place, hashes and probe figures."""
    entries = {}
    for hook, place in places.items():
        files = weight_files(folder_of(place, bank))
        entries[hook] = {
            "place": place,
            "sha256": {path.name: sha256(path) for path in files},
            "probe": probe.get(hook, {}),
        }
    write_json(bank / "bank.json", {"spec": spec.model_dump(mode="json"), "saes": entries})


def load_bank(
    folder: str | Path, device: torch.device, hooks: Iterable[str] | None = None
) -> dict[HookPoint, SparseCoder]:
    """The coders of a prepared bank, or of these hooks of it, in hook order.

    Raises InputError for a hook that the bank does not have, and a file that changed since.
    """
    bank = Path(folder)
    index = read_json(bank / "bank.json")
    coders: dict[HookPoint, SparseCoder] = {}
    wanted = [HookPoint.parse(hook) for hook in (index["saes"] if hooks is None else hooks)]
    if missing := [hook for hook in wanted if str(hook) not in index["saes"]]:
        raise InputError(f"{bank}: has no SAE at {missing[0]}; it has {', '.join(index['saes'])}")
    for hook in sorted(wanted, key=lambda hook: hook.order):
        entry = index["saes"][str(hook)]
        where = folder_of(entry["place"], bank)
        for name, expected in entry["sha256"].items():
            if not (where / name).is_file() or sha256(where / name) != expected:
                raise InputError(f"{where / name}: missing or changed since it was prepared; "
                                 "delete it and run `dvc repro prepare_saes -f`")  # fmt: skip
        coder = load_sae(where, hook, index["spec"].get("architecture"))
        coders[hook] = coder.to(device)
    return coders
