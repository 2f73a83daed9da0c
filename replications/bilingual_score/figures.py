"""The post's figures and the page of contexts, from the tidy tables of one profile.

`python -m replications.bilingual_score.figures PROFILE` reads
results/bilingual_score/plots/PROFILE/*.csv and writes paper_figures/bilingual_score/PROFILE.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langsae.command import run
from langsae.figures import (
    LOOKS,
    TWO_COLUMNS,
    command,
    house_style,
    label_axis,
    name,
    new_figure,
    save,
    thousands,
)
from langsae.files import publish
from replications.bilingual_score.contexts_page import contexts_page
from replications.bilingual_score.strips import strips

STUDY = "bilingual_score"
TITLES = {"gemma": "Gemma 2 2B", "gemma_activations": "Gemma 2 2B, author's run"}
LEVELS = {
    "q_0.05": "5 %", "q_0.25": "25 %", "q_0.5": "50 %", "q_0.75": "75 %", "q_0.95": "95 %",
}  # fmt: skip
# reading → (title of its panel, whether its axis is logarithmic)
PANELS = {
    "as published": ("as published", True),
    "as described": ("as described", False),
    "corrected": ("corrected", False),
}
BLUE, GREY = LOOKS["de"].colour, LOOKS["tr"].colour


def _models(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame["model"]))


def _grid(models: list[str], columns: int, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A row of panels a model."""
    rows = len(models)
    return new_figure(TWO_COLUMNS, height * rows, rows, columns, squeeze=False, **options)


def activation_frequency(curves: pd.DataFrame, thresholds: pd.DataFrame) -> Figure:
    """Share of texts in which each feature exceeds a threshold, features in falling order."""
    models = _models(curves)
    groups = list(dict.fromkeys(curves["group"]))
    figure, axes = _grid(models, len(groups), 2.9, sharey=True)
    colours = dict(zip(LEVELS, seaborn.color_palette("crest", len(LEVELS)), strict=True))
    for row, model in zip(axes, models, strict=True):
        for axis, group in zip(row, groups, strict=True):
            here = curves[(curves["model"] == model) & (curves["group"] == group)]
            for threshold, part in here.groupby("threshold", sort=False):
                colour = colours.get(threshold, "black")
                style = "-" if threshold in LEVELS else ":"
                _falling(axis, part, color=colour, linestyle=style, label=LEVELS.get(threshold))
            which = "all languages" if group == "global" else name(group)
            title = f"{TITLES.get(model, model)}: {which}" if len(models) > 1 else which
            axis.set_title(title)
            axis.set_xscale("log")
            axis.set_ylim(0, 100)
            thousands(axis.xaxis)
            label_axis(axis.xaxis, "features, most frequent first")
        label_axis(row[0].yaxis, "texts above the threshold", "%")
    lines = axes[0, 0].get_lines()
    levels = [_level(line.get_label()) for line in lines]
    figure.legend(lines, levels, loc="outside lower center", ncols=3)
    return figure


def _level(label: str) -> str:
    return f"quantile {label}" if label in LEVELS.values() else "mean of positive values"


def _falling(axis: Axes, part: pd.DataFrame, **style) -> None:
    """A curve from its histogram: `features` features in `texts` of `of` texts."""
    part = part[part["texts"] > 0].sort_values("texts", ascending=False)
    last = part["features"].cumsum().to_numpy()
    first = last - part["features"].to_numpy() + 1
    share = (100 * part["texts"] / part["of"]).to_numpy()
    style["label"] = style["label"] or "mean"
    axis.plot(np.stack([first, last], axis=1).ravel(), share.repeat(2), **style)


def scores(frame: pd.DataFrame) -> Figure:
    """The score of every live feature in rising order, a panel a reading."""
    models = _models(frame)
    panels = [reading for reading in PANELS if reading in set(frame["reading"])]
    width = TWO_COLUMNS if len(panels) > 1 else 3.5
    figure, axes = new_figure(width, 2.4 * len(models), len(models), len(panels), squeeze=False)
    for row, model in zip(axes, models, strict=True):
        rows = frame[frame["model"] == model]
        for axis, reading in zip(row, panels, strict=True):
            part = rows[rows["reading"] == reading].sort_values("rank")
            axis.plot(part["rank"], part["score"], color=BLUE)
            title, logarithmic = PANELS[reading]
            axis.set_title(f"{TITLES.get(model, model)}: {title}" if len(models) > 1 else title)
            if logarithmic and len(part) and part["score"].min() > 0:
                axis.set_yscale("log")
            thousands(axis.xaxis, ticks=4)
            label_axis(axis.xaxis, "rank, best first")
        label_axis(row[0].yaxis, "score, lower is better")
    return figure


def constructed(frame: pd.DataFrame) -> Figure:
    """Where each reading ranks features whose answer is known."""
    kinds = list(dict.fromkeys(frame["kind"]))
    readings = [reading for reading in PANELS if reading in set(frame["reading"])]
    figure, axes = new_figure(TWO_COLUMNS, 1.7, 1, len(readings), sharey=True)
    for axis, reading in zip(axes, readings, strict=True):
        part = frame[frame["reading"] == reading].set_index("kind").loc[kinds]
        heights = np.arange(len(kinds))
        colours = [LOOKS["is"].colour, *[LOOKS["pt"].colour] * (len(kinds) - 1)]
        axis.hlines(heights, 1, part["rank"] + 1, color="#C8C8C8", linewidth=1, zorder=1)
        axis.scatter(part["rank"] + 1, heights, color=colours, s=18, zorder=2)
        for height, rank in zip(heights, part["rank"], strict=True):
            axis.annotate(str(rank), (rank + 1, height), (5, 0), textcoords="offset points",
                          va="center", fontsize=7, color="#444444")  # fmt: skip
        axis.set_title(reading)
        axis.set_xscale("log")
        axis.set_xlim(0.8, 3 * part["of"].max())
        axis.set_ylim(len(kinds) - 0.5, -0.5)
        axis.set_yticks(heights, kinds)
        axis.tick_params(axis="y", length=0)
        axis.set_xticks([1, 11, 101, 601], ["0", "10", "100", "600"])
        axis.minorticks_off()
        label_axis(axis.xaxis, f"rank of {part['of'].iloc[0]:,}")
    return figure


# stem → (tables it is drawn from, drawing); nothing is drawn from an empty first table
FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., Figure]]] = {
    "activation_frequency": (("curves", "thresholds"), activation_frequency),
    "scores": (("scores",), scores),
    "strips": (("contexts", "ranking"), strips),
    "constructed": (("constructed",), constructed),
}


def draw(plots: Path, out: Path) -> list[Path]:
    """Every figure and the page of the tables in `plots`, under `out`; returns the files."""
    tables = {path.stem: pd.read_csv(path) for path in sorted(plots.glob("*.csv"))}
    written = []
    with house_style():
        for stem, (names, function) in FIGURES.items():
            if len(tables[names[0]]):
                written += save(function(*(tables[name] for name in names)), out, stem)
    page = out / "contexts.html"
    with publish(page) as temporary:
        temporary.write_text(contexts_page(tables["contexts"], tables["ranking"]), encoding="utf-8")
    return [*written, page]


def main() -> None:
    command(__doc__, STUDY, draw)


if __name__ == "__main__":
    run(main)
