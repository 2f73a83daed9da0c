"""Stage inject_llmjp_tracing on tiny random checkpoints, against passes put together by hand."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sacrebleu.metrics import CHRF
from safetensors.numpy import save_file

import standin_comet
from dense_injection import dense
from langsae.comet import client, score
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import write_json
from langsae.launching import Launch
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.saes.bank import write_index
from langsae.saes.spec import FolderBank
from langsae.saes.topk import InputNorm, TopKSAE
from replications.llmjp_tracing import described, draws, inject, inject_cells
from replications.llmjp_tracing.run import Injecting, Run, checkpoint, history_folder

D, N, K, LAYER, STEPS = 32, 60, 6, 3, (0, 10, 100)
HOME = Path("artifacts/llmjp_tracing/test/r")
IMPACT = {
    "en": ("a cat sat", "on the mat", "it rained", "all day long"),
    "ja": ("猫が座る", "雨が降る"),
}
PARALLEL = {"en": ("a cat", "two dogs", "rain", "the sea"), "ja": ("猫", "二匹の犬", "雨", "海")}
# 20 English, 10 Japanese, 25 mixed and 5 dead features at the last checkpoint
CLASSES = np.repeat([0, 1, 2, -1], [20, 10, 25, 5])
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=30)
BATCHES = 3  # of 10 and 10, 11 and 13, 13 and 13 positions: a byte is a token
LOCAL = Launch()


def settings(**changed) -> Injecting:
    given = {
        "layer": LAYER, "mid": 10, "alphas": (0.5, 3.0), "features": (4, 15), "draws": 2,
        "translations": 2, "shots": 2, "new_tokens": 6, "rows": 7,
    }  # fmt: skip
    return Injecting(**given | changed)


def a_run(**changed) -> Run:
    return Run(
        history="h", training="c", evaluation="c", impact="impact", parallel="parallel",
        embeddings="h", saes={"source": "hub", "repo": "x"}, inject=settings(**changed),
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What the stages before this one would leave."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("work")
    history = root / history_folder("h")
    for seed, step in enumerate(STEPS):
        prepare(TinyModel(source="tiny", d_model=D, layers=4, seed=seed), checkpoint(history, step))
    write_json(history / "history.json", {"steps": STEPS, "spec": {}})
    ParallelCorpus("impact", IMPACT, aligned=False).save(root / "artifacts/corpora/impact.jsonl")
    ParallelCorpus("parallel", PARALLEL).save(root / "artifacts/corpora/parallel.jsonl")
    hook = f"resid_post.{LAYER - 1}"
    bank = root / HOME / f"saes/step_{STEPS[-1]:07d}"
    a_coder(hook).save(bank / hook)
    spec = FolderBank(source="folder", path="x", model="m", corpus="c", hooks=(hook,))
    write_index(bank, spec, {hook: {"path": hook}}, {})
    _described(root / HOME / "described")
    return root


def a_coder(hook: str) -> TopKSAE:
    draw = torch.Generator().manual_seed(3)
    encoder = torch.randn(N, D, generator=draw)
    bias = 0.1 * torch.randn(D, generator=draw)
    norm = InputNorm("l2")
    return TopKSAE(encoder, torch.zeros(N), F.normalize(encoder), bias, K, hook, norm=norm)


def _described(folder: Path) -> None:
    """Layers 2 and 3; only at the last checkpoint and layer 3 are there classes to draw from."""
    classes = np.full((len(STEPS), 2, N), -1)
    classes[-1, 1] = CLASSES
    rule = np.full_like(classes, -1)
    rule[-1, 1] = 1
    folder.mkdir(parents=True)
    arrays = {"class_document": classes, "class_rule": rule}
    save_file(arrays | {"token_entropy": np.zeros(classes.shape)}, folder / "features.safetensors")
    index = {"steps": STEPS, "layers": [2, 3], "features": N, "languages": ["en", "ja"]}
    write_json(folder / "index.json", index)


@pytest.fixture
def here(root, monkeypatch):
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="module")
def published(root):
    """The stage's results under `settings()`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        inject.inject(a_run(), COMPUTE, HOME, root / "injected", LOCAL, root / "scratch")
    return root / "injected"


def drawn(**changed) -> list[draws.Setting]:
    injecting = settings(**changed)
    found = draws.classed(described.load(HOME / "described"), injecting, ("en", "ja"))
    return draws.draw(found, injecting)


def bytes_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_draws_are_of_their_class_and_the_larger_hold_the_smaller(here):
    every = drawn(draws=5)
    assert every[0] == draws.Setting("none", 0.0, 0, 0, ())
    members = {"en": range(20), "ja": range(20, 30), "bi": range(30, 55), "random": range(55)}
    for kind, among in members.items():
        own = [one for one in every if one.add == kind]
        assert len(own) == 2 * 2 * 5
        assert all(set(one.chosen) <= set(among) for one in own)
        assert all(len(set(one.chosen)) == min(one.features, len(among)) for one in own)
        for seed in range(5):
            few, many = (
                {one.chosen for one in own if (one.features, one.draw) == (n, seed)}
                for n in (4, 15)
            )
            assert len(few) == len(many) == 1  # the same for each alpha
            assert set(*few) <= set(*many)
        assert len({one.chosen for one in own if one.features == 4}) == 5
    assert {one.chosen for one in every if (one.add, one.features) == ("ja", 15)} == {
        tuple(range(20, 30))
    }  # fewer than asked: all of them


def test_a_class_without_features_has_no_settings(here):
    every = drawn(labels="rule")  # by the rule every feature is Japanese
    assert {one.add for one in every} == {"none", "ja", "random"}


def by_hand(one: draws.Setting, run: Run) -> dict[str, float]:
    """Perplexity of each language's tokens, a text at a time, from logits."""
    history = history_folder("h")
    full, mid = (load(checkpoint(history, step), "cpu") for step in (100, 10))
    hook = HookPoint("resid_post", LAYER - 1)
    mask = torch.zeros(N, dtype=torch.bool)
    mask[list(one.chosen)] = True
    losses = {}
    for code, texts in IMPACT.items():
        for text in texts:
            ids = torch.tensor([[0, *mid.tokenizer(text)["input_ids"]][:64]])
            h_full, h_mid = (model.activations(ids, [hook])[hook] for model in (full, mid))
            put = dense(
                a_coder(str(hook)), h_full, h_mid, mask, one.alpha, run.inject.undo_l2
            ).float()
            put[:, 0] = h_mid[:, 0]
            handle = mid.network.model.layers[hook.layer].register_forward_hook(
                lambda *_, put=put: put
            )
            with torch.inference_mode():
                logits = mid.network(ids).logits[0].double()
            handle.remove()
            told = F.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
            losses.setdefault(code, []).extend(told.tolist())
    losses["all"] = losses["en"] + losses["ja"]
    return {code: float(np.exp(np.mean(each))) for code, each in losses.items()}


def test_perplexities_are_those_of_passes_put_together_by_hand(here, published):
    table = pd.read_csv(published / "perplexity.csv", keep_default_na=False)
    assert list(table.columns) == list(inject.PERPLEXITY)
    every = drawn()
    assert len(table) == 3 * len(every)
    assert np.isfinite(table["perplexity"]).all()
    for one in (every[0], every[2], every[-1]):
        key = (one.add, one.alpha, one.features, one.draw)
        rows = table.set_index(list(inject.ADDED)).loc[[key]]
        found = dict(zip(rows["language"], rows["perplexity"], strict=True))
        assert found == pytest.approx(by_hand(one, a_run()), rel=1e-5)
    assert table.groupby(["add", "alpha", "features", "draw"])["perplexity"].first().nunique() > 10


def test_settings_say_what_was_added(here, published):
    facts = json.loads((published / "settings.json").read_text())
    assert facts["available"] == {"en": 20, "ja": 10, "bi": 25, "random": 55}
    assert facts["drawn"]["ja"] == {"4": 4, "15": 10}
    assert (facts["full"], facts["mid"]) == (100, 10)
    assert facts["inject"]["undo_l2"] == "full norm"
    assert facts["tokens"]["en"] == sum(map(len, IMPACT["en"]))  # a token a byte
    assert facts["chrf"] == "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def test_translations_are_scored_as_sacrebleu_does(here, published):
    table = pd.read_csv(published / "translation.csv", keep_default_na=False)
    assert list(table.columns) == list(inject.TRANSLATION)
    assert set(table["direction"]) == {"en-ja", "ja-en"}
    assert set(table["metric"]) == {"chrf"}
    lines = pd.read_json(published / "translations.jsonl", lines=True)
    assert len(lines) == 2 * len(table)
    assert sorted(set(lines["source"])) == sorted(["rain", "the sea", "雨", "海"])
    keys = [*inject.ADDED, "direction"]
    scores = table.set_index(keys)["score"]
    for key, rows in lines.groupby(keys):
        expected = CHRF().corpus_score(list(rows["text"]), [list(rows["reference"])]).score
        assert scores[key] == pytest.approx(expected, abs=1e-8)


def test_without_addition_the_mid_model_translates_alone(here, published):
    lines = pd.read_json(published / "translations.jsonl", lines=True)
    mid = load(checkpoint(history_folder("h"), 10), "cpu")
    shown = "English: a cat\nJapanese: 猫\n\nEnglish: two dogs\nJapanese: 二匹の犬\n\n"
    ids = [0, *mid.tokenizer(f"{shown}English: the sea\nJapanese:")["input_ids"]]
    with torch.inference_mode():
        told = mid.network.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)
    expected = mid.tokenizer.decode(told[0, len(ids) :], skip_special_tokens=True)
    row = lines[(lines["add"] == "none") & (lines["source"] == "the sea")].iloc[0]
    assert row["text"] == expected.split("\n")[0].strip()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 7])  # among the batches, and among the translations
def test_a_killed_run_goes_on_to_the_same_bytes(here, published, tmp_path, monkeypatch, after):
    computed = []

    def counted(function):
        def compute(*args):
            if len(computed) == after and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                raise Killed
            computed.append(function.__name__)
            return function(*args)

        return compute

    for owner, name in ((inject_cells._Opened, "_likelihoods"), (inject_cells._Asked, "answers")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    again = (a_run(), COMPUTE, HOME, tmp_path / "injected", LOCAL, tmp_path / "scratch")
    with pytest.raises(Killed):
        inject.inject(*again)
    assert not (tmp_path / "injected").exists()
    inject.inject(*again)
    chunks = -(-len({(one.alpha, one.chosen) for one in drawn()}) // 7)
    assert computed.count("_likelihoods") == BATCHES
    assert computed.count("answers") == 2 * 2 * chunks  # two texts, two ways: none is made twice
    assert bytes_of(tmp_path / "injected") == bytes_of(published)
    assert not list((tmp_path / "scratch").glob("inject-*"))


def test_parts_in_any_order_give_the_same_bytes(here, published, tmp_path):
    job, _, _ = inject.plan(a_run(), COMPUTE, HOME, tmp_path / "scratch")
    for index in (2, 0, 1):
        part = inject_cells.Part(job, index, 3)
        assert not part.done
        inject_cells.work(part)
        assert part.done
    inject.inject(a_run(), COMPUTE, HOME, tmp_path / "injected", LOCAL, tmp_path / "scratch")
    assert bytes_of(tmp_path / "injected") == bytes_of(published)


def test_comet_scores_what_was_translated(here, published, tmp_path, monkeypatch):
    monkeypatch.setenv(client.VARIABLE, str(standin_comet.build(tmp_path)))
    run = a_run(metrics=("chrf", "comet"), alphas=(3.0,), features=(4,))
    out = tmp_path / "injected"
    inject.inject(run, COMPUTE, HOME, out, LOCAL, tmp_path / "scratch")
    table = pd.read_csv(out / "translation.csv", keep_default_na=False)
    lines = pd.read_json(out / "translations.jsonl", lines=True)
    ratio = lines["text"].str.len() / (lines["reference"].str.len() + lines["source"].str.len())
    keys = [*inject.ADDED, "direction"]
    expected = 100 * ratio.groupby([lines[key] for key in keys]).mean()
    found = table[table["metric"] == "comet"].set_index(keys)["score"].sort_index()
    assert found.to_dict() == pytest.approx(expected.to_dict())
    assert json.loads((out / "settings.json").read_text())["comet"]["repo"] == score.REPO


def test_where_comet_is_missing_nothing_is_computed(here, tmp_path, monkeypatch):
    monkeypatch.delenv(client.VARIABLE, raising=False)
    run = a_run(metrics=("comet",))
    with pytest.raises(InputError, match=client.VARIABLE):
        inject.inject(run, COMPUTE, HOME, tmp_path / "out", LOCAL, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"mid": 50}, "mid 50 is no checkpoint before the last; take 0, 10"),
        ({"mid": 100}, "mid 100"),
        ({"layer": 1}, "layer 1 was not described; take one of 2, 3"),
        ({"translations": 3}, "needs 5 aligned rows"),
        ({"new_tokens": 5000}, "the model 2048"),
    ],
)
def test_what_cannot_be_is_said(here, tmp_path, changed, fault):
    with pytest.raises(InputError, match=fault):
        inject.inject(
            a_run(**changed), COMPUTE, HOME, tmp_path / "out", LOCAL, tmp_path / "scratch"
        )


def test_a_run_without_injection_publishes_headers(tmp_path):
    inject.publish_tables(tmp_path / "injected", [], [], [], {})
    assert (tmp_path / "injected/perplexity.csv").read_text() == (
        "add,alpha,features,draw,language,perplexity\n"
    )
    assert len(pd.read_csv(tmp_path / "injected/translation.csv")) == 0
    assert (tmp_path / "injected/translations.jsonl").read_text() == ""
    assert json.loads((tmp_path / "injected/settings.json").read_text()) == {}
