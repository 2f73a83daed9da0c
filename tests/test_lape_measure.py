"""sae_lape: stages' results as tables, findings that can fail, entries, figures and directions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from langsae.errors import InputError
from langsae.evidence import Recorder, read_evidence
from langsae.saes.bank import write_index
from langsae.saes.spec import FolderBank
from langsae.saes.topk import TopKSAE
from replications.sae_lape import (
    directions,
    figures,
    figures_features,
    figures_interpret,
    measure,
    tables,
)
from replications.sae_lape.findings import PREDICATES
from replications.sae_lape.run import Run

LANGUAGES = ["en", "de", "ja"]  # by English name: English, German, Japanese
RUN = Run(model="toy", saes="toy", corpus="toy", test="toy", impact="toy", similarity="toy")
SETTINGS = ("sae_all_max/-0.2", "sae_all_max/0.2", "neuron_scaled/-0.2")


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """A run of three languages and layers 1 and 3 with hand-made results of every stage."""
    folders = {result: tmp_path / result for result in measure.RESULTS}
    for folder in folders.values():
        folder.mkdir()
    _collected(folders["collected"])
    _identified(folders["identified"])
    _compared(folders["compared"])
    _classified(folders["classified"])
    _perplexity(folders["perplexity"])
    _generated(folders["generated"])
    _csv(folders["active"] / "active.csv", tables.COLUMNS["active"],
         [["en", 0, 1, "null", "mlp_out.3", 3, 7, "de", 0.5]])  # fmt: skip
    _csv(folders["active"] / "pieces.csv", tables.COLUMNS["pieces"], [["en", 0, 1, "null"]])
    _csv(folders["interpreted"] / "scores.csv",
         ["language", "hook", "layer", "feature", "method", "tp", "tn", "fp", "fn"],
         [["en", "mlp_out.1", 1, 5, "detection", 40, 45, 5, 10],
          ["de", "mlp_out.3", 3, 7, "detection", 0, 50, 0, 50],
          ["ja", "mlp_out.3", 3, 8, "detection", 25, 25, 25, 25]])  # fmt: skip
    _csv(folders["directions"] / "umap.csv", tables.COLUMNS["umap"], [["en", 1, 5, 0.5, -1]])
    return folders


def _csv(path: Path, columns: list[str], rows: list[list]) -> None:
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def _collected(folder: Path) -> None:
    header = {"hooks": ["mlp_out.1", "mlp_out.3"]}
    metadata = {"langsae": json.dumps({"reducer": "lape_counts", "header": header})}
    save_file({"hits": np.zeros(1)}, folder / "lape_counts.safetensors", metadata)
    totals = {"tokens": {"en": 10, "de": 20, "ja": 30}, "examples": {"en": 1, "de": 2, "ja": 3}}
    inputs = {"corpus": "a", "model": "b", "saes": "c"}
    (folder / "totals.json").write_text(json.dumps(totals | {"layers": 4, "inputs": inputs}))


def _identified(folder: Path) -> None:
    place = {"mlp_out.1": 1, "mlp_out.3": 3}
    owned = [(1, "en", "mlp_out.1", 5, 0.2), (1, "de", "mlp_out.3", 7, 0.1),
             (1, "ja", "mlp_out.3", 8, 0.6), (2, "en", "mlp_out.1", 6, 0.7),
             (2, "de", "mlp_out.1", 6, 0.7)]  # fmt: skip
    rows = [[n, code, hook, place[hook], feature, entropy, 0.5, 1.0, 2.0, 0.5, 0.4]
            for n, code, hook, feature, entropy in owned]  # fmt: skip
    _csv(folder / "features.csv", ["languages", "language", "hook", "layer", "feature", "entropy",
                                   "probability", "average", "maximum", "minimum",
                                   "probability_as_published"], rows)  # fmt: skip
    _csv(folder / "neurons.csv",
         ["language", "hook", "layer", "neuron", "entropy", "probability", "maximum"],
         [["ja", "mlp_act.3", 3, 2, 0.1, 0.9, 1.5]])  # fmt: skip
    chosen = [[name, code, hook, place[hook], feature, 1] for n, code, hook, feature, _ in owned
              for name in (["all", "top_10_by_entropy"] if n == 1 else ["shared_2"])]  # fmt: skip
    _csv(folder / "selections.csv",
         ["selection", "language", "hook", "layer", "feature", "rank"], chosen)  # fmt: skip
    summary = {"languages": LANGUAGES, "selections": ["all", "top_10_by_entropy", "top_10_by_freq",
                                                      "shared_2", "shared_3"]}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))


def _compared(folder: Path) -> None:
    rows = [[a, b, 1, 0.5 if {a, b} == {"en", "de"} else 0.1] for a in LANGUAGES for b in LANGUAGES]
    _csv(folder / "shared.csv", ["language_a", "language_b", "intersection", "iou"], rows)
    matrix = np.array([[1, 0.25, np.nan], [0.25, 1, 0.75], [np.nan, 0.75, 1]])
    alone = {"de": np.ones((1, 1)), "ja": np.zeros((0, 0))}
    save_file({f"{kind}/{code}": array for kind in ("iou", "pearson")
               for code, array in ({"en": matrix} | alone).items()},
              folder / "similarity.safetensors")  # fmt: skip
    labels = {"en": ["a", "b", "c"], "de": ["d"], "ja": []}
    (folder / "labels.json").write_text(json.dumps(labels))


def _classified(folder: Path) -> None:
    columns = ["row", "label"]
    rows = [[0, code] for code in LANGUAGES]
    neurons = np.array([[9, 1, 0], [0, 9, 0], [4, 0, 1]])
    given = {"fasttext": np.eye(3), "sae-count": np.eye(3), "neuron-count": neurons}
    for classifier, scores in given.items():
        columns += [f"{classifier}:{code}" for code in LANGUAGES]
        rows = [row + list(line) for row, line in zip(rows, scores.tolist(), strict=True)]
    _csv(folder / "scores.csv", columns, rows)
    sizes = {"en": 9, "de": 9, "ja": 1}
    lists = {"sae-count": dict.fromkeys(LANGUAGES, 1), "neuron-count": sizes}
    (folder / "lists.json").write_text(json.dumps(lists))


def _perplexity(folder: Path) -> None:
    plain = np.array([[2.0, 4.0]] * 3)
    own = np.eye(3)[:, :, None]
    arrays = {
        "normal": plain,
        SETTINGS[0]: plain * (1 + own),  # the language itself suffers
        SETTINGS[1]: plain * (2 - own),  # the others do
        SETTINGS[2]: plain * np.array([3.0, 2.0, 1.0])[None, :, None],
    }
    arrays[SETTINGS[2]] = np.broadcast_to(arrays[SETTINGS[2]], (3, 3, 2)).copy()
    save_file(arrays, folder / "perplexity.safetensors")
    facts = {"intervened": LANGUAGES, "impacted": LANGUAGES, "rows": 2,
             "settings": {name: {} for name in SETTINGS}}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(facts))


def _generated(folder: Path) -> None:
    columns = ["setting", "language", "alpha", "positions", "reencode", "prompt", "seed", "text",
               "detected", "confidence", "script_share", "perplexity", "distinct_1", "distinct_2",
               "tokens"]  # fmt: skip
    rows = []
    for setting, code, alpha, detected, perplexity in (
        ("baseline", "", 0.0, ["en", "en"], 2.0),
        ("sae_all_max", "de", 0.2, ["de", "en"], 3.0),
        ("sae_all_max", "de", 0.4, ["de", "de"], 9.0),
        ("sae_all_max", "en", -1.2, ["fr", "en"], 2.0),
    ):
        for seed, one in enumerate(detected):
            rows.append([setting, code, alpha, "all", False, "", seed, "null", one, 1.0,
                         1.0, perplexity, 0.5, 0.5, 4])  # fmt: skip
    _csv(folder / "texts.csv", columns, rows)


def test_layers_come_from_the_counts_or_else_from_the_model(places):
    assert tables.layers(places["collected"]) == [1, 3]
    (places["collected"] / "lape_counts.safetensors").unlink()
    assert tables.layers(places["collected"]) == [0, 1, 2, 3]


def test_tables_of_a_run(places):
    frames = measure.gather(places)
    assert set(frames) == set(tables.COLUMNS)
    counts = frames["counts"].set_index(["selection", "language", "layer"])["count"]
    assert len(counts) == 4 * 3 * 2  # three selections and neurons; zeros, too
    assert counts["all", "en", 1] == 1
    assert counts["all", "en", 3] == 0
    assert counts["neurons", "ja", 3] == 1
    shared = frames["shared_layers"].set_index(["languages", "layer"])["count"]
    assert shared.to_dict() == {(2, 1): 1, (2, 3): 0, (3, 1): 0, (3, 3): 0}
    named = frames["shared_languages"].set_index(["languages", "language"])["count"]
    assert [named[2, code] for code in LANGUAGES] == [1, 1, 0]
    kept = frames["entropy"].query("kind == 'kept'")["count"].sum()
    assert kept == 4  # three specific and one shared, once
    means = frames["similarity_mean"].set_index(["measure", "language"])["mean"]
    assert means.to_dict() == {("iou", "en"): 0.5, ("pearson", "en"): 0.5}  # NaN is left out
    assert len(frames["similarity"]) == 2 * 3
    assert frames["active"]["piece"].tolist() == ["null"]


def test_interpretation_scores_are_the_hand_computed_ones(places):
    frames = measure.gather(places)
    scores = frames["scores"].set_index("language")
    assert scores.loc["en", "accuracy"] == pytest.approx(0.85)
    assert scores.loc["en", "precision"] == pytest.approx(40 / 45)
    assert scores.loc["de", "precision"] == 0  # nothing was said: 0, as in the study's tool
    assert frames["interpretation"]["features"].tolist() == [1, 1, 1]
    r = frames["correlations"].set_index("metric")["pearson"]
    assert r["accuracy"] == pytest.approx(np.corrcoef([0.2, 0.1, 0.6], [0.85, 0.5, 0.5])[0, 1])


def test_generation_knows_its_baseline_and_coherence(places):
    rows = measure.gather(places)["generation"].set_index(["language", "alpha"])
    assert rows.loc[("de", 0.2), "reached"] == 0.5
    assert rows.loc[("de", 0.2), "baseline"] == 0
    assert rows.loc[("de", 0.4), "coherence"] == pytest.approx(-np.log(9))


def test_stages_left_out_have_empty_tables(places):
    kept = {key: folder for key, folder in places.items() if key in ("collected", "identified")}
    gone = {key: folder / "none" for key, folder in places.items() if key not in kept}
    frames = measure.gather(kept | gone)
    for name in ("overlap", "accuracy", "perplexity", "generation", "active", "scores", "umap"):
        assert list(frames[name]) == tables.COLUMNS[name]
        assert frames[name].empty
    asked = {name for name, ask in PREDICATES.items() if ask(frames) is not None}
    assert asked == {"late_layers", "specific_over_shared"}


HOLDS = {"late_layers", "specific_over_shared", "script_shares", "as_good_as_fasttext",
         "better_than_neurons", "lowering_hurts_itself", "raising_spares_itself",
         "more_specific_than_neurons", "steering_reaches", "stronger_reaches_more",
         "stronger_costs_coherence"}  # fmt: skip


def test_findings_hold_and_fail_with_the_numbers(places):
    frames = measure.gather(places)
    answers = {name: ask(frames) for name, ask in PREDICATES.items()}
    assert {name for name, answer in answers.items() if answer.holds} == HOLDS | {
        "lower_entropy_clearer"
    }
    # a neuron list of one member: as published it loses, divided by its size it is right
    assert answers["better_than_neurons"].detail == "accuracy 1.0000, neurons 0.6667"
    assert answers["better_than_neurons_normalised"].detail == "accuracy 1.0000, neurons 1.0000"
    assert answers["interpretable"].detail.startswith("mean 0.62; least de 0.50")


@pytest.mark.parametrize(
    ("name", "table", "column", "change"),
    [
        ("late_layers", "counts", "layer", lambda v: 4 - v),
        ("specific_over_shared", "shared_layers", "count", lambda v: v + 9),
        ("script_shares", "overlap", "iou", lambda v: 1 - v),
        ("as_good_as_fasttext", "accuracy", "accuracy", lambda v: v * [1, 0.9, 0.9, 1, 1]),
        ("better_than_neurons", "accuracy", "accuracy", lambda v: 1 - v),
        ("lowering_hurts_itself", "perplexity", "log_ratio", lambda v: -v),
        ("raising_spares_itself", "perplexity", "log_ratio", lambda v: -v),
        ("more_specific_than_neurons", "perplexity", "log_ratio", lambda v: -v),
        ("steering_reaches", "generation", "reached", lambda v: 0 * v),
        ("stronger_reaches_more", "generation", "reached", lambda v: 1 - v),
        ("stronger_costs_coherence", "generation", "coherence", lambda v: -v),
        ("lower_entropy_clearer", "correlations", "pearson", lambda v: -v),
    ],
)
def test_each_finding_turns_when_its_numbers_do(places, name, table, column, change):
    frames = measure.gather(places)
    assert PREDICATES[name](frames).holds
    turned = frames[table].assign(**{column: change(frames[table][column])})
    assert not PREDICATES[name](frames | {table: turned}).holds


def entered(places: dict[str, Path], name: str, root: Path, profile: str, fasttext=None) -> dict:
    recorder = Recorder("sae_lape", profile, 0, measure._inputs(name, places))
    frames = measure.gather(places)
    measure.enter_run(recorder, name, RUN, places, frames, fasttext)
    measure.find(recorder, name, RUN, frames)
    recorder.write(root)
    evidence = read_evidence(root, "sae_lape")[profile]
    return {(id, variant): one.value for id, by in evidence.measured.items()
            for variant, one in by.items()}  # fmt: skip


def test_entries_of_a_run_on_the_studys_model(places, tmp_path):
    found = entered(places, "llama", tmp_path, "paper")
    assert found["totals/tokens/ja", "as published"] == 30
    assert found["identified/counts/kept", "as published"] == 4
    assert found["features/all/de/L3", "as published"] == 1
    assert found["features/all/de/total", "as published"] == 1
    assert found["lists/top_10_by_entropy/de", "as published"] == ["3.7"]
    assert found["lists/top_10_by_freq/de", "as published"] == ["none"]
    assert found["lists/top_10_by_freq/de", "from the saved probabilities"] == ["3.7"]
    assert found["classification/fasttext/accuracy", "lid.176.ftz"] == 1
    assert found["classification/neuron-count/accuracy", "normalised by list size"] == 1
    assert found["classification/neuron-count/confusion/ja/en", "as published"] == 1
    assert found["perplexity/sae_all_max/-0.2/en/en", "as published"] == pytest.approx(3)
    assert found["generation/reached/lower/de", "told by fastText"] == 50
    assert found["generation/reached/higher/de", "told by fastText"] == 100
    assert found["generation/reached/higher/en", "told by fastText"] == 50  # left English
    assert found["interpretation/detection/en/accuracy", "as published"] == pytest.approx(0.85)
    given = entered(places, "llama", tmp_path, "smoke", "/models/lid.176.bin")
    assert given["classification/fasttext/accuracy", "as published"] == 1


def test_entries_of_another_model_carry_its_name(places, tmp_path):
    found = entered(places, "toy", tmp_path, "demo")
    assert {id.split("/")[0] for id, _ in found} == {"toy"}
    evidence = read_evidence(tmp_path, "sae_lape")["demo"]
    assert set(evidence.findings["late-layers"]) == {"toy"}
    assert evidence.findings["late-layers"]["toy"].basis == "rerun"
    assert set(evidence.inputs) == {"toy/corpus", "toy/model", "toy/saes"}


def test_figures_are_drawn_of_every_table(places):
    frames = {name: frame.assign(run="toy") for name, frame in measure.gather(places).items()}
    for part in (figures_features, figures_interpret):
        for name, drawn in part.FIGURES.items():
            for stem, function in drawn.items():
                figure = function(frames[name])
                assert figure.get_axes(), stem
    joint = figures_interpret.JOINT["entropy_against_score"]
    assert joint[1](*(frames[name] for name in joint[0])).get_axes()


def test_drawing_skips_empty_tables_and_repeats_its_bytes(places, tmp_path):
    frames = measure.gather(places)
    frames["pieces"]["piece"] = "a\r<b>"
    plots = tmp_path / "plots"
    plots.mkdir()
    for name, frame in frames.items():
        rows = frame if name in ("counts", "active", "pieces") else frame.iloc[:0]
        rows.assign(run="toy").to_csv(plots / f"{name}.csv", index=False)
    written = {path.name for path in figures.draw(plots, tmp_path / "one")}
    assert "feature_counts.svg" in written
    assert "active_features.html" in written
    assert not {"entropy.svg", "umap.svg", "entropy_against_score.svg"} & written
    assert "<b>" not in (tmp_path / "one" / "active_features.html").read_text(encoding="utf-8")
    for path in figures.draw(plots, tmp_path / "two"):
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_a_heat_map_shows_the_numbers(places):
    frame = measure.gather(places)["counts"].assign(run="toy")
    features, neurons = figures_features.counts(frame).get_axes()
    np.testing.assert_array_equal(features.images[0].get_array(), [[1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(neurons.images[0].get_array(), [[0, 0], [0, 0], [0, 1]])
    labels = [text.get_text() for text in features.get_yticklabels()]
    assert labels == ["English (1)", "German (1)", "Japanese (1)"]


# Decoder rows.


@pytest.fixture
def bank(tmp_path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A prepared bank of two TopK SAEs with 12 latents of 4 dimensions, and their decoders."""
    generator = torch.Generator().manual_seed(0)
    decoders = {}
    folder = tmp_path / "bank"
    for layer in (1, 3):
        encoder, decoder = (torch.randn(12, 4, generator=generator) for _ in range(2))
        sae = TopKSAE(encoder, torch.zeros(12), decoder, torch.zeros(4), 2, f"mlp_out.{layer}")
        sae.save(tmp_path / f"sae.{layer}")
        decoders[f"mlp_out.{layer}"] = decoder
    hooks = list(decoders)
    spec = FolderBank(source="folder", path=str(tmp_path / "sae.{layer}"), model="m", corpus="c",
                      hooks=hooks)  # fmt: skip
    spots = {hook: {"path": str(tmp_path / f"sae.{hook.split('.')[1]}")} for hook in hooks}
    folder.mkdir()
    write_index(folder, spec, spots, {})
    return folder, decoders


def _rows(features: list[tuple[str, int]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"language": "en", "hook": hook, "layer": int(hook[-1]), "feature": feature}
        for hook, feature in features
    )


def test_decoder_rows_are_unit_rows_in_order(bank):
    folder, decoders = bank
    wanted = [("mlp_out.3", 2), ("mlp_out.1", 5), ("mlp_out.3", 0)]
    found = directions.decoder_rows(folder, _rows(wanted))
    for row, (hook, feature) in zip(found, wanted, strict=True):
        vector = decoders[hook][feature].double().numpy()
        np.testing.assert_allclose(row, vector / np.linalg.norm(vector), rtol=1e-6)


def test_layout_by_principal_components(bank, tmp_path):
    folder, decoders = bank
    rows = _rows([("mlp_out.3", i) for i in range(4)] + [("mlp_out.1", i) for i in range(4)])
    settings = directions.Directions(layout="pca")
    directions.lay_out(folder, rows, settings, 0, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "umap.csv")
    assert table[["layer", "feature"]].to_numpy().tolist() == [
        [layer, i] for layer in (1, 3) for i in range(4)
    ]
    vectors = np.vstack([decoders[f"mlp_out.{layer}"][:4].double().numpy() for layer in (1, 3)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = vectors - vectors.mean(0)
    variance = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    place = table[["x", "y"]].to_numpy()
    np.testing.assert_allclose((place**2).sum(0), variance[:2], rtol=1e-4)


def test_too_few_features_are_not_laid_out(bank, tmp_path):
    rows = _rows([("mlp_out.1", i) for i in range(directions.FEWEST - 1)])
    directions.lay_out(bank[0], rows, directions.Directions(), 0, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "umap.csv").empty


def test_a_feature_the_sae_lacks_is_refused(bank):
    with pytest.raises(InputError, match="feature 12"):
        directions.decoder_rows(bank[0], _rows([("mlp_out.1", 12)]))
