"""Reading .npz files of weights as if whoever made them meant harm: GemmaScope's layout."""

import math
import tokenize
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from langsae.errors import InputError

# Float weights hardly pack: times the file's size that all of it may unpack to.
_MOST_PACKED = 100


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file of floats, as float32; memory is checked before it is taken.

    Raises InputError for an array of another type or of another size than its header says, and for
    an archive that unpacks to over a hundred times its size; zipfile's and zlib's errors for one
    that is not whole. Nothing is unpickled.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        unpacked, packed = sum(info.file_size for info in archive.infolist()), path.stat().st_size
        if unpacked > _MOST_PACKED * packed:
            raise InputError(f"{path}: unpacks to {unpacked:,} bytes from {packed:,}; not weights")
        return {name: _read(archive, info, f"{path}: {name}") for name, info in entries.items()}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    try:
        with archive.open(info) as file:
            _check_header(file, info.file_size, where)
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False).astype("f4", copy=False)
    except RuntimeError as error:  # encrypted, or packed by a method that Python has not
        raise InputError(f"{where}: cannot be unpacked: {error}") from error


def _check_header(file: IO[bytes], size: int, where: str) -> None:
    """Refuse an entry of `size` bytes that is not exactly the floats its header tells of."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0,
               (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} is not for plain arrays")
        shape, _, dtype = readers[version](file)
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError) as error:
        raise InputError(f"{where}: no array of NumPy's: {' '.join(str(error).split())}") from error
    if dtype.kind != "f":
        raise InputError(f"{where}: holds {dtype}, not floats")
    held = size - file.tell()
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise InputError(f"{where}: its header says {shape} of {dtype}, {held:,} bytes follow")
