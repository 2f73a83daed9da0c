"""Chunks, windows, samples of them, and the excerpts and scores that come of them."""

from collections import Counter

import numpy as np
import pytest

from langsae.interpret import prompts, score
from langsae.interpret.chunks import chunk
from langsae.interpret.contexts import Context, Sample, Sampling, Windows, draw
from langsae.interpret.score import Asking
from langsae.models.tokens import TokenIds, TokenisedCorpus, TokenPolicy
from langsae.params import parse

BOS, END = 1, 2


def corpus(texts: dict[str, list[list[int]]], bos: bool = True) -> TokenisedCorpus:
    rows = [(i, j, text) for i, of in enumerate(texts.values()) for j, text in enumerate(of)]
    return TokenisedCorpus(
        tuple(texts),
        TokenIds([BOS] * bos + text for _, _, text in rows),
        tuple(i for i, _, _ in rows),
        tuple(j for _, j, _ in rows),
        TokenPolicy(bos="prepend" if bos else "none"),
    )


# --- chunks


def test_texts_of_a_language_are_joined_and_cut():
    tokens = corpus({"en": [[10, 11, 12], [13]], "ru": [[20, 21, 22, 23, 24]]})
    cut = chunk(tokens, 4, END)
    assert list(cut.ids) == [
        (BOS, END, 10, 11), (BOS, 12, END, 13), (BOS, END, 20, 21), (BOS, 22, 23, 24)
    ]  # fmt: skip
    assert cut.language == (0, 0, 1, 1)
    assert cut.example == (0, 1, 0, 1)
    assert cut.batch([0]).counted.tolist() == [[False, True, True, True]]
    assert len(chunk(tokens, 4, END, per_language=1).ids) == 2
    plain = chunk(corpus({"en": [[10, 11, 12], [13]]}, bos=False), 4, END)
    assert list(plain.ids) == [(END, 10, 11, 12), (END, 13)]


# --- windows


def dense_windows(tokens, activations, width):
    """The oracle: every text's values as a plain array, cut into whole rows."""
    found = []
    for ids, language, example in zip(tokens.ids, tokens.language, tokens.example, strict=True):
        values = np.zeros(len(ids))
        for lang, row, position, value in zip(*activations, strict=True):
            if (lang, row) == (language, example):
                values[position] = value
        for start in range(0, len(ids) - width + 1, width):
            found.append((ids[start : start + width], values[start : start + width]))
    return found


def random_corpus(rng, texts=60):
    def text():
        return rng.integers(10, 99, rng.integers(3, 40)).tolist()

    return corpus({"en": [text() for _ in range(texts)], "ja": [text() for _ in range(texts)]})


def random_activations(rng, tokens, share=0.2):
    rows = [
        (language, example, position, rng.random() + 0.01)
        for ids, language, example in zip(tokens.ids, tokens.language, tokens.example, strict=True)
        for position in range(len(ids))
        if rng.random() < share
    ]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return (*columns[:3], columns[3].astype(np.float32))


def test_windows_are_those_of_dense_arrays():
    rng = np.random.default_rng(0)
    tokens = random_corpus(rng)
    activations = random_activations(rng, tokens)
    windows = Windows(tokens, 8)
    expected = dense_windows(tokens, activations, 8)
    assert len(windows) == len(expected)
    numbers, values = windows.values(*activations)
    active = [i for i, (_, row) in enumerate(expected) if row.any()]
    assert numbers.tolist() == active
    for number, row in zip(numbers, values, strict=True):
        assert windows.ids(number) == expected[number][0]
        np.testing.assert_allclose(row, expected[number][1], rtol=1e-6)


def test_the_sample_is_the_published_one():
    defaults = Sampling()
    assert (defaults.shown, defaults.active, defaults.inactive) == (40, 50, 50)
    assert (defaults.quantiles, defaults.width, defaults.chunk, defaults.least) == (
        10,
        32,
        256,
        200,
    )
    assert (Asking().threshold, Asking().excerpts) == (0.3, 5)
    rng = np.random.default_rng(1)
    tokens = random_corpus(rng, texts=400)
    activations = random_activations(rng, tokens, share=0.06)
    windows = Windows(tokens, 4)
    sampling = Sampling(width=4, chunk=None)
    sample = draw(windows, activations, sampling, [42, 3, 7])
    expected = dense_windows(tokens, activations, 4)
    peaks = {i: row.max() for i, (_, row) in enumerate(expected) if row.any()}
    ranked = sorted(peaks, key=lambda i: (-peaks[i], i))
    assert sample.n_active == len(ranked) > 300
    assert [context.window for context in sample.shown] == ranked[:40]
    active = [context for context in sample.tests if context.active]
    silent = [context for context in sample.tests if not context.active]
    assert Counter(context.quantile for context in active) == dict.fromkeys(range(10), 5)
    size = len(ranked) // 10
    for context in active:
        assert ranked.index(context.window) // size == context.quantile
        np.testing.assert_allclose(context.values, expected[context.window][1], rtol=1e-6)
    assert len(silent) == 50 == len({context.window for context in silent})
    assert not {context.window for context in silent} & set(ranked)
    assert draw(windows, activations, sampling, [42, 3, 7]) == sample
    assert draw(windows, activations, sampling, [42, 3, 8]).tests != sample.tests
    shuffled = rng.permutation(len(activations[0]))
    assert draw(windows, tuple(c[shuffled] for c in activations), sampling, [42, 3, 7]) == sample


def test_held_out_windows_were_not_shown():
    rng = np.random.default_rng(2)
    tokens = random_corpus(rng, texts=300)
    activations = random_activations(rng, tokens, share=0.06)
    windows = Windows(tokens, 4)
    sampling = Sampling(width=4, chunk=None, least=0)

    def shared(held_out):
        changed = sampling.model_copy(update={"held_out": held_out})
        sample = draw(windows, activations, changed, [0])
        assert len(sample.tests) == 100
        return {c.window for c in sample.shown} & {c.window for c in sample.tests}

    assert shared(False)
    assert not shared(True)


def test_a_feature_on_too_few_windows_is_left_out():
    tokens = corpus({"en": [list(range(10, 18))] * 6}, bos=False)
    sampling = Sampling(width=4, chunk=None, shown=2, active=2, inactive=3, quantiles=2, least=0)
    at = np.arange(4)
    few = draw(Windows(tokens, 4), (at * 0, at, at * 0, at + 1.0), sampling, [0])
    assert (len(few.shown), len(few.tests), few.n_active) == (2, 5, 4)
    more = sampling.model_copy(update={"least": 5})
    assert draw(Windows(tokens, 4), (at * 0, at, at * 0, at + 1.0), more, [0]) == Sample((), (), 4)
    busy = sampling.model_copy(update={"inactive": 9})  # only 8 windows are without the feature
    assert not draw(Windows(tokens, 4), (at * 0, at, at * 0, at + 1.0), busy, [0]).tests
    none = at[:0]
    assert draw(Windows(tokens, 4), (none, none, none, none * 1.0), sampling, [0]).n_active == 0


def test_impossible_settings_are_refused():
    for wrong in ({"active": 51}, {"chunk": 100}, {"width": 0}, {"shwon": 3}):
        with pytest.raises(Exception, match="contexts"):
            parse(Sampling, wrong, "contexts")


# --- what is shown


def marked(pieces, chosen):
    return prompts.mark(prompts.whole(pieces, [1.0] * len(pieces), chosen))


def test_marks_surround_runs_of_chosen_tokens():
    assert marked(["a", "b", "c", "d"], [True, True, False, True]) == "<<ab>>c<<d>>"
    assert marked(["a", "b"], [False, False]) == "ab"
    # the first of three tokens of one character is marked where the character shows
    assert marked(["x", "", "", "語", "y"], [False, True, False, False, False]) == "x<<語>>y"
    assert marked(["語", ""], [True, True]) == "<<語>>"


def test_a_character_in_several_tokens_has_the_largest_chosen_value():
    tokens = prompts.whole(["", "語", "", "y"], [6.0, 1.0, 9.0, 2.0], [True, False, False, True])
    assert tokens == [("語", 6.0, True), ("y", 2.0, True)]
    assert prompts.listed(tokens, 6.0) == 'Tokens: "語" 10, "y" 3'


def context(values, window=0, quantile=0):
    return Context(window, tuple(range(len(values))), tuple(map(float, values)), quantile)


def letters(ids):
    return [chr(97 + id) for id in ids]


def test_the_explainer_sees_marks_and_strengths():
    shown = (context([0, 10, 2.9, 3]), context([5, 0, 0, 0]))
    asked = score.explanation_question(Sample(shown, (), 2), letters, Asking(), 77)
    last = asked.messages[-1]["content"]
    assert last == (
        'Excerpt 1: a<<b>>c<<d>>\nTokens: "b" 10, "d" 3\nExcerpt 2: <<a>>bcd\nTokens: "a" 5'
    )
    assert (asked.max_tokens, asked.digits) == (77, 0)
    many = score.explanation_question(Sample((context([1] * 20),), (), 1), letters, Asking(), 9)
    assert many.messages[-1]["content"].count(" 10,") == 9


def test_fuzzing_marks_as_many_wrong_tokens_as_are_active_on_average():
    active = [context([1, 0.1, 0, 0, 0, 0], 1), context([0, 0, 4, 0, 0, 0], 2, quantile=1)]
    silent = [Context(3, tuple(range(6)), (0.0,) * 6), Context(4, tuple(range(6)), (0.0,) * 6)]
    sample = Sample((), (*active, *silent), 2)
    shown = score.excerpts(sample, "fuzz", letters, Asking(), [0, 0])
    assert {e.window: e.text for e in shown if e.active} == {1: "<<a>>bcdef", 2: "ab<<c>>def"}
    for excerpt in shown:
        if not excerpt.active:  # ceil((2 + 1) / 2), the threshold not counted
            inside = "".join(p.split(">>")[0] for p in excerpt.text.split("<<")[1:])
            assert len(inside) == 2
    plain = score.excerpts(sample, "detection", letters, Asking(), [0, 1])
    assert {excerpt.text for excerpt in plain} == {"abcdef"}
    assert [e.window for e in shown] != [e.window for e in plain]  # an order of its own


def test_questions_are_in_groups_and_answers_find_their_excerpts():
    shown = [score.Excerpt(f"text {i}", i, i % 3 == 0, None) for i in range(12)]
    asked = score.questions("Names of seas.", shown, "detection", Asking())
    assert [q.digits for q in asked] == [5, 5, 2]
    assert "Description: Names of seas." in asked[2].messages[-1]["content"]
    assert "Excerpt 1: text 10\nExcerpt 2: text 11" in asked[2].messages[-1]["content"]
    assert "like [1,0]" in asked[2].messages[0]["content"]
    assert "<<" not in "".join(m["content"] for m in asked[0].messages)
    fuzzed = score.questions("Names of seas.", shown, "fuzz", Asking())
    assert "<<" in fuzzed[0].messages[1]["content"]
    said = score.read(shown, ["[1,0,0,1,0]", "I cannot say", "so: [1, 1]."], Asking())
    assert said == [True, False, False, True, False, *[None] * 5, True, True]
    counted = score.confusion(shown, said)
    assert (counted.tp, counted.tn, counted.fp, counted.fn, counted.unread) == (2, 3, 2, 0, 5)


@pytest.mark.parametrize(
    ("answer", "digits"),
    [
        ("[1,0,1]", [True, False, True]),
        ("My answer:\n[1, 0,\n 1] as asked", [True, False, True]),
        ("[1,0]", None),
        ("[1,0,2]", None),
        ("[1,0,[1]]", None),
        ("[1;0;1]", None),
        ("1,0,1", None),
        ("", None),
    ],
)
def test_only_a_list_of_the_right_length_is_an_answer(answer, digits):
    assert prompts.read_digits(answer, 3) == digits


def test_explanations_are_found_after_their_mark():
    assert prompts.read_explanation("thinking\n[EXPLANATION]: Names\nof seas. ") == "Names of seas."
    assert prompts.read_explanation("[EXPLANATION] Seas") == "Seas"
    assert prompts.read_explanation("Names of seas.") is None
    assert prompts.read_explanation("[EXPLANATION]:  ") is None
    example = prompts.explain([])[2]["content"]
    assert prompts.repeats_example(prompts.read_explanation(example))
    assert not prompts.repeats_example("Names of seas.")
