"""`make faults`: inject faults into the smoke pipeline; writes docs/faults.json and docs/faults.md.

--kills: of each long stage; --only: these sections, while the others stay as they were measured.
The whole takes about an hour on two cores.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.common import machine as this_machine
from faults import damage, kills, machine
from faults.inputs import of_inputs
from faults.rows import Row, table
from faults.stages import Good
from faults.zygote import Zygote
from langsae.files import read_json, write_json

SECTIONS = ("inputs", "kills", "merge", "disks", "memory", "two", "clocks", "pipeline", "damage")
MEASURED, TABLE = Path("docs/faults.json"), Path("docs/faults.md")


def sections(
    root: Path, count: int, seed: int, wanted: list[str]
) -> Iterator[tuple[str, Iterable[Row]]]:
    """Each section's name and its rows, which are measured as they are taken."""
    if "inputs" in wanted:
        yield "inputs", of_inputs(root / "inputs")
    if wanted == ["inputs"]:
        return
    good = Good(root)
    with ExitStack() as stack:
        zygote = stack.enter_context(Zygote(good.copy))
        makers: dict[str, Callable[[], Iterable[Row]]] = {
            "kills": lambda: kills.of_stages(good, zygote, count, seed),
            "merge": lambda: [kills.of_merging(good, zygote, count, seed)],
            "disks": lambda: machine.of_disks(good, zygote),
            "memory": lambda: machine.of_memory(good, zygote),
            "two": lambda: machine.of_two(good, zygote),
            "clocks": lambda: machine.of_clocks(good),
            "pipeline": lambda: [kills.of_pipeline(good, count, seed)],
            "damage": lambda: damage.of_damage(good, seed),
        }
        for name in SECTIONS:
            if name in wanted and name in makers:
                yield name, makers[name]()


def measure(root: Path, arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """The rows of the sections asked for; each section is kept as soon as it is whole."""
    found = {}
    wanted = arguments.only or list(SECTIONS)
    for name, rows in sections(root, arguments.kills, arguments.seed, wanted):
        start, found[name] = time.monotonic(), []
        for row in rows:
            found[name].append(row)
            print(f"{row.fault}: {row.place}: {row.injected} injected, {row.survived} survived, "
                  f"{row.wrong} silently wrong; {row.message}", flush=True)  # fmt: skip
        keep(name, found[name], time.monotonic() - start)
    return found


def keep(name: str, rows: list[Row], seconds: float) -> None:
    """Put a section into docs/faults.json, and draw the page anew."""
    measured = read_json(MEASURED) if MEASURED.is_file() else {}
    measured[name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": this_machine(),
        "seconds": round(seconds),
        "rows": [asdict(row) for row in rows],
    }
    write_json(MEASURED, measured)
    TABLE.write_text(page(measured), encoding="utf-8")


def page(measured: dict[str, Any]) -> str:
    """The whole of docs/faults.md."""
    whole = [measured[name] for name in SECTIONS if name in measured]
    rows = [Row(**row) for section in whole for row in section["rows"]]
    here = {f"{s['machine']['cpu']}, {s['machine']['cores']} cores, torch {s['machine']['torch']}"
            for s in whole}  # fmt: skip
    dates = sorted({section["date"] for section in whole})
    killed = sum(row.injected for row in rows if row.fault == kills.FAULT)
    bad = sum(row.injected for row in rows if row.fault == "bad input")
    return f"""# Faults

Written by `make faults` on {", ".join(dates)}: {"; ".join(sorted(here))};
{sum(section["seconds"] for section in whole) / 60:.0f} minutes. Faults are injected into the smoke
profile, and what is published afterwards is compared, to the byte, with an undisturbed run.
`survived` counts faults after which the same command, run again, published exactly that (bad input:
was refused in one line, with nothing left behind; damaged artifacts: after one `langsae repro`).
The message is one of those that were shown.

{killed} kills at random moments, {bad} bad inputs, {sum(row.wrong for row in rows)} silently wrong
results.

{table(rows)}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS)
    root = Path(tempfile.mkdtemp(prefix="langsae-faults-"))
    try:
        found = measure(root, parser.parse_args())
    finally:
        shutil.rmtree(root, ignore_errors=True)
    rows = [row for section in found.values() for row in section]
    bad = [row for row in rows if row.wrong or row.survived < row.injected]
    for row in bad:
        print(f"not survived: {row.fault}: {row.place}: {row.message}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
