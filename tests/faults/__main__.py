"""`make faults`: inject faults into the smoke pipeline and write docs/faults.md.

--kills: of each long stage. Takes about half an hour on two cores.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.common import machine as this_machine
from faults import kills, machine
from faults.inputs import of_inputs
from faults.rows import Row, table
from faults.stages import Good
from faults.zygote import Zygote

TABLE = Path("docs/faults.md")


SECTIONS = ("inputs", "kills", "merge", "disks", "memory", "two", "clocks", "pipeline")


def rows(root: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Every row of the sections asked for, as it is measured."""
    wanted, count, seed = arguments.only or SECTIONS, arguments.kills, arguments.seed
    if "inputs" in wanted:
        yield from of_inputs(root / "inputs")
    if wanted == ["inputs"]:
        return
    good = Good(root)
    with Zygote(good.copy) as zygote:
        sections: dict[str, Callable[[], Iterable[Row]]] = {
            "kills": lambda: kills.of_stages(good, zygote, count, seed),
            "merge": lambda: [kills.of_merging(good, zygote, count, seed)],
            "disks": lambda: machine.of_disks(good, zygote),
            "memory": lambda: machine.of_memory(good, zygote),
            "two": lambda: machine.of_two(good, zygote),
            "clocks": lambda: machine.of_clocks(good),
            "pipeline": lambda: [kills.of_pipeline(good, count, seed)],
        }
        for name in wanted:
            if name in sections:
                yield from sections[name]()


def page(found: list[Row], seconds: float) -> str:
    """The whole of docs/faults.md."""
    here = this_machine()
    killed = sum(row.injected for row in found if row.fault == kills.FAULT)
    wrong = sum(row.wrong for row in found)
    return f"""# Faults

Written by `make faults` on {datetime.now(UTC):%Y-%m-%d}: {here["cpu"]}, {here["cores"]} cores,
torch {here["torch"]}, in {seconds / 60:.0f} minutes. Every fault is injected into the smoke
profile, and what is published afterwards is compared, to the byte, with an undisturbed run.
`survived` counts faults after which the same command, run again, published exactly that (bad input:
was refused in one line, with nothing left behind). The message is one of those that were shown.

{killed} kills at random moments; {wrong} silently wrong results.

{table(found)}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="prints, and writes nothing")
    arguments = parser.parse_args()
    start, found = time.monotonic(), []
    root = Path(tempfile.mkdtemp(prefix="langsae-faults-"))
    try:
        for row in rows(root, arguments):
            found.append(row)
            print(f"{row.fault}: {row.place}: {row.injected} injected, {row.survived} survived, "
                  f"{row.wrong} silently wrong; {row.message}", flush=True)  # fmt: skip
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if not arguments.only:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(page(found, time.monotonic() - start), encoding="utf-8")
    bad = [row for row in found if row.wrong or row.survived < row.injected]
    for row in bad:
        print(f"not survived: {row.fault}: {row.place}: {row.message}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
