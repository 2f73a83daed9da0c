"""Pre-tokenised text: sequences of one length in a column `input_ids` of Parquet files."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from langsae.errors import InputError
from langsae.files import publish
from langsae.parquet_files import ParquetFiles

COLUMN = "input_ids"
_ROWS = 256  # sequences a row group: the unit that is read at a time
_TEXTS_AT_ONCE = 256
_UNEQUAL = "{}: input_ids differ in length; `langsae tokenise` makes sequences of one length"


class TokenSequences(Dataset):
    """The sequences of Parquet files in a seeded order; one row group is in memory at a time.

    Row groups are taken in a random order and so are the rows within each, so reading in order
    fetches each group once. limit: the number of sequences, or fewer.
    Item i is {"input_ids": int64 [length]}, what sparsify's trainer asks of a data set.
    """

    def __init__(self, files: ParquetFiles, seed: int, limit: int | None = None) -> None:
        self.files, self.seed = files, seed
        order = np.random.default_rng(seed).permutation(len(files.groups))
        self._groups = [files.groups[index] for index in order]
        self._ends = list(accumulate(rows for _, _, rows in self._groups))
        self._held = (-1, np.empty((0, 0)))
        rows = self._ends[-1] if self._ends else 0
        self._size = rows if limit is None else min(rows, limit)
        if not self._size:
            raise InputError(f"{files.place}: no token sequences there")
        self.length = self._group(0).shape[1]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {COLUMN: self.rows(index, index + 1)[0]}

    def rows(self, start: int, stop: int) -> Tensor:
        """Sequences start..stop - 1: int64 [n, length]."""
        found = []
        for index in range(*slice(start, stop).indices(self._size)):
            number = bisect_right(self._ends, index)
            first = self._ends[number] - self._groups[number][2]
            found.append(self._group(number)[index - first])
        return torch.from_numpy(np.stack(found).astype(np.int64))

    def _group(self, number: int) -> np.ndarray:
        """The rows of the number-th row group in their order, [rows, length]."""
        if self._held[0] != number:
            group = self._groups[number]
            table = _matrix(self.files.read(group, COLUMN), self.files.place)
            if number and table.shape[1] != self.length:
                raise InputError(_UNEQUAL.format(self.files.place))
            order = np.random.default_rng([self.seed, *group[:2]]).permutation(len(table))
            self._held = (number, table[order])
        return self._held[1]


def _matrix(column: pa.ChunkedArray, place: str) -> np.ndarray:
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (lists or pa.types.is_fixed_size_list(kind)) or not pa.types.is_integer(kind.value_type):
        raise InputError(f"{place}: column '{COLUMN}' holds {kind}, not lists of token ids")
    lengths = pc.list_value_length(column)
    values = pc.list_flatten(column)
    if lengths.null_count or values.null_count or len(pc.unique(lengths)) != 1:
        raise InputError(_UNEQUAL.format(place))
    return values.to_numpy().reshape(len(column), -1)


def write_sequences(
    tokenizer,
    texts: Iterable[str],
    length: int,
    bos: Literal["prepend", "none"],
    out: str | Path,
    limit: int | None = None,
) -> int:
    """Publish `out` with the texts as sequences of `length` tokens; how many there are.

    Texts are joined with an end-of-text token before each, as sparsify does, and cut; the rest is
    left out. bos: put the tokenizer's BOS in front of each sequence. limit: at most so many.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise InputError("the tokenizer has no end-of-text token to put between texts")
    if bos == "prepend" and tokenizer.bos_token_id is None:
        raise InputError("the tokenizer has no BOS token; use --bos none")
    head = [tokenizer.bos_token_id] if bos == "prepend" else []
    if length <= len(head):
        raise InputError(f"sequences of {length} tokens hold no text; give a larger length")
    schema = pa.schema([(COLUMN, pa.list_(pa.int32(), length))])
    count = 0
    with publish(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for rows in _grouped(_cut(tokenizer, texts, length - len(head), end), limit):
            writer.write_table(pa.table({COLUMN: [head + row for row in rows]}, schema))
            count += len(rows)
        if not count:
            raise InputError(f"the texts have fewer than {length} tokens; give more or a smaller "
                             "--ctx-len")  # fmt: skip
    return count


def _cut(tokenizer, texts: Iterable[str], length: int, end: int) -> Iterator[list[int]]:
    rest: list[int] = []
    for part in _parts(texts, _TEXTS_AT_ONCE):
        encoded = tokenizer(
            part, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        for ids in encoded["input_ids"]:
            rest += [end, *ids]
        whole = len(rest) - len(rest) % length
        yield from (rest[start : start + length] for start in range(0, whole, length))
        rest = rest[whole:]


def _grouped(rows: Iterable[list[int]], limit: int | None) -> Iterator[list[list[int]]]:
    left = limit
    for group in _parts(rows, _ROWS):
        yield group[:left]
        if left is not None and (left := left - len(group)) <= 0:
            return


def _parts(items: Iterable, size: int) -> Iterator[list]:
    part: list = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
