"""Figures: every function draws, bytes repeat, a script that no font shows is warned about."""

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest

from langsae import figures as house
from langsae.languages import LANGUAGES
from replications.flores_exploration import figures as study

SCRIPTS = {
    "Latin": "Aðþßộ",
    "Cyrillic": "Жъя",
    "Arabic": "العربية",
    "Devanagari": "हिन्दी",
    "Thai": "ไทย",
    "Chinese": "简体",
    "Japanese": "日本語かな",
    "Korean": "한국어",
}
CODES = ["en", "de", "ja", "ar"]
LAYERS = [9, 15, 21]


def table(columns: str, rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


@pytest.fixture(scope="module")
def plots(tmp_path_factory) -> Path:
    """The tables that a small run writes: one model, three layers, a language without features."""
    cells = [(layer, code) for layer in LAYERS for code in CODES]
    share, bins = "normalised", [(0.0, 0.5), (0.5, 1.0)]
    tables = {
        "tokens": table(
            "model language n_tokens", [("toy", code, 1000 + i) for i, code in enumerate(CODES)]
        ),
        "monolingual": table(
            "model reading language layer count",
            [
                ("toy", reading, code, layer, 0 if code == "ar" else layer * 3)
                for layer, code in cells
                for reading in ("raw", share)
            ],
        ),
        "variance": table(
            "model reading layer value",
            [("toy", f"{share} share, ddof {ddof}", layer, 0.01) for ddof in (0, 1)
             for layer in LAYERS],
        ),
        "groups": table(
            "model reading layer rank languages count",
            [("toy", reading, layer, n, ";".join(CODES[:n]), 9) for reading in ("raw", share)
             for layer in LAYERS for n in (1, 3)],
        ),
        "shares": table(
            "model reading layer bin_left bin_right count",
            [("toy", reading, layer, *edges, 5) for reading in ("raw", share)
             for layer in LAYERS for edges in bins],
        ),
        "reconstruction": table(
            "model layer language mse fvu",
            [("toy", layer, code, 1.0, 0.2) for layer, code in cells],
        ),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("plots")
    for stem, frame in tables.items():
        frame.to_csv(folder / f"{stem}.csv", index=False)
    return folder


def test_every_figure_draws_and_repeats_its_bytes(plots, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = study.draw(plots, tmp_path / "first")
        second = study.draw(plots, tmp_path / "second")
    assert {path.name for path in first} == {
        f"{stem}.{kind}"
        for stems in study.FIGURES.values()
        for stem in stems
        for kind in ("svg", "png")
    }
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert b"<dc:date>" not in one.read_bytes()


def test_a_profile_without_a_model_draws_the_tokens_alone(plots, tmp_path):
    for path in plots.glob("*.csv"):
        frame = pd.read_csv(path)
        frame.iloc[: len(frame) if path.stem == "tokens" else 0].to_csv(
            tmp_path / path.name, index=False
        )
    written = study.draw(tmp_path, tmp_path / "out")
    assert {path.stem for path in written} == {"tokens"}


def test_a_style_of_the_users_own_does_not_change_the_bytes(plots, tmp_path, monkeypatch):
    frame = pd.read_csv(plots / "tokens.csv")

    def drawn(folder: str) -> bytes:
        with house.house_style():
            figure = study.tokens(frame)
        return house.save(figure, tmp_path / folder, "tokens")[0].read_bytes()

    plain = drawn("plain")
    monkeypatch.setitem(house.mpl.rcParams, "axes.facecolor", "red")
    monkeypatch.setitem(house.mpl.rcParams, "font.size", 20)
    assert drawn("styled") == plain
    assert house.mpl.rcParams["font.size"] == 20  # and ours does not leak out


def test_each_language_has_one_look_of_its_own():
    assert set(house.LOOKS) == set(LANGUAGES)
    assert len({(look.colour, str(look.dashes)) for look in house.LOOKS.values()}) == len(LANGUAGES)
    for code, look in house.LOOKS.items():
        assert bool(look.hatch) == (LANGUAGES[code].script != "Latn")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_shown_or_a_warning_names_the_fonts(script, tmp_path):
    text = SCRIPTS[script]
    with house.house_style():
        figure, axes = house.new_figure(2, 1)
        axes.set_title(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        house.save(figure, tmp_path, script)
    messages = [str(warning.message) for warning in caught]
    if house.missing_glyphs(text):
        assert len(messages) == 1
        assert "fonts-noto-cjk" in messages[0]
    else:
        assert messages == []


def test_scripts_of_matplotlibs_own_font_are_always_shown():
    shown = {script for script, text in SCRIPTS.items() if not house.missing_glyphs(text)}
    assert shown >= {"Latin", "Cyrillic", "Arabic"}


def test_english_names_need_no_other_font():
    names = "".join(house.name(code) for code in LANGUAGES)
    assert json.dumps(names).isascii()
    assert not house.missing_glyphs(names)


def test_labels_are_moved_apart_as_little_as_possible():
    spread = house._spread([0.1, 0.5, 0.5, 0.9], gap=0.1)
    assert spread == pytest.approx([0.1, 0.45, 0.55, 0.9])
    assert house._spread([], 0.1) == []
