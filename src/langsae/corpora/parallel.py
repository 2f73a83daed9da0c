"""Aligned texts by language: what every corpus source delivers and every study reads."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from langsae.corpora.lines import read_jsonl, write_jsonl
from langsae.errors import InputError
from langsae.files import digest
from langsae.languages import find
from langsae.params import Spec, parse

T = TypeVar("T")


class _Header(Spec):
    """The first line of a stored corpus."""

    langsae: Literal["corpus"]
    name: str
    languages: tuple[str, ...]
    aligned: bool
    ids: bool
    provenance: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class ParallelCorpus:
    """Texts by language code, in the order asked for.

    If `aligned`, row i means the same in every language and `ids[i]` (unique) may name it;
    if not, each language has its own rows and there are no ids.
    `provenance` is JSON: where the texts came from and what was done to them.
    Raises InputError for no language, no rows, an empty text, or rows that do not align.
    """

    name: str
    texts: Mapping[str, tuple[str, ...]]
    ids: tuple[str, ...] | None = None
    aligned: bool = True
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.texts:
            raise InputError(f"{self.name}: a corpus needs at least one language")
        for code, texts in self.texts.items():
            find(code)
            self._check_texts(code, texts)
        if self.aligned:
            self._check_alignment()
        elif self.ids is not None:
            raise InputError(f"{self.name}: ids are for aligned corpora only")

    def _check_texts(self, code: str, texts: Sequence[str]) -> None:
        if not texts:
            raise InputError(f"{self.name}: no rows in '{code}'")
        for row, text in enumerate(texts):
            if not text.strip():
                raise InputError(
                    f"{self.name}: row {row} is empty in '{code}'; "
                    "min_characters: 1 leaves such rows out"
                )

    def _check_alignment(self) -> None:
        lengths = {code: len(texts) for code, texts in self.texts.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{code} {length}" for code, length in lengths.items())
            raise InputError(f"{self.name}: languages differ in number of rows: {counts}")
        if self.ids is None:
            return
        if len(self.ids) != len(self):
            raise InputError(f"{self.name}: {len(self.ids)} ids for {len(self)} rows")
        identifier, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise InputError(f"{self.name}: id '{identifier}' occurs {times} times")

    def __len__(self) -> int:
        """Number of aligned rows; of the longest language where rows are not aligned."""
        return max(map(len, self.texts.values()))

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes, in the order of `texts`."""
        return tuple(self.texts)

    def select(self, codes: Iterable[str]) -> "ParallelCorpus":
        """Only these languages, in this order; InputError for one that is absent."""
        return replace(self, texts={code: self._of(code) for code in codes})

    def _of(self, code: str) -> tuple[str, ...]:
        if code not in self.texts:
            raise InputError(
                f"{self.name}: language '{code}' is absent; it has {', '.join(self.texts)}"
            )
        return self.texts[code]

    def rows(self, selection: str) -> "ParallelCorpus":
        """The rows of a Python slice such as "0:997", ":500" or "1::2", in every language."""
        part = parse_slice(selection)
        if not any(texts[part] for texts in self.texts.values()):
            raise InputError(f"{self.name}: rows '{selection}' selects none of {len(self)} rows")
        return self._each(lambda column: column[part])

    def permuted(self, permutation: Callable[[int], Sequence[int]]) -> "ParallelCorpus":
        """Rows in the order `permutation(number of rows)` gives."""
        return self._each(lambda column: tuple(column[i] for i in permutation(len(column))))

    def _each(self, change: Callable[[tuple[T, ...]], tuple[T, ...]]) -> "ParallelCorpus":
        texts = {code: change(column) for code, column in self.texts.items()}
        return replace(self, texts=texts, ids=None if self.ids is None else change(self.ids))

    def digest(self) -> str:
        """SHA-256 of languages, texts, ids and alignment; name and provenance do not count."""
        return digest([list(self.texts.items()), self.ids, self.aligned])

    def save(self, path: str | os.PathLike[str]) -> None:
        """One JSONL file (`.gz` packs it): a header line, then a line per row, or per text."""
        header = _Header(
            langsae="corpus",
            name=self.name,
            languages=self.languages,
            aligned=self.aligned,
            ids=self.ids is not None,
            provenance=self.provenance,
            digest=self.digest(),
        )
        write_jsonl(path, [header.model_dump(), *self._lines()])

    def _lines(self) -> Iterable[dict[str, str]]:
        if not self.aligned:
            return ({code: text} for code, texts in self.texts.items() for text in texts)
        rows = (
            dict(zip(self.texts, row, strict=True))
            for row in zip(*self.texts.values(), strict=True)
        )
        if self.ids is None:
            return rows
        return ({"_id": id} | row for id, row in zip(self.ids, rows, strict=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ParallelCorpus":
        """Read what `save` wrote; InputError if the file is anything else or was changed."""
        first, *rows = [row for _, row in read_jsonl(Path(path))] or [{}]
        if first.get("langsae") != "corpus":
            raise InputError(f"{path}: not a langsae corpus; write it with ParallelCorpus.save")
        header = parse(_Header, first, f"{path}:1")
        texts: dict[str, list[str]] = {code: [] for code in header.languages}
        ids = []
        for number, row in enumerate(rows, 2):
            if not all(isinstance(text, str) for text in row.values()):
                raise InputError(f"{path}:{number}: holds what is no text; make the file again")
            if header.ids:
                ids.append(row.pop("_id", None))
            for code, text in row.items():
                texts.setdefault(code, []).append(text)
        corpus = cls(
            header.name,
            {code: tuple(column) for code, column in texts.items()},
            tuple(ids) if header.ids else None,
            header.aligned,
            header.provenance,
        )
        if corpus.digest() != header.digest:
            raise InputError(f"{path}: its texts do not match its digest; make the file again")
        return corpus


def parse_slice(selection: str) -> slice:
    """The slice that "start:stop" or "start:stop:step" stands for; InputError if malformed."""
    if not re.fullmatch(r"(-?\d+)?:(-?\d+)?(:(-?\d+)?)?", selection):
        raise InputError(f"rows '{selection}' is not a slice; write it like '0:997' or '1::2'")
    part = slice(*(int(number) if number else None for number in selection.split(":")))
    if part.step == 0:
        raise InputError(f"rows '{selection}' has step 0")
    return part
