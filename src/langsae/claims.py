"""What a study published: the claims and findings of `replications/<study>/published.yaml`.

The file is written by hand and never by code. Its parts:

    study: name of its folder
    sources: {key: reference}            every `source:` below starts with one of the keys
    tolerances: {name: {absolute and/or relative, why}}
    claims:   [{id, value, unit, source, tolerance, variants, not_available}]
    tables:   [{id with {row} and {column}, columns, rows, cells, unit, source, tolerance, …}]
    findings: [{id, statement, source, predicate, subjects}]

A table stands for one claim per cell: `id: tokens/{column}/{row}`, `columns: [gpt2]` and
`rows: {en: [25741]}` are the claim `tokens/gpt2/en`. Several `variants` are several readings of
the same published value: each is a claim of its own, and the evidence says which one fits.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from langsae.errors import InputError
from langsae.params import Spec, load_yaml, parse

AS_PUBLISHED = "as published"
FINDING = "finding"  # first part of the row ids of findings; no claim may use it

Text = Annotated[StrictStr, Field(min_length=1)]
Id = Annotated[StrictStr, Field(pattern=r"^[\w.{}+-]+(/[\w.{}+-]+)*$")]
Number = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Words = Annotated[list[Text], Field(min_length=1)]


def _present(value: Any) -> Any:
    """Refuse what must never be read as a number: nothing, NaN, infinity."""
    if value is None:
        raise ValueError("the value is missing (null)")
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise ValueError(f"not a finite number: {value}")
    if isinstance(value, list) and len(set(map(str, value))) != len(value):
        raise ValueError(f"a set names something twice: {value}")
    return value


Value = Annotated[StrictBool | Number | Text | Words, BeforeValidator(_present)]
PublishedValue = Annotated[Number | Text | Words, BeforeValidator(_present)]


class Tolerance(Spec):
    """How far a measured number may lie from the published one, on either side, and why."""

    absolute: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    relative: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    why: Text

    @model_validator(mode="after")
    def _given(self) -> "Tolerance":
        if not self.model_fields_set & {"absolute", "relative"}:
            raise ValueError("give `absolute`, `relative` or both")
        return self

    def allowed(self, published: float) -> float:
        """The largest |measured - published| that still counts as reproduced."""
        return max(self.absolute, self.relative * abs(published))


class _Entry(Spec):
    """What a single claim and a table have in common."""

    id: Id
    unit: Text
    source: Text
    tolerance: Text | None = None
    variants: Annotated[tuple[Text, ...], Field(min_length=1)] = (AS_PUBLISHED,)
    not_available: Text | None = None


class _Single(_Entry):
    value: PublishedValue


class _Table(_Entry):
    rows: Annotated[dict[StrictInt | StrictStr, Any], Field(min_length=1)]
    columns: list[StrictInt | StrictStr] | None = None
    cells: Literal["value", "set"] = "value"  # "set": words separated by spaces, order-free

    @model_validator(mode="after")
    def _shape(self) -> "_Table":
        placeholders = ("{row}", "{column}") if self.columns else ("{row}",)
        for placeholder in placeholders:
            if placeholder not in self.id:
                raise ValueError(f"the id of a table needs {placeholder}: {self.id}")
        for row, cells in self.rows.items():
            if self.columns and (not isinstance(cells, list) or len(cells) != len(self.columns)):
                raise ValueError(f"row {row}: expected {len(self.columns)} cells, one a column")
        return self


class Finding(Spec):
    """A statement in words; `predicate` names the function that tests it on a model's numbers."""

    id: Annotated[StrictStr, Field(pattern=r"^[\w-]+$")]
    statement: Text
    source: Text
    predicate: Annotated[StrictStr, Field(pattern=r"^[a-z]\w*$")]
    subjects: Words  # the models the source says it of


class _File(Spec):
    study: Text
    sources: Annotated[dict[str, Text], Field(min_length=1)]
    tolerances: dict[str, Tolerance] = Field(default_factory=dict)
    claims: tuple[_Single, ...] = ()
    tables: tuple[_Table, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One published value in one reading."""

    id: str
    variant: str
    value: int | float | str | list[str]
    unit: str
    source: str
    tolerance: Tolerance | None
    not_available: str | None = None


def family(id: str) -> str:
    """The claims measured together: the first two parts of the id; findings go by model."""
    parts = id.split("/")
    return f"{FINDING}/{parts[2]}" if parts[0] == FINDING else "/".join(parts[:2])


@dataclass(frozen=True)
class Published:
    """Everything one study published that langsae checks."""

    study: str
    sources: dict[str, str]
    claims: tuple[Claim, ...]
    findings: tuple[Finding, ...]


def load_published(path: str | Path) -> Published:
    """Read and check one published.yaml; every fault names the file and the entry."""
    path = Path(path)
    file = parse(_File, load_yaml(path), str(path))
    if file.study != path.parent.name:
        raise InputError(f"{path}: study is '{file.study}' in the folder '{path.parent.name}'")
    try:
        claims = tuple(
            claim for entry in file.claims + file.tables for claim in _expand(file, entry)
        )
        _check_names(file, claims)
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: {error}") from error
    return Published(file.study, file.sources, claims, file.findings)


def _expand(file: _File, entry: _Single | _Table) -> Iterator[Claim]:
    tolerance = file.tolerances.get(entry.tolerance) if entry.tolerance else None
    if entry.tolerance and tolerance is None:
        raise ValueError(f"{entry.id}: no tolerance is named '{entry.tolerance}'")
    cells = _cells(entry) if isinstance(entry, _Table) else [(entry.id, entry.source, entry.value)]
    for name, source, value in cells:
        if isinstance(value, int | float) != (tolerance is not None):
            raise ValueError(f"{name}: a number needs a tolerance, and only a number has one")
        if name.split("/")[0] == FINDING or "{" in name:
            raise ValueError(f"{name}: not an id a claim can have")
        for variant in entry.variants:
            yield Claim(name, variant, value, entry.unit, source, tolerance, entry.not_available)


def _cells(table: _Table) -> Iterator[tuple[str, str, Any]]:
    for row, cells in table.rows.items():
        columns = list(zip(table.columns, cells, strict=True)) if table.columns else [("", cells)]
        for column, cell in columns:
            labels = {"{row}": str(row), "{column}": str(column)}
            name, source = (_fill(text, labels) for text in (table.id, table.source))
            if table.cells == "set":
                cell = sorted(cell.split()) if isinstance(cell, str) else None
            yield name, source, parse(PublishedValue, cell, name)


def _fill(text: str, labels: dict[str, str]) -> str:
    for placeholder, label in labels.items():
        text = text.replace(placeholder, label)
    return text


def _check_names(file: _File, claims: tuple[Claim, ...]) -> None:
    names = [f"{claim.id} ({claim.variant})" for claim in claims]
    names += [f"{FINDING}/{finding.id}" for finding in file.findings]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    for entry in (*file.claims, *file.tables, *file.findings):
        if entry.source.split(":")[0] not in file.sources:
            raise ValueError(f"{entry.id}: source '{entry.source}' starts with no key of `sources`")
