"""The explaining model behind an endpoint: against a local OpenAI-compatible server."""

import json

import pytest

from langsae.errors import InputError
from langsae.interpret.answers import AnswerStore, Question, ask
from langsae.interpret.cost import check_budget, estimate
from langsae.interpret.endpoint import Endpoint, EndpointSpec, tokens
from openai_server import KEY, OpenAIServer


def question(text: str, max_tokens: int = 20) -> Question:
    return Question(({"role": "user", "content": text},), max_tokens)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("LANGSAE_TEST_KEY", KEY)
    with OpenAIServer(lambda messages: messages[-1]["content"].upper()) as running:
        yield running


def spec(server, **changes) -> EndpointSpec:
    return EndpointSpec(
        source="endpoint",
        base_url=server.url,
        model="some/model",
        api_key_env="LANGSAE_TEST_KEY",
        **changes,
    )


def store_of(endpoint: Endpoint, tmp_path) -> AnswerStore:
    return AnswerStore(tmp_path / "scratch" / "answers.jsonl", endpoint.describe())


def test_answers_come_in_order_and_once(server, tmp_path):
    endpoint = Endpoint(spec(server, workers=3))
    questions = [question(f"text {i % 7}") for i in range(20)]
    expected = [f"TEXT {i % 7}" for i in range(20)]
    assert ask(endpoint, questions, store_of(endpoint, tmp_path), "test") == expected
    assert len(server.requests) == 7
    sent = server.requests[0]
    assert sent["model"] == "some/model"
    assert sent["temperature"] == 0
    assert sent["max_tokens"] == 20
    # another process, with the server gone
    server.faults = [500] * 100
    assert ask(endpoint, questions, store_of(endpoint, tmp_path), "test") == expected
    assert len(server.requests) == 7


def test_another_model_or_room_is_another_question(server, tmp_path):
    endpoint = Endpoint(spec(server))
    store = store_of(endpoint, tmp_path)
    ask(endpoint, [question("a")], store, "test")
    assert store.get(question("a", max_tokens=21)) is None
    other = EndpointSpec(source="endpoint", base_url=server.url, model="other")
    assert AnswerStore(store.path, other.describe()).get(question("a")) is None
    assert AnswerStore(store.path, endpoint.describe()).get(question("a")) == "A"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_request_is_repeated(server, tmp_path, status):
    server.faults = [status, status]
    endpoint = Endpoint(spec(server, retries=3, workers=1))
    assert endpoint.answer(question("again")) == "AGAIN"
    server.faults = [status] * 9
    with pytest.raises(InputError, match="too many requests" if status == 429 else "failed") as got:
        Endpoint(spec(server, retries=1)).answer(question("again"))
    assert KEY not in str(got.value)


def test_a_failure_keeps_what_was_answered(server, tmp_path):
    endpoint = Endpoint(spec(server, retries=0, workers=1))
    store = store_of(endpoint, tmp_path)
    server.answer = lambda messages: "yes"
    ask(endpoint, [question("a"), question("b")], store, "test")
    server.faults = [400]
    with pytest.raises(InputError, match="answers so far are kept"):
        ask(endpoint, [question("a"), question("c"), question("d")], store, "test")
    again = store_of(endpoint, tmp_path)
    assert again.get(question("b")) == "yes"
    assert again.get(question("c")) is None


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    server, tmp_path, monkeypatch, capfd
):
    endpoint = Endpoint(spec(server))
    store = store_of(endpoint, tmp_path)
    ask(endpoint, [question("a")], store, "test")
    store.export([question("a")], tmp_path / "questions.jsonl")
    assert server.keys == {KEY}
    monkeypatch.setenv("LANGSAE_TEST_KEY", "sk-wrong-9876543210")
    with pytest.raises(InputError, match="refused the key in LANGSAE_TEST_KEY") as got:
        Endpoint(spec(server)).answer(question("b"))
    assert "sk-wrong" not in str(got.value)
    monkeypatch.delenv("LANGSAE_TEST_KEY")
    with pytest.raises(InputError, match="set the environment variable LANGSAE_TEST_KEY"):
        Endpoint(spec(server))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(KEY in path.read_text() for path in files)
    assert KEY not in "".join(capfd.readouterr())
    line = json.loads((tmp_path / "questions.jsonl").read_text())
    assert line == {"messages": [{"role": "user", "content": "a"}], "answer": "A"}


def test_an_answer_without_text_is_empty_and_kept(server, tmp_path):
    server.answer = lambda messages: None
    endpoint = Endpoint(spec(server))
    assert ask(endpoint, [question("a")], store_of(endpoint, tmp_path), "test") == [""]
    assert store_of(endpoint, tmp_path).get(question("a")) == ""


def test_unreachable_and_unknown_endpoints_say_so(server):
    wrong = spec(server).model_copy(update={"base_url": server.url + "/v9", "retries": 0})
    with pytest.raises(InputError, match="check base_url and model 'some/model'"):
        Endpoint(wrong).answer(question("a"))
    gone = spec(server).model_copy(update={"base_url": "http://127.0.0.1:9/v1", "retries": 0})
    with pytest.raises(InputError, match="cannot be reached"):
        Endpoint(gone).answer(question("a"))


def test_a_line_that_a_kill_cut_short_is_dropped(server, tmp_path):
    endpoint = Endpoint(spec(server))
    store = store_of(endpoint, tmp_path)
    ask(endpoint, [question("a")], store, "test")
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + b'{"key": "12')
    again = store_of(endpoint, tmp_path)
    assert again.get(question("a")) == "A"
    ask(endpoint, [question("b")], again, "test")
    assert store_of(endpoint, tmp_path).get(question("b")) == "B"
    assert store.path.read_bytes().startswith(whole)


def test_the_cost_is_known_before_it_starts(server, tmp_path):
    endpoint = Endpoint(spec(server, prompt_price=2.0, answer_price=8.0, budget=0.001))
    store = store_of(endpoint, tmp_path)
    questions = [question("x" * 300, 50), question("日" * 100, 50), question("x" * 300, 50)]
    expected = estimate(questions, store, endpoint.spec)
    assert tokens("x" * 300) == tokens("日" * 100) == 100
    assert (expected.requests, expected.answered) == (2, 0)
    assert (expected.prompt_tokens, expected.answer_tokens) == (208, 100)
    assert expected.cost == pytest.approx((208 * 2 + 100 * 8) / 1e6)
    with pytest.raises(InputError, match="above the budget"):
        check_budget(expected, endpoint.spec)
    check_budget(expected, spec(server, prompt_price=2.0, answer_price=8.0, budget=0.01))
    with pytest.raises(InputError, match="needs prompt_price"):
        check_budget(estimate(questions, store, spec(server)), spec(server, budget=1.0))
    assert not server.requests
    ask(endpoint, questions, store, "test")
    assert estimate(questions, store, endpoint.spec).cost == 0
