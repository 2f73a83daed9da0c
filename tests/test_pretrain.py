"""Pretraining a small Llama: tokenizer, packing, learning, and going on after a kill."""

import csv
import os
import signal
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.corpora.shipped import read_shipped
from langsae.errors import InputError
from langsae.files import read_json, sha256
from langsae.histories import PretrainedHistory, prepare_history
from langsae.models.language_model import load
from langsae.pretrain import run
from langsae.pretrain.muon import Muon, orthogonalised
from langsae.pretrain.packing import NOT_SCORED, PackedTexts
from langsae.pretrain.spec import LlamaShape, Pretraining, TokenizerSpec
from langsae.pretrain.tokenizer import encode, learn_tokenizer, save
from langsae.pretrain.train import Pretrainer, build_llama, schedule

SMALL = {
    "source": "pretrain",
    "corpus": "texts",
    "tokenizer": {"vocabulary": 700, "least": 2},
    "model": {"d_model": 32, "layers": 2, "heads": 2, "d_mlp": 64},
    "training": {
        "steps": 24,
        "rows": 4,
        "row_tokens": 32,
        "warmup_steps": 4,
        "log_every": 5,
        "muon_lr": 0.02,
    },
    "checkpoints": [3, 10],
}


@pytest.fixture(scope="module")
def texts() -> dict[str, tuple[str, ...]]:
    """The declaration's first articles in both languages."""
    raw = read_shipped("udhr.jsonl.gz", ("en", "ja"))
    return {code: tuple(raw.texts[code][:30]) for code in ("en", "ja")}


@pytest.fixture(scope="module")
def words(texts):
    """A tokenizer of 900 entries learnt from them."""
    every = [text for column in texts.values() for text in column]
    return learn_tokenizer(every, TokenizerSpec(vocabulary=900, least=2))


@pytest.fixture
def corpora(texts, tmp_path) -> Path:
    """A folder with the corpus `texts`."""
    ParallelCorpus("texts", texts).save(tmp_path / "corpora/texts.jsonl")
    return tmp_path / "corpora"


def test_a_text_comes_back_from_its_ids(words, texts):
    unseen = ["Ελληνικά 𠮷野家 🎌\n\ttabs  and  spaces ", "naïve café", "①②③ ﾃｽﾄ", "한국어"]
    for text in [*texts["en"], *texts["ja"], *unseen]:
        ids = encode(words, [text])[0]
        assert words.token_to_id("<unk>") not in ids
        assert words.decode(ids) == text


def _tokens(words, text: str) -> list[str]:
    return [words.decode([id]) for id in encode(words, [text])[0]]


def test_tokens_are_words_of_one_script(words):
    japanese = _tokens(words, "すべての人は教育を受ける権利を有する。")
    assert {"すべての", "権利", "有"} <= set(japanese)
    assert {" the", " right"} <= set(_tokens(words, "Everyone has the right to education"))
    for token in words.get_vocab():
        kanji = any("一" <= character <= "鿿" for character in token)
        hiragana = any("ぁ" <= character <= "ん" for character in token)
        assert not (kanji and hiragana), token


def test_digits_stand_alone(words):
    assert [token.strip() for token in _tokens(words, "Article 29")[-2:]] == ["2", "9"]


def test_vocabulary_is_as_asked_whatever_the_order_of_texts(words, texts):
    assert words.get_vocab_size() == 900
    assert [words.id_to_token(id) for id in (0, 1, 2, 3)] == ["<unk>", "<s>", "</s>", "<0x00>"]
    reverse = [text for column in texts.values() for text in column][::-1]
    again = learn_tokenizer(reverse, TokenizerSpec(vocabulary=900, least=2))
    assert again.to_str() == words.to_str()


def test_too_small_a_vocabulary_is_refused(texts):
    with pytest.raises(InputError, match="raise `vocabulary` or `least`"):
        learn_tokenizer(texts["ja"], TokenizerSpec(vocabulary=300, least=1))


def test_transformers_reads_the_tokenizer_unchanged(words, texts, tmp_path):
    save(words, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (texts["en"][0], texts["ja"][0], "🎌 ß"):
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == encode(words, [text])[0]
        assert theirs(text)["input_ids"] == [1, *ids]
        assert theirs.decode(ids) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)


def test_rows_hold_the_texts_of_an_epoch_in_its_own_order():
    texts = [[10 + i, 40 + i, 70 + i][: 1 + i % 3] for i in range(20)]
    packed = PackedTexts(texts, 1, 2, rows=2, row_tokens=7, seed=0)
    assert packed.tokens == sum(len(text) + 2 for text in texts)
    orders = []
    for epoch in range(2):
        batches = [packed.batch(epoch * packed.batches + i) for i in range(packed.batches)]
        stream = " ".join(str(int(id)) for batch in batches for id in batch.ids.flatten())
        found = [part.split() for part in stream.removeprefix("1 ").split(" 1 ")]
        orders.append([int(part[0]) - 10 for part in found])
        for index, part in zip(orders[-1][:-1], found[:-1], strict=True):  # the last may be cut
            assert part == [str(id) for id in (*texts[index], 2)]
        assert len(set(orders[-1])) == len(found) >= 15
    assert orders[0] != orders[1]


def test_labels_and_positions_by_hand():
    # one row of 8 of the stream 1 5 6 2 1 7 2, twice over, as there is only one order of one text
    packed = PackedTexts([[5, 6], [5, 6], [5, 6]], 1, 2, rows=1, row_tokens=8, seed=0)
    batch = packed.batch(0)
    assert batch.ids.tolist() == [[1, 5, 6, 2, 1, 5, 6, 2]]
    assert batch.labels.tolist() == [[5, 6, 2, NOT_SCORED, 5, 6, 2, NOT_SCORED]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    with pytest.raises(InputError, match="give more text or fewer rows"):
        PackedTexts([[5]], 1, 2, rows=1, row_tokens=8, seed=0)


def test_packed_texts_do_not_see_one_another():
    network = build_llama(LlamaShape(d_model=32, heads=2, d_mlp=64, layers=2), 300, 1, 2, 0).eval()
    batch = PackedTexts([[9, 8, 7]] * 2, 1, 2, rows=1, row_tokens=9, seed=0).batch(0)
    packed = {"position_ids": batch.positions, "use_cache": False}
    other = batch.ids.clone()
    other[0, 2] = 50
    with torch.no_grad():
        together = network(input_ids=batch.ids, **packed).logits[0, 5:]
        alone = network(input_ids=batch.ids[:, 5:]).logits[0]
        changed = network(input_ids=other, **packed).logits[0, 5:]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert torch.equal(together, changed)


def test_schedule_by_hand():
    spec = Pretraining(steps=11, warmup_steps=2, final_lr=0.1)
    rates = [schedule(spec, step) for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.55)  # half of the cosine
    assert rates[10] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[1:]))


def test_first_step_is_adamw_on_the_mean_cross_entropy():
    """Against autograd on transformers' own loss, and AdamW's first step written out."""
    shape = LlamaShape(d_model=32, heads=2, d_mlp=64, layers=1)
    spec = Pretraining(steps=5, rows=1, row_tokens=6, lr=0.01, warmup_steps=0, clip=1e9)
    batch = PackedTexts([[5, 6, 9, 8], [4]], 1, 2, rows=1, row_tokens=6, seed=1).batch(0)
    reference = build_llama(shape, 300, 1, 2, 0)
    logits = reference(input_ids=batch.ids, position_ids=batch.positions).logits
    scored = batch.labels != NOT_SCORED
    loss = F.cross_entropy(logits[scored], batch.labels[scored])
    loss.backward()
    trainer = Pretrainer(build_llama(shape, 300, 1, 2, 0), spec)
    assert trainer.step(batch) == pytest.approx(loss.item(), rel=1e-6)
    after = dict(trainer.network.named_parameters())
    for name, value in reference.named_parameters():
        decay = 0.1 if value.ndim > 1 else 0.0
        moved = value * (1 - 0.01 * decay) - 0.01 * value.grad / (value.grad.abs() + 1e-8)
        torch.testing.assert_close(after[name], moved, rtol=1e-4, atol=1e-6)


def test_muon_steps_by_nearly_orthogonal_matrices():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 24, 40, generator=draw)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    found = orthogonalised(x)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # the same singular vectors, so U' found V is diagonal
    inner = u.mT @ found @ v.mT
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3
    torch.testing.assert_close(orthogonalised(x.mT), found.mT)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muon_is_torchs_own_but_for_its_bfloat16(shape):
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=draw)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muon = Muon({"w": ours}, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
    for _ in range(3):
        gradient = torch.randn(shape, generator=draw)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step(0.02)
        reference.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_a_loss_that_is_not_finite_is_refused():
    network = build_llama(LlamaShape(d_model=32, heads=2, d_mlp=64, layers=1), 300, 1, 2, 0)
    with torch.no_grad():
        network.model.norm.weight.fill_(float("nan"))
    trainer = Pretrainer(network, Pretraining(steps=5))
    batch = PackedTexts([[5, 6, 9, 8]] * 3, 1, 2, rows=1, row_tokens=6, seed=1).batch(0)
    with pytest.raises(InputError, match="loss nan at step 1; lower the lr"):
        trainer.step(batch)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _prepare(corpora: Path, scratch: Path, out: Path, **compute) -> None:
    spec = PretrainedHistory(**SMALL)
    prepare_history(spec, Compute(device="cpu", threads=1, **compute), corpora, scratch, out)


def test_history_holds_loadable_checkpoints_and_a_loss_curve(corpora, tmp_path):
    torch.set_num_threads(1)
    out = tmp_path / "histories/small"
    _prepare(corpora, tmp_path / "scratch", out)
    assert read_json(out / "history.json")["steps"] == [0, 3, 10, 24]
    assert not list((tmp_path / "scratch").iterdir())
    models = {step: load(out / f"step_{step:07d}", "cpu") for step in (0, 3, 10, 24)}
    last = models[24]
    assert (last.n_layers, last.d_model, last.network.config.vocab_size) == (2, 32, 700)
    spec = PretrainedHistory(**SMALL)
    fresh = build_llama(spec.model, 700, 1, 2, spec.training.seed)
    weight = models[0].network.get_input_embeddings().weight
    assert torch.equal(weight, fresh.get_input_embeddings().weight)
    assert not torch.equal(weight, last.network.get_input_embeddings().weight)
    with (out / "loss.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == [5, 10, 15, 20, 24]
    assert int(lines[-1]["tokens"]) == 24 * 4 * 32
    losses = [float(line["loss"]) for line in lines]
    assert losses[0] == pytest.approx(np.log(700), abs=0.1)  # a random network is uniform
    assert losses[-1] < losses[0] - 0.3


def test_same_inputs_give_the_same_bytes(corpora, tmp_path):
    _prepare(corpora, tmp_path / "scratch", tmp_path / "one")
    _prepare(corpora, tmp_path / "scratch", tmp_path / "two", checkpoint_seconds=1)
    one, two = _digests(tmp_path / "one"), _digests(tmp_path / "two")
    assert one == two
    assert len(one) > 10


def _until_killed(step: int, *arguments: Path) -> None:
    """Prepare the history in a process that is killed before it takes that many steps.

    Its clock runs 0.4 s a look, so that it saves a state about every third step.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    try:
        ticks, taken, take = count(), count(1), Pretrainer.step

        def counted(self, batch):
            if next(taken) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return take(self, batch)

        Pretrainer.step = counted
        run.time = SimpleNamespace(monotonic=lambda: 0.4 * next(ticks))
        _prepare(*arguments, checkpoint_seconds=1)
    finally:
        os._exit(1)


def _killed_often(steps, corpora: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    _prepare(corpora, tmp_path / "whole_scratch", tmp_path / "whole", checkpoint_seconds=1)
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    for step in steps:
        _until_killed(step, corpora, scratch, out)
        assert not out.exists()
    _prepare(corpora, scratch, out, checkpoint_seconds=1)
    assert _digests(out) == _digests(tmp_path / "whole")


def test_killed_and_taken_up_again_it_ends_in_the_same_bytes(corpora, tmp_path):
    _killed_often((2, 6, 9), corpora, tmp_path)


@pytest.mark.slow
def test_twenty_random_kills_change_nothing(corpora, tmp_path):
    drawn = np.random.default_rng(0).integers(1, 5, 20)
    _killed_often(map(int, drawn), corpora, tmp_path)


def test_a_state_of_another_training_is_refused(tmp_path):
    shape = LlamaShape(d_model=32, heads=2, d_mlp=64, layers=1)
    trainer = Pretrainer(build_llama(shape, 300, 1, 2, 0), Pretraining(steps=5))
    trainer.save(tmp_path / "state.safetensors", "one")
    with pytest.raises(InputError, match="state of another pretraining"):
        trainer.restore(tmp_path / "state.safetensors", "two")
