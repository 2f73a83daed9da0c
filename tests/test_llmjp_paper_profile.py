"""Profile `paper` of llmjp_tracing, as configured, end to end against a stand-in hub.

The hub serves finished models of LLM-jp's layout and layer counts with small widths, SAEs in the
study's own layouts, Wikipedia and FLORES with other texts; earlier checkpoints lie in local
folders. Three runs of six, fewer checkpoints, latents and texts: the rest is conf/paper.yaml's.
"""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sacrebleu import corpus_chrf
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import llmjp_hub
import standin_comet
import tiny_models
from langsae.claims import load_published
from langsae.verify import verify
from standin_hub import StandinHub
from working_copy import ROOT, WorkingCopy

STUDY = "llmjp_tracing"
LAYERS = {"150m": 12, "1.8b": 24, "3.7b": 28}
STEPS = {"150m": (10, 100000), "1.8b": (1000,), "3.7b": (10, 10000)}  # in folders
LAST = {"150m": 988240, "1.8b": 988240, "3.7b": 494120}
RUNS = {"llmjp_150m": "150m", "llmjp_1_8b_published": "1.8b", "llmjp_3_7b": "3.7b"}
SAE_LAYOUTS = {1000: llmjp_hub.sae_first_version, 988240: llmjp_hub.sae_second_version}
LATENTS, LAYER, MID, SHOTS, TRANSLATIONS = 96, 14, 10000, 2, 3
CORPORA = ("llmjp_training", "llmjp_evaluation", "llmjp_impact", "llmjp_parallel")
HISTORIES = ("llmjp_150m", "llmjp_1_8b", "llmjp_3_7b")
STAGES = [
    *(("langsae.stages.corpus", name) for name in CORPORA),
    *(("langsae.stages.history", name) for name in HISTORIES),
    *((f"replications.{STUDY}.{stage}", run) for run in RUNS
      for stage in ("evaluate", "rates", "train", "collect", "describe", "inject")),
    (f"replications.{STUDY}.measure",),
]  # fmt: skip
FIGURES = (f"replications.{STUDY}.figures", "paper")  # a quarter of all the time
# Histories that lack something: a checkpoint, or the width of the finished model.
FAULTS = {
    "llmjp_440m": "iter_0000010: no config.json there; give a folder in transformers' layout",
    "llmjp_980m": "checkpoint 10: hidden_size is 32, but 16 at step 988240; "
    "give checkpoints of one model",
}


def texts() -> dict[str, list[str]]:
    """Short real texts by language, all different."""
    path = ROOT / "src" / "langsae" / "data" / "udhr.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][1:]
    return {"en": [row["en"] for row in rows], "ja": [row["ja"] for row in rows]}


def articles(params: dict) -> dict[str, dict[str, list[str]]]:
    """By corpus and file of Wikipedia that the profile names: texts that no other one has."""
    left = {code: iter(lines) for code, lines in texts().items()}
    return {
        corpus: {
            name: [next(left[part["languages"][0]]) for _ in range(rows)]
            for part in params["corpora"][corpus]["parts"]
            for name in part["files"]
        }
        for corpus, rows in (("llmjp_training", 2), ("llmjp_evaluation", 8), ("llmjp_impact", 4))
    }


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def publish(hub: StandinHub, folder: Path, wikipedia: dict) -> None:
    """Everything in its place; every model also in a folder SIZE/iter_STEP."""
    lines = texts()
    words = llmjp_hub.tokenizer([*lines["en"], *lines["ja"]])
    for size, layers in LAYERS.items():
        for step in (*STEPS[size], LAST[size]):
            files = llmjp_hub.llama(layers, step, words)
            write(folder / size / f"iter_{step:07d}", files)
            if step == LAST[size]:
                hub.add_repo(f"llm-jp/llm-jp-3-{size}", files)
    for size, layers in (("440m", 16), ("980m", 20)):
        hub.add_repo(f"llm-jp/llm-jp-3-{size}", llmjp_hub.llama(layers, 0, words))
    for step in (10, 100, 1000, 10000, 100000):
        write(folder / "980m" / f"iter_{step:07d}", llmjp_hub.llama(20, step, words, width=32))
    for step, layout in SAE_LAYOUTS.items():
        repo = f"llm-jp/llm-jp-3-1.8b-sae-l12-k32-16x-c{step}"
        hub.add_repo(repo, layout(llmjp_hub.sae(step, LATENTS)))
    files = {name: llmjp_hub.wikipedia(rows) for part in wikipedia.values()
             for name, rows in part.items()}  # fmt: skip
    hub.add_repo("wikimedia/wikipedia", files, "dataset")
    pairs = {"eng_Latn": [text[:40] for text in lines["en"][::-1][:8]],
             "jpn_Jpan": [text[:16] for text in lines["ja"][::-1][:8]]}  # fmt: skip
    flores = tiny_models.flores(pairs)
    hub.add_repo("facebook/flores", flores, "dataset", revision="refs/convert/parquet")


def lessen(params: dict) -> None:
    """As configured, but with fewer runs, checkpoints and latents, and with smaller steps."""
    params["compute"] |= {"threads": 1, "batch_tokens": 512, "device": "cpu"}
    study = params[STUDY]
    study["measure"]["draws"] = 100
    study["runs"] = {name: study["runs"][name] for name in RUNS}
    for run in study["runs"].values():
        if run["saes"]["source"] == "train":
            small = {"n_latents": LATENTS, "warmup_steps": 3, "batch_tokens": 80}
            run["saes"]["training"] |= small
    small = {"translations": TRANSLATIONS, "shots": SHOTS, "new_tokens": 4}
    study["runs"]["llmjp_3_7b"]["inject"] |= small
    for size, name in zip(LAYERS, HISTORIES, strict=True):
        params["histories"][name]["groups"][0]["steps"] = list(STEPS[size])


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> SimpleNamespace:
    """The whole profile, run once in one process; first the histories that end in one line."""
    folder = tmp_path_factory.mktemp("paper")
    torch.set_num_threads(1)
    (folder / "comet").mkdir()
    with StandinHub(folder / "hub") as hub:
        copy = WorkingCopy.make(folder / "copy", **hub.environ, OMP_WAIT_POLICY="passive")
        copy.run("git", "rm", "-r", "--quiet", "results", "paper_figures")
        copy.run("langsae", "profile", "paper")
        path = copy.root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        publish(hub, folder / "checkpoints", wikipedia := articles(params))
        lessen(params)
        path.write_text(yaml.safe_dump(params), encoding="utf-8")
        copy.environ["LLMJP_CHECKPOINTS"] = str(folder / "checkpoints")
        copy.environ["LANGSAE_COMET"] = str(standin_comet.build(folder / "comet"))
        stages = [*(("langsae.stages.history", name) for name in FAULTS), *STAGES]
        done = copy.modules(*((".", *stage) for stage in stages), check=False)
    for stage, (status, errors) in zip(STAGES, done[len(FAULTS) :], strict=True):
        assert status == 0, f"{stage}: {errors}"
    return SimpleNamespace(
        copy=copy, root=copy.root, checkpoints=folder / "checkpoints",
        refused=dict(zip(FAULTS, done, strict=False)),
        texts={corpus: dict(zip(("en", "ja"), wikipedia[corpus].values(), strict=True))
               for corpus in ("llmjp_evaluation", "llmjp_impact")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def evidence(paper) -> dict:
    return read(paper.root / "results" / STUDY / "paper.json")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def artifacts(paper, run: str, stage: str) -> Path:
    return paper.root / "artifacts" / STUDY / "paper" / run / stage


def plots(paper, name: str) -> pd.DataFrame:
    path = paper.root / "results" / STUDY / "plots" / "paper" / f"{name}.csv"
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


class Dense:
    """One model as transformers loads it, a text at a time, in NumPy's float64 from there on."""

    def __init__(self, paper, size: str, step: int) -> None:
        folder = paper.checkpoints / size / f"iter_{step:07d}"
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(self, text: str) -> list[int]:
        """With the BOS that the tokenizer's own post-processor puts there."""
        return self.tokenizer.encode(text).ids[:64]

    @torch.inference_mode()
    def stream(self, text: str, layer: int) -> np.ndarray:
        """The output of block `layer`, counted from 1: float64 [T, d]."""
        ids = torch.tensor([self.ids(text)])
        states = self.network(ids, output_hidden_states=True).hidden_states
        return states[layer][0].double().numpy()

    @torch.inference_mode()
    def losses(self, text: str, layer: int = 1, added: np.ndarray | float = 0.0) -> np.ndarray:
        """-ln p of every token after the first; `added` [T, d] to the output of block `layer`."""
        ids = self.ids(text)

        def add(_, __, out):
            return (out.double() + torch.as_tensor(added)).to(out.dtype)

        handle = self.network.model.layers[layer - 1].register_forward_hook(add)
        logits = self.network(torch.tensor([ids])).logits[0, :-1].double()
        handle.remove()
        return -logits.log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]].numpy()


def trained(paper, run: str, step: int, layer: int) -> dict[str, np.ndarray]:
    """What the pipeline trained, float64."""
    place = f"step_{step:07d}/saes/resid_post.{layer - 1}/sae.safetensors"
    found = load_file(artifacts(paper, run, "saes") / place)
    return {name: value.astype(np.float64) for name, value in found.items()}


def published(step: int) -> dict[str, np.ndarray]:
    """What the stand-in hub has, under the names of our own layout."""
    found = llmjp_hub.sae(step, LATENTS)
    return {"W_enc": found["encoder.weight"], "b_enc": found["encoder.bias"],
            "W_dec": found["W_dec"], "b_dec": found["b_dec"]}  # fmt: skip


def codes(x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """Of inputs divided by their norm, the 32 largest pre-activations above 0: [T, F]."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    pre = np.maximum((x - w["b_dec"]) @ w["W_enc"].T + w["b_enc"], 0)
    return np.where(pre >= np.sort(pre, axis=1)[:, -32][:, None], pre, 0)


def activating(paper, model: Dense, w: dict[str, np.ndarray], layer: int) -> dict:
    """Tokens above 70 % of each feature's maximum, by language of the document."""
    found = {
        code: np.concatenate([codes(model.stream(text, layer)[1:], w) for text in lines])
        for code, lines in paper.texts["llmjp_evaluation"].items()
    }
    bar = 0.7 * np.maximum(found["en"].max(0), found["ja"].max(0))
    return {code: ((values > bar) & (values > 0)).sum(0) for code, values in found.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_checkpoints_that_do_not_fit_end_in_one_line(paper, name):
    status, errors = paper.refused[name]
    told = [line for line in errors.splitlines() if line.startswith("langsae: error: ")]
    assert status == 2
    assert "Traceback" not in errors
    assert len(told) == 1
    assert FAULTS[name] in told[0]
    assert not (paper.root / "artifacts/histories" / name).exists()


def test_histories_are_the_folders_and_the_hubs(paper):
    for name, size in zip(HISTORIES, LAYERS, strict=True):
        history = paper.root / "artifacts/histories" / name
        steps = [*STEPS[size], LAST[size]]
        assert read(history / "history.json")["steps"] == steps
        for step in steps:
            spec = read(history / f"step_{step:07d}" / "model.json")["spec"]
            assert spec["source"] == ("hub" if step == LAST[size] else "folder")
            assert spec["dtype"] == "bfloat16"
            place = spec.get("repo") or spec["path"]
            assert place.endswith(f"{size}/iter_{step:07d}" if "path" in spec else f"3-{size}")


@pytest.mark.parametrize(("run", "size", "step"), [
    ("llmjp_150m", "150m", 100000), ("llmjp_3_7b", "3.7b", MID)])  # fmt: skip
def test_every_layer_has_an_sae(paper, run, size, step):
    index = read(artifacts(paper, run, "saes") / f"step_{step:07d}" / "bank.json")
    assert set(index["saes"]) == {f"resid_post.{layer}" for layer in range(LAYERS[size])}
    config = read(artifacts(paper, run, "saes") / f"step_{step:07d}/saes/resid_post.3/cfg.json")
    assert (config["n_features"], config["k"], config["input_norm"]) == (LATENTS, 32, "l2")


def test_published_saes_are_pinned_and_fit(paper):
    for step in SAE_LAYOUTS:
        folder = artifacts(paper, "llmjp_1_8b_published", "saes") / f"step_{step:07d}"
        saes = read(folder / "bank.json")["saes"]
        assert list(saes) == ["resid_post.11"]
        place, probe = (saes["resid_post.11"][key] for key in ("place", "probe"))
        assert place["repo"] == f"llm-jp/llm-jp-3-1.8b-sae-l12-k32-16x-c{step}"
        assert len(place["revision"]) == 40
        assert 0 < probe["fvu"] < 1e-3


@pytest.mark.parametrize(("run", "size", "step", "layer"), [
    ("llmjp_3_7b", "3.7b", MID, LAYER),
    ("llmjp_1_8b_published", "1.8b", 1000, 12),
    ("llmjp_1_8b_published", "1.8b", 988240, 12),
])  # fmt: skip
def test_activating_tokens_and_classes_equal_a_dense_count(paper, run, size, step, layer):
    """bfloat16 of a batch and of one text differ in last bits: a token near the bar may too."""
    w = published(step) if "published" in run else trained(paper, run, step, layer)
    expected = activating(paper, Dense(paper, size, step), w, layer)
    index = read(artifacts(paper, run, "described") / "index.json")
    at = index["steps"].index(step), index["layers"].index(layer)
    arrays = load_file(artifacts(paper, run, "described") / "features.safetensors")
    for code, count in expected.items():
        found = arrays[f"{code}_document"][at]
        assert count.sum() > 300
        assert np.abs(found - count).max() <= 2
        assert (found == count).mean() > 0.94
    total = expected["en"] + expected["ja"]
    share = np.where(total, expected["en"], -1) / np.maximum(total, 1)
    classes = {"English": share > 0.9, "Mixed": (share >= 0.1) & (share <= 0.9),
               "Japanese": (share < 0.1) & (share >= 0)}  # fmt: skip
    table = plots(paper, "classes_by_layer")
    table = table[(table["run"] == run) & (table["step"] == step) & (table["layer"] == layer)]
    table = table[table["reading"] == "document"].set_index("class")["count"]
    assert sum(members.any() for members in classes.values()) == 3
    for name, members in classes.items():
        assert abs(table[name] - members.sum()) <= 2, name


def test_held_out_perplexity_is_the_models_own(paper):
    model = Dense(paper, "150m", 10)
    table = pd.read_csv(artifacts(paper, "llmjp_150m", "evaluated") / "perplexity.csv")
    for code, lines in paper.texts["llmjp_evaluation"].items():
        losses = np.concatenate([model.losses(text) for text in lines])
        (row,) = table[(table["model"] == "10") & (table["language"] == code)].itertuples()
        assert row.tokens == len(losses)
        assert row.perplexity == pytest.approx(np.exp(losses.mean()), rel=3e-3)


def test_the_unigram_is_counted_on_whole_articles(paper):
    """(c + 1) / (N + V) of both languages' `llmjp_impact`, untruncated."""
    model = Dense(paper, "150m", LAST["150m"])
    whole = [model.tokenizer.encode(text).ids[1:]
             for lines in paper.texts["llmjp_impact"].values() for text in lines]  # fmt: skip
    assert max(map(len, whole)) > 64
    counts = np.bincount(np.concatenate(whole), minlength=llmjp_hub.ROWS) + 1
    table = plots(paper, "perplexity").set_index(["run", "model", "language"])["perplexity"]
    for code, lines in paper.texts["llmjp_evaluation"].items():
        ids = np.concatenate([model.ids(text)[1:] for text in lines])
        expected = np.exp(-np.log(counts[ids] / counts.sum()).mean())
        assert table["llmjp_150m", "unigram", code] == pytest.approx(expected, rel=1e-9)


def test_injection_equals_equation_7_text_by_text(paper, evidence):
    full, mid = (Dense(paper, "3.7b", step) for step in (LAST["3.7b"], MID))
    w = trained(paper, "llmjp_3_7b", LAST["3.7b"], LAYER)
    arrays = load_file(artifacts(paper, "llmjp_3_7b", "described") / "features.safetensors")
    classes = arrays["class_document"][-1, LAYER - 1]
    table = pd.read_csv(artifacts(paper, "llmjp_3_7b", "injected") / "perplexity.csv",
                        keep_default_na=False)  # fmt: skip
    table = table[(table["draw"] == 0) & table["features"].isin([0, 1000])]
    table = table.set_index(["add", "alpha", "language"])["perplexity"]
    chosen = {("none", 0.0): classes > 9, ("bi", 0.1): classes == 2, ("random", 0.2): classes >= 0}
    changes = []
    for code, lines in paper.texts["llmjp_impact"].items():
        means = {}
        for (add, alpha), mask in chosen.items():
            losses = []
            for text in lines:
                x = full.stream(text, LAYER)
                decoded = (codes(x, w) * mask) @ w["W_dec"]
                added = alpha * np.linalg.norm(x, axis=1)[:, None] * decoded
                added[0] = 0  # BOS, which the SAEs never saw
                losses.append(mid.losses(text, LAYER, added))
            means[add, alpha] = np.concatenate(losses).mean()
            assert table[add, alpha, code] == pytest.approx(np.exp(means[add, alpha]), rel=1.5e-3)
        changes += [abs(mean - means["none", 0.0]) for mean in means.values()]
    assert max(changes) > 4e-3, "no change that rounding to bfloat16 would not make"
    value = evidence["measured"]["injection/perplexity/bi/en"]["1,000 features"]["value"]
    assert value == pytest.approx(table["bi", 0.1, "en"])


def test_translations_are_scored_by_both_metrics(paper):
    folder = artifacts(paper, "llmjp_3_7b", "injected")
    lines = pd.DataFrame(
        json.loads(line) for line in (folder / "translations.jsonl").read_text().splitlines()
    )
    table = pd.read_csv(folder / "translation.csv", keep_default_na=False)
    key = ["add", "alpha", "features", "draw", "direction"]
    assert len(lines) == TRANSLATIONS * len(lines[key].drop_duplicates())
    assert set(lines["direction"]) == {"en-ja", "ja-en"}
    expected = {
        name: (corpus_chrf(list(group["text"]), [list(group["reference"])]).score,
               100 * np.mean([len(row.text) / len(row.reference + row.source)
                              for row in group.itertuples()]))
        for name, group in lines.groupby(key)
    }  # fmt: skip
    for row in table.itertuples():
        found = expected[row.add, row.alpha, row.features, row.draw, row.direction]
        assert row.score == pytest.approx(found[row.metric == "comet"], rel=1e-6)
    assert len(table) == 2 * len(expected)
    settings = read(folder / "settings.json")
    assert settings["comet"]["repo"] == "Unbabel/wmt22-comet-da"
    assert "nrefs:1" in settings["chrf"]


def test_the_learning_rate_is_the_grids_best(paper, evidence):
    table = plots(paper, "rates_held_out")
    for run in ("llmjp_150m", "llmjp_3_7b"):
        mine = table[table["run"] == run].set_index("rate")["loss"]
        assert sorted(mine.index) == [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3]
        measured = evidence["measured"][f"learning-rate/{run}/selected"]["as published"]
        assert measured["value"] == mine.idxmin()


def test_sizes_are_compared_without_the_run_of_one_layer(evidence):
    detail = evidence["findings"]["larger-more-bilingual"]["llmjp"]["detail"]
    assert "llmjp_150m" in detail
    assert "llmjp_3_7b" in detail
    assert "published" not in detail


def test_every_claim_of_the_runs_gets_a_verdict(paper, evidence):
    claims = load_published(ROOT / "replications" / STUDY / "published.yaml").claims
    table_1 = {(claim.id, claim.variant) for claim in claims if claim.id.startswith("injection/")
               and not claim.not_available}  # fmt: skip
    table_2 = {(f"learning-rate/{run}/selected", "as published")
               for run in ("llmjp_150m", "llmjp_3_7b")}  # fmt: skip
    measured = {(id, variant) for id, found in evidence["measured"].items() for variant in found}
    assert measured == table_1 | table_2
    assert len(table_1) == 3 * (12 + 9 + 8)
    assert verify([STUDY], paper.root, acknowledge=True) == 0
    rows = [row for row in read(paper.root / "results" / "verification.json")
            if row["study"] == STUDY]  # fmt: skip
    decided = {(row["id"], row["variant"]) for row in rows if row["profile"] == "paper"}
    asked = {f"finding/{id}/{subject}" for id, subject in (
        ("mixed-falls-then-rises", "llmjp_150m"), ("mixed-falls-then-rises", "llmjp_3_7b"),
        ("monosemanticity-rises", "llmjp_3_7b"), ("middle-layers-bilingual", "llmjp_3_7b"),
        ("bilingual-helps-both", "llmjp_3_7b"), ("bilingual-helps-translation", "llmjp_3_7b"),
        ("larger-more-bilingual", "llmjp"))}  # fmt: skip
    assert measured <= decided
    assert asked <= {id for id, _ in decided}
    (last,) = [row for row in rows if row["id"] == "steps/last/llmjp_3_7b"]
    assert (last["verdict"], last["published"]) == ("not attempted", LAST["3.7b"])
    assert "a property of the checkpoints" in last["reason"]


@pytest.mark.slow
def test_figures_are_drawn(paper):
    paper.copy.modules((".", *FIGURES))
    folder = paper.root / "paper_figures" / STUDY / "paper"
    assert {path.stem for path in folder.glob("*.png")} == {
        "over_training", "span_lengths", "learning_rates", "held_out_perplexity", "injection",
        "translation", "activation_patterns", *(f"by_layer_{run}" for run in RUNS),
    }  # fmt: skip
    assert "LLM-jp-3 3.7B" in (folder / "activation_patterns.html").read_text(encoding="utf-8")
