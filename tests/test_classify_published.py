"""The study's classification again, from the authors' raw scores and, for fastText, the texts.

Needs the 7,500 WiLI-2018 texts and the published metrics, which are not ours to ship.
"""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from langsae.compute import Compute
from langsae.corpora.build import build
from langsae.corpora.spec import LocalSpec
from langsae.errors import InputError
from langsae.languages import LANGUAGES, find
from replications.sae_lape import classified, published_scores
from replications.sae_lape.classify import Classify, classify
from replications.sae_lape.run import Run

SCORES = "$LANGSAE_REFERENCE/reference/wili_7500.csv"
CORPUS = LocalSpec(
    source="local", path=SCORES, layout="long", language_column="label", text_column="text",
    strip=False, languages=[code for code in LANGUAGES if code not in ("ar", "is")],
)  # fmt: skip
RUN = Run(
    model="none", saes="none", corpus="c", test="wili", impact="i", similarity="c",
    published="$LANGSAE_REFERENCE/published/sae_lape",
)  # fmt: skip


@pytest.fixture(scope="module")
def out(shared, tmp_path_factory):
    """What the stage leaves for the profile `reference`."""
    if not (shared / "reference" / "wili_7500.csv").is_file():
        pytest.skip("../shared not present")
    root = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LANGSAE_REFERENCE", str(shared))
        build(CORPUS, "wili").save("artifacts/corpora/wili.jsonl")
        settings = Classify(published_scores=SCORES)
        classify(RUN, settings, Compute(), root / "none", root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def tables(out):
    found = classified.load(out)
    return {name: pd.DataFrame(rows) for name, rows in classified.tables(found).items()}


@pytest.fixture(scope="module")
def published(shared):
    path = shared / "published" / "sae_lape" / "classification_metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))


def part(table, classifier, reading="as published"):
    return table[(table["classifier"] == classifier) & (table["reading"] == reading)]


@pytest.mark.parametrize("classifier", ["sae-count", "neuron-count"])
def test_the_published_metrics_follow_from_the_raw_scores(tables, published, classifier):
    theirs = published[classifier]
    codes = [find(name).code for name in theirs["classes"]]
    ours = part(tables["accuracy"], classifier).iloc[0]
    assert ours["accuracy"] == theirs["accuracy"]
    for name in ("precision", "recall", "f1"):
        assert ours[name] == pytest.approx(theirs[f"{name}_macro"], rel=1e-12)
        by_language = part(tables["metrics"], classifier).set_index("language")[name]
        np.testing.assert_allclose(by_language[codes], theirs[name], rtol=1e-12)
    counts = part(tables["confusion"], classifier)
    counts = counts.pivot(index="label", columns="predicted", values="count")
    assert counts.loc[codes, codes].to_numpy().tolist() == theirs["confusion_matrix"]


def test_every_prediction_is_the_published_one(out):
    agreement = classified.agreement(out)
    assert agreement["sae-count"] == agreement["neuron-count"] == 1.0
    assert agreement["fasttext"] == pytest.approx(0.9969, abs=5e-5)  # lid.176.ftz for lid.176.bin


def test_fasttext_from_the_texts(out, tables, published):
    """The compressed model on the texts; the authors' predictions give their figures exactly."""
    theirs = published["fasttext"]
    codes = [find(name).code for name in theirs["classes"]]
    again = {name: pd.DataFrame(rows) for name, rows in classified.published_tables(out).items()}
    # 23 of 7,500 texts differ: at most 0.0215, of Turkish precision
    for found, reading, far in (
        (tables, "as published", 0.022), (again, classified.PREDICTIONS, 1e-12)
    ):  # fmt: skip
        accuracy = part(found["accuracy"], "fasttext", reading).iloc[0]
        assert accuracy["accuracy"] == theirs["accuracy"] == pytest.approx(0.98267, abs=5e-6)
        by_language = part(found["metrics"], "fasttext", reading).set_index("language")
        for name in ("precision", "recall", "f1"):
            np.testing.assert_allclose(by_language.loc[codes, name], theirs[name], atol=far)
            assert accuracy[name] == pytest.approx(theirs[f"{name}_macro"], abs=far / 20)
    counts = part(again["confusion"], "fasttext", classified.PREDICTIONS)
    counts = counts.pivot(index="label", columns="predicted", values="count")
    assert counts.loc[codes, codes].to_numpy().tolist() == theirs["confusion_matrix"]


def test_the_gap_to_the_neurons_is_one_of_list_sizes(tables):
    normalised = "normalised by list size"
    accuracy = {
        name: [part(tables["accuracy"], name, reading).iloc[0]["accuracy"]
               for reading in ("as published", normalised)]
        for name in ("sae-count", "neuron-count")
    }  # fmt: skip
    assert accuracy["neuron-count"] == pytest.approx([0.6173, 0.9763], abs=5e-5)
    assert accuracy["sae-count"] == pytest.approx([0.9721, 0.9773], abs=5e-5)
    predicted = part(tables["confusion"], "neuron-count").groupby("predicted")["count"].sum()
    assert predicted[["en", "ko", "ru", "es", "zh"]].tolist() == [0, 0, 0, 0, 1]


def test_scores_are_free_of_the_row_factor(out, shared):
    """Against the file, read on its own: row i of 500 carries the factor 500 - i."""
    frame = pd.read_csv(out / "scores.csv").set_index(["label", "row"])
    with (shared / "reference" / "wili_7500.csv").open(encoding="utf-8", newline="") as file:
        for raw in list(csv.DictReader(file))[::97]:
            ours = frame.loc[find(raw["label"]).code, int(raw["row_in_language"])]
            for name in ("deu", "zho", "eng", "tha"):
                code = find(name).code
                factor = 500 - int(raw["row_in_language"])
                assert ours[f"sae-count:{code}"] * factor == int(raw[f"sae_count_raw_{name}"])
                assert ours[f"neuron-count:{code}"] == int(raw[f"neuron_count_{name}"])


def test_a_changed_score_is_noticed(out, tmp_path, tables):
    frame = pd.read_csv(out / "scores.csv")
    frame.loc[0, "sae-count:vi"] = 10**6
    frame.to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "lists.json").write_bytes((out / "lists.json").read_bytes())
    changed = pd.DataFrame(classified.tables(classified.load(tmp_path))["accuracy"])
    before, after = (part(t, "sae-count")["accuracy"].item() for t in (tables["accuracy"], changed))
    assert round(7500 * (before - after)) == 1


def test_a_broken_file_of_scores_is_refused(tmp_path):
    head = ("row_in_language,label,text,pred_fasttext_lid176bin,pred_sae_count,pred_neuron_count,"
            "sae_count_raw_eng,sae_count_raw_deu,neuron_count_eng,neuron_count_deu\n")  # fmt: skip
    rows = ["0,eng,a cat,eng,eng,deu,4,2,1,5\n", "1,eng,a dog,eng,deu,deu,3,4,1,5\n"]
    path = tmp_path / "scores.csv"
    path.write_text(head + "".join(rows))
    found = published_scores.read(str(path), ("en", "de"))
    assert found.scores["sae-count:en"].tolist() == [2, 3]
    assert found.scores["sae-count:de"].tolist() == [1, 4]
    assert found.predictions["neuron-count"].tolist() == ["de", "de"]
    with pytest.raises(InputError, match="has no column of fr"):
        published_scores.read(str(path), ("en", "fr"))
    path.write_text(head + rows[0].replace("4,2", "3,2") + rows[1])
    with pytest.raises(InputError, match="sae_count_raw_eng is no multiple"):
        published_scores.read(str(path), ("en", "de"))
    with pytest.raises(InputError, match="cannot be read"):
        published_scores.read(str(tmp_path / "absent.csv"), ("en",))
