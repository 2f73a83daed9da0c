"""Typed, strict access to params.yaml: unknown and duplicate keys are refused."""

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict
from yaml import YAMLError

from langsae.errors import InputError

T = TypeVar("T")


class Spec(BaseModel):
    """Base of every configuration class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def load_yaml(path: str | Path, resolve: bool = True) -> dict[str, Any]:
    """Read one YAML mapping and resolve its `${...}`; a fault names the file."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run `langsae profile demo` to write it") from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a mapping at the top level")
    return loaded


def section(path: str, kind: type[T], file: str | Path = "params.yaml") -> T:
    """The part of `file` at the dotted `path`, validated as `kind`."""
    node: Any = load_yaml(file)
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            raise InputError(f"{file}: nothing at '{path}' ('{key}' is missing)")
        node = node[key]
    return parse(kind, node, f"{file}: {path}")


@lru_cache
def _adapter(kind: Any) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)  # milliseconds, and a table of claims is parsed cell by cell


def parse(kind: type[T], value: Any, where: str) -> T:
    """Validate `value` as `kind`; the error is one line that names `where`."""
    try:
        return _adapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise InputError(f"{where}: {faults}") from error
