"""llmjp_tracing: series with intervals, findings that can fail, tables, entries, figures' data."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import tracing_results
from langsae.errors import InputError
from langsae.evidence import Recorder, read_evidence
from replications.llmjp_tracing import described, findings, measure, record, series, tables
from replications.llmjp_tracing.findings import PREDICATES
from replications.llmjp_tracing.run import Run

RUN = Run(history="h", training="t", evaluation="e", impact="i", parallel="p", embeddings="h",
          saes={"source": "hub", "repo": "r"})  # fmt: skip
SETTINGS = measure.Measuring(draws=100)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tracing_results.write(tmp_path_factory.mktemp("stages"))


@pytest.fixture
def places(tmp_path):
    """Folders of its own, for a test that changes them."""
    return tracing_results.write(tmp_path / "stages")


def gathered(places, settings=SETTINGS, name="enja", chosen=RUN):
    return measure.gather(name, chosen, places, places["history"], settings, 0)


@pytest.fixture(scope="module")
def one(folders):
    return gathered(folders)


def test_shares_are_counted_and_their_intervals_are_binomial(one):
    rows = one.frames["classes_by_layer"].query("reading == 'document' and `class` == 'Mixed'")
    assert len(rows) == 4 * 4
    row = rows.query("step == 100 and layer == 2").iloc[0]
    assert (row["count"], row["share"]) == (28, pytest.approx(28 / 199))  # one of 200 is dead
    wide = gathered_series(one, draws=4000)
    low, high = wide.mixed["document"].at((2, 1)).ends(0.95)
    sd = np.sqrt(28 / 199 * (1 - 28 / 199) / 199)
    assert low == pytest.approx(28 / 199 - 1.96 * sd, abs=0.006)
    assert high == pytest.approx(28 / 199 + 1.96 * sd, abs=0.006)


def gathered_series(one, draws):
    return series.series(one.described, draws, 0)


def test_share_over_layers_is_their_mean(one):
    at = one.frames["classes"].query("reading == 'rule' and `class` == 'Mixed'").set_index("step")
    layers = one.frames["classes_by_layer"].query("reading == 'rule' and `class` == 'Mixed'")
    for step, rows in layers.groupby("step"):
        assert at.loc[step, "share"] == pytest.approx(rows["share"].mean())
        assert at.loc[step, "low"] <= at.loc[step, "share"] <= at.loc[step, "high"]


def test_monosemanticity_in_both_conventions(one):
    arrays = one.described.arrays
    token, semantic = arrays["token_entropy"], arrays["semantic_entropy_greedy"]
    alive = ~np.isnan(token[1, 2])
    plain = 1 - semantic[1, 2, 1:-1] / token[1, 2, 1:-1]  # feature 0 has TE = 0, the last is dead
    for at_zero in (0, 1):
        expected = (plain.sum() + at_zero) / alive.sum()
        assert one.series.monosemanticity["greedy", at_zero].value[1, 2] == pytest.approx(expected)
    assert one.series.zero[1, 2] == pytest.approx(1 / alive.sum())


def test_dead_layer_has_no_rows_and_no_part_in_means(places):
    arrays = load_file(places["described"] / "features.safetensors")
    for name, array in arrays.items():
        array[2, 0] = -1 if name.startswith("class_") else np.nan if array.dtype == float else 0
    save_file(arrays, places["described"] / "features.safetensors")
    one = gathered(places)
    for table in ("classes_by_layer", "monosemanticity_by_layer", "spans_by_layer"):
        frame = one.frames[table]
        assert frame.query("step == 100")["layer"].unique().tolist() == [2, 3, 4]
        assert frame.notna().all().all()
    mixed = one.series.mixed["document"]
    assert mixed.over_layers().value[2] == pytest.approx(mixed.value[2, 1:].mean())


def test_checkpoint_without_live_features_is_refused(places):
    arrays = load_file(places["described"] / "features.safetensors")
    for name in ("class_document", "class_rule"):
        arrays[name][1] = -1
    save_file(arrays, places["described"] / "features.safetensors")
    with pytest.raises(InputError, match="no feature of any layer is alive"):
        gathered(places)


def test_arrays_that_do_not_fit_are_refused(places):
    index = json.loads((places["described"] / "index.json").read_text())
    (places["described"] / "index.json").write_text(json.dumps(index | {"steps": [0, 10]}))
    with pytest.raises(InputError, match="run the stage again"):
        described.load(places["described"])


def test_findings_hold_where_they_should(one):
    answers = {name: ask(one.subject) for name, ask in PREDICATES.items()}
    assert all(answer.holds for answer in answers.values()), answers
    assert all(answer.interval[0] > 0 for answer in answers.values())
    assert "60.3% at 0, 10.1% at 100, 30.2% at 1,000" in answers["mixed_falls_then_rises"].detail
    assert "middle: layers 2, 3" in answers["middle_layers_bilingual"].detail
    assert "added: bi 15, en 20" in answers["bilingual_helps_both"].detail


def turned(one, **change):
    """The subject with its mixed share, by reading, changed by `change`."""
    shares = {
        reading: (*classes[:2], change[reading](classes[2]) if reading in change else classes[2])
        for reading, classes in one.series.shares.items()
    }
    return replace(one.subject, series=replace(one.series, shares=shares))


def test_mixed_share_that_only_falls_fails(one):
    def falling(sampled):
        order = [0, 1, 3, 2]  # 0.6, 0.4, 0.3, 0.1
        return sampled.at(order)

    assert not PREDICATES["mixed_falls_then_rises"](turned(one, document=falling)).holds
    # one reading that does not agree is enough
    assert not PREDICATES["mixed_falls_then_rises"](turned(one, rule=falling)).holds


def test_outer_layers_that_lead_fail(one):
    def outside(sampled):
        return sampled.at((slice(None), [1, 0, 3, 2]))

    answer = PREDICATES["middle_layers_bilingual"](turned(one, document=outside))
    assert not answer.holds
    assert answer.interval[0] < 0


@pytest.mark.parametrize(
    ("layers", "early", "middle"),
    [(3, [0], [1]), (4, [0], [1, 2]), (12, [0, 1, 2], [3, 4, 5, 6, 7, 8]), (28, None, None)],
)
def test_middle_is_the_middle_half(layers, early, middle):
    first, inner, last = findings.early_middle_late(layers)
    assert len(first) == len(last)
    assert [*first, *inner, *last] == list(range(layers))
    assert len(inner) >= layers / 3
    if early is not None:
        assert (list(first), list(inner)) == (early, middle)
    assert findings.early_middle_late(2) is None


def test_monosemanticity_must_rise_in_every_convention(one):
    found = dict(one.series.monosemanticity)
    found["greedy", 0] = found["greedy", 0].at([3, 2, 1, 0])
    subject = replace(one.subject, series=replace(one.series, monosemanticity=found))
    assert not PREDICATES["monosemanticity_rises"](subject).holds


@pytest.mark.parametrize("worse", ["none", "en", "ja", "random"])
@pytest.mark.parametrize("language", [0, 1])
def test_injection_must_beat_every_rival_in_both_languages(places, worse, language):
    values = {add: list(pair) for add, pair in tracing_results.PERPLEXITY.items()}
    values[worse][language] = values["bi"][language] - 1
    tracing_results.injected(places["injected"], values)
    subject = measure.subject(None, places["injected"], SETTINGS)
    answer = PREDICATES["bilingual_helps_both"](subject)
    assert not answer.holds
    assert answer.interval[1] < 0


def test_injection_within_the_spread_of_draws_is_undecided(places):
    values = {add: list(pair) for add, pair in tracing_results.PERPLEXITY.items()}
    values["ja"][1] = values["bi"][1] + 0.002  # draws are 0.01 apart
    tracing_results.injected(places["injected"], values)
    answer = PREDICATES["bilingual_helps_both"](measure.subject(None, places["injected"], SETTINGS))
    assert not answer.holds
    assert answer.interval[0] < 0 < answer.interval[1]


def test_no_injection_asks_nothing(places):
    for name in ("perplexity", "translation"):
        path = places["injected"] / f"{name}.csv"
        path.write_text(path.read_text().splitlines()[0] + "\n")
    one = gathered(places)
    assert PREDICATES["bilingual_helps_both"](one.subject) is None
    assert PREDICATES["bilingual_helps_translation"](one.subject) is None
    assert one.frames["injection"].empty
    assert one.frames["translation"].empty


def test_setting_that_was_not_injected_is_refused(folders):
    with pytest.raises(InputError, match=r"alpha 0.3 .* choose of .*\(0.1, 10\)"):
        gathered(folders, measure.Measuring(draws=10, alpha=0.3))


def test_larger_models_are_compared_as_a_family(one):
    def size(layers, factor):
        mixed = series.Sampled(np.full((2, layers), 0.2 * factor),
                               np.full((2, layers, 50), 0.2 * factor))  # fmt: skip
        return replace(one.series, layers=tuple(range(layers)),
                       shares={"document": (mixed, mixed, mixed)})  # fmt: skip

    sizes = {"m_big": size(8, 2), "m_small": size(4, 1), "m_mid": size(6, 1.5)}
    answer = findings.larger_more_bilingual(sizes)
    assert answer.holds
    assert "m_small 20.0%, m_mid 30.0%, m_big 40.0%" in answer.detail
    assert not findings.larger_more_bilingual(sizes | {"m_big": size(8, 0.5)}).holds
    assert findings.larger_more_bilingual({"m_big": sizes["m_big"]}) is None


def test_rates_and_injection_become_claims(folders, one, tmp_path):
    recorder = Recorder("llmjp_tracing", "demo", 0, {})
    measure.enter(recorder, one, SETTINGS)
    recorder.write(tmp_path)
    found = read_evidence(tmp_path, "llmjp_tracing")["demo"].measured
    assert found["learning-rate/enja/selected"]["as published"].value == 0.002
    values = {variant: entry.value
              for variant, entry in found["enja/injection/ratio/bi/ja"].items()}  # fmt: skip
    assert values == {"10 features": pytest.approx(75 / 80), "20 features": pytest.approx(75 / 80)}
    assert "enja/injection/perplexity/random/en" not in found  # our control, in no table
    assert found["enja/injection/comet/none/ja-en"]["10 features"].value == 30


def test_run_of_table_1_has_its_ids(folders, one):
    recorder = Recorder("llmjp_tracing", "paper", 0, {})
    record.injection(recorder, "llmjp_3_7b", one.frames, 0.1)
    assert {id.split("/")[0] for id in recorder._measured} == {"injection"}


def test_tables_of_other_stages(one):
    frames = one.frames
    assert frames["rates_held_out"].query("selected")["rate"].tolist() == [0.002]
    assert len(frames["rates"]) == 30
    assert frames["rates"]["rate"].is_monotonic_increasing
    assert frames["perplexity"]["model"].tolist()[-1] == "bigram"
    assert list(frames["pretraining_loss"]) == ["step", "tokens", "lr", "loss"]
    row = frames["injection"].query("add == 'bi' and alpha == 0.2 and features == 20 "
                                    "and language == 'en'").iloc[0]  # fmt: skip
    assert (row["added"], row["draws"], row["mean"]) == (15, 3, pytest.approx(46))
    assert row["spread"] == pytest.approx(0.01)
    assert row["change"] == pytest.approx(-8)


def test_patterns_are_of_the_middle_layer(one):
    frame = one.frames["patterns"]
    assert set(frame["layer"]) == {2}
    assert len(frame) == 4 * 3 * 2 * tables.SHOWN
    text = frame.query("language == 'ja'").iloc[0]
    assert json.loads(text["pieces"]) == tracing_results.TEXTS["ja"]


def test_same_inputs_give_the_same_bytes(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "artifacts/llmjp_tracing/demo/enja"
    home.mkdir(parents=True)
    for name in measure.RESULTS:
        (home / name).symlink_to(folders[name])
    (tmp_path / "artifacts/histories").mkdir()
    (tmp_path / "artifacts/histories/h").symlink_to(folders["history"])
    (tmp_path / "params.yaml").write_text(json.dumps({
        "profile": "demo", "seed": 3, "llmjp_tracing": {
            "measure": {"draws": 20}, "runs": {"enja": RUN.model_dump(mode="json")}},
    }))  # fmt: skip
    contents = []
    for _ in range(2):
        measure.main()
        files = sorted((tmp_path / "results").rglob("*"))
        kept = (path for path in files if path.is_file() and "manifest" not in path.name)
        contents.append({path.name: path.read_bytes() for path in kept})
    assert contents[0] == contents[1]
    written = {path.stem for path in (tmp_path / "results").rglob("*.csv")}
    assert written == set(tables.COLUMNS)
    first = pd.read_csv(tmp_path / "results/llmjp_tracing/plots/demo/labels.csv")
    assert list(first) == ["run", "step", "label", "count"]
    assert first.empty
