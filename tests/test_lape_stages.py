"""Stages collect, identify and compare of sae_lape on a tiny model, checked from outside."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.reducers.lape_counts import LapeCounts, NeuronCounts
from langsae.saes.bank import write_index
from langsae.saes.spec import FolderBank
from langsae.saes.topk import TopKSAE
from replications.sae_lape import collect, compare, identified, identify
from replications.sae_lape.run import Run

CODES = ("bg", "zh", "en", "ko")  # in the study's order: by English name
SETTINGS = {
    "example_rate": 0.8, "token_rate": 0.1, "joint": False, "mask_ratio": 0.5,
    "entropy_threshold": None, "top": 3, "top_per_layer": 1, "neuron_quantile": 0.9,
    "neuron_share": 0.05, "decimals": 3, "histogram_bins": 10,
}  # fmt: skip
RUN = {"model": "tiny", "saes": "tiny"}
RUN |= dict.fromkeys(("corpus", "test", "impact", "similarity"), "texts")
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=256)


def counts_folder(folder):
    """What collect leaves, of random counts: no feature of Korean, and a dead one."""
    rng = np.random.default_rng(3)
    tokens, texts = rng.integers(900, 1500, 4), rng.integers(40, 60, 4)
    header = {
        "languages": list(CODES),
        "hooks": ["mlp_act.0", "mlp_out.0", "mlp_act.1", "mlp_out.1"],
    }
    shape = (2, 4, 120)
    for kind, hooks in ((LapeCounts, [1, 3]), (NeuronCounts, [0, 2])):
        hits = rng.binomial(tokens[None, :, None], rng.beta(0.3, 0.8, shape))
        hits[:, 3] //= 40
        hits[0, :, 9] = 0
        total = rng.gamma(2, 1, shape) * hits
        state = {
            "hits": hits,
            "examples": np.minimum(rng.binomial(texts[None, :, None], 0.85, shape), hits),
            "total": total,
            "max": np.where(hits > 0, rng.gamma(9, 1, shape), -np.inf).astype(np.float32),
            "min": np.where(hits > 0, rng.random(shape), np.inf).astype(np.float32),
        }
        reducer = kind(header, hooks, *shape[1:])
        reducer.state |= {key: torch.from_numpy(value) for key, value in state.items()}
        reducer.save(folder / f"{reducer.name}.safetensors")
    totals = {"tokens": tokens.tolist(), "examples": texts.tolist()}
    totals = {key: dict(zip(CODES, values, strict=True)) for key, values in totals.items()}
    write_json(folder / "totals.json", totals | {"layers": 2})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identified")
    (folder / "collected").mkdir()
    counts_folder(folder / "collected")
    identify.identify(folder / "collected", identify.Identify(**SETTINGS), folder / "identified")
    return folder


def states(folder, name):
    return load_file(folder / "collected" / f"{name}.safetensors")


def test_each_row_carries_its_own_numbers(found):
    table = identified.load(found / "identified")
    state = states(found, "lape_counts")
    with open(found / "collected/totals.json") as file:
        tokens = json.load(file)["tokens"]
    assert len(table.features) > 40
    assert set(table.features["languages"]) >= {1, 2, 3}
    misaligned = 0
    for row in table.features.itertuples():
        h, f, at = row.layer, row.feature, CODES.index(row.language)
        assert row.hook == f"mlp_out.{h}"
        p = [state["hits"][h, i, f] / tokens[code] for i, code in enumerate(CODES)]
        assert row.probability == pytest.approx(p[at], rel=1e-9)
        assert row.languages == sum(x >= 0.5 * max(p) for x in p)
        assert p[at] >= 0.5 * max(p)
        share = np.array(p)[np.array(p) > 0] / sum(p)
        assert row.entropy == pytest.approx(-(share * np.log(share)).sum(), rel=1e-8)
        hits = state["hits"][h, :, f].sum()
        assert row.average == pytest.approx(state["total"][h, :, f].sum() / hits, rel=1e-9)
        assert row.maximum == pytest.approx(state["max"][h, :, f].max(), abs=5.1e-4)
        assert row.maximum == round(row.maximum, 3)
        assert row.minimum == pytest.approx(state["min"][h, :, f].min(), abs=5.1e-4)
        misaligned += not np.isclose(row.probability, row.probability_as_published)
    assert misaligned > 10
    for _, part in table.features.groupby(["languages", "language"]):
        by_entropy = part.sort_values("entropy", kind="stable")["probability"]
        assert part["probability_as_published"].tolist() == by_entropy.tolist()
        assert part[["layer", "feature"]].apply(tuple, axis=1).is_monotonic_increasing
    keys = table.features.drop_duplicates(["languages", "language"])
    order = [
        (n, CODES.index(code)) for n, code in zip(keys["languages"], keys["language"], strict=True)
    ]
    assert order == sorted(order)


def test_selections_name_features_by_rank(found):
    table = identified.load(found / "identified")
    assert table.languages == CODES
    alone = table.selected()
    assert len(alone) == (table.features["languages"] == 1).sum()
    assert table.lists()["ko"] == [], "Korean is there, without a feature"
    assert list(table.lists()) == list(CODES)
    for code in CODES:
        own = alone[alone["language"] == code]
        best = table.selected("top_3_by_entropy")
        best = best[best["language"] == code].sort_values("rank")
        expected = own.sort_values("entropy", kind="stable").head(3)
        assert best["feature"].tolist() == expected["feature"].tolist()
        assert best["rank"].tolist() == list(range(1, len(best) + 1))
        each = table.selected("top_1_per_layer_by_freq")
        each = each[each["language"] == code]
        expected = own.sort_values("probability", ascending=False).drop_duplicates("layer")
        assert sorted(each["feature"]) == sorted(expected["feature"])
    assert (table.selected("shared_2")["languages"] == 2).all()
    assert table.lists()["bg"][0][0] == HookPoint("mlp_out", int(alone.iloc[0]["layer"]))
    with pytest.raises(InputError, match="no selection 'top_9'"):
        table.selected("top_9")


def test_neurons_carry_their_own_numbers(found):
    table, state = identified.load(found / "identified"), states(found, "neuron_counts")
    with open(found / "collected/totals.json") as file:
        tokens = json.load(file)["tokens"]
    rates = state["hits"] / np.array([tokens[code] for code in CODES])[:, None]
    bar = np.sort(rates.ravel())[round(0.9 * rates.size) - 1]
    assert table.summary["neurons"] == {"bar": bar, "kept": 12, "of": 240}
    assert len(table.neurons) >= 12
    for row in table.neurons.itertuples():
        p = rates[row.layer, CODES.index(row.language), row.neuron]
        assert row.hook == f"mlp_act.{row.layer}"
        assert p > bar
        assert row.probability == pytest.approx(p, rel=1e-9)
        largest = state["max"][row.layer, :, row.neuron].max()
        assert row.maximum == pytest.approx(largest, rel=1e-6)
    lists = table.neuron_lists()
    assert sum(map(len, lists.values())) == len(table.neurons)


def test_the_summary_counts(found):
    table = identified.load(found / "identified")
    summary = table.summary
    once = table.features.drop_duplicates(["hook", "feature"])
    assert summary["kept"] == len(once) == sum(summary["shared_by"].values())
    assert summary["kept_if_joint"] < summary["kept"]
    assert summary["features"] == 240
    assert summary["alive"] == 239
    assert sum(summary["entropy"]["kept"]) == summary["kept"]


def test_an_entropy_threshold_leaves_out_what_is_above(found, tmp_path):
    low = identify.Identify(**SETTINGS | {"entropy_threshold": 0.5, "decimals": None})
    identify.identify(found / "collected", low, tmp_path / "low")
    some = identified.load(tmp_path / "low").features
    every = identified.load(found / "identified").features
    assert 0 < len(some) < len(every)
    assert len(some) == (every["entropy"] <= 0.5).sum()
    assert (some["maximum"] != some["maximum"].round(3)).any()


def test_a_missing_table_or_column_is_named(found, tmp_path):
    with pytest.raises(InputError, match=r"features.csv: no such file"):
        identified.load(tmp_path)
    identify.identify(found / "collected", identify.Identify(**SETTINGS), tmp_path / "i")
    path = tmp_path / "i/neurons.csv"
    pd.read_csv(path).drop(columns="maximum").to_csv(path, index=False)
    with pytest.raises(InputError, match="lacks column maximum"):
        identified.load(tmp_path / "i")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a corpus, a model and a bank, in which collect and compare have run."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    alphabet = {"ko": "다나가라", "en": "abcdef ", "zh": "世界人权", "bg": "абвгд "}
    texts = {
        code: tuple("x" + "".join(rng.choice(list(letters), 12)) for _ in range(9 + at))
        for at, (code, letters) in enumerate(alphabet.items())
    }
    ParallelCorpus("texts", texts, aligned=False).save(root / "artifacts/corpora/texts.jsonl")
    prepare(TinyModel(source="tiny"), root / "artifacts/models/tiny")
    bank = root / "artifacts/saes/tiny"
    hooks = ("mlp_out.0", "mlp_out.2")
    for seed, hook in enumerate(hooks):
        draw = torch.Generator().manual_seed(seed)
        W = 1000 * torch.randn(150, 32, generator=draw)
        TopKSAE(W, torch.zeros(150), W.clone(), torch.zeros(32), 6, hook).save(bank / hook)
    spec = FolderBank(source="folder", path="-", model="tiny", corpus="texts", hooks=hooks)
    write_index(bank, spec, {hook: {"path": hook} for hook in hooks}, {})
    return root


def run_stages(project, out):
    collect.collect(Run(**RUN), COMPUTE, out / "collected", out / "scratch")
    loose = SETTINGS | {"example_rate": 0.6, "token_rate": 0.05}
    identify.identify(out / "collected", identify.Identify(**loose), out / "identified")
    found = identified.load(out / "identified")
    settings = compare.Compare(decimals=3)
    compare.compare(Run(**RUN), settings, COMPUTE, found, out / "compared", out / "scratch")
    return found


def test_stages_on_a_model(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    found = run_stages(project, tmp_path)
    with open(tmp_path / "collected/totals.json") as file:
        totals = json.load(file)
    texts = ParallelCorpus.load("artifacts/corpora/texts.jsonl").texts
    # byte-level tokens, and the BOS counts
    assert totals["tokens"] == {
        code: sum(1 + len(text.encode()) for text in texts[code]) for code in CODES
    }
    assert list(found.languages) == list(CODES)
    assert totals["examples"] == {"ko": 9, "en": 10, "zh": 11, "bg": 12}
    state = states(tmp_path, "lape_counts")
    assert state["hits"].sum() == 2 * 6 * sum(totals["tokens"].values())
    assert states(tmp_path, "neuron_counts")["hits"].shape == (2, 4, 64)

    lists = found.lists()
    assert sum(map(len, lists.values())) > 10
    matrices = load_file(tmp_path / "compared/similarity.safetensors")
    with open(tmp_path / "compared/labels.json") as file:
        labels = json.load(file)
    for code in CODES:
        n = len(lists[code])
        assert labels[code] == [f"{hook}/{feature}" for hook, feature in lists[code]]
        assert matrices[f"iou/{code}"].shape == matrices[f"pearson/{code}"].shape == (n, n)
        np.testing.assert_array_equal(matrices[f"iou/{code}"], matrices[f"iou/{code}"].T)
        assert (matrices[f"iou/{code}"].diagonal() == 1).all()
    pairs = load_file(tmp_path / "compared/pair_counts.safetensors")
    for at, code in enumerate(CODES):  # a feature's own tokens are its hits in its language
        own = [state["hits"][(0, 2).index(hook.layer), at, id] for hook, id in lists[code]]
        assert pairs[f"both/{at}"].diagonal().tolist() == own
    shared = pd.read_csv(tmp_path / "compared/shared.csv")
    assert len(shared) == 16
    sets = {
        code: set(part[["hook", "feature"]].apply(tuple, axis=1))
        for code, part in found.features.query("languages > 1").groupby("language")
    }
    for row in shared.itertuples():
        common = sets.get(row.language_a, set()) & sets.get(row.language_b, set())
        assert row.intersection == len(common)


def test_a_rerun_gives_the_same_bytes(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    for name in ("one", "two"):
        run_stages(project, tmp_path / name)
    files = sorted((tmp_path / "one").rglob("*.*"))
    assert len(files) >= 11
    for file in files:
        again = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert file.read_bytes() == again.read_bytes(), file.name


def test_no_specific_feature_is_an_answer(project, tmp_path, monkeypatch):
    """Empty tables and matrices, not an error: a bank may have none."""
    monkeypatch.chdir(project)
    collect.collect(Run(**RUN), COMPUTE, tmp_path / "collected", tmp_path / "scratch")
    none = identify.Identify(**SETTINGS | {"token_rate": 1.0, "neuron_share": 0})
    identify.identify(tmp_path / "collected", none, tmp_path / "identified")
    found = identified.load(tmp_path / "identified")
    assert found.features.empty
    assert found.neurons.empty
    assert found.selected().empty
    assert found.neuron_lists() == {code: [] for code in CODES}
    compare.compare(
        Run(**RUN), compare.Compare(decimals=3), COMPUTE, found, tmp_path / "c", tmp_path / "s"
    )
    assert load_file(tmp_path / "c/similarity.safetensors")["iou/en"].shape == (0, 0)
    shared = pd.read_csv(tmp_path / "c/shared.csv")
    assert (shared["intersection"] == 0).all()
    assert len(shared) == 16
