"""What asking an endpoint will take, before it is asked."""

from collections.abc import Iterable
from dataclasses import dataclass

from langsae.errors import InputError
from langsae.interpret.answers import AnswerStore, Question
from langsae.interpret.endpoint import EndpointSpec, tokens

_PER_MESSAGE = 4  # tokens that a chat format adds to each turn


@dataclass(frozen=True)
class Estimate:
    """requests and tokens still to pay for, rather too many; cost: None without prices."""

    requests: int
    answered: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None

    def __str__(self) -> str:
        text = (
            f"{self.requests:,} requests ({self.answered:,} are answered already), at most about "
            f"{self.prompt_tokens:,} tokens asked and {self.answer_tokens:,} answered"
        )
        return text + (f", {self.cost:,.2f} by the prices given" if self.cost is not None else "")


def estimate(questions: Iterable[Question], store: AnswerStore, spec: EndpointSpec) -> Estimate:
    """The bill for the questions that are not on file yet."""
    wanted = {question.key(store.answerer): question for question in questions}
    missing = [question for question in wanted.values() if store.get(question) is None]
    asked = sum(_PER_MESSAGE + tokens(m["content"]) for q in missing for m in q.messages)
    answered = sum(q.max_tokens for q in missing)
    cost = None
    if spec.prompt_price is not None and spec.answer_price is not None:
        cost = (asked * spec.prompt_price + answered * spec.answer_price) / 1e6
    return Estimate(len(missing), len(wanted) - len(missing), asked, answered, cost)


def check_budget(estimated: Estimate, spec: EndpointSpec) -> None:
    """Refuse a run beyond its budget, or a budget that cannot be held for want of prices."""
    if spec.budget is None or not estimated.requests:
        return
    if estimated.cost is None:
        raise InputError("`budget` needs prompt_price and answer_price of the explainer's endpoint")
    if estimated.cost > spec.budget:
        raise InputError(
            f"interpretation would cost up to {estimated.cost:,.2f}, above the budget of "
            f"{spec.budget:,.2f}: {estimated}; raise `budget` or ask of fewer features"
        )
