"""The author's own activations as a source: no model is run.

The data set holds every activation, zeros included, of 500 pairs: 2.1 GB once unpacked. Rows are
read a few at a time, and what reducers see is the same as from a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from langsae import hub
from langsae.errors import InputError
from langsae.files import digest, sha256
from langsae.launching import Launch
from langsae.models.tokens import TokenPolicy, TokenTable
from langsae.reducers.base import Reducer, SparseBatch
from langsae.saes.codes import SparseCodes
from replications.bilingual_score.run import Activations


@dataclass(frozen=True)
class Row:
    """One aligned text of L languages: values float32 [L, T, F], tokens int64 [L, T]."""

    id: str
    values: Tensor
    tokens: Tensor
    words: tuple[tuple[str, ...], ...]  # by language, BOS included, padding not


class Given:
    """A coder for vectors that are activations already."""

    def __init__(self, features: int) -> None:
        self.d_in = self.n_features = features

    def encode(self, x: Tensor) -> SparseCodes:
        """The entries of x [N, F] that are not 0."""
        token, feature = x.nonzero(as_tuple=True)
        return SparseCodes(token, feature, x[token, feature], tuple(x.shape))

    def describe(self) -> dict[str, Any]:
        """For result headers."""
        return {"architecture": "as published", "features": self.n_features}


class PublishedActivations:
    """A `Source` (see source.py) on a data set of the hub, at one revision."""

    def __init__(self, spec: Activations, policy: TokenPolicy) -> None:
        self.spec, self.policy, self.languages = spec, policy, spec.languages
        self.skipped = 0 if policy.count_bos else 1
        root = hub.snapshot(spec.repo, spec.revision, [spec.files], "dataset")
        self.files = sorted(root.glob(spec.files))
        self._words, self._ids, self._positions = [], [], 0
        for table in self._tables([spec.id, spec.tokens, spec.words]):
            self._note(table)
        self.rows = len(self._ids)
        self.features = next(self._rows()).values.shape[2]
        self.header = {
            "active": "value > 0",
            "corpus": digest([self._ids, self._words]),
            "coders": {"published": Given(self.features).describe()},
            "hooks": ["published"],
            "languages": list(self.languages),
            "model": {
                "repo": spec.repo,
                "revision": spec.revision,
                "sha256": {path.name: sha256(path) for path in self.files},
            },
            "policy": policy.model_dump(),
        }

    def collect(
        self, empty, scratch: Path, how: Launch, rows: Sequence[int] | None = None
    ) -> list[Reducer]:
        """As `Source` says; read in this process, whatever `how`: no model is run."""
        reducers, coder = empty(self), Given(self.features)
        wanted = set(range(self.rows) if rows is None else rows)
        for number, row in enumerate(self._rows()):
            if number in wanted:
                table, kept = self._table(row, number)
                seen = SparseBatch(0, table, row.values[kept], coder, self.spec.repo)
                for reducer in reducers:
                    reducer.update(seen)
        return reducers

    def pieces(self, language: int, row: int) -> list[str]:
        return list(self._words[row][language])

    def facts(self) -> dict[str, Any]:
        texts = sum(len(words) for row in self._words for words in row)
        return {
            "positions": self._positions,
            "padding": self._positions - texts,
            "longest": max(len(words) for row in self._words for words in row),
            "first": self._ids[0],
        }

    def _table(self, row: Row, number: int) -> tuple[TokenTable, Tensor]:
        """The counted positions of one row, and where they lie in its values [L, T]."""
        lengths = torch.tensor([len(words) for words in row.words])
        position = torch.arange(row.tokens.shape[1]).expand(row.tokens.shape)
        padding = position >= lengths[:, None]
        kept = position >= self.skipped
        if not self.policy.pad_rows:
            kept = kept & ~padding
        language, at = kept.nonzero(as_tuple=True)
        example = torch.full_like(language, number)
        return TokenTable(language, example, row.tokens[kept], at, padding[kept]), kept

    def _note(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._ids.append(str(row[self.spec.id]))
            self._words.append(_words(row[self.spec.words], self.spec))
            self._positions += sum(len(ids) for ids in row[self.spec.tokens])

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        for path in self.files:
            file = pq.ParquetFile(path)
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"{self.spec.repo}: {path.name} has no column '{missing[0]}'; "
                                 f"it has {', '.join(file.schema_arrow.names)}")  # fmt: skip
            for batch in file.iter_batches(self.spec.rows_at_once, columns=columns):
                yield pa.Table.from_batches([batch])

    def _rows(self) -> Iterator[Row]:
        spec = self.spec
        for table in self._tables([spec.id, spec.tokens, spec.words, spec.values]):
            for at in range(len(table)):
                tokens = torch.tensor(table[spec.tokens][at].as_py(), dtype=torch.int64)
                yield Row(
                    str(table[spec.id][at].as_py()),
                    _dense(table[spec.values][at], tokens.shape, spec),
                    tokens,
                    _words(table[spec.words][at].as_py(), spec),
                )


def _words(cell: dict[str, list[str]], spec: Activations) -> tuple[tuple[str, ...], ...]:
    missing = [code for code in spec.languages if code not in cell]
    if missing:
        raise InputError(f"{spec.repo}: '{spec.words}' has no '{missing[0]}'; mend `languages`")
    return tuple(tuple(cell[code]) for code in spec.languages)


def _dense(cell: pa.ListScalar, shape: tuple[int, int], spec: Activations) -> Tensor:
    """A cell of nested lists [L][T][F] as one float32 tensor, without Python numbers."""
    flat = cell.values.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if shape[0] != len(spec.languages) or len(flat) % (shape[0] * shape[1]) or not len(flat):
        raise InputError(
            f"{spec.repo}: '{spec.values}' has {len(flat)} values for tokens of shape "
            f"{list(shape)} in {len(spec.languages)} languages; check `languages` and columns"
        )
    return torch.from_numpy(flat).view(*shape, -1)
