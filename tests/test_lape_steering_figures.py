"""Figures and the page of interventions, from tables with known content."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from langsae.figures import house_style, save
from replications.sae_lape import figures_perplexity
from replications.sae_lape.figures_steering import FIGURES, PAGES

CODES = ("bg", "en", "th")


def perplexity():
    settings = ("sae_all_max/-0.2", "sae_all_max/0.2", "sae_top_10_by_entropy_max/-0.2",
                "sae_shared_2_max/0.2", "neuron_fixed/0", "neuron_scaled/0.1")  # fmt: skip
    rows = []
    for setting, a, b in itertools.product(settings, CODES, CODES):
        if setting.startswith("sae_shared") and a != b:
            continue  # the own language only
        change = 50.0 if a == b else -2.0 if b == "en" else 1.0
        rows.append(("llama", setting, a, b, 3, change, change / 2, change / 40, 0.5))
    names = ["run", "setting", "intervened", "impacted", "texts", "change", "median_change",
             "log_ratio", "largest_share"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def generation():
    rows = [
        ("llama", "sae_all_max", code, alpha, "all", 10, reached, 0.1, 0.5, 20.0, 0.5, 0.8, -3.0)
        for code, alpha, reached in (("bg", 0.3, 0.2), ("bg", 0.4, 0.6), ("th", 0.2, 0.9))
    ]
    rows.append(("llama", "baseline", "", 0.0, "all", 10, *[np.nan] * 3, 9.0, 0.5, 0.8, -2.0))
    names = ["run", "setting", "language", "alpha", "positions", "texts", "reached", "baseline",
             "script_share", "perplexity", "distinct_1", "distinct_2", "coherence"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def detected():
    counts = ((0.3, "en", 8), (0.3, "bg", 2), (0.4, "bg", 6), (0.4, "mk", 4))
    rows = [("llama", "sae_all_max", "bg", alpha, "all", code, n) for alpha, code, n in counts]
    names = ["run", "setting", "language", "alpha", "positions", "detected", "count"]
    return pd.DataFrame(rows, columns=names)


def labels():
    rows = [("llama", table, code, 0.3, changed, label, n)
            for table, code, changed in itertools.product(("higher", "lower"), CODES, (True, False))
            for label, n in (("coherent", 20), ("partly", 20), ("incoherent", 10))]  # fmt: skip
    names = ["run", "table", "language", "alpha", "changed", "label", "count"]
    return pd.DataFrame(rows, columns=names)


TABLES = {"perplexity": perplexity, "generation": generation, "detected": detected,
          "labels": labels}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "stem"), [(table, stem) for table, stems in FIGURES.items() for stem in stems]
)
def test_every_figure_is_drawn_with_the_same_bytes(table, stem, tmp_path):
    with house_style():
        for folder in ("a", "b"):
            save(FIGURES[table][stem](TABLES[table]()), tmp_path / folder, stem)
    for kind in ("svg", "png"):
        first, second = (tmp_path / folder / f"{stem}.{kind}" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def images(figure):
    return [axes for axes in figure.axes if axes.images]


def test_heat_maps_show_the_ratio_of_their_setting():
    with house_style():
        figure = figures_perplexity.perplexity_features(perplexity())
    panels = images(figure)
    assert [axes.get_title("left") for axes in panels] == ["all features -0.2", "all features +0.2"]
    expected = np.full((3, 3), 1 / 40)
    expected[:, 1] = -2 / 40
    np.fill_diagonal(expected, 50 / 40)
    np.testing.assert_allclose(panels[0].images[0].get_array(), expected)
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["bg", "en", "th"]


def test_matrices_of_the_own_language_alone_are_left_out():
    with house_style():
        figure = figures_perplexity.perplexity_selections(perplexity())
    assert [axes.get_title("left") for axes in images(figure)] == ["top 10 by entropy\nmax -0.2"]


def test_curves_pass_through_the_cells():
    with house_style():
        figure = figures_perplexity.perplexity_own(perplexity())
    own = figure.axes[0].lines[0]
    assert own.get_xdata().tolist() == [-0.2, 0.0, 0.2]
    assert own.get_ydata().tolist() == [1.25, 0.0, 1.25]
    others = figure.axes[1].lines[0]
    assert others.get_ydata()[0] == pytest.approx((-2 + 1) / 2 / 40)


def test_steering_starts_from_unsteered_texts():
    with house_style():
        figure = FIGURES["generation"]["steering"](generation())
    assert len(figure.axes[0].lines) == 2
    bulgarian = figure.axes[0].lines[0]
    np.testing.assert_allclose(bulgarian.get_xdata(), [0, 0.3, 0.4])
    np.testing.assert_allclose(bulgarian.get_ydata(), [10, 20, 60])


def test_a_table_of_one_multiplier_draws_no_curve():
    one = perplexity().query("setting == 'sae_all_max/0.2'")
    assert figures_perplexity.perplexity_own(one) is None
    assert figures_perplexity.perplexity_measures(one) is None  # nothing was moved down
    assert figures_perplexity.perplexity_neurons(one) is None


def test_the_page_colours_the_tokens_on_which_features_fire():
    pieces = pd.DataFrame(
        [("r", "bg", 0, 0, "<s>"), ("r", "bg", 0, 1, "Здра"), ("r", "bg", 0, 2, "<вей>"),
         ("r", "en", 0, 0, "Hi")],
        columns=["run", "language", "sentence", "position", "piece"],
    )  # fmt: skip
    active = pd.DataFrame(
        [("r", "bg", 0, 2, "<вей>", "mlp_out.1", 1, 7, "bg", 2.0),
         ("r", "bg", 0, 2, "<вей>", "mlp_out.1", 1, 9, "bg", 3.5),
         ("r", "bg", 0, 1, "Здра", "mlp_out.3", 3, 4, "ru", 1.0)],
        columns=["run", "language", "sentence", "position", "piece", "hook", "layer", "feature",
                 "feature_language", "value"],
    )  # fmt: skip
    (names, draw) = PAGES["active_features"]
    assert names == ("active", "pieces")
    html = draw(active, pieces)
    marked = re.findall(r'<span [^>]*title="([^"]*)">([^<]*)</span>', html)
    assert marked == [("2", "&lt;вей&gt;"), ("1", "Здра")]
    assert html.index("features of Bulgarian: 2") < html.index("features of Russian: 1")
    assert "No language-specific feature fires." in html
    assert html.count("<h2>") == 2
