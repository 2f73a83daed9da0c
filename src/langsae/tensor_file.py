"""Writing a safetensors file part by part, where its tensors do not fit into memory together."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_NAMES = {"int8": "I8", "int32": "I32", "int64": "I64", "float32": "F32", "float64": "F64"}


class TensorFile:
    """A new safetensors file at `path`; its tensors are put in one at a time, in any order.

    tensors: dtype (a NumPy name) and shape by name; metadata: at most one entry, as everywhere
    here (see reducers.base). A context manager; leaving it without every tensor put in is an error.
    """

    def __init__(
        self,
        path: str | Path,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str],
    ) -> None:
        # the widest first, so that each begins at a multiple of its own width
        order = sorted(tensors, key=lambda name: (-np.dtype(tensors[name][0]).itemsize, name))
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        self._places: dict[str, int] = {}
        end = 0
        for name in order:
            dtype, shape = tensors[name]
            start, end = end, end + np.dtype(dtype).itemsize * math.prod(shape)
            self._places[name] = start
            header[name] = {
                "dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]
            }  # fmt: skip
        head = json.dumps(header, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        self._tensors, self._missing, self._start = dict(tensors), set(tensors), 8 + len(head)
        self._file = open(path, "wb")  # noqa: SIM115
        self._file.write(len(head).to_bytes(8, "little") + head)
        self._file.truncate(self._start + end)

    def put(self, name: str, values: np.ndarray) -> None:
        """Write the whole tensor `name`."""
        dtype, shape = self._tensors[name]
        if (values.dtype.name, values.shape) != (dtype, tuple(shape)):
            raise ValueError(f"{name}: {values.dtype} {values.shape}, not {dtype} {shape}")
        self._file.seek(self._start + self._places[name])
        self._file.write(np.ascontiguousarray(values).data)
        self._missing.discard(name)

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, kind, *_) -> None:
        self._file.close()
        if kind is None and self._missing:
            raise ValueError(f"never written: {', '.join(sorted(self._missing))}")
