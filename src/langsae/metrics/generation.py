"""What a generated text is like: its script, and how much it repeats itself."""

import unicodedata
from collections.abc import Sequence

from langsae.errors import InputError

# How the Unicode names of a script's letters begin, by ISO 15924 code.
_NAMES = {
    "Arab": ("ARABIC",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Hang": ("HANGUL", "HALFWIDTH HANGUL"),
    "Hans": ("CJK ", "IDEOGRAPHIC"),
    "Jpan": ("CJK ", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"),
    "Latn": ("LATIN", "FULLWIDTH LATIN"),
    "Thai": ("THAI",),
}


def script_share(text: str, script: str) -> float:
    """Share of the letters of `text` that are of `script` (ISO 15924); NaN without letters.

    Marks count as letters, since Devanagari and Thai vowels are marks; those common to all scripts
    (COMBINING …) do not. Raises InputError for a script that is not known here.
    """
    if script not in _NAMES:
        raise InputError(f"script '{script}': give its Unicode names in langsae.metrics.generation")
    names = [unicodedata.name(char, "") for char in text if unicodedata.category(char)[0] in "LM"]
    letters = [name for name in names if not name.startswith("COMBINING")]
    found = sum(name.startswith(_NAMES[script]) for name in letters)
    return found / len(letters) if letters else float("nan")


def distinct(ids: Sequence[int], n: int) -> float:
    """Different n-grams of tokens per n-gram (distinct-n of Li et al. 2016); NaN without any."""
    grams = [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")
