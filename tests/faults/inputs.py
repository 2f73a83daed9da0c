"""Bad input, over every command and file format: the cases of tests/bad_inputs.py."""

from collections.abc import Iterator
from pathlib import Path

from bad_inputs import CASES, BadInput, attempt, prepare
from faults.rows import Row


def of_inputs(root: Path) -> Iterator[Row]:
    """A row for each command: how many of its bad inputs ended in one line with nothing left."""
    prepared = root / "prepared"
    prepare(prepared)
    rows: dict[str, Row] = {}
    for number, case in enumerate(CASES):
        row = rows.setdefault(_command(case), Row("bad input", f"`{_command(case)}`"))
        ended = attempt(case, root / f"case{number}", prepared)
        sound = ended.sound(case.words)
        shown = ended.lines[-1] if ended.lines else ""
        where = "" if sound else f"{case.name}: "
        message = f"{where}{shown}".replace(str(root), "…")
        row.add(sound, loud=ended.status != 0, message="" if sound and row.message else message)
    yield from rows.values()


def _command(case: BadInput) -> str:
    module, *arguments = case.command
    if module == "langsae.cli":
        return f"langsae {arguments[0] if arguments else ''}".strip()
    return f"python -m {module}"
