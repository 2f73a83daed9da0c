"""What we measured: `results/<study>/<profile>.json`, small and tracked by git.

The file holds only what the same inputs give again: values, seed and the SHA-256 of every input.
What differs from run to run (commit, machine, versions, time) goes to
`<profile>.manifest.json` beside it, which nothing compares.
"""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr

from langsae.claims import Value
from langsae.errors import InputError
from langsae.files import read_json, sha256, write_json
from langsae.params import Spec, parse

# rerun: a model, tokenizer or classifier run by us;
# published artefact: recomputed from the authors' own data
Basis = Literal["rerun", "published artefact"]
# own: a run of `langsae run`, which decides nothing
Profile = Literal["own", "smoke", "demo", "reference", "paper"]
PROFILES: tuple[Profile, ...] = ("smoke", "demo", "reference", "paper")  # weakest first

Sha256 = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Measured(Spec):
    """One measured value of one claim, in one reading."""

    value: Value
    basis: Basis
    detail: str | None = None


class Outcome(Spec):
    """Whether a finding holds on one model, with the numbers behind the answer."""

    holds: StrictBool
    basis: Basis
    detail: str
    interval: tuple[Finite, Finite] | None = None


class Evidence(Spec):
    """All that one profile measured for one study."""

    study: str
    profile: Profile
    seed: StrictInt
    inputs: dict[str, Sha256]
    measured: dict[str, dict[str, Measured]] = Field(default_factory=dict)  # id → variant →
    findings: dict[str, dict[str, Outcome]] = Field(default_factory=dict)  # id → model →


class Recorder:
    """Collects the evidence of one run and writes it; a missing or non-finite value is refused."""

    def __init__(self, study: str, profile: Profile, seed: int, inputs: dict[str, str]):
        self.study, self.profile, self.seed, self.inputs = study, profile, seed, dict(inputs)
        self._measured: dict[str, dict[str, Measured]] = {}
        self._findings: dict[str, dict[str, Outcome]] = {}

    def measure(
        self, id: str, variant: str, value: Any, basis: Basis = "rerun", detail: str | None = None
    ) -> None:
        """Record the value of claim `id` in the reading `variant`."""
        fields = {"value": _plain(value), "basis": basis, "detail": detail}
        self._add(self._measured, id, variant, parse(Measured, fields, f"{id} ({variant})"))

    def find(
        self,
        id: str,
        model: str,
        holds: bool,
        detail: str,
        basis: Basis = "rerun",
        interval: tuple[float, float] | None = None,
    ) -> None:
        """Record whether finding `id` holds on `model`."""
        fields = {"holds": _plain(holds), "basis": basis, "detail": detail, "interval": interval}
        self._add(self._findings, id, model, parse(Outcome, fields, f"finding {id} ({model})"))

    def write(self, root: str | Path = ".") -> Path:
        """Publish the evidence and its manifest under `root`/results; returns the evidence file."""
        evidence = Evidence(
            study=self.study,
            profile=self.profile,
            seed=self.seed,
            inputs=self.inputs,
            measured=self._measured,
            findings=self._findings,
        )
        path = evidence_path(root, self.study, self.profile)
        write_json(path, evidence.model_dump(exclude_none=True))
        write_json(path.with_suffix(".manifest.json"), manifest(root) | {"evidence": sha256(path)})
        return path

    @staticmethod
    def _add(table: dict[str, dict[str, Any]], first: str, second: str, item: Any) -> None:
        if second in table.setdefault(first, {}):
            raise InputError(f"measured twice: {first} ({second})")
        table[first][second] = item


def _plain(value: Any) -> Any:
    """NumPy and torch scalars as Python's own; the members of a set in a stable order."""
    if isinstance(value, list | tuple | set | frozenset):
        return sorted(value)
    return value.item() if hasattr(value, "item") else value


def evidence_path(root: str | Path, study: str, profile: Profile) -> Path:
    """Where the evidence of a study and profile lies."""
    return Path(root) / "results" / study / f"{profile}.json"


def read_evidence(root: str | Path, study: str) -> dict[Profile, Evidence]:
    """The evidence of every profile that was run, checked; NaN and null are errors."""
    found = {}
    for profile in PROFILES:
        path = evidence_path(root, study, profile)
        if path.exists():
            evidence = parse(Evidence, read_json(path), str(path))
            if (evidence.study, evidence.profile) != (study, profile):
                raise InputError(f"{path}: holds {evidence.study}, profile {evidence.profile}")
            found[profile] = evidence
    return found


def manifest(root: str | Path = ".") -> dict[str, Any]:
    """Who measured: commit, versions of the packages langsae asks for, machine, time."""
    return {
        "commit": _commit(root),
        "packages": _packages(),
        "python": platform.python_version(),
        "machine": _machine(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit(root: str | Path) -> str:
    """The commit, with `-dirty` when tracked files differ from it; outside git, as in the image's
    own project, the one that $LANGSAE_REVISION names, else "unknown"."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("LANGSAE_REVISION", "unknown")
    return answer.stdout.strip()


def _packages() -> dict[str, str]:
    wanted = [line for line in metadata.requires("langsae") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in wanted]
    return {name: version for name in names if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # asked only where the run has loaded it
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
