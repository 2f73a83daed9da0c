"""Texts joined and cut into chunks of equal length, as interpretation tools feed a model."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from langsae.errors import InputError
from langsae.models.tokens import TokenIds, TokenisedCorpus


def chunk(
    tokens: TokenisedCorpus, size: int, separator: int, per_language: int | None = None
) -> TokenisedCorpus:
    """The texts of each language as chunks of `size` positions: a new corpus, a chunk an example.

    The texts of a language follow one another, each after the token `separator`, and are cut; every
    chunk starts with the BOS where the policy has one. (delphi joins the texts of all languages;
    here no chunk holds two.) The last chunk of a language may be shorter.
    per_language: how many chunks to keep of each language; None keeps all.
    """
    bos = list(tokens.ids[0][:1]) if tokens.policy.bos == "prepend" else []
    if size <= len(bos):
        raise InputError(f"chunks of {size} positions hold no text; use more")
    ids, language, example = TokenIds(), [], []
    for index in range(len(tokens.languages)):
        stream = list(chain.from_iterable(_texts(tokens, index, len(bos), separator)))
        step = size - len(bos)
        starts = range(0, len(stream), step)[:per_language]
        for number, start in enumerate(starts):
            ids.append([*bos, *stream[start : start + step]])
            language.append(index)
            example.append(number)
    return replace(tokens, ids=ids, language=tuple(language), example=tuple(example), padding=())


def _texts(
    tokens: TokenisedCorpus, language: int, skipped: int, separator: int
) -> Iterator[tuple[int, ...]]:
    for index, owner in enumerate(tokens.language):
        if owner == language:
            yield (separator, *tokens.ids[index][skipped:])
