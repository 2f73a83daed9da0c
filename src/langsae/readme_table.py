"""The tables between the markers of README.md, made from the verdict rows.

They print counts of verdicts, booleans, exact values in full and all other numbers to two
significant digits, so that a rerun whose last digits differ leaves them as they are.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from langsae.claims import FINDING
from langsae.errors import InputError
from langsae.verdict_table import COUNTED, Group, Row, groups, plain
from langsae.verdicts import OTHER_MODEL

BEGIN, END = "<!-- verdicts -->", "<!-- /verdicts -->"
SHORT = 40  # characters of an example


def readme_table(rows: Sequence[Row]) -> str:
    """A folded part a study: counts by group, then every finding with its answer on each model."""
    studies = dict.fromkeys(row["study"] for row in rows)
    return "\n\n".join(
        _study(study, [row for row in rows if row["study"] == study]) for study in studies
    )


def _study(study: str, rows: Sequence[Row]) -> str:
    shown = _shown(rows)
    own = [group for group in shown if group.variant != OTHER_MODEL]
    counts = [f"{sum(g.count(verdict) for g in own):,} {verdict}" for verdict in COUNTED]
    summary = f"<b>{study}</b>: {', '.join(counts)}"
    parts = (_counts_table(shown), _findings_table(rows))
    body = "\n\n".join(filter(None, parts))
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _shown(rows: Sequence[Row]) -> list[Group]:
    """Of several readings that were run only the one that fits best."""
    found = groups(rows)
    decided = {group.family for group in found if group.fits_best}
    return [group for group in found if group.fits_best or group.family not in decided]


def _counts_table(shown: Sequence[Group]) -> str:
    head = ["published values", "reading", *COUNTED, "basis", "e.g. published → measured"]
    return _markdown([head, ["---"] * len(head), *_lines(shown)])


def _lines(shown: Sequence[Group]) -> Iterator[list[str]]:
    for group in shown:
        best = f" (fits best of {group.readings} readings)" if group.fits_best else ""
        counts = [f"{n:,}" if (n := group.count(verdict)) else "" for verdict in COUNTED]
        example = next((row for row in group.rows if row["measured"] is not None), None)
        shown = _example(example) if example and not group.family.startswith(FINDING) else ""
        yield [group.family, group.variant + best, *counts, group.basis or "", shown]


def _example(row: Row) -> str:
    published, measured = (_rounded(row[key], row)[:SHORT] for key in ("published", "measured"))
    return f"{row['id'].split('/', 2)[-1]}: {published} → {measured}"


def _findings_table(rows: Sequence[Row]) -> str:
    findings = [row for row in rows if row["id"].startswith(f"{FINDING}/")]
    models = list(dict.fromkeys(row["id"].split("/")[2] for row in findings))
    answers: dict[str, dict[str, str]] = {}
    for row in findings:
        basis = {"published artefact": " (their data)", "rerun": "", None: ""}[row["basis"]]
        line = answers.setdefault(row["published"], {})
        line[row["id"].split("/")[2]] = plain(row["measured"]) + basis
    if not findings:
        return ""
    lines = [[key, *(line.get(model, "") for model in models)] for key, line in answers.items()]
    return _markdown([["finding", *models], ["---"] * (1 + len(models)), *lines])


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def update_readme(path: str | Path, rows: Sequence[Row]) -> None:
    """Put the current table between the markers of `path`."""
    path = Path(path)
    before, _, after = _split(path)
    path.write_text(f"{before}{BEGIN}\n{readme_table(rows)}\n{END}{after}", encoding="utf-8")


def readme_is_current(path: str | Path, rows: Sequence[Row]) -> bool:
    """Whether the table between the markers is the one these rows give."""
    return _split(Path(path))[1].strip() == readme_table(rows)


def _split(path: Path) -> tuple[str, str, str]:
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"{path}: no line {BEGIN} followed by {END}")
    return before, table, after


def _rounded(value: Any, row: Row) -> str:
    tolerance = row["tolerance"] or {}
    if isinstance(value, bool) or not isinstance(value, int | float) or not any(tolerance.values()):
        return plain(value)
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))  # two significant ones
    return f"{round(value, digits):,.{max(digits, 0)}f}"
