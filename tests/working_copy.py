"""The working tree copied somewhere else, and its commands run there as a user would run them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGE = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)

# argv: a JSON list of [folder, module, *arguments]. Every module is run as `python -m` would run
# it in that folder, but in this one process: libraries are imported once. Prints JSON.
_ONE_PROCESS = """
import contextlib, io, json, os, runpy, sys, traceback
commands, results, out = json.loads(sys.argv[1]), [], sys.stdout
for folder, module, *arguments in commands:
    os.chdir(folder)
    sys.argv, status, errors = [module, *arguments], 0, io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as exit:
            status = exit.code or 0
        except Exception:
            status = 1
            traceback.print_exc()
    results.append([status, errors.getvalue()])
json.dump(results, out)
"""


@dataclass(frozen=True)
class Done:
    """What a command printed (both streams), its exit status and its wall time."""

    status: int
    output: str
    errors: str
    seconds: float

    @property
    def stages(self) -> list[str]:
        """The stages that `dvc repro` ran."""
        return STAGE.findall(self.output)


def project_files() -> list[Path]:
    """What a commit of the working tree as it is now would hold, relative to its root."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file()]


class WorkingCopy:
    """A folder with a project in it; commands run there with its own code and DVC state."""

    def __init__(self, root: Path, **environ: str):
        self.root = root
        hidden = {"PYTHONDONTWRITEBYTECODE", "DVC_STUDIO_TOKEN"}
        self.environ = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(root.with_name(f"{root.name}-dvc-site")),
            "GIT_CONFIG_GLOBAL": str(root.with_name("no-gitconfig")),
            **{f"GIT_{who}_{what}": "test@example.org"
               for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            **environ,
        }  # fmt: skip

    @classmethod
    def make(cls, root: Path, **environ: str) -> "WorkingCopy":
        """A copy of the working tree, uncommitted changes included, in a git repository."""
        for name in project_files():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        copy = cls(root, **environ)
        copy.run("git", "init", "--quiet")
        copy.commit()
        return copy

    def run(self, *command: str, check: bool = True) -> Done:
        """Run a command in the copy."""
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=self.root, env=self.environ, capture_output=True, text=True, check=False
        )
        if check:
            assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start)

    def modules(self, *commands: tuple[str, ...], check: bool = True) -> list[tuple[int, str]]:
        """Run (folder, module, *arguments) one after the other; (status, stderr) of each."""
        plain = [[str(self.root / folder), *rest] for folder, *rest in commands]
        results = json.loads(self.run(sys.executable, "-c", _ONE_PROCESS, json.dumps(plain)).output)
        for command, (status, errors) in zip(commands, results, strict=True):
            assert not check or status == 0, f"{command}: exit status {status}\n{errors}"
        return [(status, errors) for status, errors in results]

    def commit(self) -> None:
        """Commit everything git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "state")

    def clone(self, root: Path) -> "WorkingCopy":
        """A fresh git clone at `root`."""
        self.run("git", "clone", "--quiet", str(self.root), str(root))
        return WorkingCopy(root)

    def tree(self, *folders: str) -> dict[str, bytes]:
        """Every file below `folders`, by its path in the copy."""
        found = [path for folder in folders for path in sorted((self.root / folder).rglob("*"))]
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in found
            if path.is_file()
        }
