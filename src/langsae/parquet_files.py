"""Parquet files on this machine or on the hub, read by the row group.

Of a hub's file only the footer and the row groups that are asked for are fetched, and nothing is
kept on disk: a data set may be larger than the disk.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from langsae import hub
from langsae.errors import InputError
from langsae.files import sha256

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^:]+))?(:(?P<files>.+))?")


class ParquetFiles:
    """The files that `place` names: a file, a folder, a pattern, or a data set of the hub.

    place: `owner/name@revision:data/train-*.parquet` is a data set; revision main and all its
    Parquet files where these are left out. Files are in the order of their names.
    groups: (file, row group, rows) of every row group.

    Raises InputError for no such file, one that is not Parquet, and what the hub refuses.
    """

    def __init__(self, place: str) -> None:
        self.place, self._repo, self._commit = place, "", ""
        self._guard: Callable[[], AbstractContextManager] = nullcontext
        local = _local(place)
        opened = [(str(path), path) for path in local] if local else self._on_hub(place)
        self._files = [self._open(name, source) for name, source in opened]
        self.groups = [
            (number, group, file.metadata.row_group(group).num_rows)
            for number, file in enumerate(self._files)
            for group in range(file.num_row_groups)
        ]
        self._names = [name for name, _ in opened]

    def origin(self) -> dict[str, Any]:
        """JSON that names the files: their sha256, or the data set's commit."""
        if not self._repo:
            return {Path(name).name: sha256(name) for name in self._names}
        return {"repo": self._repo, "commit": self._commit, "files": self._names}

    @property
    def columns(self) -> list[str]:
        """The columns of the first file."""
        return self._files[0].schema_arrow.names

    def read(self, group: tuple[int, int, int], column: str) -> pa.ChunkedArray:
        """One column of a row group."""
        number, index, _ = group
        if column not in self._files[number].schema_arrow.names:
            raise InputError(
                f"{self.place}: no column '{column}'; it has {', '.join(self.columns)}"
            )
        with self._guard():
            return self._files[number].read_row_group(index, columns=[column]).column(0)

    def texts(self, column: str) -> Iterator[str]:
        """The texts of a column, row group by row group."""
        for group in self.groups:
            for text in self.read(group, column).to_pylist():
                if not isinstance(text, str):
                    raise InputError(f"{self.place}: column '{column}' does not hold texts")
                yield text

    def _on_hub(self, place: str) -> Sequence[tuple[str, Any]]:
        match = _HUB.fullmatch(place)
        if match is None:
            raise InputError(
                f"{place}: no such Parquet file or folder, nor a data set like owner/name@revision"
            )
        self._repo = match["repo"]
        self._commit = hub.commit(self._repo, match["revision"] or "main", "dataset")
        self._guard = partial(hub.explained, self._repo, self._commit, "dataset")
        names = hub.file_names(self._repo, self._commit, match["files"] or "*.parquet")
        return [(name, partial(hub.stream, self._repo, self._commit, name)) for name in names]

    def _open(self, name: str, source: Path | Callable[[], Any]) -> pq.ParquetFile:
        try:
            with self._guard():
                return pq.ParquetFile(source if isinstance(source, Path) else source())
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.place}: {name} is not a Parquet file") from error


def _local(place: str) -> list[Path]:
    """The local files that `place` names, if any."""
    path = Path(place).expanduser()
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.is_file() else sorted(path.parent.glob(path.name))
