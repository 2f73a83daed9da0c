"""SIGKILL at random moments: of single stages, of the merge of results, of the whole pipeline."""

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil

from faults.rows import Row, last_line
from faults.stages import Good, Stage, remove
from faults.zygote import Zygote
from working_copy import WorkingCopy

FAULT = "kill -9"


def of_stages(good: Good, zygote: Zygote, kills: int, seed: int) -> Iterator[Row]:
    """`kills` kills of each long stage, at moments spread over its run; then it is finished."""
    work = good.another("killed")
    for stage in good.stages:
        if stage.long:
            yield _stage(good, work, zygote, stage, kills, random.Random(f"{seed} {stage.name}"))


def _stage(
    good: Good, work: WorkingCopy, zygote: Zygote, stage: Stage, kills: int, rng: random.Random
) -> Row:
    row = Row(FAULT, f"`{' '.join(stage.command)}`")
    remove(work.root, stage.outs)
    whole = zygote.run(work.root, stage.command)
    if whole.status or not good.same(work, stage.outs):
        raise AssertionError(f"{stage.name} alone, unkilled: {last_line(whole.said)}")
    remove(work.root, stage.outs)
    done = 0
    while done < kills:
        ended = zygote.run(work.root, stage.command, kill_after=rng.uniform(0, whole.seconds))
        if ended.killed and ended.status == -signal.SIGKILL:
            done += 1
        elif ended.status:  # what a kill left must not stop the next run
            row.add(right=False, loud=True, message=last_line(ended.said))
            break
        else:
            _judge(row, good, work, stage, 0)
            remove(work.root, stage.outs)
    ended = zygote.run(work.root, stage.command)
    _judge(row, good, work, stage, done, ended.status, last_line(ended.said))
    return row


def _judge(row: Row, good: Good, work: WorkingCopy, stage: Stage, kills: int, status: int = 0,
           said: str = "") -> None:  # fmt: skip
    """All kills before a finished run are judged by what that run published."""
    right = status == 0 and good.same(work, stage.outs)
    row.injected += kills
    row.survived += kills if right else 0
    row.wrong += status == 0 and not right
    row.message = row.message or ("" if right else said or "other bytes")


def of_merging(good: Good, zygote: Zygote, kills: int, seed: int) -> Row:
    """Kills of `langsae verify --acknowledge`, which rewrites README and the verdicts."""
    work, rng = good.another("merged"), random.Random(f"{seed} merge")
    row = Row(FAULT, "`langsae verify --acknowledge`")
    outs = ("results/verification.json", "README.md")
    command = ["langsae.cli", "verify", "--acknowledge"]
    whole = zygote.run(work.root, command)
    right = {out: (work.root / out).read_bytes() for out in outs}
    before = {out: (good.copy.root / out).read_bytes() for out in outs}
    while row.injected < kills:
        for out, content in before.items():
            (work.root / out).write_bytes(content)
        ended = zygote.run(work.root, command, kill_after=rng.uniform(0, whole.seconds))
        if not ended.killed:
            continue
        torn = [
            out for out in outs if (work.root / out).read_bytes() not in (before[out], right[out])
        ]
        zygote.run(work.root, command)
        finished = all((work.root / out).read_bytes() == right[out] for out in outs)
        row.add(right=finished and not torn, loud=False, message=f"torn: {torn}" if torn else "")
    return row


def of_pipeline(good: Good, kills: int, seed: int) -> Row:
    """Kills of `langsae repro` with all its processes, in a copy that has nothing yet."""
    work, rng = WorkingCopy(good.copy.root.with_name("pipeline")), random.Random(f"{seed} repro")
    good.copy.run("git", "clone", "--quiet", str(good.copy.root), str(work.root))
    (work.root / "params.yaml").write_bytes((good.copy.root / "params.yaml").read_bytes())
    row = Row(FAULT, "`langsae repro` and all it started")
    for _ in range(kills):
        process = psutil.Popen(
            ["langsae", "repro"], cwd=work.root, env=work.environ,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(rng.uniform(2, 25))
        # `dvc repro` and its stages are a session of their own, which outlives the runner
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
    done = work.run("langsae", "repro", check=False)
    outs = tuple(out for stage in good.stages for out in stage.outs if "verif" not in out)
    right = done.status == 0 and good.same(work, outs)
    row.injected, row.survived = kills, kills if right else 0
    row.wrong = int(done.status == 0 and not right)
    row.message = "" if right else last_line(done.errors)
    return row
