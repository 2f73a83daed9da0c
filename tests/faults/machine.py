"""What a machine does to a run: full and read-only disks, little memory, a clock that jumps, and
somebody else who runs the same."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.rows import Row, last_line
from faults.stages import Good, Stage, remove
from faults.zygote import Zygote
from working_copy import WorkingCopy

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
# libfaketime's offsets: from the start, and from three seconds on
JUMPS = {
    "a year back": ("-365d",),
    "ten years on": ("+3650d",),
    "jumps a day back": ("+0", "-1d"),
    "jumps a day on": ("+0", "+1d"),
}
_SLACK = 8 * 1024  # bytes of a full disk that are free


def of_disks(good: Good, zygote: Zygote) -> Iterator[Row]:
    """Every long stage with a full and with a read-only disk under its output; then without."""
    if os.geteuid() != 0:
        return  # mounting a small disk needs root
    work = good.another("disks")
    for fault, options in (("disk full", None), ("read-only output", "ro")):
        row = Row(fault, "every long stage")
        for stage in [stage for stage in good.stages if stage.long]:
            remove(work.root, stage.outs)
            with _disk((work.root / stage.outs[0]).parent, options):
                ended = zygote.run(work.root, stage.command)
                fitted = ended.status == 0 and good.same(work, stage.outs)
            if ended.status == 0:  # small enough for the disk; it goes with the disk
                row.add(fitted, loud=False, message="" if fitted else f"{stage.name}: other bytes")
                zygote.run(work.root, stage.command)
            else:
                _after(row, good, work, zygote, stage, ended.status, ended.said)
        yield row


@contextmanager
def _disk(folder: Path, options: str | None) -> Iterator[None]:
    """A tmpfs in the place of `folder`, with its content: nearly full, or read-only."""
    kept = folder.with_name(f"{folder.name}.kept")
    shutil.copytree(folder, kept)
    used = sum(-(-p.stat().st_size // 4096) * 4096 for p in kept.rglob("*") if p.is_file())
    size = used + 4096 * sum(p.is_dir() for p in kept.rglob("*")) + _SLACK
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        if options:
            subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
        shutil.rmtree(kept)


def of_memory(good: Good, zygote: Zygote) -> Iterator[Row]:
    """Long stages with 8 and 128 MB more address space than the libraries took."""
    work = good.another("memory")
    for megabytes in (8, 128):
        row = Row("out of memory", f"every long stage, {megabytes} MB")
        for stage in [stage for stage in good.stages if stage.long]:
            remove(work.root, stage.outs)
            ended = zygote.run(work.root, stage.command, memory=megabytes << 20)
            _after(row, good, work, zygote, stage, ended.status, ended.said)
        yield row


def _after(row: Row, good: Good, work: WorkingCopy, zygote: Zygote, stage: Stage, status: int,
           said: str) -> None:  # fmt: skip
    """Judge: a run that ended well has the right bytes; one that did not goes on without fault."""
    if status == 0 and not good.same(work, stage.outs):
        row.add(right=False, loud=False, message=f"{stage.name}: other bytes")
        return
    again = zygote.run(work.root, stage.command)
    right = again.status == 0 and good.same(work, stage.outs)
    row.add(right, loud=bool(again.status), message=last_line(said) if status else "")


def of_two(good: Good, zygote: Zygote) -> Iterator[Row]:
    """The same stage twice at once, without the runner, and two `langsae repro`."""
    work = good.another("two")
    row = Row("two at once", "every long stage, by `python -m`")
    for stage in [stage for stage in good.stages if stage.long]:
        remove(work.root, stage.outs)
        ended = zygote.together([work.root, work.root], stage.command)
        failed = [one for one in ended if one.status]
        _after(row, good, work, zygote, stage, len(failed), failed[0].said if failed else "")
    yield row
    yield _two_runners(good, work)


def _two_runners(good: Good, work: WorkingCopy) -> Row:
    row = Row("two at once", "`langsae repro`")
    first = subprocess.Popen(
        ["langsae", "repro"], cwd=work.root, env=work.environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    lock = work.root / ".dvc/tmp/langsae-repro.lock"
    for _ in range(100):
        if lock.is_file() and lock.read_text():
            break
        time.sleep(0.1)
    second = work.run("langsae", "repro", check=False)
    status = first.wait()
    row.add(
        right=status == 0 and second.status != 0 and f"process {first.pid}" in second.errors,
        loud=second.status != 0,
        message=last_line(second.errors),
    )
    return row


def of_clocks(good: Good) -> Iterator[Row]:
    """Long stages and the runner under a clock that is off, and one that jumps half-way."""
    if FAKETIME is None:
        return  # Debian: libfaketime
    work = good.another("clock")
    for name, jumps in JUMPS.items():
        row = Row("clock", name)
        for stage in [stage for stage in good.stages if stage.long]:
            remove(work.root, stage.outs)
            status, said = _faked(work, ["python", "-m", *stage.command], jumps)
            row.add(
                right=status == 0 and good.same(work, stage.outs), loud=status != 0,
                message=last_line(said) if status else "",
            )  # fmt: skip
        yield row


def _faked(work: WorkingCopy, command: list[str], jumps: tuple[str, ...]) -> tuple[int, str]:
    """Run under libfaketime: the offset is read from a file that changes while it runs."""
    offset = work.root.with_name("clock-offset")
    offset.write_text(jumps[0])
    environ = work.environ | {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    process = subprocess.Popen(
        command, cwd=work.root, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    if len(jumps) > 1:
        time.sleep(3)  # into the imports or the work behind them
        offset.write_text(jumps[1])
    said = process.communicate()[1]
    return process.returncode, said
