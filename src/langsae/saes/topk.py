"""TopK sparse autoencoder: z = TopK(W_enc (x - b_dec) + b_enc), x_hat = W_dec^T z + b_dec."""

import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from langsae.errors import InputError
from langsae.files import publish, read_json, write_json
from langsae.saes.codes import SparseCodes, weighted_rows
from langsae.saes.sparse_step import top_preactivations

FORMAT = "langsae.topk"
VERSION = 1
WEIGHTS = "sae.safetensors"
CONFIG = "cfg.json"

NormKind = Literal["none", "l2", "standard"]


@dataclass(frozen=True)
class InputNorm:
    """What an SAE does to a vector before it sees it.

    none: nothing. l2: each vector divided by its own L2 norm (llm-jp). standard: minus `mean` [d],
    divided by the scalar `scale`, so that a centred vector has a mean square of 1 per dimension.
    """

    kind: NormKind = "none"
    mean: Tensor | None = None
    scale: float = 1.0

    @classmethod
    def fit(cls, kind: NormKind, x: Tensor) -> "InputNorm":
        """The normalisation of this kind for vectors like x [N, d]."""
        if kind != "standard":
            return cls(kind)
        mean = x.double().mean(0)
        scale = (x.double() - mean).square().mean().sqrt().item()
        if not scale > 0:
            raise InputError(
                "standard input normalisation: all vectors are equal; give more tokens"
            )
        return cls(kind, mean.float(), scale)

    def __call__(self, x: Tensor) -> Tensor:
        """x [N, d] normalised, float32."""
        x = x.float()
        if self.kind == "l2":
            return F.normalize(x, dim=-1)
        return x if self.mean is None else (x - self.mean) / self.scale

    def to(self, device: str | torch.device) -> "InputNorm":
        """A copy on `device`."""
        return self if self.mean is None else replace(self, mean=self.mean.to(device))


@dataclass(frozen=True)
class TopKSAE:
    """A TopK SAE at one hook point; keeps the `SparseCoder` protocol.

    W_enc, W_dec: [n, d], one latent a row, decoder rows of unit norm; b_enc: [n]; b_dec: [d], the
    b_pre of the papers. relu: negative pre-activations count as 0 (the released llm-jp code).
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    k: int
    hook: str
    relu: bool = True
    norm: InputNorm = InputNorm()

    def __post_init__(self) -> None:
        n, d = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        shapes = {"W_enc": (n, d), "b_enc": (n,), "W_dec": (n, d), "b_dec": (d,)}
        if self.norm.kind == "standard":
            shapes["mean"] = (d,)
        for name, tensor in self.tensors().items():
            if n == 0 or tuple(tensor.shape) != shapes.get(name):
                raise InputError(f"{name}: shape {tuple(tensor.shape)} does not fit W_enc's [n, d]")
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name}: holds NaN or infinite values")
        if set(shapes) != set(self.tensors()):
            raise InputError(f"{self.norm.kind} input normalisation: 'mean' missing or unexpected")
        if not 0 < self.norm.scale < float("inf"):
            raise InputError(f"scale is {self.norm.scale}; it must be a positive number")
        if not 1 <= self.k <= n:
            raise InputError(f"k is {self.k}; it must lie in 1..{n}, the number of latents")

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[1]

    @property
    def n_features(self) -> int:
        return self.W_enc.shape[0]

    def top(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values float32 [N, k] and indices int64 [N, k] of the k largest pre-activations."""
        centred = self.target(x) - self.b_dec
        values, indices = top_preactivations(centred, self.W_enc, self.b_enc, self.k)
        return (values.relu_() if self.relu else values), indices

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of x [N, d]: k slots a token, also those of value 0."""
        values, indices = self.top(x)
        token = torch.arange(len(x), device=x.device).repeat_interleave(self.k)
        shape = (len(x), self.n_features)
        return SparseCodes(token, indices.flatten(), values.flatten(), shape)

    def decode(self, codes: SparseCodes) -> Tensor:
        """Reconstruction float32 [N, d] in the space of `target`; codes ordered by token."""
        return self.b_dec + weighted_rows(codes, self.W_dec)

    def target(self, x: Tensor) -> Tensor:
        """x [N, d] after the input normalisation, float32."""
        return self.norm(x)

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by name."""
        named = {name: getattr(self, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        return named if self.norm.mean is None else {**named, "mean": self.norm.mean}

    def config(self) -> dict[str, Any]:
        """What cfg.json holds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "hook": self.hook,
            "d_in": self.d_in,
            "n_features": self.n_features,
            "k": self.k,
            "relu": self.relu,
            "input_norm": self.norm.kind,
            "input_scale": self.norm.scale,
        }

    def describe(self) -> dict[str, Any]:
        """The configuration and a SHA-256 of names, shapes and weights."""
        sha = hashlib.sha256()
        for name, tensor in sorted(_portable(self.tensors()).items()):
            sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            sha.update(tensor.numpy().data)  # no copy: an SAE of the paper has 2 GB
        return {"architecture": "topk", **self.config(), "sha256": sha.hexdigest()}

    def to(self, device: str | torch.device) -> "TopKSAE":
        """A copy on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        moved.pop("mean", None)
        return replace(self, norm=self.norm.to(device), **moved)

    def save(self, folder: str | Path) -> None:
        """Publish `folder` with `sae.safetensors` and `cfg.json`, whole or not at all."""
        with publish(folder) as temporary:
            temporary.mkdir()
            safetensors.torch.save_file(_portable(self.tensors()), temporary / WEIGHTS)
            write_json(temporary / CONFIG, self.config())

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "TopKSAE":
        """Read what `save` wrote; an InputError names the file that is missing or wrong."""
        config = _read_config(Path(folder) / CONFIG)
        path = Path(folder) / WEIGHTS
        try:
            tensors = safetensors.torch.load_file(path)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file: {error}") from error
        missing = {"W_enc", "b_enc", "W_dec", "b_dec"} - set(tensors)
        if missing:
            raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; train the SAE again")
        # Cloned, as a mapped file's tensors are not aligned to 64 bytes, which can change sums.
        tensors = {name: tensor.float().clone() for name, tensor in tensors.items()}
        if tuple(tensors["W_enc"].shape) != (config["n_features"], config["d_in"]):
            raise InputError(
                f"{path}: W_enc {tuple(tensors['W_enc'].shape)} is not as {CONFIG} says"
            )
        norm = InputNorm(config["input_norm"], tensors.pop("mean", None), config["input_scale"])
        known = {f.name for f in fields(cls)}
        try:
            sae = cls(
                **{name: tensor for name, tensor in tensors.items() if name in known},
                k=config["k"],
                hook=config["hook"],
                relu=config["relu"],
                norm=norm,
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return sae.to(device)


def _read_config(path: Path) -> dict[str, Any]:
    """cfg.json with its format, version and the types of its fields checked."""
    config = read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path}: not a {FORMAT} configuration")
    if config.get("version") != VERSION:
        raise InputError(f"{path}: version {config.get('version')}; this program reads {VERSION}")
    kinds = {"hook": str, "d_in": int, "n_features": int, "k": int, "relu": bool}
    kinds |= {"input_norm": str, "input_scale": float | int}
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):
            raise InputError(f"{path}: '{name}' is missing or of the wrong type")
    if config["input_norm"] not in get_args(NormKind):
        raise InputError(f"{path}: unknown input_norm '{config['input_norm']}'")
    return config


def _portable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
