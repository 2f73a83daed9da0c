"""Tiny repositories in the layouts of what the llmjp_tracing study reads, and its local folders.

Llamas as LLM-jp-3 publishes them (as its model cards say: no grouped queries, untied embeddings, a
few more rows than tokens, a Unigram tokenizer with byte fallback), and SAEs in both of the study's
own layouts. Every function returns {path: bytes}.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save as to_safetensors
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

WIDTH, HEADS, MLP = 16, 2, 32
ROWS = 640  # of the embeddings; the tokenizer has fewer tokens
SPECIAL = ("<unk>", "<s>", "</s>", "<MASK|LLM-jp>", "<PAD|LLM-jp>", "<CLS|LLM-jp>", "<SEP|LLM-jp>",
           "<EOD|LLM-jp>")  # fmt: skip

Files = dict[str, bytes]


def tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Unigram over characters, frequent pairs and triples of `texts`, and bytes for all others."""
    found = Counter(
        piece
        for text in texts
        for word in text.split()
        for size in (1, 2, 3)
        for piece in (f"▁{word}"[at : at + size] for at in range(len(word) + 2 - size))
    )
    frequent = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    frequent = frequent[: ROWS - 10 - 256 - len(SPECIAL)]
    total = sum(count for _, count in frequent)
    vocabulary = [(name, 0.0) for name in SPECIAL]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    vocabulary += [(piece, float(np.log(count / total))) for piece, count in frequent]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return made


def llama(layers: int, seed: int, words: Tokenizer, width: int = WIDTH) -> Files:
    """A random model; what its id says of its size is `layers`."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": MLP,
        "max_position_embeddings": 4096,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": ROWS,
    }
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
             "mask_token": "<MASK|LLM-jp>", "pad_token": "<PAD|LLM-jp>",
             "cls_token": "<CLS|LLM-jp>", "sep_token": "<SEP|LLM-jp>"}  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True,
                "clean_up_tokenization_spaces": False, "model_max_length": 4096,
                **names}  # fmt: skip
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": _weights(layers, seed, width),
        "tokenizer.json": words.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "special_tokens_map.json": json.dumps(names).encode(),
    }


def _weights(layers: int, seed: int, width: int) -> bytes:
    rng = np.random.default_rng([layers, seed])

    def draw(*shape: int, mean: float = 0.0) -> np.ndarray:
        return (mean + 0.25 * rng.standard_normal(shape)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": draw(ROWS, width)}
    for i in range(layers):
        layer = f"model.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{layer}.self_attn.{name}.weight"] = draw(width, width)
        tensors[f"{layer}.mlp.gate_proj.weight"] = draw(MLP, width)
        tensors[f"{layer}.mlp.up_proj.weight"] = draw(MLP, width)
        tensors[f"{layer}.mlp.down_proj.weight"] = draw(width, MLP)
        for name in ("input", "post_attention"):
            tensors[f"{layer}.{name}_layernorm.weight"] = draw(width, mean=1.0)
    tensors |= {"model.norm.weight": draw(width, mean=1.0), "lm_head.weight": draw(ROWS, width)}
    return to_safetensors(tensors, metadata={"format": "pt"})


def sae(seed: int, latents: int) -> dict[str, np.ndarray]:
    """One that explains a stream of unit vectors wholly: +-(x - b_dec), and rarer directions.

    The latter decode to next to nothing, so the sum stays what it is.
    """
    rng = np.random.default_rng(seed)
    rest = rng.standard_normal((latents - 2 * WIDTH, WIDTH))
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    eye = np.eye(WIDTH)
    bias = np.concatenate([np.zeros(2 * WIDTH), -np.linspace(0.15, 0.6, len(rest))])
    tensors = {
        "encoder.weight": np.concatenate([eye, -eye, rest]),
        "encoder.bias": bias,
        "W_dec": np.concatenate([eye, -eye, 1e-3 * rest]),
        "b_dec": 0.02 * rng.standard_normal(WIDTH),
    }
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def sae_first_version(tensors: dict[str, np.ndarray]) -> Files:
    """A state dict alone."""
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, file)
    return {"sae.pth": file.getvalue()}


def sae_second_version(tensors: dict[str, np.ndarray]) -> Files:
    """As save_pretrained leaves it: an nn.Linear as decoder, hence [d, n]."""
    named = {name: value for name, value in tensors.items() if name != "W_dec"}
    named["decoder.weight"] = np.ascontiguousarray(tensors["W_dec"].T)
    config = {"d_in": WIDTH, "num_latents": len(tensors["W_dec"]), "k": 32}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": to_safetensors(named, metadata={"format": "pt"}),
    }


def wikipedia(texts: list[str]) -> bytes:
    """One file of wikimedia/wikipedia; an article a text."""
    columns = {
        "id": [str(number) for number in range(len(texts))],
        "url": ["https://example.org/wiki/A_page"] * len(texts),
        "title": ["A page"] * len(texts),
        "text": texts,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()
