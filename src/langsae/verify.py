"""`langsae verify`: recompute every verdict and hold it against results/verification.json."""

import sys
from collections.abc import Sequence
from pathlib import Path

from langsae.claims import load_published
from langsae.command import run
from langsae.evidence import read_evidence
from langsae.files import read_json, write_json
from langsae.readme_table import update_readme
from langsae.verdict_table import report
from langsae.verdicts import OTHER_MODEL, Row, judge

VERIFICATION = Path("results") / "verification.json"
SHOWN = 20  # changes printed before the rest is only counted


def studies_of(root: str | Path) -> list[str]:
    """The studies that have a published.yaml, in alphabetical order."""
    return sorted(path.parent.name for path in Path(root).glob("replications/*/published.yaml"))


def all_rows(studies: Sequence[str], root: str | Path = ".") -> list[Row]:
    """The verdict rows of `studies`, recomputed from published.yaml and the evidence."""
    rows = []
    for study in studies:
        published = load_published(Path(root) / "replications" / study / "published.yaml")
        rows += judge(published, read_evidence(root, study))
    return rows


def verify(
    studies: Sequence[str] = (),
    root: str | Path = ".",
    acknowledge: bool = False,
    show_all: bool = False,
) -> int:
    """Recompute the verdicts of `studies` (none named: all), print them, compare with the file.

    Returns 1 when a verdict differs from results/verification.json and `acknowledge` is off;
    else writes that file, and with `acknowledge` the table of README.md too, and returns 0. What a
    demo says of another model is reported only: sampled text and float32 differ between machines.
    NaN, null and missing values raise InputError.
    """
    chosen = list(studies) or studies_of(root)
    path = Path(root) / VERIFICATION
    committed = read_json(path) if path.exists() else []
    rows = all_rows(chosen, root)
    print(report(rows, show_all))
    before = [row for row in committed if row["study"] in chosen]
    elsewhere = changed(*(list(filter(_on_another_model, part)) for part in (rows, before)))
    changes = [change for change in changed(rows, before) if change not in elsewhere]
    if elsewhere:
        print("\n".join(["Answered otherwise here by the demo's model:", *elsewhere]))
    if changes and not acknowledge:
        print(_unacknowledged(changes), file=sys.stderr)
        return 1
    others = [row for row in committed if row["study"] not in chosen]
    kept = sorted([*map(stored, rows), *others], key=lambda row: row["study"])
    write_json(path, kept, by_line=True)
    if acknowledge:
        update_readme(Path(root) / "README.md", all_rows(studies_of(root), root))
    return 0


def _on_another_model(row: Row) -> bool:
    return row["variant"] == OTHER_MODEL


def stored(row: Row) -> Row:
    """What verification.json keeps of a row: not what published.yaml says anyhow."""
    return {key: value for key, value in row.items() if key not in ("source", "unit", "tolerance")}


def _unacknowledged(changes: Sequence[str]) -> str:
    lines = [f"{len(changes)} verdicts are not those of {VERIFICATION}:"]
    lines += [f"  {change}" for change in changes[:SHOWN]]
    if len(changes) > SHOWN:
        lines.append(f"  and {len(changes) - SHOWN} more")
    lines.append("If they are right, run `langsae verify --acknowledge` and commit the file.")
    return "\n".join(lines)


def changed(rows: Sequence[Row], committed: Sequence[Row]) -> list[str]:
    """One line for each row whose verdict or basis is not the committed one."""

    def verdicts(rows: Sequence[Row]) -> dict[tuple[str, str, str], str]:
        return {
            (row["study"], row["id"], row["variant"]): row["verdict"]
            + (f" ({row['basis']})" if row["basis"] else "")
            for row in rows
        }

    old, new = verdicts(committed), verdicts(rows)
    return [
        f"{study}: {id} ({variant}): {old.get(key, 'no row')} → {new.get(key, 'no row')}"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
        for study, id, variant in [key]
    ]


def main() -> None:
    """Stage verify: all studies, nothing acknowledged."""
    sys.exit(verify())


if __name__ == "__main__":
    run(main)
