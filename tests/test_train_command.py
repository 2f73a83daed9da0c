"""`langsae train` and `langsae tokenise`, end to end, with sparsify as the reader."""

import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from langsae import cli
from langsae.errors import InputError
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.parquet_files import ParquetFiles
from langsae.sequence_activations import SequenceActivations
from langsae.token_sequences import TokenSequences
from langsae.train_saes import named_hooks
from standin_hub import TOKEN, run_with_hub

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its CPU decode crashes where Triton is installed
LENGTH, SEQUENCES = 32, 120


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    prepare(TinyModel(source="tiny"), folder)
    return load(folder, "cpu")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """Random token ids of the tiny model's vocabulary of 257."""
    ids = torch.randint(1, 257, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(3))
    path = tmp_path_factory.mktemp("tokens") / "tokens.parquet"
    pq.write_table(pa.table({"input_ids": ids.tolist()}), path, row_group_size=50)
    return path


def langsae(monkeypatch, command, **options):
    """Run the command in this process; InputErrors come through."""
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    monkeypatch.setattr(sys, "argv", ["langsae", command, *flags])
    monkeypatch.setenv("LANGSAE_DEBUG", "1")
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0


def options(tokens, out, **changes):
    return {
        "model": "tiny",
        "data": tokens,
        "hooks": "layers.0.mlp,layers.2.mlp",
        "out": out,
        "expansion-factor": 4,
        "k": 4,
        "lr": 3e-3,
        "lr-warmup-steps": 5,
        "batch-tokens": 128,
        "chunk-tokens": 1024,
    } | changes


def mlp_outputs(model, sequences, layer):
    """What sparsify would train on: the outputs of the module, by a hook of our own."""
    taken = []
    module = model.network.get_submodule(f"model.layers.{layer}.mlp")
    handle = module.register_forward_hook(lambda _, __, output: taken.append(output))
    with torch.no_grad():
        model.network(sequences.rows(0, len(sequences)))
    handle.remove()
    return taken[0]


def fvu(coder, x):
    with torch.no_grad():
        out = coder.encode(x)
        decoded = coder.decode(out.top_acts, out.top_indices)
    return float((decoded - x).square().sum() / (x - x.mean(0)).square().sum())


@pytest.mark.parametrize(("backend", "bound"), [("langsae", 0.75), ("sparsify", 0.95)])
def test_trained_saes_load_in_sparsify_and_explain(
    tmp_path, monkeypatch, model, tokens, backend, bound
):
    """The mean explains nothing (FVU 1). The activations are near 1e-3, which costs sparsify's
    trainer, without input normalisation, most of these few steps."""
    from sparsify import SparseCoder

    out = tmp_path / "saes"
    langsae(monkeypatch, "train", **options(tokens, out, backend=backend))
    coders = SparseCoder.load_many(str(out), local=True)
    assert list(coders) == ["layers.0.mlp", "layers.2.mlp"]
    sequences = TokenSequences(ParquetFiles(str(tokens)), 0)
    record = json.loads((out / "config.json").read_text())
    assert record["data"]["sequences"] == SEQUENCES
    for name, coder in coders.items():
        assert (coder.num_latents, coder.cfg.k, coder.d_in) == (128, 4, 32)
        x = mlp_outputs(model, sequences, name.split(".")[1]).flatten(0, 1)
        assert 0.05 < fvu(coder, x) < bound
        assert record["probe"][name]["fvu"] == pytest.approx(fvu(coder, x), rel=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saes"], "scratch is gone"


def test_the_same_command_gives_the_same_bytes(tmp_path, monkeypatch, tokens):
    for name in ("a", "b"):
        langsae(monkeypatch, "train", **options(tokens, tmp_path / name, hooks="layers.1"))
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert [str(path) for path in files if path.suffix == ".safetensors"] == [
        "layers.1/sae.safetensors"
    ]
    for path in files:
        if (tmp_path / "a" / path).is_file():
            assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_a_killed_training_goes_on(tmp_path, monkeypatch, tokens):
    """Stopped at the last chunk and run again, it ends with the bytes of an unbroken run."""
    from langsae import train_saes

    given = options(tokens, tmp_path / "whole", hooks="layers.1.mlp")
    langsae(monkeypatch, "train", **given)
    monkeypatch.setattr(train_saes, "CHECKPOINT_SECONDS", 0)
    asked, compute = [], SequenceActivations.__getitem__

    def fail_at_the_last(chunks, index):
        asked.append(index)
        if asked.count(3) == 1 and index == 3:
            raise KeyboardInterrupt
        return compute(chunks, index)

    monkeypatch.setattr(SequenceActivations, "__getitem__", fail_at_the_last)
    broken = given | {"out": tmp_path / "broken"}
    flags = [part for key, value in broken.items() for part in (f"--{key}", str(value))]
    monkeypatch.setattr(sys, "argv", ["langsae", "train", *flags])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 130
    assert not (tmp_path / "broken").exists()
    langsae(monkeypatch, "train", **broken)
    assert asked == [0, 1, 2, 3, 2, 3], "its last checkpoint is within chunk 2"
    for name in ("sae.safetensors", "training.json"):
        assert (tmp_path / "broken/layers.1.mlp" / name).read_bytes() == (
            tmp_path / "whole/layers.1.mlp" / name
        ).read_bytes()


def test_activations_are_those_of_the_modules_without_what_is_left_out(model, tokens):
    sequences = TokenSequences(ParquetFiles(str(tokens)), 0, 40)
    hooks = named_hooks(["layers.*.mlp"], model)
    assert list(hooks) == [f"layers.{layer}.mlp" for layer in range(3)]
    chunks = SequenceActivations(model, hooks, sequences, 10 * LENGTH, 3, 2, [7, 200, 7])
    ids = sequences.rows(0, 40)
    kept = (ids != 7) & (ids != 200) & (torch.arange(LENGTH) >= 2)
    assert (~kept[:, 2:]).sum() > 0
    assert len(chunks) == 4
    for layer in (0, 2):
        ours = torch.cat([chunks[index][f"layers.{layer}.mlp"] for index in range(4)])
        expected = mlp_outputs(model, sequences, layer)[kept]
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_hook_points_are_named_by_their_modules(model):
    spelled = ["mlp_out.1", "layers.0", "blocks.2.hook_resid_post", "layers.1.mlp.act_fn"]
    named = named_hooks(spelled, model)
    assert {name: str(hook) for name, hook in named.items()} == {
        "layers.0": "resid_post.0",
        "layers.1.mlp": "mlp_out.1",
        "layers.1.mlp.act_fn": "mlp_act.1",
        "layers.2": "resid_post.2",
    }
    for text, message in (("layers.3.mlp", "layers 0..2"), ("resid_pre.1", "resid_post"),
                          ("layer.1", "not a hook point")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            named_hooks([text], model)


def test_texts_are_tokenised_on_the_way(tmp_path, monkeypatch):
    texts = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"raw_content": ["One sentence after another. " * 9] * 40}), texts)
    shared = {"model": "tiny", "data": texts, "text-column": "raw_content", "ctx-len": 16}
    langsae(monkeypatch, "tokenise", **shared, out=tmp_path / "tokens.parquet")
    ids = pq.read_table(tmp_path / "tokens.parquet")["input_ids"].to_pylist()
    # 40 texts of 252 bytes, a token each, and an end token before each; 15 and a BOS a sequence
    assert len(ids) == 40 * 253 // 15
    assert {len(row) for row in ids} == {16}
    for name, data in (("a", texts), ("b", tmp_path / "tokens.parquet")):
        given = options(data, tmp_path / name, hooks="layers.0.mlp", **{"ctx-len": 16})
        given["text-column"] = "raw_content"
        langsae(monkeypatch, "train", **given)
    a, b = (tmp_path / name / "layers.0.mlp/sae.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch-tokens": 10_000}, "lower training.batch_tokens"),
        ({"k": 500}, "above n_latents"),
        ({"skip": LENGTH}, "leaves none"),
        ({"data": "udhr"}, "which --languages"),
        ({"data": "nowhere.parquet"}, "no such Parquet file"),
        ({"backend": "sparsify", "epochs": 2}, "knows neither"),
        ({"backend": "sparsify", "batch-tokens": 10_000}, "less than a batch"),
        ({"backend": "sparsify", "hooks": "layers.0.mlp,layers.0.mlp.act_fn"}, "one width"),
    ],
)
def test_bad_choices(tmp_path, monkeypatch, tokens, change, message):
    given = options(tokens, tmp_path / "saes", **change)
    flags = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    monkeypatch.setattr(sys, "argv", ["langsae", "train", *flags])
    monkeypatch.setenv("LANGSAE_DEBUG", "1")
    with pytest.raises(InputError, match=message):
        cli.main()
    assert not (tmp_path / "saes").exists()


WITHOUT_AND_WITH_A_TOKEN = """
import contextlib, io, json, os, sys
from langsae import cli

sys.argv, ends = ["langsae", *FLAGS], []
for token in ("", TOKEN):
    os.environ["HF_TOKEN"] = token
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(errors):
        try:
            cli.main()
        except SystemExit as done:
            ends.append([done.code, errors.getvalue()])
print(json.dumps(ends))
"""


def test_streamed_from_a_hub(hub, tmp_path, tokens):
    """Pre-tokenised rows of a gated data set: first without its licence, then with."""
    hub.add_repo("some/tokens", {"data/train.parquet": tokens}, "dataset", gated=True)
    given = options("some/tokens:data/*.parquet", str(tmp_path / "saes"), hooks="layers.0.mlp")
    flags = ["train", *(part for key, value in given.items() for part in (f"--{key}", str(value)))]
    code = WITHOUT_AND_WITH_A_TOKEN.replace("FLAGS", repr(flags)).replace(
        '("", TOKEN)', repr(("", TOKEN))
    )
    refused, trained = json.loads(run_with_hub(hub, code).splitlines()[-1])
    told = [line for line in refused[1].splitlines() if line.startswith("langsae: error")]
    assert refused[0] == 2
    assert "some/tokens is gated: accept its licence" in told[0]
    assert "HF_TOKEN" in told[0]
    assert trained[0] == 0, trained[1]
    assert (tmp_path / "saes/layers.0.mlp/sae.safetensors").is_file()
