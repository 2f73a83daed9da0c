"""From a feature's sampled windows to questions, and from answers to its scores."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from langsae.interpret import prompts
from langsae.interpret.answers import Question
from langsae.interpret.contexts import Context, Sample
from langsae.params import Spec

Method = Literal["detection", "fuzz"]
METHODS: tuple[Method, ...] = ("detection", "fuzz")
Pieces = Callable[[Sequence[int]], list[str]]  # token ids → display texts


class Asking(Spec):
    """How windows are shown; the first two defaults as published.

    threshold: tokens are marked from this part of a window's largest value; excerpts: how many are
    judged in one question; answer_tokens: room for the list of digits.
    """

    threshold: float = Field(default=0.3, gt=0, le=1)
    excerpts: PositiveInt = 5
    answer_tokens: PositiveInt = 60


@dataclass(frozen=True)
class Excerpt:
    """One excerpt to be judged: is the feature active there (detection), on what is marked (fuzz)?

    number: the window's; quantile as in Context.
    """

    text: str
    window: int
    active: bool
    quantile: int | None


@dataclass(frozen=True)
class Confusion:
    """Excerpts by truth and answer; unread: in questions whose answer was no list of digits."""

    tp: int
    tn: int
    fp: int
    fn: int
    unread: int

    def row(self) -> dict[str, int]:
        return asdict(self)


def explanation_question(
    sample: Sample, pieces: Pieces, asking: Asking, max_tokens: int
) -> Question:
    """What do the strongest windows have in common?"""
    top = max(context.peak for context in sample.shown)
    excerpts = []
    for context in sample.shown:
        chosen = _strong(context, asking.threshold)
        tokens = prompts.whole(pieces(context.ids), context.values, chosen)
        excerpts.append((prompts.mark(tokens), prompts.listed(tokens, top)))
    return Question(tuple(prompts.explain(excerpts)), max_tokens, opening=prompts.EXPLANATION)


def _strong(context: Context, threshold: float) -> list[bool]:
    return [value > 0 and value >= threshold * context.peak for value in context.values]


def excerpts(
    sample: Sample, method: Method, pieces: Pieces, asking: Asking, seed: Sequence[int]
) -> list[Excerpt]:
    """The sample's test windows in random order, as texts.

    For fuzzing tokens are marked: where the feature is active, those above the threshold; elsewhere
    as many random ones as active windows have active tokens on average, rounded up (as published:
    counted without the threshold).
    """
    rng = np.random.default_rng(seed)
    active = [context for context in sample.tests if context.active]
    counts = [sum(value > 0 for value in context.values) for context in active]
    wrong = ceil(sum(counts) / len(counts))
    out = []
    for context in sample.tests:
        shown = pieces(context.ids)
        text = "".join(shown)
        if method == "fuzz":
            chosen = _strong(context, asking.threshold)
            if not context.active:
                picked = rng.choice(len(shown), min(wrong, len(shown)), replace=False)
                chosen = np.isin(np.arange(len(shown)), picked).tolist()
            text = prompts.mark(prompts.whole(shown, context.values, chosen))
        out.append(Excerpt(text, context.window, context.active, context.quantile))
    return [out[at] for at in rng.permutation(len(out)).tolist()]


def questions(
    explanation: str, shown: Sequence[Excerpt], method: Method, asking: Asking
) -> list[Question]:
    """The excerpts in groups, each one question."""
    write = prompts.detect if method == "detection" else prompts.fuzz
    out = []
    for group in _groups(shown, asking):
        messages = write(explanation, [excerpt.text for excerpt in group])
        out.append(Question(tuple(messages), asking.answer_tokens, len(group)))
    return out


def _groups(shown: Sequence[Excerpt], asking: Asking) -> list[Sequence[Excerpt]]:
    size = asking.excerpts
    return [shown[start : start + size] for start in range(0, len(shown), size)]


def read(shown: Sequence[Excerpt], answers: Sequence[str], asking: Asking) -> list[bool | None]:
    """What was answered of each excerpt; None throughout a question without a readable answer."""
    out: list[bool | None] = []
    for group, answer in zip(_groups(shown, asking), answers, strict=True):
        out += prompts.read_digits(answer, len(group)) or [None] * len(group)
    return out


def confusion(shown: Sequence[Excerpt], said: Sequence[bool | None]) -> Confusion:
    """Counts; excerpts without an answer are in none of the four (as published)."""
    pairs = [(excerpt.active, answer) for excerpt, answer in zip(shown, said, strict=True)]
    count = {pair: pairs.count(pair) for pair in set(pairs)}
    return Confusion(
        tp=count.get((True, True), 0),
        tn=count.get((False, False), 0),
        fp=count.get((False, True), 0),
        fn=count.get((True, False), 0),
        unread=sum(answer is None for _, answer in pairs),
    )
