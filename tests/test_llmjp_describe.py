"""Collecting and describing a small history, against dense codes of one text at a time.

The authors' own features go through the same functions (profile `reference`).
"""

import csv
import json
import os
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import entropy

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import read_json, write_json
from langsae.launching import Launch
from langsae.metrics.semantics import CLASSES
from langsae.metrics.token_language import language_of_token
from langsae.models.language_model import load
from langsae.models.pieces import UNFINISHED
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import tokenise
from langsae.saes.bank import load_bank, write_index
from langsae.saes.spec import FolderBank
from langsae.saes.topk import InputNorm, TopKSAE
from replications.llmjp_tracing import described
from replications.llmjp_tracing.collect import Collecting, collect, two_languages
from replications.llmjp_tracing.describe import (
    Describing,
    describe,
    describe_page,
    input_embeddings,
)
from replications.llmjp_tracing.patterns import LEAST, choose
from replications.llmjp_tracing.run import Run, checkpoint, hooks

STEPS, LAYERS, FEATURES = (0, 100), (1, 3), 40
RUN = Run.model_validate({
    "history": "tiny", "embeddings": "tiny", "training": "text", "evaluation": "text",
    "impact": "text", "parallel": "text", "layers": LAYERS, "policy": {"max_tokens": 24},
    "saes": {"source": "train", "training": {"n_latents": FEATURES, "k": 3, "lr": 1e-3}},
})  # fmt: skip
TEXTS = {
    "ja": ("猫がマットの上に座った。", "1999年は雨が降り、止んだ。", "私は本を読む (a book)。"),
    "en": ("The cat sat on the mat.", "In 1999 it rained; it stopped!", "I read a 本 today, Sir."),
}  # fmt: skip
COLLECTING = Collecting(bar=0.6, contexts=2, shown=1)
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=64)


def write_history(root: Path) -> None:
    history = root / "artifacts/histories/tiny"
    for step in STEPS:
        prepare(TinyModel(source="tiny", seed=step), checkpoint(history, step))
    write_json(history / "history.json", {"steps": list(STEPS), "spec": {}})
    ParallelCorpus("text", TEXTS).save(root / "artifacts/corpora/text.jsonl")


def write_banks(root: Path) -> None:
    """Random SAEs: features 0 and 1 have no weight and hence stay dead."""
    for step in STEPS:
        bank = root / f"saes/step_{step:07d}"
        spec = FolderBank(source="folder", model="tiny", corpus="text", path="saes/{layer}",
                          hooks=tuple(map(str, hooks(LAYERS, 3))))  # fmt: skip
        places = {}
        for number, hook in enumerate(spec.hooks):
            draw = torch.Generator().manual_seed(step + number)
            rows = torch.randn(FEATURES, 32, generator=draw)
            rows = torch.nn.functional.normalize(rows, dim=1)
            rows[:2] = 0
            zeros = torch.zeros
            sae = TopKSAE(
                rows, zeros(FEATURES), rows.clone(), zeros(32), 3, hook, norm=InputNorm("l2")
            )
            sae.save(bank / "saes" / hook)
            places[hook] = {"path": f"saes/{hook}"}
        write_index(bank, spec, places, {})


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The folder in which both stages ran, and what they published."""
    root, before = tmp_path_factory.mktemp("llmjp"), Path.cwd()
    os.chdir(root)
    torch.set_num_threads(1)
    write_history(root)
    write_banks(root)
    out = root / "collected"
    collect(RUN, COLLECTING, COMPUTE, root / "saes", out, root / "scratch", Launch())
    history = root / "artifacts/histories/tiny"
    describe(out, history, history, Describing(threshold=0.8, cosine=0.2), root / "described")
    yield root
    os.chdir(before)


def dense(root: Path, step: int):
    """Per layer: codes [texts, T, F] of one text at a time (NaN behind its end), and its tokens."""
    model = load(checkpoint(root / "artifacts/histories/tiny", step), "cpu")
    bank = load_bank(root / f"saes/step_{step:07d}", model.device)
    tokens = tokenise(model.tokenizer, ParallelCorpus("t", TEXTS).select(["en", "ja"]), RUN.policy)
    codes = np.full((len(LAYERS), len(tokens.ids), 24, FEATURES), np.nan)
    for text, ids in enumerate(tokens.ids):
        taken = model.activations(torch.tensor([ids]), bank)
        for at, (hook, coder) in enumerate(bank.items()):
            codes[at, text, 1 : len(ids)] = coder.encode(taken[hook][0, 1:].float()).dense()
    return model, tokens, codes


def spans(active) -> float:
    runs = [len(list(run)) for text in active for on, run in groupby(text) if on]
    return np.mean(runs) if runs else np.nan


@pytest.mark.parametrize("at_step", [0, 1])
def test_every_array_against_dense_codes(stages, at_step):
    model, tokens, codes = dense(stages, STEPS[at_step])
    found = described.load(stages / "described")
    assert (found.steps, found.layers) == (STEPS, LAYERS)
    words = [model.tokenizer.decode([id]) for id in range(len(model.tokenizer))]
    last = load(checkpoint(stages / "artifacts/histories/tiny", STEPS[-1]), "cpu")
    unit = last.network.get_input_embeddings().weight.detach().double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    alive = 0
    for layer, feature in np.ndindex(len(LAYERS), FEATURES):
        measured = {name: array[at_step, layer, feature] for name, array in found.arrays.items()}
        values = codes[layer, ..., feature]
        if not np.nansum(values):
            assert measured["class_document"] == measured["class_rule"] == -1
            for name in ("token_entropy", "semantic_entropy_greedy", "span_bar", "span_top_k"):
                assert np.isnan(measured[name])
            assert measured["kinds"] == 0
            continue
        above = np.nan_to_num(values) > 0.6 * np.nanmax(values)
        entries = [(text, at, tokens.ids[text][at]) for text, at in np.argwhere(above)]
        documents = [tokens.language[text] for text, _, _ in entries]
        ruled = [language_of_token([words[id] for id in tokens.ids[text][: at + 1]])
                 for text, at, _ in entries]  # fmt: skip
        assert (measured["en_document"], measured["ja_document"]) == (
            documents.count(0), documents.count(1))  # fmt: skip
        assert (measured["en_rule"], measured["ja_rule"]) == (ruled.count("en"), ruled.count("ja"))
        english = documents.count(0) / len(documents)
        assert measured["class_document"] == (0 if english > 0.8 else 1 if english < 0.2 else 2)
        kinds, count = np.unique([id for _, _, id in entries], return_counts=True)
        assert measured["kinds"] == len(kinds)
        assert measured["token_entropy"] == pytest.approx(entropy(count), abs=1e-9)
        assert measured["span_bar"] == pytest.approx(spans(above))
        assert measured["span_top_k"] == pytest.approx(spans(np.nan_to_num(values) > 0))
        mass = [count[list(group)].sum() for group in components(unit[kinds] @ unit[kinds].T > 0.2)]
        assert measured["semantic_entropy_connected"] == pytest.approx(entropy(mass), abs=1e-9)
        assert measured["semantic_entropy_greedy"] <= measured["token_entropy"] + 1e-12
        alive += 1
    assert FEATURES < alive < 2 * FEATURES - 3


def components(near: np.ndarray) -> list[set[int]]:
    """Connected components by closing sets of neighbours."""
    groups: list[set[int]] = []
    for row in range(len(near)):
        linked = {row, *np.flatnonzero(near[row]).tolist()}
        apart = [group for group in groups if not group & linked]
        linked = linked.union(*(group for group in groups if group & linked))
        groups = [*apart, linked]
    return groups


def test_patterns_follow_whole_texts(stages):
    shown = read_json(stages / "described/patterns.json")
    assert {(one["step"], one["layer"]) for one in shown} == {(s, n) for s in STEPS for n in LAYERS}
    _, tokens, codes = dense(stages, STEPS[1])
    texts = {"en": TEXTS["en"], "ja": TEXTS["ja"]}
    arrays = described.load(stages / "described").arrays
    for one in (one for one in shown if one["step"] == STEPS[1]):
        layer = LAYERS.index(one["layer"])
        assert one["class"] == CLASSES[arrays["class_document"][1, layer, one["feature"]]]
        for window in one["windows"]:
            text = "".join(window["pieces"]).rstrip(UNFINISHED)  # cut within a character
            row = [example.startswith(text) for example in texts[window["language"]]].index(True)
            index = row + (len(TEXTS["en"]) if window["language"] == "ja" else 0)
            expected = codes[layer, index, 1 : len(tokens.ids[index]), one["feature"]]
            np.testing.assert_allclose(window["values"], expected, rtol=1e-3, atol=1e-6)
            assert window["values"][window["top"]] == max(window["values"]) > 0


def test_a_killed_collection_goes_on_and_ends_the_same(stages, tmp_path, monkeypatch):
    from replications.llmjp_tracing import collect as module

    whole = {p.relative_to(stages / "collected"): p.read_bytes()
             for p in (stages / "collected").rglob("*") if p.is_file()}  # fmt: skip
    taken, real = [], module.stream.collect

    def killed(*arguments, **named):
        if len(taken) == 2:  # the second checkpoint
            raise KeyboardInterrupt
        taken.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(module.stream, "collect", killed)
    arguments = (RUN, COLLECTING, COMPUTE, stages / "saes", tmp_path / "out", tmp_path / "s",
                 Launch())  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        collect(*arguments)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module.stream, "collect", lambda *a, **b: (taken.append(1), real(*a, **b)))
    collect(*arguments)
    assert len(taken) == 4  # pass and patterns: of each checkpoint once
    again = {p.relative_to(tmp_path / "out"): p.read_bytes()
             for p in (tmp_path / "out").rglob("*") if p.is_file()}  # fmt: skip
    assert again == whole
    assert not list((tmp_path / "s").glob("collect-*"))


def test_a_broken_checkpoint_is_named(stages, tmp_path):
    saes = tmp_path / "saes"
    for step in STEPS:
        write_json(saes / f"step_{step:07d}/bank.json", {"spec": {}, "saes": {}})
    with pytest.raises(InputError, match=r"2 of 2 failed.*step_0000000.*has no SAE at resid_post"):
        collect(RUN, COLLECTING, COMPUTE, saes, tmp_path / "out", tmp_path / "s", Launch())


def test_other_vocabularies_and_languages_are_refused(stages):
    with pytest.raises(InputError, match="has 257 tokens, the run's has 300"):
        input_embeddings(stages / "artifacts/histories/tiny", 300)
    with pytest.raises(InputError, match="English and one other"):
        two_languages(ParallelCorpus("t", {"es": ("a",), "ja": ("b",)}))


def test_chosen_features_by_hand():
    counts = np.array([[9, 0, 5, LEAST - 1, 20, 1], [0, 30, 5, 0, 0, 12]])
    assert choose(counts, 1) == [1, 2, 4]  # the most tokens break a tie
    assert choose(counts, 2) == [0, 1, 2, 4, 5]
    assert choose(counts[:, :0], 2) == []


def test_the_authors_page(shared, tmp_path):
    """Their entropy on every labelled feature, their class on all, and the counts they print."""
    path = shared / "reference/llmjp_demo_features.csv"
    describe_page(path, Describing(), tmp_path / "described")
    found = described.load(tmp_path / "described")
    assert (found.steps, found.layers) == ((10, 1000, 10_000, 988_240), (12,))
    csv.field_size_limit(sys.maxsize)
    labelled, seen = 0, np.zeros((4, 100), dtype=bool)
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            at = found.steps.index(int(row["checkpoint"])), 0, int(row["feature"])
            seen[at[0], at[2]] = True
            assert CLASSES[found.arrays["class_rule"][at]] == row["lang_class"]
            assert found.arrays["en_rule"][at] == int(row["en"])
            assert found.arrays["kinds"][at] == len(set(json.loads(row["top_tokens"])))
            if row["authors_entropy"]:
                theirs = float(row["authors_entropy"])
                assert found.arrays["token_entropy"][at] == pytest.approx(theirs, abs=2e-6)
                labelled += 1
    assert labelled > 90
    assert (found.arrays["class_rule"][:, 0] == -1).tolist() == (~seen).tolist()
    counts = [[int((row == n).sum()) for n in range(3)] for row in found.arrays["class_rule"][:, 0]]
    assert counts == [[13, 20, 67], [51, 29, 18], [53, 41, 6], [40, 35, 25]]
    assert set(load_file(tmp_path / "described/features.safetensors")) == {
        "en_document", "ja_document", "en_rule", "ja_rule", "class_document", "class_rule",
        "token_entropy", "kinds",
    }  # fmt: skip
    with pytest.raises(InputError, match="no such file"):
        describe_page(tmp_path / "none.csv", Describing(), tmp_path / "x")
