"""A random Llama with a byte-level tokenizer, made on the spot for smoke runs."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from langsae.models.spec import TinyModel

_SPECIAL = "<|endoftext|>"


def write_tiny(spec: TinyModel, folder: Path) -> None:
    """Write config.json, model.safetensors and a 257-entry byte tokenizer into `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=_SPECIAL, eos_token=_SPECIAL
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=spec.d_model,
                intermediate_size=2 * spec.d_model,
                num_hidden_layers=spec.layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                bos_token_id=0,
                eos_token_id=0,
            )
        ).save_pretrained(folder)
