"""Figures of the classifiers, from the tables accuracy, metrics and confusion of one profile."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, name, new_figure

HEAT = "cividis"  # the same order of lightness for all forms of colour blindness
LEAST = 0.1  # % of a language's texts, below one in the published 500; less is drawn as none
TITLES = {
    "fasttext": "fastText",
    "sae-count": "SAE count",
    "sae-min-max": "SAE min-max",
    "neuron-count": "neuron count",
}
# readings as `classified` names them
MARKS = {
    "as published": (LOOKS["de"].colour, "full"),
    "normalised by list size": ("#D55E00", "none"),
}
MEASURES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def _distinct(frame: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(frame[column]))


def accuracy(frame: pd.DataFrame) -> Figure:
    """Accuracy and macro F1 of each classifier: a dot a reading, a row a classifier."""
    runs = _distinct(frame, "run")
    rows = [(run, c) for run in runs for c in _distinct(frame[frame["run"] == run], "classifier")]
    figure, panels = new_figure(TWO_COLUMNS, 0.3 * len(rows) + 0.95, columns=2, sharey=True)
    for axes, (measure, title) in zip(panels, (("accuracy", "accuracy"), ("f1", "macro F1")),
                                      strict=True):  # fmt: skip
        for height, (run, classifier) in enumerate(rows):
            mine = frame[(frame["run"] == run) & (frame["classifier"] == classifier)]
            values = mine.set_index("reading")[measure]
            axes.plot([values.min(), values.max()], [height] * 2, color="#C8C8C8", zorder=1)
            for reading, value in values.items():
                colour, fill = MARKS[reading]
                axes.plot(value, height, "o", color=colour, fillstyle=fill, markersize=6)
        axes.set_yticks(range(len(rows)), [_row_title(row, runs) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", linewidth=0.4, color="#E0E0E0")
        axes.margins(y=0.2)
        label_axis(axes.xaxis, title)
    panels[0].invert_yaxis()
    figure.legend(handles=_reading_marks(), loc="outside lower center", ncols=2)
    return figure


def _row_title(row: tuple[str, str], runs: list[str]) -> str:
    run, classifier = row
    return TITLES[classifier] if len(runs) == 1 else f"{run}: {TITLES[classifier]}"


def _reading_marks() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker="o", color=colour, fillstyle=fill, label=reading)
        for reading, (colour, fill) in MARKS.items()
    ]


def by_language(frame: pd.DataFrame) -> Figure:
    """Precision, recall and F1 by language and classifier, a heat map each."""
    runs = _distinct(frame, "run")
    languages = _distinct(frame, "language")
    height = 0.17 * len(languages) + 1.1
    figure, panels = new_figure(
        TWO_COLUMNS, height * len(runs), rows=len(runs), columns=3, squeeze=False, sharey=True
    )
    for run, line in zip(runs, panels, strict=True):
        mine = frame[frame["run"] == run]
        columns = list(dict.fromkeys(zip(mine["classifier"], mine["reading"], strict=True)))
        for axes, (measure, title) in zip(line, MEASURES.items(), strict=True):
            table = mine.pivot(
                index="language", columns=["classifier", "reading"], values=measure
            ).loc[languages, columns]
            mesh = axes.imshow(table, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
            _annotate(axes, 100 * table.to_numpy())
            axes.set_xticks(
                range(len(columns)), [_short(c) for c in columns], rotation=90, fontsize=7
            )
            axes.set_yticks(range(len(languages)), map(name, languages))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(title if len(runs) == 1 else f"{run}: {title}")
        figure.colorbar(mesh, ax=list(line), label="share (cells: %)", pad=0.01, aspect=30)
    return figure


def _short(column: tuple[str, str]) -> str:
    classifier, reading = column
    return TITLES[classifier] + ("" if reading == "as published" else "\nby list size")


def _annotate(axes: Axes, percent: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(percent):
        ink = "black" if value > 55 else "white"
        text = f"{value:.0f}" if value >= 99.95 or value < 0.05 else f"{value:.1f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=5, color=ink)


def confusion(frame: pd.DataFrame) -> Figure:
    """True language down, predicted across: share of each true language's texts, logarithmic.

    A column a classifier, a row of panels a reading.
    """
    runs, languages = _distinct(frame, "run"), _distinct(frame, "label")
    rows = [(run, reading) for run in runs for reading in MARKS
            if not frame[(frame["run"] == run) & (frame["reading"] == reading)].empty]  # fmt: skip
    classifiers = _distinct(frame, "classifier")
    side = TWO_COLUMNS / len(classifiers)
    figure, panels = new_figure(
        TWO_COLUMNS, (side + 0.25) * len(rows), len(rows), len(classifiers), squeeze=False
    )
    for (run, reading), line in zip(rows, panels, strict=True):
        for classifier, axes in zip(classifiers, line, strict=True):
            mine = frame[(frame["run"] == run) & (frame["reading"] == reading)]
            mine = mine[mine["classifier"] == classifier]
            if mine.empty:  # a classifier without lists has one reading
                axes.set_visible(False)
                continue
            counts = mine.pivot(index="label", columns="predicted", values="count")
            counts = counts.loc[languages, languages]
            shares = 100 * counts.div(counts.sum(axis=1), axis=0)
            mesh = axes.imshow(shares.clip(lower=LEAST), cmap=HEAT, norm=LogNorm(LEAST, 100))
            _language_ticks(axes, languages)
            axes.set_xlabel("predicted language", fontsize=7)
            title = TITLES[classifier] if len(runs) == 1 else f"{run}: {TITLES[classifier]}"
            axes.set_title(f"{title}\n{reading}", fontsize=7)
        label_axis(next(axes for axes in line if axes.get_visible()).yaxis, "true language")
    bar = figure.colorbar(mesh, ax=panels, label="texts of the true language (%)", aspect=40)
    ticks = (LEAST, 1, 10, 100)
    bar.set_ticks(ticks, labels=["0", *map(str, ticks[1:])])
    bar.minorticks_off()
    return figure


def _language_ticks(axes: Axes, languages: list[str]) -> None:
    axes.set_xticks(range(len(languages)), languages, rotation=90, fontsize=5)
    axes.set_yticks(range(len(languages)), languages, fontsize=5)
    axes.tick_params(length=0, pad=1)
    axes.spines[:].set_visible(False)


# table of the plots folder → the figures drawn from it, by the stem of their files
FIGURES: dict[str, dict[str, Callable[[pd.DataFrame], Figure]]] = {
    "accuracy": {"classifiers": accuracy},
    "metrics": {"classifiers_by_language": by_language},
    "confusion": {"confusion": confusion},
}
