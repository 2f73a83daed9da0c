"""Parquet files of Hugging Face data sets, at one revision (HF_ENDPOINT is honoured)."""

import json
import string
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from langsae.corpora.parallel import parse_slice
from langsae.corpora.raw import Raw
from langsae.corpora.spec import HubSpec
from langsae.errors import InputError
from langsae.files import sha256
from langsae.hub import commit, snapshot
from langsae.languages import Language, fill, find

Classes = dict[str, list[str]]
_ROWS_AT_ONCE = 4096


def fetch(repo: str, revision: str, filename: str, repo_type: str = "dataset") -> Path:
    """One file of a hub repository at a commit, from the cache or downloaded.

    Raises InputError for a gated or missing repository, revision or file, or no connection.
    """
    return snapshot(repo, revision, [filename], repo_type) / filename


def resolve(repo: str, revision: str, repo_type: str = "dataset") -> str:
    """The commit a branch, tag or ref stands for now."""
    return commit(repo, revision, repo_type)


def read(spec: HubSpec) -> Raw:
    """The texts of every language; rows keep the order of the files.

    With `id_column` rows align by id, and the rows that all languages have are kept.
    """
    origin = {"repo": spec.repo, "commit": resolve(spec.repo, spec.revision), "files": {}}
    texts, ids = {}, {}
    for code in spec.languages:
        found = (row for table in _tables(spec, code, origin) for row in _rows(table, spec, code))
        rows = list(islice(found, _needed(spec)))
        if not rows:
            raise InputError(f"{spec.repo}: language '{code}' is absent: no row is left of it")
        texts[code] = [text for _, text in rows]
        ids[code] = [identifier for identifier, _ in rows]
    if spec.id_column is None:
        return Raw(texts, origin, aligned=spec.aligned)
    return _join(spec, texts, ids, origin)


def _needed(spec: HubSpec) -> int | None:
    """How many rows of a language decide the corpus; None is all."""
    if spec.rows is None or spec.shuffle_seed is not None or spec.id_column or spec.min_characters:
        return None
    part = parse_slice(spec.rows)
    forward = (part.start or 0) >= 0 and (part.step or 1) > 0
    return part.stop if forward and (part.stop or -1) >= 0 else None


def _language(spec: HubSpec, code: str) -> Language:
    """The language as this repository writes it."""
    return replace(find(code), **spec.spelling.get(code, {}))


def _tables(
    spec: HubSpec, code: str, origin: dict[str, Any]
) -> Iterator[tuple[pa.RecordBatch, Classes]]:
    """The needed columns of the files of one language, in parts; notes each file in `origin`."""
    columns = dict.fromkeys([*_fields(spec.text), *spec.filters])
    if spec.id_column:
        columns[spec.id_column] = None
    for pattern in spec.files:
        filename = fill(pattern, _language(spec, code))
        path = fetch(spec.repo, origin["commit"], filename)
        origin["files"][filename] = sha256(path)
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise InputError(f"{spec.repo}: {filename} is not a Parquet file") from error
        known = file.schema_arrow.names
        for column in columns:
            if column not in known:
                raise InputError(
                    f"{spec.repo}: {filename} has no column '{column}'; it has {', '.join(known)}"
                )
        classes = _class_names(file.schema_arrow)
        for part in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            yield part, classes


def _class_names(schema: pa.Schema) -> Classes:
    """The names that numbers in a column stand for, where the datasets library noted them."""
    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _rows(
    table: tuple[pa.RecordBatch, Classes], spec: HubSpec, code: str
) -> Iterator[tuple[str, str]]:
    """(id, text) of each row the filters keep."""
    part, classes = table
    filters = {column: fill(value, _language(spec, code)) for column, value in spec.filters.items()}
    for column in filters.keys() & classes.keys():
        if filters[column] in classes[column]:
            filters[column] = str(classes[column].index(filters[column]))
    fields = _fields(spec.text)
    for row in part.to_pylist():
        if all(str(row[column]) == value for column, value in filters.items()):
            cells = {field: _cell(spec, row[field], field, code) for field in fields}
            yield str(row.get(spec.id_column)), spec.text.format(**cells)


def _cell(spec: HubSpec, value: Any, column: str, code: str) -> str:
    if isinstance(value, dict):
        value = value.get(_language(spec, code).code)
    if not isinstance(value, str):
        raise InputError(f"{spec.repo}: column '{column}' holds no text for '{code}'")
    return value


def _fields(template: str) -> list[str]:
    """The column names in "{premise} {hypothesis}"; InputError where there are none."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field]
    except ValueError as error:
        raise InputError(f"text '{template}': {error}") from error
    if not fields or not all(field.isidentifier() for field in fields):
        raise InputError(f"text '{template}': name columns as in '{{premise}} {{hypothesis}}'")
    return fields


def _join(
    spec: HubSpec, texts: dict[str, list[str]], ids: dict[str, list[str]], origin: dict[str, Any]
) -> Raw:
    columns = {}
    for code in spec.languages:
        columns[code] = dict(zip(ids[code], texts[code], strict=True))
        if len(columns[code]) < len(ids[code]):
            raise InputError(f"{spec.repo}: '{spec.id_column}' is not unique in '{code}'")
    common = [id for id in ids[spec.languages[0]] if all(id in c for c in columns.values())]
    if not common:
        raise InputError(f"{spec.repo}: no '{spec.id_column}' is in all languages")
    joined = {code: [column[id] for id in common] for code, column in columns.items()}
    return Raw(joined, origin, ids=common)
