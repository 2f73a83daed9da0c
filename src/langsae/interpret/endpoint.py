"""An explaining model behind any OpenAI-compatible endpoint (chat completions)."""

import math
import os
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from langsae.errors import InputError
from langsae.interpret.answers import Question
from langsae.params import Spec

Million = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EndpointSpec(Spec):
    """Where the endpoint is and what it may cost.

    base_url: up to `/v1`; api_key_env: the environment variable that holds the key (None for an
    endpoint that asks for none); without_key: what a run without that variable does, stop (fail) or
    leave interpretation out (skip); temperature and max_tokens (of an explanation): as published;
    workers: questions at a time; retries: of a refused or failed request, with growing pauses;
    timeout: seconds; prompt_price, answer_price: of a million tokens; budget: the most a run may
    cost by the estimate made before it starts, in the same currency.
    """

    source: Literal["endpoint"]
    base_url: str
    model: str
    api_key_env: str | None = None
    without_key: Literal["fail", "skip"] = "fail"
    temperature: NonNegativeFloat = 0.0
    max_tokens: PositiveInt = 500
    workers: PositiveInt = 4
    retries: NonNegativeInt = 6
    timeout: PositiveFloat = 120.0
    prompt_price: Million | None = None
    answer_price: Million | None = None
    budget: NonNegativeFloat | None = None

    def key(self) -> str | None:
        """The key, if the environment has one; a placeholder where none is asked for."""
        return os.environ.get(self.api_key_env) or None if self.api_key_env else "none"

    def no_key(self) -> str:
        """What to do where `key` is None."""
        return f"set the environment variable {self.api_key_env} to the key of {self.base_url}"

    def describe(self) -> dict[str, Any]:
        """What answers depend on besides the question."""
        return self.model_dump(include={"source", "base_url", "model", "temperature"})


class Endpoint:
    """The client; its key is read from the environment and never written or logged."""

    def __init__(self, spec: EndpointSpec) -> None:
        # imported here: it takes a second, and most runs ask no endpoint
        import openai

        key = spec.key()
        if key is None:
            raise InputError(spec.no_key())
        self.spec, self.workers, self._key = spec, spec.workers, key
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=spec.base_url, api_key=key, max_retries=spec.retries, timeout=spec.timeout
        )

    def describe(self) -> dict[str, Any]:
        """The endpoint, its model and temperature."""
        return self.spec.describe()

    def answer(self, question: Question) -> str:
        """One chat completion; an answer without text is "".

        Requests that the service turns away (429), fails (5xx) or loses are repeated with growing
        pauses. Raises InputError, without the key in it, where that did not help.
        """
        try:
            done = self._client.chat.completions.create(
                model=self.spec.model,
                messages=list(question.messages),
                temperature=self.spec.temperature,
                max_tokens=question.max_tokens,
            )
        except self._openai.OpenAIError as error:
            raise InputError(self._explain(error)) from None  # its request holds the key
        if not done.choices:
            raise InputError(f"{self.spec.base_url}: an answer without choices; check `model`")
        return done.choices[0].message.content or ""

    def _explain(self, error: Exception) -> str:
        where, openai = f"{self.spec.base_url}", self._openai
        said = " ".join(str(error).replace(self._key, "***").split())[:300]
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"{where}: refused the key in {self.spec.api_key_env}; set the right one"
        if isinstance(error, openai.NotFoundError):
            return f"{where}: not found: check base_url and model '{self.spec.model}' ({said})"
        if isinstance(error, openai.RateLimitError):
            return f"{where}: still too many requests or no credit left; run again later ({said})"
        if isinstance(error, openai.APIConnectionError):
            return f"{where}: cannot be reached or does not answer; check base_url ({said})"
        return f"{where}: the request failed; answers so far are kept ({said})"


def tokens(text: str) -> int:
    """About how many tokens an endpoint counts, rather too many: a third of the UTF-8 bytes.

    (English takes four to five bytes a token, most other scripts three to six.)
    """
    return math.ceil(len(text.encode()) / 3)
