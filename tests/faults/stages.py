"""The smoke pipeline, run once without faults: what every faulty run is compared with."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from working_copy import WorkingCopy

# Stages that read no text or weights for long and only publish a small file.
_BRIEF = ("prepare_corpora", "figures", "verify")


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline as it ran: DVC's name, its module with arguments, its outputs."""

    name: str
    command: list[str]
    outs: tuple[str, ...]

    @property
    def long(self) -> bool:
        """Whether it has work to lose."""
        return not self.name.startswith(_BRIEF)


class Good:
    """A finished smoke run, and working folders made from it."""

    def __init__(self, root: Path) -> None:
        self.copy = WorkingCopy.make(root / "good")
        self.copy.run("langsae", "profile", "smoke")
        params = self.copy.root / "params.yaml"
        text = params.read_text(encoding="utf-8")
        # as often as can be, so that kills fall on and between checkpoints
        params.write_text(text.replace("checkpoint_seconds: 5", "checkpoint_seconds: 1"))
        self.copy.run("langsae", "verify", "--acknowledge")  # what the tree as it is now says
        self.copy.run("langsae", "repro")
        self.stages = _stages(self.copy.root)

    def another(self, name: str, cache: bool = False) -> WorkingCopy:
        """A copy of the finished run, with DVC's state, and its cache if wanted."""
        root = self.copy.root.with_name(name)
        ignore = shutil.ignore_patterns("__pycache__", *([] if cache else ["cache"]))
        shutil.copytree(self.copy.root, root, ignore=ignore, symlinks=True)
        return WorkingCopy(root)

    def same(self, other: WorkingCopy, outs: tuple[str, ...]) -> bool:
        """Whether `outs` are the finished run's, to the byte, and nothing else lies beside them."""
        return contents(self.copy.root, outs) == contents(other.root, outs) != {}


def contents(root: Path, outs: tuple[str, ...]) -> dict[str, bytes]:
    """Every file of `outs` by its path; what a killed run left half-written beside them, too."""
    found: dict[str, bytes] = {}
    for out in outs:
        path = root / out
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        beside = sorted(path.parent.glob(f".{path.name}.*.tmp")) if path.parent.is_dir() else []
        for file in files + [p for p in beside if p.is_file()]:
            if not file.name.endswith(".manifest.json"):  # says when and where it ran
                found[file.relative_to(root).as_posix()] = file.read_bytes()
    return found


def remove(root: Path, outs: tuple[str, ...]) -> None:
    """Delete outputs, and scratch folders."""
    for path in [*(root / out for out in outs), root / "scratch"]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _stages(root: Path) -> list[Stage]:
    locked = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    current = set(commands_of(root))
    found = []
    for name, stage in locked.items():
        outs = tuple(out["path"] for out in stage.get("outs", []))
        if stage["cmd"] not in current or not all((root / out).exists() for out in outs):
            continue  # of another profile
        found.append(Stage(name, stage["cmd"].removeprefix("python -m ").split(), outs))
    return found


def commands_of(root: Path) -> list[str]:
    """The commands of the pipeline under the profile in params.yaml."""
    document = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    commands = []
    for stage in document["stages"].values():
        if "foreach" not in stage:
            commands.append(stage["cmd"].replace("${profile}", params["profile"]))
            continue
        node = params
        for key in stage["foreach"].removeprefix("${").removesuffix("}").split("."):
            node = node[key]
        commands += [stage["do"]["cmd"].replace("${key}", key) for key in node]
    return commands
