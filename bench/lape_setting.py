"""What bench.lape counts: a model, SAEs and texts of sae_lape's published shape."""

from dataclasses import replace

import numpy as np
import torch

from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.models.source import LoadedModel
from langsae.models.tokens import TokenIds, TokenisedCorpus, TokenPolicy
from langsae.saes.topk import TopKSAE

LAYERS, LATENTS, K = 16, 131_072, 32
# Mean tokens of a text: the study's totals of tokens over its totals of texts.
LENGTHS = {"bg": 61, "zh": 33, "en": 31, "fr": 44, "de": 43, "hi": 83, "it": 43, "ja": 39,
           "ko": 38, "pt": 39, "ru": 49, "es": 42, "th": 69, "tr": 41, "vi": 44}  # fmt: skip


def llama_shaped(width: int) -> LanguageModel:
    """Llama-3.2-1B's shape at `width`, but for a vocabulary of 16,384; random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = max(width // 64, 4)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=LAYERS,
        num_attention_heads=heads, num_key_value_heads=heads // 4, vocab_size=16_384,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LanguageModel(
        LoadedModel(LlamaForCausalLM(config), None, {}, n_layers=LAYERS, d_model=width)
    )


def random_corpus(texts: int) -> TokenisedCorpus:
    """Random ids; lengths scatter by a third around the language's mean."""
    rng = np.random.default_rng(1)
    ids = TokenIds()
    for mean in LENGTHS.values():
        for length in mean * (1 + rng.standard_normal(texts).clip(-2, 2) / 3):
            ids.append([0, *rng.integers(1, 16_384, round(length)).tolist()])
    language = tuple(at for at in range(len(LENGTHS)) for _ in range(texts))
    example = tuple(range(texts)) * len(LENGTHS)
    return TokenisedCorpus(tuple(LENGTHS), ids, language, example, TokenPolicy(count_bos=True))


def random_saes(width: int) -> dict[HookPoint, TopKSAE]:
    """16 SAEs that share their weights."""
    W = torch.randn(LATENTS, width) / width**0.5
    W_dec, zeros = W.clone(), (torch.zeros(LATENTS), torch.zeros(width))
    return {
        HookPoint("mlp_out", layer): TopKSAE(W, zeros[0], W_dec, zeros[1], K, f"mlp_out.{layer}")
        for layer in range(LAYERS)
    }


def some(corpus: TokenisedCorpus, languages: int) -> TokenisedCorpus:
    """The texts of the first languages."""
    texts = corpus.language.count(0) * languages
    kept = TokenIds(corpus.ids[at] for at in range(texts))
    return replace(
        corpus, ids=kept, language=corpus.language[:texts], example=corpus.example[:texts]
    )
