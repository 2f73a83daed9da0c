"""Version 1's language of a token (Inaba et al. 2025): by the characters of its text."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

_ENGLISH = re.compile(r"""[A-Za-z\s"'(),.\-]+""")  # a token of these only is English
ENGLISH, JAPANESE, DIGITS = 0, 1, 2  # DIGITS: the token before it decides


def language_of_token(tokens: Sequence[str]) -> Literal["en", "ja"]:
    """Version 1's label of the last of `tokens` (an activating token and those before it).

    A token of digits only passes the question to the token before it. English: only ASCII letters,
    white space and the characters " ' ( ) , . - (not ;). All else, line breaks too, is Japanese.
    """
    text = next((t.strip() for t in reversed(tokens) if not t.strip().isdigit()), "")
    return "en" if _ENGLISH.fullmatch(text) else "ja"


def vocabulary_languages(texts: Sequence[str]) -> np.ndarray:
    """ENGLISH, JAPANESE or DIGITS for the text of each token id: int8 [V]."""
    codes = [
        DIGITS if text.strip().isdigit() else ("en", "ja").index(language_of_token([text]))
        for text in texts
    ]
    return np.array(codes, dtype=np.int8)


def languages_along(codes: np.ndarray, first: np.ndarray) -> np.ndarray:
    """`language_of_token` for every position of texts that follow one another: int8 [N].

    codes: vocabulary_languages of the tokens, int8 [N]; first: bool [N], where a text begins (at
    its first counted position: a BOS before it is neither English nor digits, hence Japanese, as is
    nothing at all).
    """
    known = codes != DIGITS
    # where the label of each position comes from: itself, or the last before it that has one
    source = np.maximum.accumulate(np.where(known | first, np.arange(len(codes)), 0))
    labels = codes[source]
    return np.where(labels == DIGITS, JAPANESE, labels).astype(np.int8)
