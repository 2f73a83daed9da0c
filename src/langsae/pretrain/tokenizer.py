"""A tokenizer for English and Japanese, learnt from the training text.

Byte-pair merges over characters, with bytes for rare characters as in Llama's and LLM-jp's
vocabularies. Merges never cross from one script to another (nor from kanji to kana), so a Japanese
word or its ending can become one token though no space marks it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from langsae.errors import InputError
from langsae.pretrain.spec import SPECIAL, TokenizerSpec

_SPACE = "▁"  # how SentencePiece writes a space
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # names that ByteFallback knows
# A word may begin with its space; digits stand alone; kanji, hiragana and katakana part.
_PARTS = (
    rf"{_SPACE}?[\p{{Latin}}\p{{M}}]+|{_SPACE}?\p{{N}}"
    r"|\p{Han}+|\p{Hiragana}+|[\p{Katakana}ー]+"
    rf"|{_SPACE}?[^{_SPACE}\p{{L}}\p{{N}}]+|{_SPACE}+"
)


def learn_tokenizer(texts: Sequence[str], spec: TokenizerSpec) -> Tokenizer:
    """The tokenizer of `spec` for `texts`: ids 0..2 are <unk>, <s> and </s>, then come 256 bytes.

    Encoding with special tokens puts <s> in front, as LLM-jp's does. Decoding gives the text back
    (but "▁" comes back as a space). Depends on how often each word occurs alone, not on the order
    of texts. Raises InputError where the characters alone fill the vocabulary.
    """
    counts = Counter(character for text in texts for character in text)
    rare = {ord(character): " " for character, n in counts.items() if n < spec.least}
    known = len(counts) - len(rare) + len(SPECIAL) + len(_BYTES)
    if known >= spec.vocabulary:
        raise InputError(
            f"tokenizer: characters and bytes alone are {known} entries of {spec.vocabulary}; "
            "raise `vocabulary` or `least`"
        )
    learner = _untrained(models.BPE(byte_fallback=True, unk_token=SPECIAL[0]))
    trainer = BpeTrainer(
        vocab_size=spec.vocabulary, special_tokens=[*SPECIAL, *_BYTES], show_progress=False
    )
    learner.train_from_iterator((text.translate(rare) for text in texts), trainer)
    return _finished(learner)


def _untrained(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PARTS), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _finished(learner: Tokenizer) -> Tokenizer:
    """Bytes are reserved like special tokens while merges are learnt, but are ordinary entries."""
    parts = json.loads(learner.to_str())
    parts["added_tokens"] = parts["added_tokens"][: len(SPECIAL)]
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    begin = SPECIAL[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """The ids of each text, without special tokens."""
    return [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, for AutoTokenizer."""
    from transformers import PreTrainedTokenizerFast

    unknown, begin, end = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end
    ).save_pretrained(folder)
