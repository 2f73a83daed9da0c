"""Tiny random models, SAEs and corpora, each in the layout its published repository has.

Every function returns {path in the repository: bytes}; `publish` puts them all on a stand-in hub.
Sizes are the smallest the real loaders take: 12 layers, for
release gpt2-small-res-jb has 12 SAEs.
"""

import io
import json
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save as to_safetensors
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

D_MODEL = 16
D_MLP = 4 * D_MODEL
N_HEADS = 2
D_SAE = 64
N_CTX = 128
N_VOCAB = 300  # 256 bytes, a few merges, the special tokens
GPT2_LAYERS, PYTHIA_LAYERS, LLAMA_LAYERS = 12, 6, 2
GEMMA_FOLDER = "layer_20/width_16k/average_l0_71"
EOT = "<|endoftext|>"
SENTENCES = {
    "eng_Latn": ["The cat sat on the mat. ", "It rained all day, and then it stopped."],
    "spa_Latn": ["El gato se sentó en la alfombra.", "Llovió todo el día y luego paró."],
    "jpn_Jpan": ["猫がマットの上に座った。", "一日中雨が降り、それから止んだ。"],
    "rus_Cyrl": ["Кошка сидела на коврике.", "Весь день шёл дождь, а потом перестал."],
}

Files = dict[str, bytes]


def publish(hub) -> dict[str, str]:
    """Every repository below on `hub`; returns the commit of each."""
    repos = {
        "gpt2": gpt2(),
        "EleutherAI/pythia-70m-deduped": pythia(),
        "HuggingFaceTB/SmolLM2-135M": llama(),
        "jbloom/GPT2-Small-SAEs-Reformatted": gpt2_saes(),
        "ctigges/pythia-70m-deduped__res-sm_processed": pythia_saes(),
        "EleutherAI/sae-Llama-3.2-1B-131k": sparsify_saes(),
        "google/gemma-scope-2b-pt-res": gemma_scope(),
    }
    commits = {repo_id: hub.add_repo(repo_id, files) for repo_id, files in repos.items()}
    gated = "meta-llama/Llama-3.2-1B"
    commits[gated] = hub.add_repo(gated, llama(), gated=True)
    script = {
        "flores.py": b"# a script data set: datasets >= 4 refuses it\n",
        "README.md": b"# FLORES\n",
    }
    hub.add_repo("facebook/flores", script, "dataset")
    commits["facebook/flores"] = hub.add_repo(
        "facebook/flores", flores(), "dataset", revision="refs/convert/parquet"
    )
    return commits


def _json(value) -> bytes:
    return json.dumps(value).encode()


def _weights(tensors: dict[str, np.ndarray]) -> bytes:
    return to_safetensors(
        tensors, metadata={"format": "pt"}
    )  # transformers refuses any other format


class _Draw:
    """Named random float32 arrays from one seed."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, mean: float = 0.0) -> np.ndarray:
        return (mean + 0.2 * self.rng.standard_normal(shape)).astype(np.float32)

    def affine(self, name: str, *shape: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": self(*shape), f"{name}.bias": self(shape[0])}

    def norm(self, name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": self(D_MODEL, mean=1.0), f"{name}.bias": self(D_MODEL)}


@cache
def _byte_bpe(special: tuple[str, ...]) -> Tokenizer:
    """Byte-level BPE; `special` take the first ids, as in GPT-NeoX."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [line for lines in SENTENCES.values() for line in lines]
    tokenizer.train_from_iterator(lines * 4, trainer)
    return tokenizer


def _with_end_last(tokenizer: Tokenizer) -> Tokenizer:
    """GPT-2 keeps <|endoftext|> in the vocabulary itself, as its last id (50256 there)."""
    parts = json.loads(tokenizer.to_str())
    vocab = parts["model"]["vocab"]
    vocab[EOT] = len(vocab)
    built = Tokenizer.from_str(json.dumps(parts))
    built.add_special_tokens([EOT])
    return built


def gpt2() -> Files:
    tokenizer = _with_end_last(_byte_bpe(()))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    bpe = json.loads(tokenizer.to_str())["model"]
    merges = "\n".join(" ".join(pair) for pair in bpe["merges"])
    n_vocab = tokenizer.get_vocab_size()
    config = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": n_vocab - 1,
        "embd_pdrop": 0.1,
        "eos_token_id": n_vocab - 1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": N_CTX,
        "n_embd": D_MODEL,
        "n_head": N_HEADS,
        "n_layer": GPT2_LAYERS,
        "n_positions": N_CTX,
        "resid_pdrop": 0.1,
        "vocab_size": n_vocab,
    }
    return {
        "config.json": _json(config),
        "model.safetensors": _weights(_gpt2_tensors(n_vocab)),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({"model_max_length": N_CTX}),
        "vocab.json": _json(bpe["vocab"]),
        "merges.txt": f"#version: 0.2\n{merges}\n".encode(),
    }


def _gpt2_tensors(n_vocab: int) -> dict[str, np.ndarray]:
    """GPT-2 stores its linear layers input first, so the bias length is given apart."""
    draw = _Draw(0)
    tensors = {"wte.weight": draw(n_vocab, D_MODEL), "wpe.weight": draw(N_CTX, D_MODEL)}
    for i in range(GPT2_LAYERS):
        for name, d_in, d_out in (
            ("attn.c_attn", D_MODEL, 3 * D_MODEL),
            ("attn.c_proj", D_MODEL, D_MODEL),
            ("mlp.c_fc", D_MODEL, D_MLP),
            ("mlp.c_proj", D_MLP, D_MODEL),
        ):
            tensors[f"h.{i}.{name}.weight"] = draw(d_in, d_out)
            tensors[f"h.{i}.{name}.bias"] = draw(d_out)
        tensors |= draw.norm(f"h.{i}.ln_1") | draw.norm(f"h.{i}.ln_2")
    return tensors | draw.norm("ln_f")


def pythia() -> Files:
    tokenizer = _byte_bpe((EOT, "<|padding|>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": D_MODEL,
        "initializer_range": 0.02,
        "intermediate_size": D_MLP,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": N_CTX,
        "model_type": "gpt_neox",
        "num_attention_heads": N_HEADS,
        "num_hidden_layers": PYTHIA_LAYERS,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": N_VOCAB + 4,  # published: 50,304 rows for 50,277 tokens
    }
    special = {"bos_token": EOT, "eos_token": EOT, "unk_token": EOT}
    tokenizer_config = {"add_prefix_space": False, "tokenizer_class": "GPTNeoXTokenizer", **special}
    return {
        "config.json": _json(config),
        "model.safetensors": _weights(_pythia_tensors(N_VOCAB + 4)),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json(tokenizer_config),
        "special_tokens_map.json": _json(special),
    }


def _pythia_tensors(n_vocab: int) -> dict[str, np.ndarray]:
    draw = _Draw(1)
    tensors = {"gpt_neox.embed_in.weight": draw(n_vocab, D_MODEL)}
    for i in range(PYTHIA_LAYERS):
        layer = f"gpt_neox.layers.{i}"
        tensors |= draw.norm(f"{layer}.input_layernorm")
        tensors |= draw.norm(f"{layer}.post_attention_layernorm")
        tensors |= draw.affine(f"{layer}.attention.query_key_value", 3 * D_MODEL, D_MODEL)
        tensors |= draw.affine(f"{layer}.attention.dense", D_MODEL, D_MODEL)
        tensors |= draw.affine(f"{layer}.mlp.dense_h_to_4h", D_MLP, D_MODEL)
        tensors |= draw.affine(f"{layer}.mlp.dense_4h_to_h", D_MODEL, D_MLP)
    tensors |= draw.norm("gpt_neox.final_layer_norm")
    tensors["embed_out.weight"] = draw(n_vocab, D_MODEL)
    return {name: tensor.astype(np.float16) for name, tensor in tensors.items()}  # as published


def llama(layers: int = LLAMA_LAYERS) -> Files:
    """Llama-3.2's shape (grouped queries, tied embeddings, BOS from the post-processor)."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = _byte_bpe((begin, end))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, 0)]
    )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "head_dim": D_MODEL // N_HEADS,
        "hidden_act": "silu",
        "hidden_size": D_MODEL,
        "intermediate_size": D_MLP,
        "max_position_embeddings": N_CTX,
        "model_type": "llama",
        "num_attention_heads": N_HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": N_VOCAB,
    }
    tokenizer_config = {
        "bos_token": begin,
        "eos_token": end,
        "model_max_length": N_CTX,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {
        "config.json": _json(config),
        "model.safetensors": _weights(_llama_tensors(layers)),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json(tokenizer_config),
    }


def _llama_tensors(layers: int) -> dict[str, np.ndarray]:
    draw, d_kv = _Draw(2), D_MODEL // N_HEADS
    tensors = {"model.embed_tokens.weight": draw(N_VOCAB, D_MODEL)}
    shapes = {
        "self_attn.q_proj": (D_MODEL, D_MODEL),
        "self_attn.k_proj": (d_kv, D_MODEL),
        "self_attn.v_proj": (d_kv, D_MODEL),
        "self_attn.o_proj": (D_MODEL, D_MODEL),
        "mlp.gate_proj": (D_MLP, D_MODEL),
        "mlp.up_proj": (D_MLP, D_MODEL),
        "mlp.down_proj": (D_MODEL, D_MLP),
    }
    for i in range(layers):
        for name, shape in shapes.items():
            tensors[f"model.layers.{i}.{name}.weight"] = draw(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{name}.weight"] = draw(D_MODEL, mean=1.0)
    return tensors | {"model.norm.weight": draw(D_MODEL, mean=1.0)}


def _sae_tensors(seed: int, d_sae: int = D_SAE) -> dict[str, np.ndarray]:
    draw = _Draw(seed)
    return {
        "W_enc": draw(D_MODEL, d_sae),
        "b_enc": draw(d_sae),
        "W_dec": draw(d_sae, D_MODEL),
        "b_dec": draw(D_MODEL),
    }


def fitting_sae_tensors(seed: int, d_sae: int) -> dict[str, np.ndarray]:
    """An SAE that explains any stream of width D_MODEL nearly wholly, so a probe accepts it.

    Latents +-(x - b_dec) give x back as it is. The others have random unit directions and spread
    negative biases, so they fire for few tokens, and decoders too small to disturb the sum.
    """
    draw, n_rest = _Draw(seed), d_sae - 2 * D_MODEL
    eye, rest = np.eye(D_MODEL, dtype=np.float32), draw(D_MODEL, n_rest)
    rest /= np.linalg.norm(rest, axis=0)
    bias = -np.geomspace(0.5, 12, n_rest, dtype=np.float32)  # streams grow from 0.2 to about 3
    return {
        "W_enc": np.concatenate([eye, -eye, rest], axis=1),
        "b_enc": np.concatenate([np.zeros(2 * D_MODEL, np.float32), bias]),
        "W_dec": np.concatenate([eye, -eye, 1e-4 * rest.T]),
        "b_dec": 0.1 * draw(D_MODEL),
    }


def gpt2_saes(d_sae: int = D_SAE, tensors=None) -> Files:
    """The oldest sae_lens layout: hook_point instead of hook_name, dtype as torch prints it.

    tensors: function of a seed and `d_sae`; random ones, which fit no stream, without it.
    """
    tensors = tensors or _sae_tensors
    files = {}
    for i in range(GPT2_LAYERS):
        hook = f"blocks.{i}.hook_resid_pre"
        config = {
            "model_name": "gpt2-small",
            "hook_point": hook,
            "hook_point_layer": i,
            "hook_point_head_index": None,
            "dataset_path": "Skylion007/openwebtext",
            "context_size": N_CTX,
            "d_in": D_MODEL,
            "d_sae": d_sae,
            "dtype": "torch.float32",
            "device": "cpu",
        }
        weights = tensors(100 + i, d_sae)
        weights["scaling_factor"] = np.ones(d_sae, np.float32)
        files[f"{hook}/cfg.json"] = _json(config)
        files[f"{hook}/sae_weights.safetensors"] = _weights(weights)
        files[f"{hook}/sparsity.safetensors"] = _weights(
            {"sparsity": np.full(d_sae, -3, np.float32)}
        )
    return files


def pythia_saes(d_sae: int = D_SAE, tensors=None) -> Files:
    """The sae_lens 3 to 5 layout; this release has no sparsity file. tensors: as `gpt2_saes`."""
    tensors = tensors or _sae_tensors
    files = {}
    for i in range(PYTHIA_LAYERS):
        config = {
            "architecture": "standard",
            "d_in": D_MODEL,
            "d_sae": d_sae,
            "dtype": "float32",
            "device": "cpu",
            "model_name": "pythia-70m-deduped",
            "hook_name": f"blocks.{i}.hook_resid_post",
            "hook_layer": i,
            "hook_head_index": None,
            "activation_fn_str": "relu",
            "apply_b_dec_to_input": True,
            "finetuning_scaling_factor": False,
            "normalize_activations": "none",
            "context_size": N_CTX,
            "prepend_bos": True,
            "dataset_path": "EleutherAI/the_pile_deduplicated",
            "dataset_trust_remote_code": True,
            "sae_lens_training_version": None,
        }
        files[f"{i}-res-sm/cfg.json"] = _json(config)
        files[f"{i}-res-sm/sae_weights.safetensors"] = _weights(tensors(200 + i, d_sae))
    return files


def sparsify_saes(
    layers: int = LLAMA_LAYERS, d_sae: int = D_SAE, k: int = 4, tensors=None
) -> Files:
    """EleutherAI's layout: a folder a hook point. tensors: as `gpt2_saes`."""
    tensors = tensors or _sae_tensors
    files = {"config.json": _json({"model": "meta-llama/Llama-3.2-1B", "ctx_len": N_CTX})}
    config = {"expansion_factor": d_sae // D_MODEL, "normalize_decoder": True, "num_latents": d_sae}
    config |= {"k": k, "multi_topk": False, "d_in": D_MODEL}
    for i in range(layers):
        own = tensors(300 + i, d_sae)
        weights = {
            "encoder.weight": np.ascontiguousarray(own["W_enc"].T),
            "encoder.bias": own["b_enc"],
            "W_dec": own["W_dec"],
            "b_dec": own["b_dec"],
        }
        files[f"layers.{i}.mlp/cfg.json"] = _json(config)
        files[f"layers.{i}.mlp/sae.safetensors"] = _weights(weights)
    return files


def gemma_scope() -> Files:
    """JumpReLU. sae_lens takes the sizes (2,304 x 16,384) from the names: override them."""
    array = io.BytesIO()
    np.savez(array, **_sae_tensors(400), threshold=np.full(D_SAE, 0.1, np.float32))
    return {f"{GEMMA_FOLDER}/params.npz": array.getvalue()}


def flores(sentences: dict[str, list[str]] = SENTENCES) -> Files:
    """The parquet conversion: one folder a language (the script's config), one a split.

    Assumed from the converter's habit ({config}/{split}/0000.parquet); columns as in flores.py.
    """
    files = {}
    for language, lines in sentences.items():
        n = len(lines)
        columns = {
            "id": pa.array(range(1, n + 1), pa.int32()),
            "URL": ["https://en.wikinews.org/wiki/A_page"] * n,
            "domain": ["wikinews"] * n,
            "topic": ["Weather"] * n,
            "has_image": pa.array([0] * n, pa.int32()),
            "has_hyperlink": pa.array([0] * n, pa.int32()),
            "sentence": lines,
        }
        for split in ("dev", "devtest"):
            buffer = io.BytesIO()
            pq.write_table(pa.table(columns), buffer)
            files[f"{language}/{split}/0000.parquet"] = buffer.getvalue()
    return files


def _parquet(columns: dict, classes: dict[str, list[str]] | None = None) -> bytes:
    """A table as the datasets library writes it: names of classes are in the schema's metadata."""
    table, buffer = pa.table(columns), io.BytesIO()
    if classes:
        features = {c: {"names": names, "_type": "ClassLabel"} for c, names in classes.items()}
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    pq.write_table(table, buffer)
    return buffer.getvalue()


def xnli(pairs: dict[str, list[tuple[str, str]]]) -> Files:
    """facebook/xnli: (premise, hypothesis) by ISO 639-1 code."""
    files = {}
    for code, rows in pairs.items():
        premise, hypothesis = (list(column) for column in zip(*rows, strict=True))
        columns = {"premise": premise, "hypothesis": hypothesis, "label": [0] * len(rows)}
        names = {"label": ["entailment", "neutral", "contradiction"]}
        files[f"{code}/train-00000-of-00001.parquet"] = _parquet(columns, names)
    return files


def paws_x(sentences: dict[str, list[str]]) -> Files:
    """google-research-datasets/paws-x: first sentences by ISO 639-1 code."""
    files = {}
    for code, lines in sentences.items():
        columns = {"id": pa.array(range(len(lines)), pa.int32()), "sentence1": lines}
        columns |= {"sentence2": lines[::-1], "label": [0] * len(lines)}
        files[f"{code}/train-00000-of-00001.parquet"] = _parquet(columns, {"label": ["0", "1"]})
    return files


def flores_plus(split: str, sentences: dict[str, list[str]]) -> Files:
    """openlanguagedata/flores_plus: one file a language and split, by FLORES+ code."""
    files = {}
    for name, lines in sentences.items():
        iso639_3, script = name.split("_")
        columns = {
            "id": pa.array(range(len(lines)), pa.int32()),
            "iso_639_3": [iso639_3] * len(lines),
            "iso_15924": [script] * len(lines),
            "text": lines,
            "domain": ["wikinews"] * len(lines),
        }
        files[f"{split}/{name}.parquet"] = _parquet(columns)
    return files


def wili(rows: list[tuple[str, str]], labels: list[str]) -> Files:
    """MartinThoma/wili_2018: rows of (text, ISO 639-3 code); labels: the order of the classes."""
    columns = {
        "sentence": [text for text, _ in rows],
        "label": [labels.index(code) for _, code in rows],
    }
    path = "WiLI-2018 dataset/test-00000-of-00001.parquet"
    return {path: _parquet(columns, {"label": labels})}


def gemma2(d_model: int = 2304, layers: int = 21) -> Files:
    """Gemma-2's shape: of full width, as its SAEs are, but with two-dimensional heads and MLPs.

    Padding is token 0, BOS token 2, as published; no token is a word.
    """
    special = ("<pad>", "<eos>", "<bos>")
    config = {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "head_dim": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": d_model,
        "intermediate_size": 2,
        "max_position_embeddings": N_CTX,
        "model_type": "gemma2",
        "num_attention_heads": 1,
        "num_hidden_layers": layers,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": N_CTX,
        "torch_dtype": "float32",
        "vocab_size": N_VOCAB,
    }
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    return {
        "config.json": _json(config),
        "model.safetensors": _weights(_gemma2_tensors(d_model, layers)),
        "tokenizer.json": _byte_bpe(special).to_str().encode(),
        "tokenizer_config.json": _json({"tokenizer_class": "PreTrainedTokenizerFast", **names}),
    }


def _gemma2_tensors(d_model: int, layers: int) -> dict[str, np.ndarray]:
    draw = _Draw(5)
    tensors = {"model.embed_tokens.weight": draw(N_VOCAB, d_model) / 48}  # scaled by sqrt(2304)
    for i in range(layers):
        layer = f"model.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj"):
            tensors[f"{layer}.self_attn.{name}.weight"] = draw(2, d_model)
        tensors[f"{layer}.self_attn.o_proj.weight"] = draw(d_model, 2)
        tensors[f"{layer}.mlp.gate_proj.weight"] = draw(2, d_model)
        tensors[f"{layer}.mlp.up_proj.weight"] = draw(2, d_model)
        tensors[f"{layer}.mlp.down_proj.weight"] = draw(d_model, 2)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            tensors[f"{layer}.{name}_layernorm.weight"] = 0.1 * draw(d_model) - 0.9  # times 1 + w
    return tensors | {"model.norm.weight": draw(d_model)}


def wide_gemma_scope(
    features: np.ndarray, mean: np.ndarray, threshold: np.ndarray, d_sae: int = 16_384
) -> Files:
    """GemmaScope's own sizes; `features` [2 d] pass on the parts of x - mean [d] above `threshold`.

    Even ones the positive part of a dimension, odd ones the negative part. The other latents are
    zero and dead. FVU is at most 1 on any stream with that mean.
    """
    d_model = len(mean)
    encoder = np.zeros((d_model, d_sae), np.float32)
    signs = np.where(np.arange(2 * d_model) % 2, -1, 1).astype(np.float32)
    encoder[np.arange(2 * d_model) // 2, features] = signs
    bar = np.full(d_sae, 1e6, np.float32)
    bar[features] = threshold
    array = io.BytesIO()
    np.savez(
        array,
        W_enc=encoder,
        W_dec=np.ascontiguousarray(encoder.T),
        b_enc=-(mean @ encoder).astype(np.float32),
        b_dec=mean.astype(np.float32),
        threshold=bar,
    )
    return {f"{GEMMA_FOLDER}/params.npz": array.getvalue()}


def opus_books(pairs: list[tuple[str, str]]) -> Files:
    """(Spanish, English) pairs in the parquet layout of Helsinki-NLP/opus_books, config en-es."""
    columns = {
        "id": [str(number) for number in range(len(pairs))],
        "translation": [{"en": english, "es": spanish} for spanish, english in pairs],
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return {"en-es/train-00000-of-00001.parquet": buffer.getvalue()}


def published_activations(rows: list[dict]) -> Files:
    """Rows with id, tokens [L, T], str_tokens {code: words}, sae_features float32 [L, T, F], as the
    author's map() over a data set leaves them, in two files.
    """
    files = {}
    for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        table = pa.table({
            "id": [row["id"] for row in part],
            "tokens": [row["tokens"].tolist() for row in part],
            "str_tokens": [row["str_tokens"] for row in part],
            "sae_features": _nested([row["sae_features"] for row in part]),
        })  # fmt: skip
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        files[f"data/train-0000{number}-of-00002.parquet"] = buffer.getvalue()
    return files


def _nested(arrays: list[np.ndarray]) -> pa.Array:
    """Lists of lists of lists of float32, without a Python number for each."""

    def offsets(lengths: list[int]) -> pa.Array:
        return pa.array(np.cumsum([0, *lengths]), pa.int32())

    features = arrays[0].shape[2]
    positions = [a.shape[1] for a in arrays for _ in range(a.shape[0])]
    inner = pa.ListArray.from_arrays(
        offsets([features] * sum(positions)), pa.array(np.concatenate([a.ravel() for a in arrays]))
    )
    middle = pa.ListArray.from_arrays(offsets(positions), inner)
    return pa.ListArray.from_arrays(offsets([a.shape[0] for a in arrays]), middle)
