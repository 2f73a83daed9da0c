"""Parts of a long computation, kept in a scratch folder until the whole is published."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from langsae.files import publish, read_json, write_json


class Cells:
    """Values by name in one folder, each there as a whole or not at all.

    The folder's name has to be a digest of everything that the values depend on.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def array(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The kept array `name`, or what `compute` gives, which is kept from now on."""
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            value = compute()
            with publish(path) as temporary, temporary.open("wb") as file:
                np.save(file, value, allow_pickle=False)
        return np.load(path, allow_pickle=False)

    def json(self, name: str, compute: Callable[[], Any]) -> Any:
        """The same for a JSON value."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            write_json(path, compute())
        return read_json(path)

    def remove(self) -> None:
        """Everything is published: the parts can go."""
        discard(self.folder)


def discard(folder: Path) -> None:
    """Remove a scratch folder; killed on the way, none of it is found half there again."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.is_dir():
        folder.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)
