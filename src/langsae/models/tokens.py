"""From texts to batches of token ids, with masks instead of conventions."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.params import Spec

_TEXTS_AT_ONCE = 256


class TokenPolicy(Spec):
    """How a text becomes positions, and which of them count.

    bos: put the tokenizer's BOS in front, or nothing; never left to a tokenizer's default.
    count_bos: whether that position enters SAEs and counts.
    max_tokens: truncate to this many tokens (BOS included); None keeps all.
    pad_rows: as bilingual_score was published: the texts of an aligned row are filled up with the
    padding token to the longest of them, and these positions are encoded; tables mark them.
    Any other padding is on the right and never counts.
    """

    bos: Literal["prepend", "none"] = "prepend"
    count_bos: bool = False
    max_tokens: PositiveInt | None = None
    pad_rows: bool = False


@dataclass(frozen=True)
class TokenTable:
    """The counted positions of a batch, one row each: int64 [N] columns."""

    language: Tensor  # index into the collection's languages
    example: Tensor  # index of the text within its language
    token: Tensor  # token id
    position: Tensor  # position within the text, BOS included
    padding: Tensor  # bool: the policy's padding, not text

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class TokenBatch:
    """B texts, right-padded to T positions."""

    ids: Tensor  # int64 [B, T]
    counted: Tensor  # bool [B, T]: by policy, counted
    padding: Tensor  # bool [B, T]: counted, but the policy's padding
    language: Tensor  # int64 [B]
    example: Tensor  # int64 [B]

    def to(self, device: torch.device) -> "TokenBatch":
        """The same batch on another device."""
        return TokenBatch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def table(self) -> TokenTable:
        """The counted positions in row-major order: the order of `activations[counted]`."""
        row, position = self.counted.nonzero(as_tuple=True)
        ids, padding = self.ids[row, position], self.padding[row, position]
        return TokenTable(self.language[row], self.example[row], ids, position, padding)


class TokenIds(Sequence[tuple[int, ...]]):
    """The token ids of many texts: 4 bytes a token, where tuples of Python ints take 36."""

    def __init__(self, texts: Iterable[Sequence[int]] = ()) -> None:
        self._flat, self._ends = array("i"), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: Sequence[int]) -> None:
        """Add a text at the end."""
        self._flat.extend(text)
        self._ends.append(len(self._flat))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> tuple[int, ...]:
        index = range(len(self))[index]
        return tuple(self._flat[self._ends[index] : self._ends[index + 1]])

    def lengths(self) -> list[int]:
        """The number of tokens of each text."""
        return [end - start for start, end in pairwise(self._ends)]


@dataclass(frozen=True)
class TokenisedCorpus:
    """Token ids of every text of every language, under one policy.

    padding: how many of a text's last ids are the policy's padding; () where it asks for none.
    """

    languages: tuple[str, ...]
    ids: TokenIds
    language: tuple[int, ...]
    example: tuple[int, ...]
    policy: TokenPolicy
    padding: tuple[int, ...] = ()

    @property
    def skipped(self) -> int:
        """How many leading positions of each text do not count."""
        return int(self.policy.bos == "prepend" and not self.policy.count_bos)

    def counts(self) -> dict[str, int]:
        """Counted tokens per language, without padding."""
        totals = dict.fromkeys(self.languages, 0)
        padding = self.padding or (0,) * len(self.ids)
        for length, pads, language in zip(self.ids.lengths(), padding, self.language, strict=True):
            totals[self.languages[language]] += length - self.skipped - pads
        return totals

    def batches(self, batch_tokens: int) -> list[list[int]]:
        """Groups of text indices whose padded size stays within `batch_tokens` positions.

        Texts are ordered by length (then by index), so little is padded; a longer text is alone.
        """
        groups: list[list[int]] = []
        for length, index in sorted(zip(self.ids.lengths(), range(len(self.ids)), strict=True)):
            if groups and length * (len(groups[-1]) + 1) <= batch_tokens:
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The padded batch of these texts."""
        rows = [self.ids[index] for index in indices]
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        counted, padding = torch.zeros(2, len(rows), width, dtype=torch.bool)
        for row, (index, tokens) in enumerate(zip(indices, rows, strict=True)):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            counted[row, self.skipped : len(tokens)] = True
            if self.padding:
                padding[row, len(tokens) - self.padding[index] : len(tokens)] = True
        return TokenBatch(
            ids,
            counted,
            padding,
            torch.tensor([self.language[index] for index in indices]),
            torch.tensor([self.example[index] for index in indices]),
        )


def tokenise(tokenizer, corpus: ParallelCorpus, policy: TokenPolicy) -> TokenisedCorpus:
    """Tokenise every text of `corpus` with a transformers tokenizer.

    Raises InputError where the policy asks for a BOS that the tokenizer does not have, or a text
    yields no counted token.
    """
    bos = _bos(tokenizer, policy)
    ids, language, example = TokenIds(), [], []
    for index, code in enumerate(corpus.texts):
        texts = list(corpus.texts[code])
        for row, tokens in enumerate(_encode(tokenizer, texts)):
            kept = (bos + tokens)[: policy.max_tokens]
            if len(kept) <= (0 if policy.count_bos else len(bos)):
                raise InputError(f"corpus {corpus.name}: {code} text {row} has no tokens to count")
            ids.append(kept)
            language.append(index)
            example.append(row)
    tokens = TokenisedCorpus(tuple(corpus.texts), ids, tuple(language), tuple(example), policy)
    if not policy.pad_rows:
        return tokens
    if not corpus.aligned:
        raise InputError(f"corpus {corpus.name}: pad_rows needs aligned rows; set it to false")
    return _pad_rows(tokens, padding_id(tokenizer))


def padding_id(tokenizer) -> int:
    """The id that fills texts up: the padding token, or the end of text where there is none."""
    for id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if id is not None:
            return id
    raise InputError("the tokenizer has neither a padding nor an end token; set pad_rows: false")


def _pad_rows(tokens: TokenisedCorpus, pad: int) -> TokenisedCorpus:
    longest = [0] * (max(tokens.example) + 1)
    for length, example in zip(tokens.ids.lengths(), tokens.example, strict=True):
        longest[example] = max(longest[example], length)
    missing = [
        longest[example] - length
        for length, example in zip(tokens.ids.lengths(), tokens.example, strict=True)
    ]
    ids = TokenIds((*text, *[pad] * n) for text, n in zip(tokens.ids, missing, strict=True))
    return replace(tokens, ids=ids, padding=tuple(missing))


def _bos(tokenizer, policy: TokenPolicy) -> list[int]:
    if policy.bos == "none":
        return []
    if tokenizer.bos_token_id is None:
        raise InputError("the tokenizer has no BOS token; set `bos: none` in the token policy")
    return [tokenizer.bos_token_id]


def _encode(tokenizer, texts: list[str]) -> Iterator[list[int]]:
    # a part at a time: the tokenizer's own records take some hundred bytes a token
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        yield from tokenizer(
            texts[start : start + _TEXTS_AT_ONCE],
            add_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
