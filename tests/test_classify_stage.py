"""Stage classify of sae_lape against a plain loop over texts, whatever the batches and shards."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from langsae import stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.figures import house_style, save
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import tokenise
from langsae.reducers.text_scores import FeatureLists, NeuronScores, TextScores
from langsae.saes.bank import write_index
from langsae.saes.neurons import neuron_bank
from langsae.saes.spec import FolderBank
from langsae.saes.topk import TopKSAE
from replications.sae_lape import classified, figures_classify, identified
from replications.sae_lape.classify import Classify, classify, feature_lists
from replications.sae_lape.run import Run

D, F, K = 32, 60, 7
LAYERS = (0, 1, 3)
WORDS = ["the", "of", "in", "que", "des", "und", "наш", "мир", "世界", "です"]
LANGUAGES = ("bg", "zh", "en")  # in the study's order: by English name
# (language, layer, feature): a feature on two lists, a language with none, a layer with none
LISTED = [("bg", 0, 5), ("bg", 3, 17), ("bg", 3, 59), ("zh", 3, 17), ("zh", 0, 56), ("de", 0, 56)]
NEURONS = [("bg", 1, 0), ("bg", 1, 63), ("en", 1, 63), ("en", 3, 8), ("en", 3, 9)]
RUN = Run(model="m", saes="s", corpus="c", test="t", impact="i", similarity="c")
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=300)


def random_sae(layer):
    draw = torch.Generator().manual_seed(layer)
    tensors = {"W_enc": (F, D), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
    weights = {name: torch.randn(*shape, generator=draw) for name, shape in tensors.items()}
    # for this model's small MLP outputs, and so that some of a token's slots have the value 0
    weights["W_enc"] *= 1000
    weights["b_enc"] -= 8
    weights["b_dec"] *= 0
    return TopKSAE(**weights, k=K, hook=f"mlp_out.{layer}")


def feature_rows() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(LISTED, columns=["language", "layer", "feature"])
    table["hook"] = [f"mlp_out.{layer}" for layer in table["layer"]]
    keys = list(zip(table["layer"], table["feature"], strict=True))
    extremes = {key: sorted(rng.uniform(0.1, 2, 2)) for key in dict.fromkeys(keys)}
    table[["minimum", "maximum"]] = [extremes[key] for key in keys]
    return table.assign(languages=1, entropy=0.5, probability=0.1, average=1.0,
                        probability_as_published=0.1)  # fmt: skip


def neuron_rows() -> pd.DataFrame:
    table = pd.DataFrame(NEURONS, columns=["language", "layer", "neuron"])
    table["hook"] = [f"mlp_act.{layer}" for layer in table["layer"]]
    return table.assign(entropy=0.5, probability=0.1, maximum=1.0)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a model, a bank, test texts and what identify would have left."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("classify")
    spec = {"source": "folder", "model": "m", "corpus": "c", "path": "{layer}"}
    bank = root / "artifacts/saes/s"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        prepare(TinyModel(source="tiny", d_model=D, layers=4), root / "artifacts/models/m")
        for layer in LAYERS:
            random_sae(layer).save(bank / str(layer))
        hooks = {f"mlp_out.{layer}": {"path": str(layer)} for layer in LAYERS}
        write_index(bank, FolderBank(**spec, hooks=tuple(hooks)), hooks, {})
        rng = np.random.default_rng(0)
        texts = {
            code: tuple(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(n))
            for code, n in (("en", 9), ("bg", 6), ("zh", 7))  # not in the study's order
        }
        ParallelCorpus("t", texts, aligned=False).save(root / "artifacts/corpora/t.jsonl")
        write_identified(root / "identified", feature_rows(), neuron_rows())
    return root


def write_identified(folder, features, neurons):
    folder.mkdir()
    selections = features.assign(selection="all", rank=1)
    tables = {"features": features, "neurons": neurons, "selections": selections}
    identified.write(folder, tables)
    summary = {"languages": ["bg", "zh", "en", "de"], "selections": ["all"]}
    write_json(folder / "summary.json", summary)


@pytest.fixture(scope="module")
def out(project):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        classify(RUN, Classify(), COMPUTE, project / "identified", project / "out")
    return project / "out"


def dense_scores(project):
    """Text by text, all latents of every position (BOS, too), in float64."""
    model = load(project / "artifacts/models/m", "cpu")
    corpus = ParallelCorpus.load(project / "artifacts/corpora/t.jsonl").select(LANGUAGES)
    tokens = tokenise(model.tokenizer, corpus, RUN.policy)
    table = feature_rows()
    hooks = [HookPoint(site, layer) for site in ("mlp_out", "mlp_act") for layer in LAYERS]
    scores = {name: np.zeros((len(tokens.ids), 3)) for name in ("count", "min-max", "neuron")}
    idle = 0
    for text, ids in enumerate(tokens.ids):
        taken = model.activations(torch.tensor([ids]), hooks)
        for layer in LAYERS:
            values, member = slots(random_sae(layer), taken[HookPoint("mlp_out", layer)][0])
            for row in table[table["layer"] == layer].itertuples():
                if row.language in LANGUAGES:
                    at = text, LANGUAGES.index(row.language)
                    hit = values[member[:, row.feature], row.feature]
                    idle += int((hit == 0).sum())
                    scores["count"][at] += len(hit)
                    span = row.maximum - row.minimum + 1e-6
                    scores["min-max"][at] += ((hit - row.minimum) / span).sum()
            gate = taken[HookPoint("mlp_act", layer)][0].numpy()
            for language, at_layer, neuron in NEURONS:
                if at_layer == layer:
                    hits = (gate[:, neuron] > 0).sum()
                    scores["neuron"][text, LANGUAGES.index(language)] += hits
    return scores, idle


def slots(sae, x):
    """Values [T, F] after the ReLU, and which of them are among a token's k slots."""
    W, b, shift = (t.double().numpy() for t in (sae.W_enc, sae.b_enc, sae.b_dec))
    pre = (x.double().numpy() - shift) @ W.T + b
    member = np.zeros(pre.shape, bool)
    np.put_along_axis(member, np.argsort(-pre, axis=1)[:, :K], True, axis=1)
    return np.maximum(pre, 0), member


def read_scores(out, classifier):
    frame = pd.read_csv(out / "scores.csv")
    return frame[[f"{classifier}:{code}" for code in LANGUAGES]].to_numpy()


def test_scores_are_those_of_a_plain_loop(project, out):
    dense, idle = dense_scores(project)
    assert idle > 5, "slots of value 0 count as hits, as published"
    assert dense["count"][:, 0].sum() > 50
    np.testing.assert_array_equal(read_scores(out, "sae-count"), dense["count"])
    np.testing.assert_array_equal(read_scores(out, "neuron-count"), dense["neuron"])
    np.testing.assert_allclose(read_scores(out, "sae-min-max"), dense["min-max"], atol=1e-4)
    assert (dense["min-max"] < 0).any()


def test_rows_lists_and_tables(out):
    frame = pd.read_csv(out / "scores.csv")
    assert frame["label"].tolist() == ["bg"] * 6 + ["zh"] * 7 + ["en"] * 9
    assert frame["row"].tolist() == [*range(6), *range(7), *range(9)]
    sizes = json.loads((out / "lists.json").read_text())
    assert sizes == {
        "sae-count": {"bg": 3, "zh": 2, "en": 0},
        "sae-min-max": {"bg": 3, "zh": 2, "en": 0},
        "neuron-count": {"bg": 2, "zh": 0, "en": 3},
    }
    found = classified.load(out)
    assert found.languages == LANGUAGES
    tables = classified.tables(found)
    assert len(tables["accuracy"]) == 7, "two readings, of fastText one"
    assert len(tables["metrics"]) == 7 * 3
    assert len(tables["confusion"]) == 7 * 9
    assert sum(row["count"] for row in tables["confusion"]) == 7 * 22
    assert classified.agreement(out) == {}


def test_the_same_bytes_in_other_batches(project, out, monkeypatch):
    monkeypatch.chdir(project)
    for name, size in (("one", 1), ("all", 100_000)):
        compute = COMPUTE.model_copy(update={"batch_tokens": size})
        classify(RUN, Classify(), compute, project / "identified", project / name)
        again = pd.read_csv(project / name / "scores.csv")
        counts = [c for c in again if "count" in c]
        pd.testing.assert_frame_equal(again[counts], pd.read_csv(out / "scores.csv")[counts])
        assert (project / name / "lists.json").read_bytes() == (out / "lists.json").read_bytes()
    assert not list((project / "scratch").rglob("*.safetensors")), "checkpoints go when it is done"


def test_without_neurons_there_are_three_classifiers(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    write_identified(tmp_path / "found", feature_rows(), neuron_rows()[:0])
    classify(RUN, Classify(), COMPUTE, tmp_path / "found", tmp_path / "out")
    found = classified.load(tmp_path / "out")
    assert list(found.scores) == ["fasttext", "sae-count", "sae-min-max"]


def test_what_cannot_be_classified_is_refused(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    write_identified(tmp_path / "none", feature_rows()[:0], neuron_rows())
    with pytest.raises(InputError, match="selection all is empty"):
        classify(RUN, Classify(), COMPUTE, tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="no selection 'top_10'"):
        classify(RUN, Classify(selection="top_10"), COMPUTE, project / "identified", tmp_path / "o")
    other = ParallelCorpus("other", {"en": ("a cat",), "ja": ("猫",)}, aligned=False)
    other.save(project / "artifacts/corpora/other.jsonl")
    unknown = RUN.model_copy(update={"test": "other"})
    with pytest.raises(InputError, match="nothing was identified for ja"):
        classify(unknown, Classify(), COMPUTE, project / "identified", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_results_are_refused(out, tmp_path):
    with pytest.raises(InputError, match=r"scores\.csv: cannot be read"):
        classified.load(tmp_path)
    (tmp_path / "lists.json").write_bytes((out / "lists.json").read_bytes())
    frame = pd.read_csv(out / "scores.csv")
    frame.loc[3, "sae-count:zh"] = np.nan
    frame.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(InputError, match="no scores of some texts"):
        classified.load(tmp_path)


def test_figures_show_the_tables(out, tmp_path):
    tables = {
        name: pd.DataFrame(rows).assign(run="a")
        for name, rows in classified.tables(classified.load(out)).items()
    }
    for frames in (
        {name: pd.concat([table, table.assign(run="b")]) for name, table in tables.items()},
        tables,
    ):
        with house_style():
            drawn = {
                stem: function(frames[table])
                for table, figures in figures_classify.FIGURES.items()
                for stem, function in figures.items()
            }
    first, second = [
        [path.read_bytes() for path in save(drawn["classifiers"], tmp_path / name, "classifiers")]
        for name in ("first", "second")
    ]
    assert first == second
    dots = [line for line in drawn["classifiers"].axes[0].lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == tables["accuracy"]["accuracy"].tolist()
    cells = tables["confusion"].query("classifier == 'sae-count' and reading == 'as published'")
    counts = cells["count"].to_numpy().reshape(3, 3)
    image = drawn["confusion"].axes[1].images[0].get_array()
    shown = 100 * counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(image, shown.clip(figures_classify.LEAST))


# --- the reducers


@pytest.fixture(scope="module")
def collection(project):
    model = load(project / "artifacts/models/m", "cpu")
    corpus = ParallelCorpus.load(project / "artifacts/corpora/t.jsonl").select(LANGUAGES)
    saes = {HookPoint("mlp_out", layer): random_sae(layer) for layer in LAYERS}
    bank = saes | neuron_bank(model, LAYERS)
    return model, bank, tokenise(model.tokenizer, corpus, RUN.policy)


def fresh(collection):
    model, bank, tokens = collection
    place = {hook: index for index, hook in enumerate(bank)}
    header = stream.header(model, bank, tokens, "0")
    tables = (feature_rows(), "feature"), (neuron_rows(), "neuron")
    lists = [feature_lists(table, LANGUAGES, name) for table, name in tables]
    return [
        kind(header, (6, 7, 9), {place[hook]: entry for hook, entry in part.items()})
        for kind, part in zip((TextScores, NeuronScores), lists, strict=True)
    ]


def test_shards_in_any_order_give_the_same_bytes(collection, tmp_path):
    saved = {}
    for shards in (1, 3):
        whole = None
        for shard in reversed(range(shards)):
            part = fresh(collection)
            stream.collect(*collection, part, COMPUTE, tmp_path / "scratch", (shard, shards))
            for ours, theirs in zip(whole or [], part, strict=False):
                ours.merge(theirs)
            whole = whole or part
        for reducer in whole:
            reducer.save(tmp_path / reducer.name)
            saved.setdefault(reducer.name, set()).add((tmp_path / reducer.name).read_bytes())
    assert [len(versions) for versions in saved.values()] == [1, 1]
    assert all(int(reducer.state["hits"].sum()) > 20 for reducer in whole)


def test_a_hand_computed_score():
    """One text, three codes on two lists; the feature of one single value does not divide by 0."""

    class Codes:
        active = None
        token = torch.tensor([0, 0, 1, 1])
        feature = torch.tensor([2, 7, 7, 3])
        value = torch.tensor([2.0, 5.0, 8.0, 1.0])

    class Batch:
        hook, codes = 0, Codes()

        class tokens:
            language, example = torch.tensor([1, 1]), torch.tensor([0, 0])

    member = torch.tensor([[True, False], [True, True]])
    low, high = torch.tensor([2.0, 4.0]).double(), torch.tensor([2.0, 8.0]).double()
    lists = {0: FeatureLists(torch.tensor([2, 7]), member, low, high)}
    scores = TextScores({}, (2, 1), lists)
    scores.update(Batch())
    assert scores.state["hits"].tolist() == [[0, 0], [0, 0], [3, 2]]
    # (2-2)/1e-6 + (5-4)/(4+1e-6) + (8-4)/(4+1e-6), and without the first
    np.testing.assert_allclose(scores.state["scaled"][2], [1.25, 1.25], atol=1e-6)


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="distinct and ascending"):
        FeatureLists(torch.tensor([3, 3]), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="2 listed features, 1 member"):
        FeatureLists(torch.tensor([3, 4]), torch.ones(1, 2, dtype=torch.bool))
