"""Verdict rows gathered and printed in the terminal.

Reruns and recomputations of published artefacts are counted on lines of their own, never together.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langsae.claims import family

COUNTED = ("reproduced", "differs", "not attempted")
SHORT = 48  # characters of a published or measured set in the terminal's long table

Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """The rows of one family of claims in one reading and on one basis."""

    study: str
    family: str
    variant: str
    basis: str | None
    rows: tuple[Row, ...]
    readings: int  # of the same published values, this one included
    fits_best: bool

    def count(self, verdict: str) -> int:
        return sum(row["verdict"] == verdict for row in self.rows)

    @property
    def profiles(self) -> str:
        return ", ".join(sorted({row["profile"] for row in self.rows if row["profile"]})) or "–"


def groups(rows: Sequence[Row]) -> list[Group]:
    """Rows gathered by study, family, reading and basis, in their own order.

    Readings of values that nobody measured yet are one group, not one each.
    """
    gathered: dict[tuple[str, str, str, str | None], list[Row]] = {}
    for row in rows:
        key = (row["study"], family(row["id"]), row["variant"], row["basis"])
        gathered.setdefault(key, []).append(row)
    readings = _readings(rows)
    found = []
    for (study, name, variant, basis), members in gathered.items():
        rivals = readings[study, name]
        idle = len(rivals) > 1 and not any(map(_run, rivals.values()))
        if idle and variant != next(iter(rivals)):
            continue
        label = f"{len(rivals)} readings, none run" if idle else variant
        best = len(rivals) > 1 and variant == _best(rivals)
        found.append(Group(study, name, label, basis, tuple(members), len(rivals), best))
    return found


def _readings(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, list[Row]]]:
    """Rows by (study, family), then by variant where the variants read the same published values.

    Variants with values of their own ("corrected") are no rivals: such a family has one reading.
    """
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        readings = found.setdefault((row["study"], family(row["id"])), {})
        readings.setdefault(row["variant"], []).append(row)
    for key, readings in found.items():
        values = [[row["published"] for row in members] for members in readings.values()]
        if any(other != values[0] for other in values):
            found[key] = dict(list(readings.items())[:1])
    return found


def _run(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["measured"] is not None]


def _best(readings: dict[str, list[Row]]) -> str | None:
    """The reading that reproduces most values, then with the smaller median relative error.

    None where no reading reproduces anything, or two fit equally well.
    """
    fits = {variant: _fit(rows) for variant, members in readings.items() if (rows := _run(members))}
    top = max(fits.values(), default=(0, 0.0))
    best = [variant for variant, fit in fits.items() if fit == top]
    return best[0] if top[0] and len(best) == 1 else None


def _fit(rows: Sequence[Row]) -> tuple[int, float]:
    errors = [
        abs(row["measured"] - row["published"]) / max(abs(row["published"]), 1e-12)
        for row in rows
        if isinstance(row["published"], int | float)
    ]
    reproduced = sum(row["verdict"] == "reproduced" for row in rows)
    return reproduced, -statistics.median(errors) if errors else 0.0


def report(rows: Sequence[Row], show_all: bool = False) -> str:
    """The terminal's table: a line a group, or with `show_all` a line a verdict."""
    if show_all:
        head = ["study", "claim", "reading", "published", "measured", "verdict", "basis", "why"]
        return _columns([head, *(_long(row) for row in rows)])
    head = ["study", "claims", "reading", *COUNTED, "basis", "profile"]
    return _columns([head, *(_summary(group) for group in groups(rows))])


def _summary(group: Group) -> list[str]:
    reading = group.variant + (" ← fits best" if group.fits_best else "")
    counts = [str(group.count(verdict) or "·") for verdict in COUNTED]
    return [group.study, group.family, reading, *counts, group.basis or "–", group.profiles]


def _long(row: Row) -> list[str]:
    published, measured = (plain(row[key])[:SHORT] for key in ("published", "measured"))
    basis = f"{row['basis']}, {row['profile']}" if row["basis"] else "–"
    head = [row["study"], row["id"], row["variant"], published, measured]
    return [*head, row["verdict"], basis, row["reason"]]


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join(padded)


def plain(value: Any) -> str:
    """A value as it is; see readme_table.py for the README."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
