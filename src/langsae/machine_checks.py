"""What `langsae doctor` asks of the machine: Python, torch, GPU, disk, fonts."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import constants
from packaging.requirements import Requirement

from langsae import figures, hub_access
from langsae.compute import Compute
from langsae.languages import LANGUAGES
from langsae.params import parse
from langsae.report_lines import Line

_LEAST_PYTHON = (3, 11)
_GIB = 2**30


class Need(NamedTuple):
    """GiB: of GPU memory (0: none is needed), of disk here, and of disk for the hub's cache."""

    gpu: int
    here: int
    hub: int


# paper, reckoned and not measured: sae_lape holds 16 SAEs of 131,072 latents x 2,048 in float32,
# encoder and decoder (32 GiB), Llama-3.2-1B (4.6), its counters (1.5) and, for 16,384 tokens, one
# hook's pre-activations (8). Files: those SAEs, Gemma-2-2B (10), Llama (2.3), the rest (6).
# Others: what `du` says of artifacts/, .dvc/cache and scratch/ after all studies, rounded up.
NEEDS = {
    "smoke": Need(0, 1, 0),
    "demo": Need(0, 2, 0),
    "reference": Need(0, 1, 0),
    "paper": Need(48, 20, 52),
}
# A word in each script but Latin's own letters, with letters its languages have beyond ASCII.
_SAMPLES = {
    "Latn": "Íslenska Tiếng Việt Türkçe",
    "Cyrl": "Русский Български",
    "Arab": "العربية",
    "Deva": "हिन्दी",
    "Thai": "ไทย",
    "Hans": "汉语简体",
    "Jpan": "日本語ひらがなカタカナ",
    "Hang": "한국어",
}


def python() -> Iterator[Line]:
    """Python's version, and its packages against what langsae asks for."""
    version = ".".join(map(str, sys.version_info[:3]))
    mend = "use Python 3.11 or newer, and `make setup`"
    if sys.version_info < _LEAST_PYTHON:
        yield Line("FAIL", "python", f"{version} is too old", mend)
        return
    wanted = map(Requirement, metadata.requires("langsae") or [])
    wrong = [str(item) for item in wanted if not _installed(item)]
    if wrong:
        text = f"{version}; not installed as asked for: {', '.join(wrong)}"
        yield Line("FAIL", "python", text, "`make setup`, or install requirements.lock")
    else:
        yield Line("ok", "python", f"{version}, every package as asked for")


def _installed(wanted: Requirement) -> bool:
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        return True
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def torch_and_gpu(params: dict[str, Any]) -> Iterator[Line]:
    """torch's build, and the GPU against `compute.device` and the profile's need."""
    built = f"{torch.__version__}, " + (
        f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    )
    device = parse(Compute, params["compute"], "params: compute").device if params else "auto"
    need = NEEDS[params["profile"]].gpu if params else 0
    if torch.cuda.is_available():
        yield Line("ok", "torch", built)
        yield _gpu(0 if device == "cpu" else need)
    elif device.startswith("cuda") or (need and device != "cpu"):
        yield Line("FAIL", "torch", f"{built}; no GPU to be used", _why_no_gpu())
    else:
        yield Line("ok", "torch", f"{built}; works on the CPU, as this profile may")


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return "install torch's CUDA build"
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return f"a GPU is there: install a driver that knows CUDA {torch.version.cuda}"
    return "run on a machine with an NVIDIA GPU (in Docker: --gpus all), or set compute.device: cpu"


def _gpu(need: int) -> Line:
    free, total = (amount / _GIB for amount in torch.cuda.mem_get_info())
    text = f"{torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GiB free"
    if not need:
        return Line("ok", "gpu", f"{text}; this profile asks for none")
    text += f"; this profile wants about {need}"
    if total < need:
        return Line("FAIL", "gpu", text, "take a larger GPU, or lower compute.batch_tokens and "
                    "the hooks of a run in conf/")  # fmt: skip
    return Line("note" if free < need else "ok", "gpu", text)


def disk(params: dict[str, Any], root: Path) -> Iterator[Line]:
    """Free disk under `root` and in the hub's cache, less what is there already."""
    need = NEEDS[params["profile"]] if params else Need(0, 1, 0)
    held = sum(_size(root / name) for name in ("artifacts", ".dvc/cache", "scratch"))
    here = max(need.here - held / _GIB, 0)
    yield _space("disk", root, here, "this folder")
    if need.hub:
        _, size = hub_access.cached(hub_access.repositories(params))
        cache = Path(constants.HF_HUB_CACHE)
        there = max(need.hub - size / _GIB, 0)
        if _existing(cache).stat().st_dev == _existing(root).stat().st_dev:
            there += here
        yield _space("hub cache", cache, there, f"HF_HOME, {cache}")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _space(name: str, folder: Path, wanted: float, where: str) -> Line:
    there, free = _existing(folder), shutil.disk_usage(_existing(folder)).free / _GIB
    text = f"{free:.1f} GiB free in {where}; about {wanted:.1f} more needed"
    if free < wanted:
        return Line("FAIL", name, text, "free some, or move it to a larger disk")
    if not os.access(there, os.W_OK):
        return Line("FAIL", name, f"{where} cannot be written", "check its owner and its mount")
    return Line("ok", name, text)


def fonts(params: dict[str, Any]) -> Iterator[Line]:
    """Whether figures can show every script of the profile's languages."""
    codes = _languages(params) or set(LANGUAGES)
    scripts = {LANGUAGES[code].script for code in codes}
    boxes = sorted(name for name in scripts if figures.missing_glyphs(_SAMPLES[name]))
    if boxes:
        yield Line("FAIL", "fonts", f"none shows the script {', '.join(boxes)}",
                   "install Debian's fonts-noto-core and fonts-noto-cjk, or the extra `fonts` of "
                   "langsae")  # fmt: skip
    else:
        yield Line("ok", "fonts", f"all {len(scripts)} scripts of this profile's languages")


def _languages(node: Any) -> set[str]:
    """The language codes under any `languages` of the composed params."""
    found: set[str] = set()
    if isinstance(node, dict):
        found = {code for code in node.get("languages") or () if code in LANGUAGES}
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return found.union(*map(_languages, children))
