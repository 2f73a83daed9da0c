"""One's own CSV or JSONL file, wide (a column per language) or long (a row per text)."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langsae.corpora.lines import read_jsonl, read_text
from langsae.corpora.raw import Raw
from langsae.corpora.spec import LocalSpec
from langsae.errors import InputError
from langsae.files import sha256
from langsae.languages import find, identifiers
from langsae.paths import expand

Rows = Iterator[tuple[int, dict[str, Any]]]


def read(spec: LocalSpec) -> Raw:
    """The texts of `spec.path`; every InputError names the file and the line."""
    path = expand(spec.path)
    if path.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{path}: expected a .csv or .jsonl file")
    rows = _read_csv(path) if path.suffix == ".csv" else read_jsonl(path)
    texts, ids = (_wide if spec.layout == "wide" else _long)(path, rows, spec)
    aligned = spec.layout == "wide" or ids is not None
    return Raw(texts, {"file": path.name, "sha256": sha256(path)}, ids, aligned)


def _read_csv(path: Path) -> Rows:
    # newline="" leaves line breaks inside quotes to the csv module.
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}:{reader.line_num}: not as many cells as the header has")
            yield reader.line_num, row
    except csv.Error as error:
        # line_num is the end of the last good record.
        raise InputError(f"{path}:{reader.line_num + 1}: not CSV: {error}") from error


def _wide(path: Path, rows: Rows, spec: LocalSpec) -> tuple[dict[str, list[str]], list[str] | None]:
    texts: dict[str, list[str]] = {code: [] for code in spec.languages}
    ids: dict[str, int] = {}
    for line, row in rows:
        if spec.id_column:
            _note_id(ids, _cell(path, line, row, spec.id_column), path, line)
        for code, column in texts.items():
            column.append(_cell(path, line, row, spec.columns.get(code, code)))
    return texts, list(ids) if spec.id_column else None


def _long(path: Path, rows: Rows, spec: LocalSpec) -> tuple[dict[str, list[str]], list[str] | None]:
    """Texts by language; with an id column in the id order of the first language."""
    names = {name: code for code in spec.languages for name in identifiers(find(code))}
    texts: dict[str, list[str]] = {code: [] for code in spec.languages}
    lines: dict[str, dict[str, int]] = {code: {} for code in spec.languages}
    for line, row in rows:
        code = names.get(_cell(path, line, row, spec.language_column))
        if code is None:
            continue  # a language nobody asked for
        texts[code].append(_cell(path, line, row, spec.text_column))
        if spec.id_column:
            _note_id(lines[code], _cell(path, line, row, spec.id_column), path, line)
    for code, column in texts.items():
        if not column:
            raise InputError(f"{path}: language '{code}' is absent from '{spec.language_column}'")
    return _by_id(path, texts, lines) if spec.id_column else (texts, None)


def _by_id(
    path: Path, texts: dict[str, list[str]], lines: dict[str, dict[str, int]]
) -> tuple[dict[str, list[str]], list[str]]:
    everywhere: dict[str, int] = {}
    for ids in lines.values():
        everywhere |= {id: line for id, line in ids.items() if id not in everywhere}
    for code, ids in lines.items():
        for identifier, line in everywhere.items():
            if identifier not in ids:
                raise InputError(f"{path}:{line}: id '{identifier}' has no text in '{code}'")
    columns = {code: dict(zip(lines[code], texts[code], strict=True)) for code in texts}
    order = list(everywhere)
    return {code: [column[id] for id in order] for code, column in columns.items()}, order


def _cell(path: Path, line: int, row: dict[str, Any], column: str) -> str:
    if column not in row:
        raise InputError(f"{path}:{line}: unknown column '{column}'; it has {', '.join(row)}")
    value = row[column]
    if not isinstance(value, str | int):
        raise InputError(f"{path}:{line}: '{column}' is not a text")
    if not str(value).strip():
        raise InputError(f"{path}:{line}: '{column}' is empty")
    return str(value)


def _note_id(ids: dict[str, int], identifier: str, path: Path, line: int) -> None:
    if identifier in ids:
        raise InputError(
            f"{path}:{line}: id '{identifier}' is already on line {ids[identifier]}; "
            "ids must be unique"
        )
    ids[identifier] = line
