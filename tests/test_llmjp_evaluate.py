"""Held-out perplexity by language against transformers' own logits, one text at a time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import read_json, sha256, write_json
from langsae.launching import LOCAL
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.ngrams import Bigram, Unigram
from replications.llmjp_tracing import evaluate as stage
from replications.llmjp_tracing.evaluate import evaluate
from replications.llmjp_tracing.run import Run, checkpoint

STEPS = (0, 30)
RUN = Run.model_validate({
    "history": "tiny", "embeddings": "tiny", "training": "train", "evaluation": "held_out",
    "impact": "held_out", "parallel": "held_out", "policy": {"max_tokens": 20},
    "saes": {"source": "train", "training": {"n_latents": 40, "k": 3, "lr": 1e-3}},
})  # fmt: skip
HELD_OUT = {
    "en": ("The cat sat on the mat.", "It rained; it stopped, and then it rained all day long!"),
    "ja": ("猫が座った。", "雨が降り、それから止んだ。", "本"),
}
TRAIN = {"en": ("The dog sat on the cat." * 3, "It rained."), "ja": ("犬が座った。雨が止んだ。",)}
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=48)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A project folder with a history of two random models and both corpora."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    for step in STEPS:
        spec = TinyModel(source="tiny", layers=2, seed=step)
        prepare(spec, checkpoint(Path("artifacts/histories/tiny"), step))
    write_json("artifacts/histories/tiny/history.json", {"steps": STEPS, "spec": {}})
    for name, texts in (("held_out", HELD_OUT), ("train", TRAIN)):
        ParallelCorpus(name, texts, aligned=False).save(Path(f"artifacts/corpora/{name}.jsonl"))
    return tmp_path


def _ids(texts: tuple[str, ...], most: int | None) -> list[list[int]]:
    tokenizer = load(checkpoint(Path("artifacts/histories/tiny"), 0), "cpu").tokenizer
    return [
        [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]][:most]
        for text in texts
    ]


def _expected(step: int, texts: tuple[str, ...]) -> float:
    network = load(checkpoint(Path("artifacts/histories/tiny"), step), "cpu").network
    losses = []
    for ids in _ids(texts, 20):
        with torch.no_grad():
            logs = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        losses += [-logs[at, ids[at + 1]].item() for at in range(len(ids) - 1)]
    return float(np.exp(np.mean(losses)))


def _table(root: Path) -> pd.DataFrame:
    evaluate(RUN, COMPUTE, root / "evaluated", root / "scratch", LOCAL)
    return pd.read_csv(root / "evaluated/perplexity.csv", dtype={"model": str})


def test_perplexities_of_models_and_baselines(root):
    table = _table(root)
    assert list(table.columns) == ["model", "language", "perplexity", "tokens"]
    rows = [(model, code) for model in ("0", "30", "unigram", "bigram") for code in ("en", "ja")]
    assert list(zip(table["model"], table["language"], strict=True)) == rows
    found = table.set_index(["model", "language"])["perplexity"]
    tokens = table.set_index(["model", "language"])["tokens"]
    fit = _ids(TRAIN["en"], None) + _ids(TRAIN["ja"], None)
    for code, texts in HELD_OUT.items():
        held_out = _ids(texts, 20)
        assert set(tokens[:, code]) == {sum(len(ids) - 1 for ids in held_out)}
        for step in STEPS:
            assert found[str(step), code] == pytest.approx(_expected(step, texts), rel=1e-5)
        before = np.array([v for ids in held_out for v in ids[:-1]])
        after = np.array([w for ids in held_out for w in ids[1:]])
        for name, kind in (("unigram", Unigram), ("bigram", Bigram)):
            mean = kind(fit, 257).log_probability(before, after).mean()
            assert found[name, code] == pytest.approx(np.exp(-mean), rel=1e-9)


def test_what_is_done_is_not_done_again(root, monkeypatch):
    """A stage killed after some cells reads these and makes the same table."""
    whole = _table(root)["perplexity"].tolist()
    asked, cell = [], stage.evaluate_cell

    def fails_last(task):
        asked.append(task.out.stem)
        if task.fit is not None and len(asked) == 3:
            raise InputError("no")
        cell(task)

    monkeypatch.setattr(stage, "evaluate_cell", fails_last)
    before = (root / "evaluated/perplexity.csv").read_bytes()
    with pytest.raises(InputError, match="baselines: no"):
        _table(root)
    assert (root / "evaluated/perplexity.csv").read_bytes() == before
    assert _table(root)["perplexity"].tolist() == whole
    assert asked == ["0", "30", "baselines", "baselines"]
    assert not list((root / "scratch").rglob("*.json"))


def test_checkpoints_with_other_tokens_are_refused(root):
    folder = checkpoint(Path("artifacts/histories/tiny"), 0)
    config = folder / "tokenizer.json"
    content = read_json(config)
    vocabulary = content["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    write_json(config, content)
    model = read_json(folder / "model.json")
    model["sha256"]["tokenizer.json"] = sha256(config)
    write_json(folder / "model.json", model)
    with pytest.raises(InputError, match="checkpoint 0: its tokenizer is not the last"):
        _table(root)


def test_a_history_without_checkpoints_is_refused(root):
    write_json("artifacts/histories/tiny/history.json", {"steps": [], "spec": {}})
    with pytest.raises(InputError, match="has no checkpoint to evaluate"):
        _table(root)


def test_a_published_run_has_an_empty_table(root):
    published = RUN.model_copy(update={"published": "page.csv"})
    evaluate(published, COMPUTE, root / "evaluated", root / "scratch", LOCAL)
    text = (root / "evaluated/perplexity.csv").read_text()
    assert text == "model,language,perplexity,tokens\n"
