"""Few-shot translation by a base model: the prompt, where an answer ends, and chrF.

The prompt is our choice, as the study does not give its own: aligned examples, then the text.

    English: TEXT
    Japanese: TEXT
    <empty line>
    English: TEXT
    Japanese:
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.languages import find

Pair = tuple[str, str]


def prompt(languages: Pair, examples: Sequence[Pair], text: str) -> str:
    """The prompt that asks for `text` (of languages[0]) in languages[1], after `examples`.

    Line breaks within texts become spaces: a line break ends an answer.
    """
    source, target = (find(code).name for code in languages)
    shown = [f"{source}: {_line(one)}\n{target}: {_line(other)}\n\n" for one, other in examples]
    return f"{''.join(shown)}{source}: {_line(text)}\n{target}:"


def _line(text: str) -> str:
    return " ".join(text.splitlines())


def encode(tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt, BOS first; InputError for a tokenizer that has none."""
    if tokenizer.bos_token_id is None:
        raise InputError("translation needs a tokenizer with a BOS token")
    encoded = tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]
    return [[tokenizer.bos_token_id, *ids] for ids in encoded]


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading ids all sequences share, at least one id short of the shortest."""
    first, last = min(sequences), max(sequences)  # the two that differ earliest
    shared = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )
    return min(shared, min(map(len, sequences)) - 1)


def ends(tokenizer, vocabulary: int) -> Tensor:
    """bool [vocabulary]: the tokens that end an answer, a line break or the end of text."""
    known = range(min(vocabulary, len(tokenizer)))
    texts = tokenizer.batch_decode([[id] for id in known], clean_up_tokenization_spaces=False)
    out = torch.zeros(vocabulary, dtype=torch.bool)
    out[: len(texts)] = torch.tensor(["\n" in text for text in texts])
    if tokenizer.eos_token_id is not None:
        out[tokenizer.eos_token_id] = True
    return out


def answer(tokenizer, ids: Sequence[int]) -> str:
    """The text of an answer: its first line, without special tokens and outer white space."""
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.split("\n")[0].strip()


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of a corpus (Popović 2015, 2016), 0..100, by sacrebleu's defaults."""
    return _chrf().corpus_score(list(answers), [list(references)]).score


def chrf_signature() -> str:
    """sacrebleu's signature of `chrf`."""
    metric = _chrf()
    metric.corpus_score([""], [["."]])  # the signature counts the references it has seen
    return str(metric.get_signature())


def _chrf():
    from sacrebleu.metrics import CHRF  # takes a quarter of a second

    return CHRF()
