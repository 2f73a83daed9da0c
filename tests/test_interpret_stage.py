"""Stage interpret on a tiny model, with a local server and with a local model as explainer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.params import parse
from langsae.saes.bank import load_bank, write_index
from langsae.saes.spec import FolderBank
from langsae.saes.topk import TopKSAE
from openai_server import KEY, OpenAIServer
from replications.sae_lape import identified
from replications.sae_lape.interpret import Interpret, interpret
from replications.sae_lape.run import Run

HOOKS = ("mlp_out.0", "mlp_out.2")
WIDTH, CHUNK, LATENTS, K = 8, 32, 48, 3
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=256)
WORDS = {
    "en": ["the sea is calm", "a cold wind came", "nine boats left", "we saw the harbour"],
    "es": [
        "el mar está en calma",
        "vino un viento frío",
        "zarparon nueve barcos",
        "vimos el puerto",
    ],
}
RUN = {
    "model": "tiny", "saes": "bank", "corpus": "texts", "test": "texts", "impact": "texts",
    "similarity": "texts",
    "policy": {"bos": "prepend", "count_bos": True},
}  # fmt: skip
CONTEXTS = {
    "width": WIDTH, "chunk": CHUNK, "shown": 4, "active": 6, "inactive": 6, "quantiles": 3,
    "least": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """artifacts/ of a run up to stage identify."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    texts = {
        code: tuple(" ".join(rng.choice(words, 3)) for _ in range(12))
        for code, words in WORDS.items()
    }
    ParallelCorpus("texts", texts).save(root / "artifacts/corpora/texts.jsonl")
    prepare(TinyModel(source="tiny", d_model=16, layers=3), root / "artifacts/models/tiny")
    _write_bank(root / "artifacts/saes/bank")
    return root


@pytest.fixture(autouse=True)
def _inside(workplace, monkeypatch):
    monkeypatch.chdir(workplace)


def _write_bank(bank):
    generator = torch.Generator().manual_seed(1)
    places = {}
    for hook in HOOKS:
        weights = torch.nn.functional.normalize(
            torch.randn(LATENTS, 16, generator=generator), dim=1
        )
        sae = TopKSAE(weights, torch.zeros(LATENTS), weights.clone(), torch.zeros(16), K, hook)
        sae.save(bank / "saes" / hook)
        places[hook] = {"path": f"saes/{hook}"}
    spec = {"source": "folder", "path": "saes", "model": "tiny", "corpus": "texts", "hooks": HOOKS,
            "policy": RUN["policy"]}  # fmt: skip
    write_index(bank, FolderBank(**spec), places, {})


def dense_activations():
    """The oracle: {language: chunks' ids}, and per hook dense codes [language][chunk, position, F].

    Texts are joined by hand, and every chunk passes alone through model and SAE.
    """
    model = load("artifacts/models/tiny", "cpu")
    bank = load_bank("artifacts/saes/bank", model.device)
    texts = ParallelCorpus.load("artifacts/corpora/texts.jsonl").texts
    end, bos = model.tokenizer.eos_token_id, model.tokenizer.bos_token_id
    windows, codes = [], {hook: [] for hook in HOOKS}
    for rows in texts.values():
        joined = [id for text in rows for id in (end, *model.tokenizer.encode(text))]
        for start in range(0, len(joined), CHUNK - 1):
            ids = [bos, *joined[start : start + CHUNK - 1]]
            whole = len(ids) // WIDTH * WIDTH
            windows += np.array(ids[:whole]).reshape(-1, WIDTH).tolist()
            vectors = model.activations(torch.tensor([ids]), bank)
            for hook, coder in bank.items():
                dense = coder.encode(vectors[hook][0].float()).active().dense()[:whole]
                codes[str(hook)] += dense.reshape(-1, WIDTH, LATENTS).tolist()
    return model.tokenizer, windows, {hook: np.array(rows) for hook, rows in codes.items()}


@pytest.fixture(scope="module")
def oracle(workplace):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return dense_activations()


@pytest.fixture(scope="module")
def found(workplace, oracle):
    """identified/ with three features to explain, and one that is active almost nowhere."""
    _, windows, codes = oracle
    rows = []
    for hook, language, wanted in (("mlp_out.0", "en", 20), ("mlp_out.2", "en", 15),
                                   ("mlp_out.2", "es", 25), ("mlp_out.2", "es", 2)):  # fmt: skip
        active = (codes[hook].max(axis=1) > 0).sum(axis=0)
        taken = [row["feature"] for row in rows]
        fit = [f for f in range(LATENTS) if f not in taken and active[f] < len(windows) - 6]
        if len(rows) == 3:  # tables are ordered by feature
            fit = [f for f in fit if f > taken[2]]
        if len(rows) == 1:  # the next feature will be chosen, too: the two could be mixed up
            fit = [f for f in fit[:24] if f + 1 in fit and min(active[f], active[f + 1]) >= 8]
        feature = min(fit, key=lambda f: abs(int(active[f]) - wanted))
        if len(rows) == 2:
            feature = taken[1] + 1
        rows.append({"language": language, "hook": hook, "layer": HookPoint.parse(hook).layer,
                     "feature": feature, "windows": int(active[feature])})  # fmt: skip
    table = pd.DataFrame(rows).assign(
        languages=1, entropy=[0.5, 0.4, 0.3, 0.6], probability=0.1, average=1.0, maximum=2.0,
        minimum=0.1, probability_as_published=0.1, selection=identified.ALL, rank=1,
    )  # fmt: skip
    neurons = pd.DataFrame(columns=list(identified.NEURONS))
    folder = workplace / "artifacts/identified"
    folder.mkdir(parents=True)
    identified.write(folder, {"features": table, "neurons": neurons, "selections": table})
    summary = {"languages": ["en", "es"], "selections": [identified.ALL]}
    write_json(folder / "summary.json", summary)
    return table


def settings(explainer, **changes):
    return parse(Interpret, {"explainer": explainer, "contexts": CONTEXTS, **changes}, "interpret")


def run_stage(name, explainer, **changes):
    out = Path("artifacts") / name
    run = parse(Run, RUN, "run")
    interpret(run, settings(explainer, **changes), COMPUTE, Path("artifacts/identified"), out,
              Path("scratch"))  # fmt: skip
    return {path.stem: pd.read_csv(path, keep_default_na=False) for path in out.glob("*.csv")}


def endpoint(server, **changes):
    return {"source": "endpoint", "base_url": server.url, "model": "m", "workers": 3,
            "api_key_env": "LANGSAE_TEST_KEY", **changes}  # fmt: skip


def answer(messages):
    """Says 1 of every excerpt with an 'n' in it, and explains by repeating what it was shown."""
    last = messages[-1]["content"]
    if "[EXPLANATION]" in messages[0]["content"]:
        return f"Well.\n[EXPLANATION]: about {len(last)} characters"
    excerpts = last.split("\n\nExcerpt 1: ")[1].split("\nExcerpt ")
    return json.dumps([int("n" in excerpt.split(": ", 1)[-1]) for excerpt in excerpts])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("LANGSAE_TEST_KEY", KEY)
    with OpenAIServer(answer) as running:
        yield running


def test_excerpts_and_counts_are_those_of_dense_activations(server, found, oracle):
    tables = run_stage("whole", endpoint(server))
    tokenizer, windows, codes = oracle
    features = tables["explanations"]
    assert features["feature"].tolist() == found["feature"].tolist()
    assert features["windows"].tolist() == found["windows"].tolist()
    assert features["status"].tolist() == ["explained"] * 3 + ["too few windows"]
    assert set(features["explainer"]) == {"m"}
    shown = tables["excerpts"].query("method == 'detection'")
    assert len(shown) == 3 * 12
    for row in shown.itertuples():
        values = codes[row.hook][row.window, :, row.feature]
        assert row.active == int(values.max() > 0)
        assert row.text == tokenizer.decode(windows[row.window])
        assert int(row.answer) == int("n" in row.text)
    for row in tables["excerpts"].query("method == 'fuzz' and active == 1").itertuples():
        values = codes[row.hook][row.window, :, row.feature]
        # every character of these texts is a token, but accents: two
        assert row.text.count("<<") >= 1
        assert (values >= 0.3 * values.max()).sum() >= row.text.count("<<")
    counts = tables["scores"].set_index(["hook", "feature", "method"])
    for key, part in tables["excerpts"].groupby(["hook", "feature", "method"]):
        pairs = list(zip(part["active"], part["answer"].astype(int), strict=True))
        expected = [pairs.count(pair) for pair in ((1, 1), (0, 0), (0, 1), (1, 0))]
        assert counts.loc[key, ["tp", "tn", "fp", "fn"]].tolist() == expected
    assert len(counts) == 6


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(server, found):
    run_stage("one", endpoint(server))
    before = len(server.requests)
    server.faults = [500] * 100
    run_stage("two", endpoint(server))
    assert len(server.requests) == before
    one, two = (
        {p.name: p.read_bytes() for p in Path("artifacts", n).iterdir()} for n in ("one", "two")
    )
    assert one == two
    assert set(one) == {"explanations.csv", "scores.csv", "excerpts.csv", "settings.json",
                        "questions.jsonl"}  # fmt: skip
    assert not any(KEY.encode() in content for content in one.values())


def test_unreadable_answers_are_counted_apart(server, found):
    server.answer = lambda messages: (
        answer(messages) if "[EXPLANATION]" in messages[0]["content"] else "It is hard to say."
    )
    tables = run_stage("unread", endpoint(server, model="vague"))
    assert tables["scores"][["tp", "tn", "fp", "fn"]].to_numpy().sum() == 0
    assert set(tables["scores"]["unread"]) == {12}
    server.answer = lambda messages: "no idea"
    tables = run_stage("unread", endpoint(server, model="silent"))
    assert set(tables["explanations"]["status"]) == {"no explanation in the answer",
                                                     "too few windows"}  # fmt: skip
    assert tables["scores"].empty


def test_features_are_chosen_by_language_and_entropy(server, found):
    tables = run_stage("chosen", endpoint(server), per_language=1)
    assert tables["explanations"]["feature"].tolist() == found["feature"].tolist()[1:3]
    tables = run_stage("chosen", endpoint(server), languages=["es"])
    assert tables["explanations"]["feature"].tolist() == found["feature"].tolist()[2:]
    with pytest.raises(InputError, match="tr was not identified"):
        run_stage("chosen", endpoint(server), languages=["tr"])


def test_the_estimate_asks_nothing_and_needs_no_key(server, found, monkeypatch, capsys):
    monkeypatch.delenv("LANGSAE_TEST_KEY")
    named = endpoint(server, model="fresh", prompt_price=1, answer_price=1)
    arguments = (COMPUTE, Path("artifacts/identified"), None, Path("scratch"))
    interpret(parse(Run, RUN, "run"), settings(named), *arguments)
    # 3 explanations; 12 excerpts by 5 make 3 questions, for two methods
    assert "fresh: 21 requests (0 are answered already)" in capsys.readouterr().out
    assert not server.requests
    monkeypatch.setenv("LANGSAE_TEST_KEY", KEY)
    with pytest.raises(InputError, match="above the budget"):
        run_stage("dear", named | {"budget": 0.0001})
    assert not server.requests


def test_without_a_key_it_stops_or_says_that_it_left_out(server, found, monkeypatch, capsys):
    monkeypatch.delenv("LANGSAE_TEST_KEY")
    with pytest.raises(InputError, match="set the environment variable LANGSAE_TEST_KEY"):
        run_stage("keyless", endpoint(server))
    tables = run_stage("keyless", endpoint(server, without_key="skip"))
    assert "left out: set the environment variable LANGSAE_TEST_KEY" in capsys.readouterr().out
    assert all(table.empty for table in tables.values())
    assert list(tables["scores"]) == ["language", "hook", "layer", "feature", "method", "tp", "tn",
                                      "fp", "fn", "unread", "explainer"]  # fmt: skip
    assert (
        "LANGSAE_TEST_KEY"
        in json.loads(Path("artifacts/keyless/settings.json").read_text())["left_out"]
    )
    assert run_stage("none", {"source": "none"})["explanations"].empty


def test_a_local_model_explains_too(found):
    local = {"source": "local", "model": "tiny", "max_tokens": 5}
    tables = run_stage("local", local)
    assert tables["explanations"]["status"].tolist() == ["explained"] * 3 + ["too few windows"]
    assert all(tables["explanations"]["explanation"][:3])
    assert set(tables["scores"]["explainer"]) == {"tiny"}
    assert (tables["scores"][["tp", "tn", "fp", "fn"]].sum(axis=1) == 12).all()
    shutil.rmtree("scratch")
    for name, table in run_stage("local again", local).items():
        assert table.equals(tables[name]), name


def test_defaults_are_the_published_settings():
    chosen = parse(Interpret, {"explainer": {"source": "none"}}, "interpret")
    assert yaml.safe_load(chosen.contexts.model_dump_json()) == {
        "width": 32, "chunk": 256, "chunks_per_language": None, "shown": 40, "active": 50,
        "inactive": 50, "quantiles": 10, "least": 200, "held_out": False,
    }  # fmt: skip
    assert (chosen.asking.threshold, chosen.asking.excerpts, chosen.seed) == (0.3, 5, 42)


def test_a_published_run_has_the_authors_counts(shared):
    run = parse(Run, RUN | {"published": str(shared / "published/sae_lape")}, "run")
    out = Path("artifacts/published")
    asked = {"source": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m",
                                  "api_key_env": "LANGSAE_TEST_KEY"}  # fmt: skip
    interpret(run, settings(asked), COMPUTE, Path("nowhere"), out, Path("scratch"))
    table = pd.read_csv(out / "scores.csv")
    # interpretation_scores.json: the pooled counts of detection
    sums = table.query("method == 'detection'")[["tp", "tn", "fp", "fn"]].sum().tolist()
    assert sums == [16659, 24127, 2873, 10341]
    assert set(table["explainer"]) == {"openai/gpt-4.1"}
