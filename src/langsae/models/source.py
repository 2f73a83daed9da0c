"""Obtaining a model once, and loading it again from what was obtained.

Stage prepare_model writes `artifacts/models/NAME/`: `model.json` (the spec and a sha256 of every
file it stands for) and, for models that no hub holds, the files themselves. Hub models stay in the
hub's own cache: gated weights must not travel through an artifact store.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from langsae import hub
from langsae.errors import InputError
from langsae.files import publish, read_json, sha256, write_json
from langsae.models.embedded import write_embedded
from langsae.models.processed import process
from langsae.models.spec import (
    EmbeddedModel,
    FolderModel,
    HubModel,
    ModelSpec,
    NoModel,
    PretrainedModel,
    StoredSpec,
    TinyModel,
    TokenizerOnly,
)
from langsae.models.tiny import write_tiny
from langsae.params import Spec, parse
from langsae.paths import expand

# Never .bin: pickles run code.
_PATTERNS = ["*.json", "*.safetensors", "tokenizer*", "merges.txt", "vocab.*"]


class _Record(Spec):
    """What a model.json holds."""

    spec: StoredSpec
    sha256: dict[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A network with its tokenizer; either is None where it was not asked for."""

    network: nn.Module | None
    tokenizer: Any
    description: dict[str, Any]
    processed: bool = False
    n_layers: int = 0
    d_model: int = 0


def prepare(spec: ModelSpec, out: str | Path) -> None:
    """Obtain the model of `spec` and publish its folder at `out`.

    Raises InputError for an unknown repository, revision or file, a gated repository, a folder
    without safetensors, or a download that does not match its known sha256.
    """
    if isinstance(spec, HubModel):
        spec = spec.model_copy(update={"revision": hub.commit(spec.repo, spec.revision)})
    with publish(out) as folder:
        folder.mkdir()
        files = folder if isinstance(spec, NoModel) else _obtain(spec, folder)
        hashes = {path.name: sha256(path) for path in _files(files)}
        if not hashes and not isinstance(spec, NoModel):
            raise InputError(f"{files}: no model files there")
        _write_record(spec, hashes, folder)


def write_own(spec: PretrainedModel, folder: Path) -> None:
    """Write the model.json of a model whose files were just saved in `folder`."""
    _write_record(spec, {path.name: sha256(path) for path in _files(folder)}, folder)


def _write_record(spec: StoredSpec, hashes: dict[str, str], folder: Path) -> None:
    write_json(folder / "model.json", {"spec": spec.model_dump(), "sha256": hashes})


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model that `prepare` published at `folder`."""
    spec = parse(_Record, read_json(folder / "model.json"), f"{folder}/model.json").spec
    return read_json(_located(spec, folder) / "config.json")


def _obtain(spec: ModelSpec, folder: Path) -> Path:
    if isinstance(spec, HubModel):
        return hub.snapshot(spec.repo, spec.revision, _PATTERNS)
    if isinstance(spec, FolderModel):
        return _checked_folder(spec.path)
    if isinstance(spec, EmbeddedModel):
        write_embedded(spec, folder)
    elif isinstance(spec, TinyModel):
        write_tiny(spec, folder)
    else:
        _copy_tokenizer(spec, folder)
    return folder


def _checked_folder(path: str) -> Path:
    folder = expand(path)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json there; give a folder in transformers' layout")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder}: no *.safetensors there; pickled weights are not read")
    return folder


def _copy_tokenizer(spec: TokenizerOnly, folder: Path) -> None:
    for name, path in (
        ("vocab.json", spec.vocab),
        ("merges.txt", spec.merges),
        ("tokenizer.json", spec.file),
    ):
        if path is not None:
            source = expand(path)
            if not source.is_file():
                raise InputError(f"{source}: no such tokenizer file; set LANGSAE_REFERENCE")
            shutil.copy(source, folder / name)


def _files(folder: Path) -> list[Path]:
    found = {path for pattern in _PATTERNS for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def load_source(folder: Path) -> LoadedModel:
    """Load what `prepare` published; a file whose sha256 changed since is refused."""
    record = read_json(folder / "model.json")
    spec = parse(_Record, record, f"{folder}/model.json").spec
    files = _located(spec, folder)
    for name, expected in record["sha256"].items():
        if not (files / name).is_file() or sha256(files / name) != expected:
            raise InputError(
                f"{files / name}: missing or changed since it was prepared; "
                "delete it and run `dvc repro prepare_model -f`"
            )
    description = {"spec": record["spec"], "sha256": record["sha256"]}
    if isinstance(spec, NoModel):
        return LoadedModel(None, None, description)
    if isinstance(spec, TokenizerOnly):
        return LoadedModel(None, _tokenizer_from_files(files, spec.bos_token), description)
    return _load_network(spec, files, description)


def _located(spec: StoredSpec, folder: Path) -> Path:
    if isinstance(spec, HubModel):
        return hub.snapshot(spec.repo, spec.revision, _PATTERNS)
    return _checked_folder(spec.path) if isinstance(spec, FolderModel) else folder


def _tokenizer_from_files(files: Path, bos: str):
    from transformers import GPT2TokenizerFast, PreTrainedTokenizerFast

    if (files / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(files / "tokenizer.json"), bos_token=bos)
    return GPT2TokenizerFast(str(files / "vocab.json"), str(files / "merges.txt"), bos_token=bos)


def _load_network(spec, files: Path, description: dict[str, Any]) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(
        files, dtype=getattr(torch, spec.dtype), local_files_only=True, use_safetensors=True
    )
    config = network.config
    processed = spec.weights == "transformer_lens"
    if processed:
        network = process(network, tokenizer, files)
    return LoadedModel(
        network, tokenizer, description, processed, config.num_hidden_layers, config.hidden_size
    )
