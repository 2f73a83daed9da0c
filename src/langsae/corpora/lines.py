"""Reading and writing text files by the line, with errors that name the line."""

import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langsae.errors import InputError
from langsae.files import parse_json, publish


def read_text(path: Path) -> str:
    """A UTF-8 file (a byte order mark is dropped; `.gz` and `.xz` are unpacked)."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        elif path.suffix == ".xz":
            content = lzma.decompress(content)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8; save the file in UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a file; only LF and CRLF end one (U+2028 and the like are text)."""
    text = read_text(path).removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for each line of a JSONL file."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            value = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}:{number}: expected a JSON object")
        yield number, value


def write_jsonl(path: str | os.PathLike[str], values: Iterable[dict[str, Any]]) -> None:
    """Write one object a line, atomically; the same values give the same bytes, packed or not."""
    lines = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)
    content = _pack("".join(lines).encode("utf-8"), Path(path).suffix)
    with publish(path) as temporary:
        temporary.write_bytes(content)


def _pack(content: bytes, suffix: str) -> bytes:
    if suffix == ".xz":
        return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
    if suffix == ".gz":
        packed = io.BytesIO()  # gzip.compress writes a header that varies with Python's version
        with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as file:
            file.write(content)
        return packed.getvalue()
    return content
