"""Prompts and answers of translation; chrF by hand; COMET's process with a stand-in for COMET."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

import standin_comet
from langsae import translate
from langsae.comet import client, score
from langsae.comet.client import Comet
from langsae.errors import InputError


@pytest.fixture
def standin(tmp_path, monkeypatch):
    """A stand-in for COMET's environment as $LANGSAE_COMET; its folder."""
    monkeypatch.setenv(client.VARIABLE, str(standin_comet.build(tmp_path)))
    return tmp_path


def test_comet_scores_batch_after_batch(standin):
    with Comet() as comet:
        assert comet.description["revision"] == score.REVISION
        assert comet.score([("ab", "猫", "cd"), ("a", "xyz", "b")]) == [0.25, 1.5]
        assert comet.score([]) == []
        assert comet.score([("a", "line\nbreak", "b")]) == [5.0]
        process = comet._process
    assert process.returncode == 0


def test_comet_is_given_no_key(standin, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with Comet() as comet:
        assert comet.score([("a", "environment", "b")]) == [0.0]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("die", "stopped without an answer: last words"),
        ("fail", "RuntimeError: out of memory"),
        ("nan", "not finite"),
    ],
)
def test_comets_faults_are_one_line(standin, said, fault):
    with Comet() as comet, pytest.raises(InputError, match=fault) as caught:
        comet.score([("a", said, "b")])
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_hash_is_not_loaded(standin):
    (standin / "checkpoints/model.ckpt").write_bytes(b"another pickle")
    with pytest.raises(InputError, match="sha256"), Comet():
        pass


def test_where_comet_is_missing_the_error_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv(client.VARIABLE, raising=False)
    with pytest.raises(InputError, match=client.VARIABLE), Comet():
        pass
    monkeypatch.setenv(client.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="no program"), Comet():
        pass
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # finds no installed package
    bare.chmod(0o755)
    monkeypatch.setenv(client.VARIABLE, str(bare))
    with pytest.raises(InputError, match="ModuleNotFoundError"), Comet():
        pass


def test_the_script_imports_nothing_of_langsae_and_pins_a_commit():
    assert "langsae." not in Path(score.__file__).read_text().split('"""')[2]
    assert len(score.REVISION) == 40
    assert len(score.CHECKPOINT_SHA256) == 64
    pinned = (Path(score.__file__).parent / "requirements.txt").read_text()
    assert "unbabel-comet==2.2.7" in pinned


def test_a_prompt_shows_the_examples_and_asks_for_one_line():
    told = translate.prompt(("en", "ja"), [("a cat", "猫"), ("two\nlines", "二\n行")], "a dog")
    assert told == (
        "English: a cat\nJapanese: 猫\n\nEnglish: two lines\nJapanese: 二 行\n\n"
        "English: a dog\nJapanese:"
    )
    assert translate.prompt(("ja", "en"), [], "犬") == "Japanese: 犬\nEnglish:"


@pytest.mark.parametrize(
    ("sequences", "shared"),
    [
        ([[0, 1, 2, 3], [0, 1, 5, 3], [0, 1, 2, 4]], 2),
        ([[0, 1], [0, 1, 2]], 1),  # one id is left to be read
        ([[0, 1, 2]], 2),
        ([[3], [4]], 0),
    ],
)
def test_what_prompts_begin_with(sequences, shared):
    assert translate.shared_prefix(sequences) == shared


def chrf_by_hand(answer: str, reference: str, order: int = 6, beta: float = 2.0) -> float:
    """chrF (Popović 2015): F-beta of mean n-gram precision and recall, without white space."""
    precisions, recalls = [], []
    one, other = answer.replace(" ", ""), reference.replace(" ", "")
    for n in range(1, order + 1):
        a = Counter(one[i : i + n] for i in range(len(one) - n + 1))
        b = Counter(other[i : i + n] for i in range(len(other) - n + 1))
        if a and b:  # effective order
            shared = sum((a & b).values())
            precisions.append(shared / sum(a.values()))
            recalls.append(shared / sum(b.values()))
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * (1 + beta**2) * p * r / (beta**2 * p + r)


@pytest.mark.parametrize(
    ("answer", "reference"), [("猫が座った", "猫が座る"), ("a black cat", "the cat is black")]
)
def test_chrf_is_popovics(answer, reference):
    assert translate.chrf([answer], [reference]) == pytest.approx(
        chrf_by_hand(answer, reference), abs=1e-9
    )


def test_chrf_of_nothing_and_of_the_reference():
    assert translate.chrf(["", ""], ["a cat", "a dog"]) == 0
    assert translate.chrf(["a cat"], ["a cat"]) == pytest.approx(100)
    assert translate.chrf_signature().startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no")


class Letters:
    """A tokenizer of single characters; id 0 is BOS, 1 the end."""

    bos_token_id, eos_token_id = 0, 1
    special = ("<s>", "</s>")

    def decode(self, ids, skip_special_tokens=False, **_):
        return "".join(chr(id) for id in ids if not (skip_special_tokens and id < 2))


def test_an_answer_is_its_first_line():
    ids = [*map(ord, " a cat \nEnglish: more"), 1]
    assert translate.answer(Letters(), ids) == "a cat"
    assert translate.answer(Letters(), [ord("\n"), ord("x")]) == ""
    assert translate.answer(Letters(), [1]) == ""


def test_a_tokenizer_without_bos_is_refused():
    class Bare(Letters):
        bos_token_id = None

    with pytest.raises(InputError, match="BOS"):
        translate.encode(Bare(), ["x"])


def test_the_protocol_is_json_by_line(standin):
    """What the docstring of score.py promises, without the client."""
    import subprocess

    done = subprocess.run(
        [standin / "python", "-"],
        input=json.dumps([{"src": "a", "mt": "b", "ref": "c"}]) + "\n",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    ready, scores = map(json.loads, done.stdout.splitlines())
    assert ready["ready"]["gpus"] == 0
    assert scores == {"scores": [0.5]}
    assert "noise on stdout" in done.stderr
