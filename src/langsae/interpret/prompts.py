"""What is asked of an explaining model, and reading its answers.

The tasks are those of EleutherAI's delphi (explain; detection; fuzzing); the words are ours.
"""

import json
import re
from collections.abc import Sequence
from typing import TypedDict


class Message(TypedDict):
    """One turn of a conversation: role is system, user or assistant."""

    role: str
    content: str


OPEN, CLOSE = "<<", ">>"
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


def mark(pieces: Sequence[str], chosen: Sequence[bool]) -> str:
    """The text with each run of chosen tokens between << and >>.

    A chosen token that shows nothing (part of a character) is marked on the token that completes
    the character.
    """
    text, inside, carried = [], False, False
    for piece, wanted in zip(pieces, chosen, strict=True):
        carried |= wanted
        if not piece:
            continue
        if carried != inside:
            text.append(OPEN if carried else CLOSE)
        text.append(piece)
        inside, carried = carried, False
    return "".join([*text, CLOSE]) if inside else "".join(text)


def listed(
    pieces: Sequence[str], values: Sequence[float], top: float, chosen: Sequence[bool]
) -> str:
    """The strengths of the first chosen tokens: whole tenths of `top`, rounded down."""
    parts = [
        f"{json.dumps(piece, ensure_ascii=False)} {int(10 * value / top)}"
        for piece, value, wanted in zip(pieces, values, chosen, strict=True)
        if wanted and piece
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
