"""A local explaining model against plain forward passes of transformers, without any cache."""

import pytest
import torch

from langsae.errors import InputError
from langsae.interpret.answers import Question
from langsae.interpret.local import LocalModel
from langsae.models.source import load_source, prepare
from langsae.models.spec import TinyModel

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    prepare(TinyModel(source="tiny", d_model=32, layers=2, seed=3), folder)
    found = load_source(folder)
    with torch.no_grad():  # random weights are too small to prefer anything
        for parameter in found.network.parameters():
            parameter.mul_(3)
    return found


def question(text, head="Say it.", **changes):
    messages = ({"role": "system", "content": head}, {"role": "user", "content": text})
    return Question(messages, **({"max_tokens": 12} | changes))


def rendered(q):
    turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in q.messages)
    return turns + "Assistant: "


@torch.inference_mode()
def next_logits(loaded, text):
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return loaded.network(torch.tensor([ids]), use_cache=False).logits[0, -1]


def test_digits_are_the_likelier_of_two_at_each_place(loaded):
    zero, one = (loaded.tokenizer.encode(digit)[0] for digit in "01")
    seen = set()
    for number in range(6):
        asked = question(f"text {number} " * 3, digits=6)
        text = rendered(asked) + "["
        for _ in range(6):
            logits = next_logits(loaded, text)
            text += ("1" if logits[one] > logits[zero] else "0") + ","
        expected = "[" + text[:-1].split("[")[-1] + "]"
        assert LocalModel(loaded).answer(asked) == expected
        seen |= set(expected)
    assert {"0", "1"} <= seen


@pytest.mark.parametrize("opening", ["", "[EXPLANATION]:"])
def test_text_is_greedy_and_ends_with_its_line(loaded, opening):
    lengths = set()
    for number in range(8):
        asked = question(f"What is it? {number}", opening=opening, max_tokens=40)
        ids = loaded.tokenizer(
            rendered(asked) + opening, return_tensors="pt", add_special_tokens=False
        )
        with torch.inference_mode():
            out = loaded.network.generate(**ids, do_sample=False, max_new_tokens=40)
        whole = loaded.tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
        text = whole.split("<|endof")[0]
        blank = len(text) - len(text.lstrip())
        expected = text[:blank] + text[blank:].split("\n")[0]
        assert LocalModel(loaded).answer(asked) == opening + expected.rstrip()
        lengths.add(len(expected))
    assert max(lengths) > 5


def test_an_answer_depends_on_its_question_alone(loaded):
    questions = [question(f"text {i}", head=f"head {i // 3}", digits=4 * (i % 2)) for i in range(9)]
    alone = [LocalModel(loaded).answer(q) for q in questions]
    model = LocalModel(loaded)
    assert [model.answer(q) for q in questions] == alone
    assert [model.answer(q) for q in reversed(questions)] == alone[::-1]


def test_a_chat_template_is_used_where_there_is_one(loaded, monkeypatch):
    monkeypatch.setattr(loaded.tokenizer, "chat_template", TEMPLATE)
    asked = question("text", digits=3)
    logits = next_logits(loaded, "<system>Say it.\n<user>text\n<assistant>[")
    zero, one = (loaded.tokenizer.encode(digit)[0] for digit in "01")
    assert LocalModel(loaded).answer(asked)[1] == str(int(logits[one] > logits[zero]))


def test_a_question_beyond_the_context_is_refused(loaded, monkeypatch):
    monkeypatch.setattr(loaded.network.config, "max_position_embeddings", 64)
    with pytest.raises(InputError, match="too long for the local explainer"):
        LocalModel(loaded).answer(question("x" * 60))


def test_its_answers_are_filed_under_its_weights(loaded):
    described = LocalModel(loaded).describe()
    assert described["model"]["sha256"]["model.safetensors"]
