"""The text that each token stands for, for pages and figures that colour tokens."""

from collections.abc import Sequence
from itertools import pairwise

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoders print for bytes that are no character yet


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """Display text of each token of `ids`; joined they are the decoded text, untidied.

    A character whose bytes lie in several tokens is shown with the token that completes it; the
    tokens before it show "" (as do tokens that decode to nothing). Special tokens are shown by
    name. Takes time quadratic in the length: one decoding per prefix.
    """
    ids = [int(id) for id in ids]
    if not ids:
        return []
    prefixes = tokenizer.batch_decode(
        [ids[:end] for end in range(1, len(ids) + 1)],
        skip_special_tokens=False,
        clean_up_tokenization_spaces=False,
    )
    whole = prefixes[-1]
    ends = [0]
    for prefix in prefixes[:-1]:
        # some decoders print earlier bytes anew once a later one breaks the sequence
        ends.append(max(_shared(prefix.rstrip(UNFINISHED), whole), ends[-1]))
    return [whole[start:end] for start, end in pairwise([*ends, len(whole)])]


def _shared(one: str, other: str) -> int:
    """How many leading characters the two have in common."""
    if other.startswith(one):
        return len(one)
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), len(other))
