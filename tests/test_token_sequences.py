"""Pre-tokenised text: writing it, reading it in a seeded order, and from a hub in parts."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsae.errors import InputError
from langsae.parquet_files import ParquetFiles
from langsae.token_sequences import TokenSequences, write_sequences
from standin_hub import TOKEN, run_with_hub

ROWS = np.arange(70 * 3).reshape(70, 3)


class Letters:
    """A token a letter: a is 1. The oracle can be written by hand."""

    eos_token_id, bos_token_id = 0, 99

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(letter) - 96 for letter in text] for text in texts]}


def save(path, rows=ROWS, group=20, **columns):
    table = pa.table(columns or {"input_ids": [list(map(int, row)) for row in rows]})
    pq.write_table(table, path, row_group_size=group)
    return str(path)


def test_every_sequence_comes_once_and_in_a_seeded_order(tmp_path):
    save(tmp_path / "b.parquet", ROWS[50:], 7)
    save(tmp_path / "a.parquet", ROWS[:50])
    sequences = TokenSequences(ParquetFiles(str(tmp_path)), 1)
    assert (len(sequences), sequences.length) == (70, 3)
    read = sequences.rows(0, 70).numpy()
    assert sorted(map(tuple, read)) == sorted(map(tuple, ROWS))
    assert (read != ROWS).any()
    again = TokenSequences(ParquetFiles(str(tmp_path / "*.parquet")), 1)
    # any part, in any order of asking
    for start, stop in ((60, 70), (0, 9), (19, 45)):
        np.testing.assert_array_equal(again.rows(start, stop), read[start:stop])
    np.testing.assert_array_equal(again[33]["input_ids"], read[33])
    other = TokenSequences(ParquetFiles(str(tmp_path)), 2)
    assert (other.rows(0, 70).numpy() != read).any()


def test_a_row_group_is_read_once_when_sequences_are_read_in_order(tmp_path, monkeypatch):
    files, asked = ParquetFiles(save(tmp_path / "a.parquet")), []
    read = files.read
    monkeypatch.setattr(
        files, "read", lambda group, column: asked.append(group) or read(group, column)
    )
    sequences = TokenSequences(files, 0)
    for index in range(70):
        sequences[index]
    assert sorted(asked) == [(0, 0, 20), (0, 1, 20), (0, 2, 20), (0, 3, 10)]


def test_limit(tmp_path):
    path = save(tmp_path / "a.parquet")
    few = TokenSequences(ParquetFiles(path), 0, 12)
    assert len(few) == len(few.rows(0, 70)) == 12
    assert len(TokenSequences(ParquetFiles(path), 0, 500)) == 70


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"input_ids": [[1, 2], [3]]}, "differ in length"),
        ({"input_ids": [[1, 2], None]}, "differ in length"),
        ({"input_ids": ["a b"]}, "not lists of token ids"),
        ({"input_ids": [[0.5]]}, "not lists of token ids"),
        ({"ids": [[1]]}, "no column 'input_ids'; it has ids"),
        ({"input_ids": pa.array([], pa.list_(pa.int32()))}, "no token sequences"),
    ],
)
def test_files_without_sequences_are_refused(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        TokenSequences(ParquetFiles(save(tmp_path / "a.parquet", **columns)), 0)


def test_places_that_are_nothing(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"<html>")
    for place, message in (("a.parquet", "not a Parquet file"), ("b.parquet", "no such Parquet")):
        with pytest.raises(InputError, match=message):
            ParquetFiles(str(tmp_path / place))


@pytest.mark.parametrize(
    ("bos", "expected"),
    [
        ("none", [[0, 1, 2, 3], [0, 4, 0, 5], [6, 7, 8, 9]]),
        ("prepend", [[99, 0, 1, 2], [99, 3, 0, 4], [99, 0, 5, 6], [99, 7, 8, 9]]),
    ],
)
def test_texts_are_joined_and_cut(tmp_path, bos, expected):
    """abc, d, efghi: an end token before each; the rest that fills no sequence is left out."""
    texts = ["abc", "d", "efghi", ""][: 3 if bos == "prepend" else 4]
    path = tmp_path / "out.parquet"
    assert write_sequences(Letters(), texts, 4, bos, path) == len(expected)
    assert pq.read_table(path)["input_ids"].to_pylist() == expected
    assert write_sequences(Letters(), texts, 4, bos, path, limit=2) == 2
    assert pq.read_table(path)["input_ids"].to_pylist() == expected[:2]
    sequences = TokenSequences(ParquetFiles(str(path)), 0)
    assert sorted(sequences.rows(0, 2).tolist()) == sorted(expected[:2])


def test_too_little_text(tmp_path):
    with pytest.raises(InputError, match="fewer than 9 tokens"):
        write_sequences(Letters(), ["abc"], 9, "none", tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


OVER_THE_WIRE = """
import json
from langsae.errors import InputError
from langsae.parquet_files import ParquetFiles
from langsae.token_sequences import TokenSequences

for place in PLACES:
    try:
        files = ParquetFiles(place)
        print(json.dumps([files.origin(), TokenSequences(files, 0, 5).rows(0, 5).tolist()]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def test_from_the_hub_only_what_is_read_is_fetched(hub, tmp_path):
    rows = np.random.default_rng(0).integers(0, 2**31 - 1, (4000, 64))
    files = {"data/train-0.parquet": save(tmp_path / "a", rows, 100), "data/test-0.parquet": b"-"}
    files["README.md"] = b"-"
    commit = hub.add_repo("some/tokens", files, "dataset")
    hub.add_repo("locked/tokens", files, "dataset", gated=True)
    size = (tmp_path / "a").stat().st_size
    places = ["some/tokens@main:data/train-*.parquet", "some/tokens:data/none-*", "some/nothing",
              "locked/tokens:data/train-*.parquet"]  # fmt: skip
    code = OVER_THE_WIRE.replace("PLACES", repr(places))
    (origin, read), none, nothing, gated = map(json.loads, run_with_hub(hub, code).splitlines())
    assert origin == {"repo": "some/tokens", "commit": commit, "files": ["data/train-0.parquet"]}
    local = TokenSequences(ParquetFiles(str(tmp_path / "a")), 0)
    assert read == local.rows(0, 5).tolist()
    assert "holds no file like data/none-*" in none
    assert "some/nothing" in nothing
    assert "locked/tokens is gated" in gated
    assert "HF_TOKEN" in gated
    assert size > 800_000
    assert hub.sent < size / 2
    opened = run_with_hub(hub, code.replace(repr(places), repr(places[3:])), HF_TOKEN=TOKEN)
    assert json.loads(opened)[1] == read
