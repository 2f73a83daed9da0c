"""Mergeable accumulators over a stream of sparse codes.

Every state is a sum, an extreme or a set, and every sum is exact: integers in int64, reals as
float64 multiples of a fixed grid. So the result does not depend on batch size, shard order or merge
order, to the bit.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from langsae.errors import InputError
from langsae.files import publish
from langsae.models.tokens import TokenTable
from langsae.saes.codes import SparseCoder, SparseCodes


@dataclass(frozen=True)
class SparseBatch:
    """What reducers see: one hook point of one batch."""

    hook: int  # index into the collection's hooks
    tokens: TokenTable  # N counted positions
    vectors: Tensor  # [N, d], what the coder encodes
    coder: SparseCoder
    where: str  # the hook point's name, for messages

    @cached_property
    def codes(self) -> SparseCodes:
        """Of shape (N, features); encoded when first asked for."""
        codes = self.coder.encode(self.vectors)
        if not bool(torch.isfinite(codes.value).all()):
            raise InputError(f"{self.where}: the codes are not finite; check model, SAE and dtype")
        return codes


def exact(values: Tensor, grid: float) -> Tensor:
    """`values` in float64, rounded to multiples of `grid` (a power of two).

    Sums of such numbers are exact in float64, hence independent of their order, while they stay
    below grid * 2**53; `Reducer.save` refuses a sum beyond that.
    """
    return (values.double() / grid).round_() * grid


class Reducer:
    """State tensors that add up (or as `merges` says); subclasses fill them in `update`.

    header: what the numbers are true of (model, SAEs, corpus, policy, hooks, languages, what
    "active" means); merging or loading across different headers is refused.
    """

    name: str  # of its file, too
    grids: ClassVar[dict[str, float]] = {}  # of the float64 states
    # how states that are no sums join: torch.maximum, torch.minimum
    merges: ClassVar[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {}

    def __init__(self, header: dict[str, Any], state: dict[str, Tensor]) -> None:
        self.header = header
        self.state = state

    def update(self, batch: SparseBatch) -> None:
        """Take in one hook point of one batch."""
        raise NotImplementedError

    def merge(self, other: "Reducer") -> None:
        """Add another part of the same collection."""
        _same_header(self.name, self.header, other.header)
        for key, value in self.state.items():
            join = self.merges.get(key, torch.add)
            self.state[key] = join(value, other.state[key].to(value.device))

    def save(self, path: str | Path) -> None:
        """Publish state and header as one safetensors file."""
        for key, grid in self.grids.items():
            peak = float(self.state[key].abs().max())
            if not peak < grid * 2**53:
                raise InputError(f"{self.name}.{key}: a sum of {peak:.3g} is not finite and exact")
        with publish(path) as temporary:
            save_file(
                {key: value.cpu().contiguous() for key, value in self.state.items()},
                temporary,
                _metadata(self.name, self.header),
            )

    def restore(self, path: str | Path) -> None:
        """Replace the state by a saved one; another reducer's or header's file is refused."""
        header, state = read(path, self.name)
        _same_header(f"{path}", self.header, header)
        for key, value in self.state.items():
            value.copy_(state[key])


def _metadata(name: str, header: dict[str, Any]) -> dict[str, str]:
    # one entry: safetensors writes several in a random order, and equal results have equal bytes
    return {"langsae": json.dumps({"reducer": name, "header": header}, sort_keys=True)}


def read(path: str | Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and state of a saved reducer called `name`."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("langsae", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run the collecting stage first") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); delete it") from error
    if metadata.get("reducer") != name:
        raise InputError(f"{path}: holds '{metadata.get('reducer')}', not '{name}'")
    return metadata["header"], state


def _same_header(where: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours, theirs = json.loads(json.dumps(ours)), json.loads(json.dumps(theirs))
    if ours != theirs:
        keys = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        raise InputError(f"{where}: collected under another {', '.join(keys)}; collect again")


def add_at(target: Tensor, index: Tensor, values: Tensor) -> None:
    """target[index] += values for repeated indices, in place; both 1-D."""
    if target.device.type == "cpu":
        # NumPy's bincount is several times faster here than torch's serial index_add_.
        weights = None if values.dtype == torch.int64 else values.numpy()
        sums = np.bincount(index.numpy(), weights=weights, minlength=len(target))
        target += torch.from_numpy(sums).to(target.dtype)
    else:
        target.index_add_(0, index, values)
