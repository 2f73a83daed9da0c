"""Questions to an explaining model, and its answers, each asked for once."""

import json
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from langsae.corpora.lines import read_jsonl, write_jsonl
from langsae.errors import InputError
from langsae.files import digest
from langsae.interpret.prompts import Message


@dataclass(frozen=True)
class Question:
    """A conversation to be answered in at most `max_tokens` tokens.

    The form of the answer is asked for in words, and a local model is held to it besides. digits:
    how many digits it must list; 0 where it is text. opening: what such a text starts with.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    digits: int = 0
    opening: str = ""

    def key(self, answerer: dict[str, Any]) -> str:
        """What identifies the question when put to the model that `answerer` describes."""
        return digest([answerer, *astuple(self)])


class Answerer(Protocol):
    """A model that answers; `workers`: how many questions it takes at a time."""

    workers: int

    def describe(self) -> dict[str, Any]:
        """Everything that an answer depends on besides the question; no secrets."""
        ...

    def answer(self, question: Question) -> str:
        """The model's answer; InputError where it cannot be had."""
        ...


class AnswerStore:
    """Answers in a JSONL file that only grows: a run that was cut off, or is made again, asks
    nothing twice. A last line that a kill cut short is dropped.

    known: another such file, whose answers count as given; nothing is written to it.
    """

    def __init__(self, path: Path, answerer: dict[str, Any], known: Path | None = None) -> None:
        self.path, self.answerer = path, answerer
        self._lock = threading.Lock()
        self._answers = _read(known) if known else {}
        _drop_torn_line(path)
        self._answers |= _read(path)

    def get(self, question: Question) -> str | None:
        """The answer on file, if there is one."""
        return self._answers.get(question.key(self.answerer))

    def put(self, question: Question, answer: str) -> None:
        """Keep an answer; safe from several threads."""
        self._keep(question.key(self.answerer), answer)

    def absorb(self, path: Path) -> None:
        """Take over the answers of another such file, and remove it."""
        _drop_torn_line(path)
        for key, answer in _read(path).items():
            if key not in self._answers:
                self._keep(key, answer)
        path.unlink()

    def _keep(self, key: str, answer: str) -> None:
        line = json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
            self._answers[key] = answer

    def export(self, questions: Iterable[Question], path: Path) -> None:
        """Write these questions with their answers to `path`, in the order given."""
        rows = ({"messages": list(q.messages), "answer": self.get(q)} for q in questions)
        write_jsonl(path, rows)


def _read(path: Path) -> dict[str, str]:
    """Answers by key."""
    rows = read_jsonl(path) if path.is_file() else ()
    return {row["key"]: row["answer"] for _, row in rows}


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def ask(
    answerer: Answerer, questions: Sequence[Question], store: AnswerStore, label: str
) -> list[str]:
    """The answers in the order of the questions; those on file are not asked for again.

    The first failure ends it (InputError), after the questions under way; what was answered until
    then is kept.
    """
    missing = list({q.key(store.answerer): q for q in questions if store.get(q) is None}.values())
    if missing:
        with (
            ThreadPoolExecutor(answerer.workers) as pool,
            tqdm(total=len(missing), desc=label, unit="question") as bar,
        ):
            _ask_all(pool, answerer, missing, store, bar)
    answers = [store.get(question) for question in questions]
    if None in answers:
        raise InputError(f"{label}: a question was left without an answer; run the stage again")
    return answers


def _ask_all(pool, answerer: Answerer, questions: list[Question], store: AnswerStore, bar) -> None:
    def one(question: Question) -> None:
        store.put(question, answerer.answer(question))
        bar.update()

    tasks = [pool.submit(one, question) for question in questions]
    try:
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
