"""Typed, strict access to params.yaml: unknown and duplicate keys are refused."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict

from langsae.errors import InputError

T = TypeVar("T")
_NAME = re.compile(r"[\w+-]+")  # names become those of files; a dot would end a part of the path
# Of one YAML file, its aliases written out; the largest here has 13,000 values on 6 levels.
_MOST_NODES, _DEEPEST = 100_000, 60
_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Spec(BaseModel):
    """Base of every configuration class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def load_yaml(path: str | Path, resolve: bool = True) -> dict[str, Any]:
    """Read one YAML mapping and resolve its `${...}`; a fault names the file."""
    try:
        _check_size(Path(path))
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run `langsae profile demo` to write it") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected a mapping at the top level")
    return loaded


def _check_size(path: Path) -> None:
    """Refuse what a few lines of aliases may stand for, and nesting that no reader survives.

    Events of the parser are few however much they stand for; only a constructor multiplies them.
    """
    anchored: dict[str, int] = {}
    open_nodes: list[list[Any]] = [[None, 0]]  # [anchor, nodes so far] of each open collection
    for event in yaml.parse(path.read_bytes(), Loader=_Parser):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            anchored[event.anchor] = _MOST_NODES  # until it ends: within itself it has no end
            size = 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            anchored[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            size = anchored.get(event.anchor, 0)  # the loader says which one is not there
        elif isinstance(event, yaml.ScalarEvent):
            size = anchored[event.anchor] = 1
        else:
            continue
        open_nodes[-1][1] += size
        if open_nodes[-1][1] > _MOST_NODES or len(open_nodes) > _DEEPEST:
            raise InputError(
                f"{path}: over {_MOST_NODES:,} values with its aliases written out, or over "
                f"{_DEEPEST} levels; mend its aliases or its nesting"
            )


def section(path: str, kind: type[T], file: str | Path = "params.yaml") -> T:
    """The part of `file` at the dotted `path`, validated as `kind`.

    InputError for a name in it that could not be a file's: stages name their results so.
    """
    node: Any = load_yaml(file)
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            raise InputError(f"{file}: nothing at '{path}' ('{key}' is missing)")
        if not _NAME.fullmatch(key):
            raise InputError(f"{file}: '{key}' in '{path}' is no name; use letters, digits, _ + -")
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
