"""llmjp_tracing: every figure from constructed tables, and Japanese in the coloured text."""

from html.parser import HTMLParser

import pandas as pd
import pytest

import tracing_results
from langsae.figures import house_style
from replications.llmjp_tracing import (
    figures,
    figures_patterns,
    figures_runs,
    figures_training,
    measure,
    tables,
)
from replications.llmjp_tracing.run import Run

RUN = Run(history="h", training="t", evaluation="e", impact="i", parallel="p", embeddings="h",
          saes={"source": "hub", "repo": "r"})  # fmt: skip


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    """The plots folder of one run, as stage measure leaves it."""
    root = tmp_path_factory.mktemp("figures")
    places = tracing_results.write(root / "stages", features=60)
    settings = measure.Measuring(draws=20)
    one = measure.gather("enja", RUN, places, places["history"], settings, 0)
    folder = root / "plots"
    folder.mkdir()
    for name, frame in one.frames.items():
        frame.assign(run="enja")[["run", *tables.COLUMNS[name]]].to_csv(
            folder / f"{name}.csv", index=False
        )
    return folder


@pytest.fixture(scope="module")
def frames(plots):
    return {path.stem: figures._read(path) for path in plots.glob("*.csv")}


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_every_table_is_drawn(frames):
    parts = [part for module in figures.PARTS
             for part in (module.FIGURES, getattr(module, "BY_RUN", {}))]  # fmt: skip
    assert {name for part in parts for names, _ in part.values() for name in names} == set(frames)
    with house_style():
        for part in parts:
            for stem, (names, function) in part.items():
                if stem != "hand_labels":  # of the project page only
                    assert function(*(frames[name] for name in names)).axes, stem


def test_bars_are_the_shares(frames):
    with house_style():
        figure = figures_training.over_training(frames["classes"], frames["monosemanticity"])
    rows = frames["classes"].query("reading == 'document' and step == 0").set_index("class")
    heights = [bars[0].get_height() for bars in figure.axes[0].containers]
    assert heights == pytest.approx([100 * rows.loc[name, "share"]
                                     for name in ("English", "Mixed", "Japanese")])  # fmt: skip
    assert len(figure.axes[2].lines) == 4  # two groupings, two values at TE = 0


def test_page_data_has_no_monosemanticity_panel(frames):
    with house_style():
        figure = figures_training.over_training(
            frames["classes"], frames["monosemanticity"].iloc[:0]
        )
    assert [text.get_text() for text in figure.axes[2].texts] == ["needs the model's\nembeddings"]


def test_lines_by_layer_are_the_checkpoints(frames):
    with house_style():
        figure = figures_training.by_layer(
            frames["classes_by_layer"], frames["monosemanticity_by_layer"]
        )
    first = figure.axes[0].lines
    assert len(first) == len(tracing_results.STEPS)
    rows = frames["classes_by_layer"].query("reading == 'document' and `class` == 'Mixed'")
    assert list(first[2].get_ydata()) == pytest.approx(
        list(100 * rows.query("step == 100")["share"])
    )


def test_runs_share_the_colours_of_checkpoints(frames):
    spans = frames["spans_by_layer"]
    other = spans.assign(run="other", step=spans["step"].replace({1000: 500}))
    with house_style():
        figure = figures_training.span_lengths(pd.concat([spans, other]))
    named = {line.get_label(): tuple(line.get_color()) for line in figure.legends[0].get_lines()}
    assert list(named) == ["0", "10", "100", "500", "1,000"]
    drawn = [axes.lines for axes in figure.axes if axes.get_title(loc="left").startswith("other")]
    rows = other.query("step == 500 and reading == 'top_k'")
    line = next(line for line in drawn[0] if list(line.get_ydata()) == list(rows["mean"]))
    assert tuple(line.get_color()) == named["500"]


def test_chosen_rate_is_named(frames):
    with house_style():
        figure = figures_runs.learning_rates(frames["rates"], frames["rates_held_out"])
    assert titles(figure)[1] == "held out: 0.002 is chosen"


def test_injection_has_a_panel_a_language_and_alpha(frames):
    with house_style():
        figure = figures_runs.injection(frames["injection"])
        assert figures_runs.injection(frames["injection"].query("add == 'none'")) is None
    shown = [title.split("\n")[-1] for title in titles(figure)]
    assert shown == ["English", "Japanese", "all texts"] * 2


def test_labels_of_the_page():
    rows = [{"run": "llmjp_1_8b", "step": step, "label": name, "count": count}
            for step, counts in ((10, (63, 5, 0, 32)), (1000, (17, 9, 0, 72)))
            for name, count in zip(figures_training.LABELS, counts, strict=True)]  # fmt: skip
    with house_style():
        figure = figures_training.labels(pd.DataFrame(rows))
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    assert [column[1] for column in heights] == pytest.approx(
        [100 * n / 98 for n in (17, 9, 0, 72)]
    )


class Spans(HTMLParser):
    """Coloured pieces of a page."""

    def __init__(self):
        super().__init__()
        self.inside, self.pieces = False, []

    def handle_starttag(self, tag, attrs):
        self.inside = tag == "span" and "background" in dict(attrs).get("style", "")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.pieces.append(data)


def test_page_colours_japanese_tokens(frames):
    html = figures_patterns.patterns_page(frames["patterns"])
    found = Spans()
    found.feed(html)
    assert {"ァイル", "保存", "する。", " saved"} <= set(found.pieces)
    assert "を" not in found.pieces
    assert "を" in html
    assert html.count("<h2>") == len(tracing_results.STEPS)


def test_strips_show_japanese(frames):
    with house_style():
        figure = figures_patterns.patterns(frames["patterns"])
    drawn = "".join(text.get_text() for text in figure.axes[0].texts)
    assert "保存" in drawn
    assert "する。" in drawn
    assert drawn.count("Mixed") == 3  # first, middle and last checkpoint


def test_files_are_the_same_bytes_again(plots, tmp_path):
    folder = tmp_path / "plots"
    folder.mkdir()
    for path in plots.glob("*.csv"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines if path.stem in ("pretraining_loss", "patterns") else lines[:1]
        (folder / path.name).write_text("".join(kept), encoding="utf-8")
    contents = []
    for name in ("a", "b"):
        written = figures.draw(folder, tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in written})
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == ["activation_patterns.html", "activation_patterns.png",
                                   "activation_patterns.svg", "pretraining_loss.png",
                                   "pretraining_loss.svg"]  # fmt: skip
