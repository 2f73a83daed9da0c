"""A process that has imported the libraries and forks one child for each command.

So a kill costs the work it interrupts, not the five seconds of an import.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from working_copy import WorkingCopy

# Reads a JSON line for each command: folder, module, arguments, kill_after (seconds or null),
# memory (bytes of address space beyond what it has, or null). Answers with a JSON line.
_SERVER = """
import json, os, resource, runpy, signal, sys, time, traceback
import matplotlib, numba, numpy, pandas, safetensors.torch, seaborn, sklearn, tokenizers, torch
import transformers, tqdm, omegaconf, scipy.stats
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

def child(task, log):
    os.setsid()
    os.chdir(task["folder"])
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if task["memory"] is not None:
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + task["memory"],) * 2)
    sys.argv, status = [task["module"], *task["arguments"]], 1
    try:
        runpy.run_module(task["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(bool(exit.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

def start(task, log):
    process = os.fork()
    if process == 0:
        child(task, log)
    return process

def finish(process, task, begun):
    killed = False
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return killed, os.waitstatus_to_exitcode(status)
        limit = task["kill_after"]
        if limit is not None and not killed and time.monotonic() - begun >= limit:
            os.kill(process, signal.SIGKILL)
            killed = True
        time.sleep(0.002)

for line in sys.stdin:
    tasks, begun = json.loads(line), time.monotonic()
    logs = [f"{sys.argv[1]}.{number}" for number in range(len(tasks))]
    started = [start(task, log) for task, log in zip(tasks, logs)]
    answers = []
    for process, task, log in zip(started, tasks, logs):
        killed, status = finish(process, task, begun)
        with open(log, errors="replace") as file:
            said = file.read()
        answers.append([status, killed, time.monotonic() - begun, said])
    print(json.dumps(answers), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended; seconds from its start, without imports of libraries."""

    status: int
    killed: bool
    seconds: float
    said: str


class Zygote:
    """Runs modules in folders of copies that have the same code as `copy`."""

    def __init__(self, copy: WorkingCopy) -> None:
        environ = copy.environ | {"TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(copy.root.with_name("zygote.log"))],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *error) -> None:
        self.process.stdin.close()
        self.process.wait()

    def together(
        self,
        folders: list[Path],
        command: list[str],
        kill_after: float | None = None,
        memory: int | None = None,
    ) -> list[Ended]:
        """Run [module, *arguments] in all `folders` at once."""
        module, *arguments = command
        tasks = [
            {"folder": str(folder), "module": module, "arguments": arguments,
             "kill_after": kill_after, "memory": memory}
            for folder in folders
        ]  # fmt: skip
        self.process.stdin.write(json.dumps(tasks) + "\n")
        self.process.stdin.flush()
        return [Ended(*answer) for answer in json.loads(self.process.stdout.readline())]

    def run(self, folder: Path, command: list[str], **how) -> Ended:
        """Run one."""
        return self.together([folder], command, **how)[0]
