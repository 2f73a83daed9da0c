"""Tokens as text and as coloured HTML: nothing is lost, nothing is let through unescaped."""

import re
from html.parser import HTMLParser

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from langsae.coloured_text import columns, note, page, spans, table
from langsae.errors import InputError
from langsae.models.pieces import pieces

TEXTS = ["plain words", "año: €5 – 猫が座った 🐈‍⬛!", "العربية\n and a line", "", "\ufffd kept"]


def byte_level() -> PreTrainedTokenizerFast:
    """A token a byte: every character beyond ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE({symbol: id for id, symbol in enumerate(alphabet)}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=built)


def with_byte_fallback() -> PreTrainedTokenizerFast:
    """As Gemma's and Llama 2's: words with a leading bar, bytes for what they do not cover."""
    words = ["<unk>", "▁un", "▁gato", "▁"]
    vocabulary = {word: id for id, word in enumerate(words)}
    vocabulary |= {f"<0x{byte:02X}>": len(words) + byte for byte in range(256)}
    built = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=built)


@pytest.mark.parametrize("text", TEXTS)
def test_joined_pieces_are_the_decoded_text(text):
    tokenizer = byte_level()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == text


def test_a_split_character_is_shown_with_its_last_token():
    tokenizer = byte_level()
    assert pieces(tokenizer, tokenizer("a€ñ")["input_ids"]) == ["a", "", "", "€", "", "ñ"]


def test_bytes_that_never_become_a_character_stay_in_place():
    tokenizer = with_byte_fallback()
    euro = [4 + byte for byte in "€".encode()]
    assert pieces(tokenizer, [1, *euro, 2]) == [" un", "", "", "€", " gato"]
    broken = [1, euro[0], 2, euro[0]]
    assert "".join(pieces(tokenizer, broken)) == tokenizer.decode(broken)
    rewritten = [4 + ord("A"), euro[0]]  # the second byte turns the first, shown as A, into one too
    assert "".join(pieces(tokenizer, rewritten)) == tokenizer.decode(rewritten)


class Reader(HTMLParser):
    """What a browser would show: text by element, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text, self.marked = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data
        if self.tags and self.tags[-1][0] == "span":
            self.marked.append(data)
            self.tags.append(("", {}))  # what follows is outside the span until the next one


def test_colour_grows_with_the_value_and_zero_stays_plain():
    html = spans(["a", "b", "c", "d"], [0, 1, 2, 8], top=4)
    seen = Reader(html)
    assert seen.text == "abcd"
    assert seen.marked == ["b", "c", "d"]
    depths = [int(depth, 16) for depth in re.findall(r"background:#D55E00(..)", html)]
    assert depths == sorted(depths)
    assert depths[0] < depths[1] < depths[2] == round(0.85 * 255)
    assert [a["title"] for t, a in seen.tags if t == "span"] == ["1", "2", "8"]


def test_text_cannot_become_markup():
    evil = '<script>alert("1")</script>&amp;'
    seen = Reader(spans([evil], [1.0], top=1.0))
    assert seen.text == evil
    assert {tag for tag, _ in seen.tags} == {"div", "span", ""}
    parts = [(evil, columns([(evil, note(evil))]) + table([evil], [[evil]]))]
    seen = Reader(page(evil, parts))
    assert "script" not in {tag for tag, _ in seen.tags}
    assert seen.text.count(evil) == 7


def test_texts_take_their_own_direction_and_keep_white_space():
    html = page("t", [("", spans(["العربية", "  x\n"], [1, 0], top=1))])
    assert 'class="text" dir="auto"' in html
    assert "white-space: pre-wrap" in html
    assert "  x↵\n" in html
    assert not re.search(r"(src|href)=", html)


@pytest.mark.parametrize(
    ("values", "top", "message"),
    [([1], 1, "one value a piece"), ([1, float("nan")], 1, "nan"), ([1, -1], 1, "-1"),
     ([1, 1], 0, "above 0"), ([1, 1], float("nan"), "above 0")],
)  # fmt: skip
def test_values_that_cannot_be_drawn_are_refused(values, top, message):
    with pytest.raises(InputError, match=message):
        spans(["a", "b"], values, top)
