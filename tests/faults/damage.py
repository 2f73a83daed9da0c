"""Artifacts that are gone, cut or changed, in the working tree and in DVC's cache; then
`langsae repro`."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.rows import Row, last_line
from faults.stages import Good, contents
from working_copy import WorkingCopy


def _flip(path: Path) -> None:
    """Change one bit in the middle; modification time and mode are as before."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}


def of_damage(good: Good, seed: int) -> Iterator[Row]:
    """A file of every long stage damaged, a row for each kind of damage; with DVC's cache and,
    where that is damaged too, in effect without."""
    work, rng = good.another("damaged", cache=True), random.Random(f"{seed} damage")
    for damage, apply in DAMAGES.items():
        files = [rng.choice(_files(work.root, s.outs)) for s in good.stages if s.long]
        for file in files:
            apply(file)
        yield _judged(Row("damaged artifacts", damage), good, work, files)
    cached = sorted(p for p in (work.root / ".dvc/cache/files").rglob("*") if p.is_file())
    for path in cached:
        _flip(path)
    for stage in good.stages:
        for file in _files(work.root, stage.outs) if stage.long else []:
            file.unlink()
    yield _judged(Row("damaged artifacts", "all gone, DVC's cache changed"), good, work, cached)


def _files(root: Path, outs: tuple[str, ...]) -> list[Path]:
    return [root / name for name in sorted(contents(root, outs))]


def _judged(row: Row, good: Good, work: WorkingCopy, files: list[Path]) -> Row:
    """One run after all the damage; what it publishes has to be the undisturbed run's."""
    done = work.run("langsae", "repro", check=False)
    outs = tuple(out for stage in good.stages for out in stage.outs if "verif" not in out)
    right = done.status == 0 and good.same(work, outs)
    row.injected, row.survived = len(files), len(files) if right else 0
    row.wrong = int(done.status == 0 and not right)
    row.message = "" if right else last_line(done.errors) or "other bytes"
    if not right:  # for what comes after it
        shutil.rmtree(work.root)
        good.another(work.root.name, cache=True)
    return row
