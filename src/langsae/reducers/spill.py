"""Records that wait on disk because memory is kept for others."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_AT_ONCE = 1 << 20  # records


class Spill:
    """A list of records of one NumPy dtype in a file without a name: it goes with its process,
    even with a killed one.

    folder: on the disk to use; None takes the system's folder for temporary files.
    """

    def __init__(self, dtype: np.dtype, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._dtype = dtype
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, records: np.ndarray) -> None:
        """Add records at the end."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(records, dtype=self._dtype).data)
        self._count += len(records)

    def parts(self) -> Iterator[np.ndarray]:
        """All records, a million at a time; nothing may be added meanwhile."""
        self._file.seek(0)
        for start in range(0, self._count, _AT_ONCE):
            size = min(_AT_ONCE, self._count - start) * self._dtype.itemsize
            yield np.frombuffer(self._file.read(size), dtype=self._dtype)
