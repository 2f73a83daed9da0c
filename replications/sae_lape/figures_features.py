"""Figures of what was identified: numbers, entropies, what languages share, and directions.

Each function draws one table for all its runs; see tables.py for the columns.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, name, new_figure, thousands

TITLES = {"llama": "Llama-3.2-1B", "smollm2": "SmolLM2-135M"}  # other runs go by their own name
HEAT = "cividis"  # the same order of lightness for all forms of colour blindness
SELECTIONS = {"all": "SAE features", "neurons": "neurons"}


def title(run: str) -> str:
    """How a run is called in figures."""
    return TITLES.get(run, run)


def distinct(column: pd.Series) -> list:
    """The values of a column, each once, in order of appearance."""
    return list(dict.fromkeys(column))


def run_panels(
    frame: pd.DataFrame, height: float, **options
) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """A figure of `height` inches, and a panel a run: its axes, the run and a copy of its rows."""
    runs = distinct(frame["run"])
    width = 4.6 if len(runs) == 1 else TWO_COLUMNS
    figure, grid = new_figure(width, height, columns=len(runs), squeeze=False, **options)
    rows = [frame[frame["run"] == run].copy() for run in runs]
    return figure, list(zip(grid[0], runs, rows, strict=True))


def heat(
    axes: Axes, table: pd.DataFrame, digits: int = 0, fontsize: float = 5, **options
) -> AxesImage:
    """Draw `table` as a heat map with its numbers in the cells; returns the image."""
    image = axes.imshow(table, aspect="auto", **{"cmap": HEAT, **options})
    middle = image.norm(table.to_numpy(float))
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if value:
            ink = "black" if middle[row, column] > 0.55 else "white"
            text = f"{value:,.{digits}f}".replace("0.", ".") if digits else f"{value:,.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=fontsize, color=ink)
    axes.set_xticks(range(table.shape[1]), map(str, table.columns))
    axes.set_yticks(range(table.shape[0]), map(str, table.index))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _by_layer(rows: pd.DataFrame, index: str) -> pd.DataFrame:
    """Numbers with layers across; rows in the order of appearance."""
    order = distinct(rows[index])
    return rows.pivot(index=index, columns="layer", values="count").loc[order]


def _with_sum(labels: list, table: pd.DataFrame) -> list[str]:
    return [f"{label} ({total:,})" for label, total in zip(labels, table.sum(axis=1), strict=True)]


def counts(frame: pd.DataFrame) -> Figure:
    """Language-specific features, and neurons, by language and layer; sums beside the names."""
    frame = frame[frame["selection"].isin(SELECTIONS)]
    panels = list(dict.fromkeys(zip(frame["run"], frame["selection"], strict=True)))
    languages = frame["language"].nunique()
    figure, grid = new_figure(
        TWO_COLUMNS if len(panels) > 1 else 4.6, 0.17 * languages + 0.9, columns=len(panels),
        squeeze=False,
    )  # fmt: skip
    for axes, (run, selection) in zip(grid[0], panels, strict=True):
        rows = frame[(frame["run"] == run) & (frame["selection"] == selection)]
        table = _by_layer(rows, "language")
        heat(axes, table, norm="symlog" if selection == "neurons" else None)
        axes.set_yticks(range(len(table)), _with_sum([name(code) for code in table.index], table))
        axes.set_title(f"{title(run)}: {SELECTIONS[selection]}")
        label_axis(axes.xaxis, "layer")
    return figure


def selections(frame: pd.DataFrame) -> Figure:
    """The other selections of features by language and layer."""
    frame = frame[~frame["selection"].isin(SELECTIONS)]
    panels = list(dict.fromkeys(zip(frame["run"], frame["selection"], strict=True)))
    lines = -(-len(panels) // 2)
    languages = frame["language"].nunique()
    figure, grid = new_figure(
        TWO_COLUMNS, lines * (0.15 * languages + 0.7), rows=lines, columns=2, squeeze=False
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (run, selection) in zip(grid.flat, panels, strict=False):
        rows = frame[(frame["run"] == run) & (frame["selection"] == selection)]
        table = _by_layer(rows, "language")
        heat(axes, table, vmin=0)
        axes.set_yticks(range(len(table)), _with_sum([name(code) for code in table.index], table))
        layers = list(table.columns)
        axes.set_xticks(range(0, len(layers), 2), map(str, layers[::2]))
        chosen = selection.replace("_", " ").replace("freq", "frequency")
        axes.set_title(chosen if frame["run"].nunique() == 1 else f"{title(run)}: {chosen}")
        label_axis(axes.xaxis, "layer")
    return figure


def entropy(frame: pd.DataFrame) -> Figure:
    """Entropy of every language-specific feature, a line of dots a language, with the median."""
    languages = frame["language"].nunique()
    figure, panels = run_panels(frame, 0.19 * languages + 0.9, sharex=True)
    for axes, run, rows in panels:
        order = distinct(rows["language"])
        for place, code in enumerate(order):
            values = rows.loc[rows["language"] == code, "entropy"].to_numpy()
            spread = 0.62 * (np.arange(len(values)) % 5 / 4 - 0.5)  # apart without chance
            axes.plot(values, place + spread, ".", color=LOOKS[code].colour, markersize=3)
            axes.plot([np.median(values)] * 2, [place - 0.42, place + 0.42], color="#1A1A1A")
        axes.set_yticks(range(len(order)), [name(code) for code in order])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_title(title(run))
        axes.set_xlim(left=0)
        label_axis(axes.xaxis, "entropy of the activation rates", "nats")
    return figure


def entropy_distribution(frame: pd.DataFrame) -> Figure:
    """How entropies are distributed: of all features that fire, and of those that are kept."""
    figure, panels = run_panels(frame, 2.4)
    looks = {"alive": ("all that fire", "#C8C8C8"), "kept": ("kept: frequent ones", "#0072B2")}
    for axes, run, rows in panels:
        for kind, (label, colour) in looks.items():
            mine = rows[rows["kind"] == kind]
            if len(mine):
                edges = [*mine["bin_left"], mine["bin_right"].iloc[-1]]
                axes.stairs(mine["count"], edges, fill=True, color=colour, label=label)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        thousands(axes.yaxis)
        axes.set_title(title(run))
        label_axis(axes.xaxis, "entropy of the activation rates", "nats")
        label_axis(axes.yaxis, "features")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def shared_layers(frame: pd.DataFrame) -> Figure:
    """Features shared by two or more languages: by number of languages and layer."""
    figure, panels = run_panels(frame, 0.16 * frame["languages"].nunique() + 1.0)
    for axes, run, rows in panels:
        table = _by_layer(rows, "languages")
        heat(axes, table, vmin=0)
        axes.set_yticks(range(len(table)), _with_sum(list(table.index), table))
        axes.set_title(title(run))
        label_axis(axes.xaxis, "layer")
        label_axis(axes.yaxis, "languages that share a feature (sum)")
    return figure


def shared_languages(frame: pd.DataFrame) -> Figure:
    """Features shared by two or more languages: by number of languages and language."""
    figure, panels = run_panels(frame, 0.17 * frame["language"].nunique() + 1.0)
    for axes, run, rows in panels:
        table = rows.pivot(index="language", columns="languages", values="count")
        table = table.loc[distinct(rows["language"])]
        heat(axes, table, vmin=0)
        axes.set_yticks(range(len(table)), _with_sum([name(code) for code in table.index], table))
        axes.set_title(title(run))
        label_axis(axes.xaxis, "languages that share a feature")
    return figure


def overlap(frame: pd.DataFrame) -> Figure:
    """Features that two languages share, in number and over the union of both."""
    runs = distinct(frame["run"])
    side = 0.17 * frame["a"].nunique() + 1.0
    figure, grid = new_figure(
        TWO_COLUMNS, side * len(runs), rows=len(runs), columns=2, squeeze=False
    )
    for line, run in zip(grid, runs, strict=True):
        rows = frame[frame["run"] == run]
        order = distinct(rows["a"])
        kinds = (("intersection", 0, "shared features"), ("iou", 2, "intersection over union"))
        for axes, (column, digits, what) in zip(line, kinds, strict=True):
            table = rows.pivot(index="a", columns="b", values=column).loc[order, order]
            heat(axes, table, digits, fontsize=4.5, vmin=0)
            axes.set_yticks(range(len(order)), [name(code) for code in order])
            axes.set_title(f"{title(run)}: {what}")
    return figure


def umap(frame: pd.DataFrame) -> Figure:
    """Decoder rows of the language-specific features in the plane, a colour and mark a language."""
    figure, panels = run_panels(frame, 3.6)
    shown: dict = {}
    for axes, run, rows in panels:
        for code in sorted(distinct(rows["language"]), key=name):
            mine, look = rows[rows["language"] == code], LOOKS[code]
            face = "none" if look.hatch else look.colour
            marks = axes.scatter(mine["x"], mine["y"], s=11, marker=look.marker, linewidths=0.7,
                                 facecolors=face, edgecolors=look.colour)  # fmt: skip
            shown.setdefault(name(code), marks)
        axes.set(xticks=[], yticks=[], title=title(run))
        axes.spines[:].set_visible(False)
    figure.legend(shown.values(), shown.keys(), loc="outside right center")
    return figure


# table of the plots folder → the figures drawn from it, by the stem of their files
FIGURES: dict[str, dict[str, Callable[[pd.DataFrame], Figure]]] = {
    "counts": {"feature_counts": counts, "feature_counts_selections": selections},
    "features": {"entropy": entropy},
    "entropy": {"entropy_distribution": entropy_distribution},
    "shared_layers": {"shared_by_layer": shared_layers},
    "shared_languages": {"shared_by_language": shared_languages},
    "overlap": {"overlap": overlap},
    "umap": {"umap": umap},
}
