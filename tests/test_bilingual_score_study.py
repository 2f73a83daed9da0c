"""bilingual_score: published values against the series, profile reference, rankings, figures."""

import csv
import importlib
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from langsae import profiles
from langsae.claims import load_published
from langsae.corpora.build import permutation
from langsae.errors import InputError
from langsae.verify import verify
from replications.bilingual_score import constructed, findings, readings
from replications.bilingual_score import figures as study
from replications.bilingual_score.run import Score, Trace

ROOT = Path(__file__).resolve().parents[1]
STUDY = "bilingual_score"
PUBLISHED = load_published(ROOT / "replications" / STUDY / "published.yaml")
STAGES = [
    ("collect", "gemma"),
    ("rank", "gemma"),
    ("trace", "gemma"),
    ("measure",),
    ("figures", "reference"),
]
SHORT = {"mean": "mean", "q_0.05": "q05", "q_0.25": "q25", "q_0.5": "q50", "q_0.75": "q75",
         "q_0.95": "q95"}  # fmt: skip


@pytest.fixture(scope="session")
def series(shared) -> Path:
    folder = shared / "published" / STUDY
    if not folder.is_dir():
        pytest.skip("../shared not present")
    return folder


def claims(kind: str) -> dict[str, object]:
    """Published values of one kind, by the rest of their id."""
    prefix = f"{kind}/gemma/"
    return {c.id.removeprefix(prefix): c.value for c in PUBLISHED.claims if c.id.startswith(prefix)}


def content(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def sorted_scores(series: Path, run: str) -> np.ndarray:
    with (series / f"bi_loss_sorted_{run}.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return np.array([float(row["bi_loss"]) for row in rows])


# --- published.yaml


def test_counts_of_published_values():
    expected = {"threshold": 18, "curve": 90, "best-feature": 11, "best-score": 11, "rank": 9,
                "rank-score": 9, "activation": 6}  # fmt: skip
    assert {kind: len(claims(kind)) for kind in expected} == expected
    assert {f.predicate for f in PUBLISHED.findings} == set(findings.PREDICATES)


def test_thresholds_and_curves_are_those_of_the_series(series):
    names = {"any": "n_features_any", "all": "n_features_all", "half": "n_features_ge_50pct",
             "tenth": "n_features_ge_10pct", "mean": "mean_fraction"}  # fmt: skip
    thresholds, curves = {}, {}
    for group in ("global", "es", "en"):
        plot = content(series / f"activation_frequency_{group}_notebook.json")
        for key, number in plot["thresholds"].items():
            thresholds[f"{group}/{SHORT[key]}"] = number
            for part, name in names.items():
                curves[f"{group}/{SHORT[key]}/{part}"] = plot["summary"][key][name]
    assert claims("threshold") == thresholds
    assert claims("curve") == curves


def test_features_and_scores_are_those_of_the_candidates(series):
    known = content(series / "candidates.json")
    table = known["table_top11"]
    assert claims("best-feature") == {str(r["position"]): str(r["feature"]) for r in table}
    assert claims("best-score") == {str(r["position"]): r["bi_loss"] for r in table}
    others = known["notebook_other_findings"]
    assert claims("rank") == {str(r["feature"]): r["rank"] for r in others}
    assert claims("rank-score") == {
        str(r["feature"]): r["bi_loss_at_rank_notebook"] for r in others
    }
    worst = sorted(map(str, known["worst_three_features_by_rank"]))
    assert sorted(claims("worst")["three"]) == worst
    derived = known["derived"]
    assert claims("score")["beta"] == derived["abs_beta_float32_notebook"]
    assert claims("score")["above-ln2"] == derived["n_features_above_ln2_over_500"]


def test_the_sampler_gives_the_published_rows(series):
    facts = content(series / "run_facts.json")
    assert permutation(42, 93_470)[:500].tolist() == facts["row_indices_seed42"]
    assert claims("sample")["first"] == facts["sample0"]["id"]
    assert claims("positions")["all"] == facts["total_tokens_incl_bos_and_pair_pads"]


# --- profile reference


@pytest.fixture(scope="module")
def project(tmp_path_factory, series) -> Path:
    """A folder in which the study's stages of profile reference have run."""
    root = tmp_path_factory.mktemp("reference")
    shutil.copytree(ROOT / "conf", root / "conf")
    published = f"replications/{STUDY}/published.yaml"
    (root / published).parent.mkdir(parents=True)
    shutil.copy(ROOT / published, root / published)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LANGSAE_REFERENCE", str(series.parents[1]))
        profiles.write("reference", root)
        for stage, *arguments in STAGES:
            patch.setattr(sys, "argv", [stage, *arguments])
            importlib.import_module(f"replications.{STUDY}.{stage}").main()
    (root / "README.md").write_text("<!-- verdicts -->\n<!-- /verdicts -->\n", encoding="utf-8")
    assert verify(root=root, acknowledge=True) == 0
    return root


def rows_of(root: Path) -> dict[tuple[str, str], dict]:
    rows = content(root / "results" / "verification.json")
    return {(row["id"], row["variant"]): row for row in rows}


def test_the_series_reproduce_what_they_can(project):
    rows = rows_of(project)
    decided = [row for row in rows.values() if row["verdict"] != "not attempted"]
    assert {row["basis"] for row in decided} == {"published artefact"}
    values = [row for row in decided if not row["id"].startswith("finding/")]
    assert {row["verdict"] for row in values} == {"reproduced"}
    kinds = {row["id"].split("/")[0] for row in values}
    assert kinds == {"curve", "best-score", "rank-score", "score", "spread", "alive", "activation",
                     "activation-elsewhere"}  # fmt: skip
    assert len(values) == 90 + 11 + 9 + 6 + 5 + 1 + 6 + 1
    answers = {row["id"].split("/")[1]: row["measured"] for row in decided if row not in values}
    assert answers == {
        "orders-of-magnitude": False,
        "exponential": False,
        "little-separation": True,
        "exceeds-ln2": True,
        "english-wakes-more": True,
    }


def test_measured_values_are_those_of_the_series(project, series):
    first, second = (sorted_scores(series, run) for run in ("notebook", "post"))
    rows = rows_of(project)

    def measured(id: str):
        return rows[id, "as published"]["measured"]

    assert measured("score/gemma/nats") == pytest.approx(first.max() * 500, rel=1e-12)
    assert measured("score/gemma/above-ln2") == (first > np.log(2) / 500).sum()
    assert measured("spread/gemma/score-largest") == np.abs(second / first - 1).max()
    assert first.min() - measured("score/gemma/beta") == pytest.approx(1.259e-17, rel=1e-3)


@pytest.mark.parametrize(
    ("right", "wrong", "key"),
    [("    value: 8677", "    value: 9677", "score/gemma/above-ln2"),
     ("mean: [9642, 3,", "mean: [9042, 3,", "curve/gemma/global/mean/any"),
     ("7.660973072052002", "7.760973072052002", "activation/gemma/10194/text0-en-United")],
)  # fmt: skip
def test_a_corrupted_published_value_flips_its_verdict(project, tmp_path, right, wrong, key):
    shutil.copytree(project / "results", tmp_path / "results")
    shutil.copytree(project / "replications", tmp_path / "replications")
    shutil.copy(project / "README.md", tmp_path)
    path = tmp_path / "replications" / STUDY / "published.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    assert verify(root=tmp_path, acknowledge=True) == 0
    before, after = rows_of(project), rows_of(tmp_path)
    flipped = {name for name in before if before[name]["verdict"] != after[name]["verdict"]}
    assert flipped == {(key, "as published")}


def test_missing_series_are_named(monkeypatch, tmp_path):
    from replications.bilingual_score.series import write_series

    monkeypatch.setenv("LANGSAE_REFERENCE", str(tmp_path))
    with pytest.raises(InputError, match=r"bi_loss_sorted_notebook.csv: no such file"):
        write_series("$LANGSAE_REFERENCE/published/bilingual_score", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- rankings


SETTINGS = Score(k=300, scale=100, least_df=10)


@pytest.fixture(scope="module")
def ranked() -> pd.DataFrame:
    torch.set_num_threads(1)
    values = constructed.maxima()
    return readings.rank(values, values, ("es", "en"), SETTINGS).table


def dense_divergences(m: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """KL of the mixture from the parts, a mean over rows; and Jensen-Shannon, a sum: float64."""
    m = m[..., alive].astype(np.float64)

    def parts(top):
        z = 100 * m / top
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p = parts(m.max((1, 2), keepdims=True))
    mixture = p.mean(0)
    published = np.mean([(mixture * (np.log(mixture) - np.log(q))).mean(0) for q in p], axis=0)
    p = np.maximum(parts(m.max(1, keepdims=True)), 1e-300)
    mixture = p.mean(0)
    described = np.mean([(q * (np.log(q) - np.log(mixture))).sum(0) for q in p], axis=0)
    return published, described


def test_only_the_published_direction_exceeds_ln2(ranked):
    """What proves the direction of the published KL holds for it and fails for the description."""
    values = constructed.maxima()
    alive = (values > 0).any(1).all(0)
    published, described = dense_divergences(values, alive)
    ours = {
        reading: part.sort_values("feature")["divergence"].to_numpy()
        for reading, part in ranked.groupby("reading")
    }
    np.testing.assert_allclose(ours["as published"], published, rtol=1e-6, atol=1e-18)
    np.testing.assert_allclose(ours["as described"], described, rtol=1e-6, atol=1e-12)
    rows = values.shape[1]
    assert ours["as published"].max() * rows > 2 * np.log(2)
    assert (ours["as published"] > np.log(2) / rows).sum() > 100
    assert ours["as described"].max() <= np.log(2) * (1 + 1e-12)


def test_corrected_puts_the_bilingual_feature_first_and_the_traps_far_behind():
    table = constructed.constructed(SETTINGS).set_index(["reading", "kind"])["rank"]
    bilingual, one_pair, always, one_language = constructed.KINDS
    corrected = table["corrected"]
    assert corrected[bilingual] == 0
    assert min(corrected[[one_pair, always, one_language]]) > 100
    for reading in ("as published", "as described"):
        assert table[reading][one_pair] < table[reading][bilingual]
        assert table[reading][always] < table[reading][bilingual]


def test_columns_of_the_ranking_count_what_they_say(ranked):
    values = constructed.maxima()
    best = ranked[(ranked["reading"] == "corrected") & (ranked["rank"] == 0)].iloc[0]
    column = values[:, :, int(best["feature"])]
    assert best["texts:es"] == (column[0] > 0).sum() == 40
    assert best["peak:en"] == column[1].max()
    assert best["df"] == (column > 0).sum()
    assert best["together"] == 1
    active = np.zeros((2, 4, 3), bool)
    active[0, :2, 0] = active[1, 1:, 0] = True  # together in one of four rows
    active[0, :, 1] = True
    assert readings.together(active).tolist() == [0.25, 0, 0]


def test_candidates_and_their_strongest_rows():
    frame = pd.DataFrame({
        "reading": ["as published"] * 3 + ["as described"] * 3 + ["corrected"] * 3,
        "feature": [5, 6, 7, 9, 9, 9, 6, 1, 2],
    })  # fmt: skip
    assert readings.candidates(frame, Trace(candidates=2, contexts=1, features=(6, 0))) == [
        5,
        6,
        1,
        0,
    ]
    maxima = np.zeros((2, 5, 1), np.float32)
    maxima[0, :, 0] = [0, 4, 2, 4, 0]
    maxima[1, :, 0] = [1, 0, 8, 0, 9]
    # Spanish: rows 1 and 3 (its peak), English: rows 4 (its peak) and 2 (8/9)
    assert readings.strongest_rows(maxima, 0, 2) == [1, 3, 4, 2]
    assert readings.strongest_rows(np.zeros((2, 5, 1)), 0, 2) == []


def test_too_few_features_is_one_clear_error():
    values = constructed.maxima()[:, :, :300]
    with pytest.raises(InputError, match="301 are needed"):
        readings.rank(values, values, ("es", "en"), SETTINGS)


def test_three_languages_are_ranked():
    two = constructed.maxima()
    three = np.concatenate([two, two[:1]])
    table = readings.rank(three, three, ("es", "en", "fr"), SETTINGS).table
    assert {"texts:fr", "peak:fr"} <= set(table)
    first = table[(table["reading"] == "corrected") & (table["rank"] == 0)]
    assert first["feature"].item() == 0


# --- findings


def toy(scores, together, df) -> findings.Series:
    frame = pd.DataFrame({"model": "toy", "rank": range(len(scores)), "score": scores,
                          "together": together, "df": df})  # fmt: skip
    curves = pd.DataFrame(
        [("toy", group, level, count) for level in ("mean", "q_0.5")
         for group, count in (("es", 5), ("en", 6))],
        columns=["model", "group", "threshold", "any"],
    )  # fmt: skip
    return findings.Series(frame, curves, {"toy": 100}, {"toy": 200})


def test_findings_hold_and_fail():
    n = 100
    straight = np.exp(np.linspace(np.log(1e-8), np.log(1), n))
    close = np.r_[np.full(11, 1e-8), straight[11:]]
    good = toy(close, np.r_[np.full(11, 0.9), np.full(n - 11, 0.1)], np.full(n, 5))
    assert findings.applicable(good, "toy") == list(findings.PREDICATES)
    assert all(predicate(good, "toy").holds for predicate in findings.PREDICATES.values())
    flat = toy(np.r_[np.full(50, 1e-4), np.full(50, 1.2e-4)], np.full(n, 0.5), np.full(n, 90))
    held = {name for name, predicate in findings.PREDICATES.items() if predicate(flat, "toy").holds}
    assert held == {"little_separation", "english_wakes_more"}
    with pytest.raises(ValueError, match="no numbers of model 'other'"):
        findings.exponential(good, "other")


# --- figures and page


@pytest.fixture(scope="module")
def plots(tmp_path_factory, ranked) -> Path:
    """The tables that a small run writes."""
    contexts = [
        (0, place, place, code, json.dumps(pieces), json.dumps([0, 2.5 - place]), "toy")
        for place in range(2)
        for code, pieces in (("es", ["<b>", " árbol"]), ("en", ["a", " tree\n"]))
    ]
    tables = {
        "curves": pd.DataFrame(
            [(group, level, texts, 10, 5, "toy") for group in ("global", "es", "en")
             for level in SHORT for texts in (0, 3, 10)],
            columns=["group", "threshold", "texts", "of", "features", "model"],
        ),
        "thresholds": pd.DataFrame(columns=["padding", "group", "threshold", "value", "model"]),
        "scores": ranked[["reading", "rank", "score"]].assign(model="toy"),
        "ranking": ranked[ranked["rank"] < 5].assign(model="toy"),
        "contexts": pd.DataFrame(contexts, columns=["feature", "place", "row", "language", "pieces",
                                                    "activations", "model"]),
        "constructed": constructed.constructed(SETTINGS),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("plots")
    for stem, frame in tables.items():
        frame.to_csv(folder / f"{stem}.csv", index=False)
    return folder


def test_figures_draw_and_repeat_their_bytes(plots, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = study.draw(plots, tmp_path / "first")
        second = study.draw(plots, tmp_path / "second")
    assert {path.name for path in first} == {
        *(f"{stem}.{kind}" for stem in study.FIGURES for kind in ("svg", "png")), "contexts.html",
    }  # fmt: skip
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_page_shows_texts_side_by_side_and_escapes_them(plots, tmp_path):
    study.draw(plots, tmp_path)
    page = (tmp_path / "contexts.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('class="columns"') == 2
    assert page.index("Spanish</h3>") < page.index("English</h3>")
    assert 'title="2.5"' in page
    assert "toy: corrected" in page
    assert "http" not in page
