"""What is asked of an explaining model, and reading its answers.

The tasks are those of EleutherAI's delphi (explain; detection; fuzzing); the words are ours.
"""

import json
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypedDict


class Message(TypedDict):
    """One turn of a conversation: role is system, user or assistant."""

    role: str
    content: str


OPEN, CLOSE = "<<", ">>"
EXPLANATION = "[EXPLANATION]:"
_LISTED = 10  # tokens whose strength is listed under an excerpt
_FORM = "Answer with one list of {n} digits, like {example}, and nothing else."

_EXPLAIN = """\
You study one unit inside a language model. You are shown excerpts of text, in any language, on \
which it was active. The tokens that drove it stand between << and >>; the line under an excerpt \
lists them with their strength, from 0 to 10.

Find out what the unit responds to: the marked tokens may share a form, a meaning, a grammatical \
role or a language, and what stands around them may matter. Say it in one or two short sentences, \
as exactly as the excerpts allow. Name the pattern rather than single tokens, give one description \
and no alternatives, and do not mention the marks. End with a line that starts with [EXPLANATION]:\
"""

_DETECT = """\
A unit inside a language model responds to a certain kind of text. You are given a description of \
it and numbered excerpts. For each excerpt decide whether the described thing occurs in it: 1 if \
it does, 0 if it does not. There may be none or several.\
"""

_FUZZ = """\
A unit inside a language model responds to certain tokens. You are given a description of it and \
numbered excerpts with some tokens between << and >>. For each excerpt decide whether the marked \
tokens are those that the description calls for: 1 if they are, 0 if they were marked wrongly. \
There may be none or several.\
"""

_EXPLAINED = (
    'Excerpt 1: he closed <<the>> door and left <<the>> house\nTokens: "the" 8, "the" 10\n'
    'Excerpt 2: at <<the>> end of a long day\nTokens: " the" 9',
    "[EXPLANATION]: The English definite article before a noun.",
)
_MATCHED = (
    "Description: the names of days of the week, in any language\n\n"
    "Excerpt 1: nos vemos el <<martes>> por la tarde\n"
    "Excerpt 2: the train <<leaves>> at half past nine\n"
    "Excerpt 3: am <<Freitag>> bleibt die Bibliothek zu\n"
    "Excerpt 4: une <<belle>> journée de printemps\n"
    "Excerpt 5: see you next <<Monday>> morning",
    "[1,0,1,0,1]",
)


def whole(
    pieces: Sequence[str], values: Sequence[float], chosen: Sequence[bool]
) -> list[tuple[str, float, bool]]:
    """Tokens that show something, with their value and whether they are chosen.

    A token that shows nothing (part of a character) counts with the one that completes the
    character: that is chosen if either is, and has the larger value of those chosen.
    """
    found, value, marked = [], 0.0, False
    for piece, own, wanted in zip(pieces, values, chosen, strict=True):
        value, marked = max(value, own * wanted), marked or wanted
        if piece:
            found.append((piece, value if marked else own, marked))
            value, marked = 0.0, False
    return found


def mark(tokens: Sequence[tuple[str, float, bool]]) -> str:
    """The text of `whole`'s tokens, each run of chosen ones between << and >>."""
    text = ""
    for wanted, run in groupby(tokens, key=itemgetter(2)):
        part = "".join(piece for piece, _, _ in run)
        text += f"{OPEN}{part}{CLOSE}" if wanted else part
    return text


def listed(tokens: Sequence[tuple[str, float, bool]], top: float) -> str:
    """The strengths of the first chosen tokens: whole tenths of `top`, rounded down."""
    parts = [
        f"{json.dumps(piece, ensure_ascii=False)} {int(10 * value / top)}"
        for piece, value, wanted in tokens
        if wanted
    ]
    return "Tokens: " + ", ".join(parts[:_LISTED])


def explain(excerpts: Sequence[tuple[str, str]]) -> list[Message]:
    """The question for an explanation; excerpts: marked text and the line that lists its tokens."""
    body = "\n".join(f"Excerpt {i}: {text}\n{line}" for i, (text, line) in enumerate(excerpts, 1))
    return _conversation(_EXPLAIN, _EXPLAINED, body)


def detect(explanation: str, texts: Sequence[str]) -> list[Message]:
    """Which of the texts hold what the explanation says?"""
    question, answer = _MATCHED
    plain = (question.replace(OPEN, "").replace(CLOSE, ""), answer)
    return _conversation(_form(_DETECT, texts), plain, _matched(explanation, texts))


def fuzz(explanation: str, texts: Sequence[str]) -> list[Message]:
    """In which of the marked texts does the explanation fit what is marked?"""
    return _conversation(_form(_FUZZ, texts), _MATCHED, _matched(explanation, texts))


def _form(task: str, texts: Sequence[str]) -> str:
    example = json.dumps([i % 2 for i in range(1, len(texts) + 1)], separators=(",", ":"))
    return f"{task} {_FORM.format(n=len(texts), example=example)}"


def _matched(explanation: str, texts: Sequence[str]) -> str:
    excerpts = "\n".join(f"Excerpt {i}: {text}" for i, text in enumerate(texts, 1))
    return f"Description: {explanation}\n\n{excerpts}"


def _conversation(system: str, example: tuple[str, str], question: str) -> list[Message]:
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": example[0]},
        {"role": "assistant", "content": example[1]},
        {"role": "user", "content": question},
    ]


def repeats_example(explanation: str) -> bool:
    """Whether this is the explanation that the question itself gave as an example."""
    return explanation == read_explanation(_EXPLAINED[1])


def read_explanation(answer: str) -> str | None:
    """The explanation in an answer, on one line; None where there is none."""
    found = re.search(r"\[EXPLANATION\]:?\s*(.*)", answer, re.DOTALL)
    return (" ".join(found[1].split()) or None) if found else None


def read_digits(answer: str, n: int) -> list[bool] | None:
    """The first list in an answer as n times yes or no; None where it is not that."""
    found = re.search(r"\[.*?\]", answer, re.DOTALL)
    try:
        digits = json.loads(found[0]) if found else None
    except json.JSONDecodeError:
        return None
    if not isinstance(digits, list) or len(digits) != n:
        return None
    return [digit == 1 for digit in digits] if all(digit in (0, 1) for digit in digits) else None
