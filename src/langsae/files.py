"""Atomic publishing, hashing and canonical JSON."""

import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from langsae.errors import InputError


@contextlib.contextmanager
def publish(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of `path` (file or folder); rename it into place on success.

    On an exception nothing is left behind and a previous `path` is untouched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    replaced = target.with_name(f".{target.name}.{os.getpid()}.old.tmp")
    try:
        yield temporary
        if target.is_dir():
            target.replace(replaced)  # a rename replaces files, but no folder with content
        temporary.replace(target)
    finally:
        _remove(temporary)
        _remove(replaced)


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left beside `target`, and an earlier attempt of this one."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        owner = path.name.removeprefix(f".{target.name}.").split(".")[0]
        if owner.isdecimal() and (int(owner) == os.getpid() or not _alive(int(owner))):
            _remove(path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`: a key for caches and scratch folders."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_json(path: str | os.PathLike[str], value: Any, by_line: bool = False) -> None:
    """Write `value` as stable, sorted, NaN-free JSON; publish it atomically.

    by_line: `value` is a list, and each item takes one line: small, and a diff names the items.
    """
    dump = partial(json.dumps, sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        text = "[\n" + ",\n".join(map(dump, value)) + "\n]" if by_line else dump(value, indent=1)
    except ValueError as error:
        bad = ", ".join(_not_finite(value)) or str(error)
        raise InputError(f"{path}: not written: not a finite number at {bad}") from error
    with publish(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _not_finite(value: Any, where: str = "$") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where


def parse_json(text: str) -> Any:
    """The value of JSON text; ValueError, with a short reason, where there is none.

    That is so too for what would fail later: half a surrogate pair, which no file can hold.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair in a text") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON; a missing or broken file is an InputError that names it."""
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
