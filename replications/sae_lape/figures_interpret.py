"""Figures of how alike a language's features are, and of how well explanations predict them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, name, new_figure
from replications.sae_lape.figures_features import distinct, run_panels, title

ACROSS = 5  # panels a row
METHODS = {"detection": ("#0072B2", "o"), "fuzz": ("#D55E00", "s")}
MEASURES = {
    "iou": ("intersection over union of active tokens", {"vmin": 0, "vmax": 1}),
    "pearson": ("correlation of activations", {"vmin": -1, "vmax": 1, "cmap": "RdBu_r"}),
}


def iou(frame: pd.DataFrame) -> Figure | None:
    """Where two features of one language are active together, a heat map a language."""
    return _similarity(frame, "iou")


def pearson(frame: pd.DataFrame) -> Figure | None:
    """How activations of two features of one language go together, a heat map a language."""
    return _similarity(frame, "pearson")


def _similarity(frame: pd.DataFrame, measure: str) -> Figure | None:
    frame = frame[frame["measure"] == measure]
    panels = list(dict.fromkeys(zip(frame["run"], frame["language"], strict=True)))
    if not panels:
        return None
    lines = -(-len(panels) // ACROSS)
    figure, grid = new_figure(
        TWO_COLUMNS, 1.55 * lines + 0.6, rows=lines, columns=ACROSS, squeeze=False
    )
    what, scale = MEASURES[measure]
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    runs = distinct(frame["run"])
    for axes, (run, code) in zip(grid.flat, panels, strict=False):
        matrix = _matrix(frame[(frame["run"] == run) & (frame["language"] == code)])
        image = axes.imshow(matrix, **{"cmap": "cividis", **scale})
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        label = name(code) if len(runs) == 1 else f"{title(run)}: {name(code)}"
        axes.set_title(label, fontsize=8)
        axes.set_xlabel(f"{len(matrix)} features", fontsize=7)
    figure.colorbar(image, ax=grid, label=what, aspect=40, pad=0.02)
    return figure


def _matrix(rows: pd.DataFrame) -> np.ndarray:
    """The symmetric matrix of pairs i < j; white where a value is not defined."""
    size = int(rows["j"].max()) + 1
    matrix = np.eye(size)
    matrix[rows["i"], rows["j"]] = matrix[rows["j"], rows["i"]] = rows["value"]
    return matrix


def scores(frame: pd.DataFrame) -> Figure:
    """Mean balanced accuracy of the explanations by language and method."""
    figure, panels = run_panels(frame, 0.19 * frame["language"].nunique() + 1.0)
    for axes, run, rows in panels:
        mean = rows.groupby("language")["accuracy"].mean().sort_values()
        for method, (colour, mark) in METHODS.items():
            mine = rows[rows["method"] == method].set_index("language")["accuracy"]
            mine = mine.reindex(mean.index)
            axes.plot(mine, range(len(mean)), mark, color=colour, label=method, markersize=4)
        axes.hlines(range(len(mean)), 0, 1, color="#E8E8E8", zorder=0, linewidth=0.6)
        axes.axvline(0.5, color="#1A1A1A", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(mean)), [name(str(code)) for code in mean.index])
        axes.tick_params(axis="y", length=0)
        axes.set(title=title(run), xlim=(min(0.45, mean.min() - 0.05), 1))
        label_axis(axes.xaxis, "mean balanced accuracy (dashed: chance)")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def entropy_against_score(points: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Entropy of a feature and the balanced accuracy of its explanation, a panel a method."""
    panels = list(dict.fromkeys(zip(points["run"], points["method"], strict=True)))
    lines = -(-len(panels) // 2)
    figure, grid = new_figure(
        TWO_COLUMNS, 2.6 * lines + 0.5, rows=lines, columns=2, squeeze=False, sharey=True
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    r = correlations[correlations["metric"] == "accuracy"].set_index(["run", "method"])["pearson"]
    shown: dict = {}
    for axes, (run, method) in zip(grid.flat, panels, strict=False):
        rows = points[(points["run"] == run) & (points["method"] == method)]
        _scatter(axes, rows, shown)
        fit = f", r = {r[run, method]:.2f}" if (run, method) in r.index else ""
        axes.set_title(f"{title(run)}: {method}{fit}")
    label_axis(grid[0][0].yaxis, "balanced accuracy")
    figure.legend(
        shown.values(), shown.keys(), loc="outside lower center", ncols=8, columnspacing=1.0,
        handletextpad=0.1, fontsize=7,
    )  # fmt: skip
    return figure


def _scatter(axes: Axes, rows: pd.DataFrame, shown: dict) -> None:
    for code in sorted(distinct(rows["language"]), key=name):
        mine, look = rows[rows["language"] == code], LOOKS[code]
        face = "none" if look.hatch else look.colour
        marks = axes.scatter(mine["entropy"], mine["accuracy"], s=8, marker=look.marker,
                             facecolors=face, edgecolors=look.colour, linewidths=0.6)  # fmt: skip
        shown.setdefault(name(code), marks)
    axes.axhline(0.5, color="#1A1A1A", linewidth=0.8, linestyle="--")
    label_axis(axes.xaxis, "entropy of the activation rates", "nats")


# table of the plots folder → the figures drawn from it, by the stem of their files
FIGURES: dict[str, dict[str, Callable[[pd.DataFrame], Figure | None]]] = {
    "similarity": {"similarity_iou": iou, "similarity_pearson": pearson},
    "interpretation": {"interpretation": scores},
}
# figures of several tables: file stem → (tables, function)
JOINT: dict[str, tuple[tuple[str, ...], Callable[..., Figure]]] = {
    "entropy_against_score": (("scores", "correlations"), entropy_against_score),
}
