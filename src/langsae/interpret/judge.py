"""Explaining many features and judging the explanations: which questions, in which order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from langsae.interpret import score
from langsae.interpret.answers import Answerer, AnswerStore, Question, ask
from langsae.interpret.contexts import Sample
from langsae.interpret.prompts import read_explanation, repeats_example
from langsae.interpret.score import METHODS, Asking, Confusion, Excerpt, Method, Pieces

EXPLAINED, TOO_FEW, UNREAD = "explained", "too few windows", "no explanation in the answer"
REPEATED = "repeats the example of the question"  # as small models do; scored all the same


@dataclass(frozen=True)
class Judged:
    """One feature's explanation ("" where `status` is TOO_FEW or UNREAD) and how it fared.

    excerpts and said: what was judged, and how (None: unreadable), by method.
    """

    status: str
    n_active: int
    explanation: str = ""
    excerpts: dict[Method, list[Excerpt]] = field(default_factory=dict)
    said: dict[Method, list[bool | None]] = field(default_factory=dict)

    def confusion(self, method: Method) -> Confusion:
        """Counts over the excerpts of one method."""
        return score.confusion(self.excerpts[method], self.said[method])


class Judge:
    """The questions about features whose windows are `samples`.

    seeds: of each feature, for the order of excerpts and the tokens that fuzzing marks wrongly;
    max_tokens: of an explanation. A feature without drawn windows is left out.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        seeds: Sequence[Sequence[int]],
        pieces: Pieces,
        asking: Asking,
        max_tokens: int,
    ) -> None:
        self.samples, self.asking = samples, asking
        self._drawn = [at for at, sample in enumerate(samples) if sample.shown]
        self._first = {
            at: score.explanation_question(samples[at], pieces, asking, max_tokens)
            for at in self._drawn
        }
        self._excerpts = {
            (at, method): score.excerpts(samples[at], method, pieces, asking, [*seeds[at], number])
            for at in self._drawn
            for number, method in enumerate(METHODS)
        }

    def expected(self, store: AnswerStore, unknown: str) -> list[Question]:
        """Every question that will be asked, with `unknown` for explanations not on file yet."""
        out = list(self._first.values())
        for at in self._drawn:
            answer = store.get(self._first[at])
            explanation = unknown if answer is None else read_explanation(answer)
            if explanation is not None:
                out += chain.from_iterable(self._questions(at, explanation).values())
        return out

    def _questions(self, at: int, explanation: str) -> dict[Method, list[Question]]:
        return {
            method: score.questions(explanation, self._excerpts[at, method], method, self.asking)
            for method in METHODS
        }

    def run(self, answerer: Answerer, store: AnswerStore) -> tuple[list[Judged], list[Question]]:
        """One result per sample, and every question behind them, in a fixed order."""
        first = [self._first[at] for at in self._drawn]
        answers = ask(answerer, first, store, "explain")
        explanations = dict(zip(self._drawn, map(read_explanation, answers), strict=True))
        asked = {
            at: self._questions(at, text) for at, text in explanations.items() if text is not None
        }
        rest = [q for by_method in asked.values() for group in by_method.values() for q in group]
        ask(answerer, rest, store, "judge")
        judged = [self._judged(at, explanations, asked, store) for at in range(len(self.samples))]
        return judged, [*first, *rest]

    def _judged(
        self,
        at: int,
        explanations: dict[int, str | None],
        asked: dict[int, dict[Method, list[Question]]],
        store: AnswerStore,
    ) -> Judged:
        n_active = self.samples[at].n_active
        if at not in asked:
            return Judged(UNREAD if at in explanations else TOO_FEW, n_active)
        excerpts = {method: self._excerpts[at, method] for method in METHODS}
        said = {
            method: score.read(excerpts[method], [store.get(q) for q in questions], self.asking)
            for method, questions in asked[at].items()
        }
        explanation = explanations[at]
        status = REPEATED if repeats_example(explanation) else EXPLAINED
        return Judged(status, n_active, explanation, excerpts, said)
