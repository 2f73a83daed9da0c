"""Figures of what features are over training: Figs. 3, 5, 6, 8, 9 and 12 to 14 of the paper.

Each function draws tables of plots/; bands are bootstrap intervals. A run is a size of the model.
"""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, new_figure

TITLES = {  # other runs go by their own name
    "llmjp_150m": "LLM-jp-3 150M",
    "llmjp_440m": "LLM-jp-3 440M",
    "llmjp_980m": "LLM-jp-3 980M",
    "llmjp_1_8b": "LLM-jp-3 1.8B",
    "llmjp_1_8b_published": "LLM-jp-3 1.8B, published SAEs",
    "llmjp_3_7b": "LLM-jp-3 3.7B",
    "enja": "4-layer Llama trained here",
}
CLASSES = {
    "English": LOOKS["en"].colour,
    "Mixed": LOOKS["ko"].colour,
    "Japanese": LOOKS["ja"].colour,
}
READINGS = {"document": "language of the document", "rule": "language by the token's script"}
SPANS = {"top_k": "active: among the k largest", "bar": "active: above 70 % of its maximum"}
LABELS = {
    "uninterpretable": "#8C8C8C",
    "semantic": LOOKS["de"].colour,
    "synonym": LOOKS["fr"].colour,
    "token": LOOKS["es"].colour,
}
GROUPINGS = {"connected": "#0072B2", "greedy": "#CC79A7"}


def title(run: str) -> str:
    """How a run is called in figures."""
    return TITLES.get(run, run)


def distinct(column: pd.Series) -> list:
    """The values of a column, each once, in order of appearance."""
    return list(dict.fromkeys(column))


def step_colours(steps: Sequence[int]) -> dict[int, tuple]:
    """A colour a checkpoint, darker with training; told apart by all forms of colour blindness."""
    return dict(zip(steps, mpl.colormaps["viridis_r"](np.linspace(0.08, 0.95, len(steps))),
                    strict=True))  # fmt: skip


def over_training(classes: pd.DataFrame, monosemanticity: pd.DataFrame) -> Figure:
    """Language classes in both readings, and monosemanticity, by checkpoint: a row a run (Fig. 3).

    Monosemanticity has a line for each grouping and each value at TE = 0, which the text lost.
    """
    runs = distinct(classes["run"])
    figure, grid = new_figure(TWO_COLUMNS, 2.3 * len(runs) + 0.3, len(runs), 3, squeeze=False)
    for line, run in zip(grid, runs, strict=True):
        mine = classes[classes["run"] == run]
        for axes, (reading, name) in zip(line, READINGS.items(), strict=False):
            _stack(axes, mine[mine["reading"] == reading], "class", CLASSES)
            axes.set_title(f"\n{name}")
        line[0].set_title(f"{title(run)}\n{READINGS['document']}")
        label_axis(line[0].yaxis, "features", "%")
        _monosemanticity(line[2], monosemanticity[monosemanticity["run"] == run])
    handles = [mpl.patches.Patch(color=colour, label=name) for name, colour in CLASSES.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
    return figure


def _stack(axes: Axes, rows: pd.DataFrame, kind: str, colours: dict[str, str]) -> None:
    """Shares stacked to bars by checkpoint, their percentages inside."""
    steps = distinct(rows["step"])
    bottom = np.zeros(len(steps))
    for name, colour in colours.items():
        part = rows[rows[kind] == name].set_index("step").loc[steps]
        height = 100 * part["share"].to_numpy()
        axes.bar(range(len(steps)), height, bottom=bottom, color=colour, width=0.82)
        for at, (share, below) in enumerate(zip(height, bottom, strict=True)):
            if share >= 7:
                dark = colour in (LOOKS["en"].colour, LOOKS["de"].colour)
                ink = "white" if dark else "black"
                axes.text(at, below + share / 2, f"{share:.0f}", ha="center", va="center",
                          fontsize=6, color=ink)  # fmt: skip
        bottom += height
    checkpoints(axes, steps)
    axes.set_ylim(0, 100)


def checkpoints(axes: Axes, steps: Sequence[int]) -> None:
    """Checkpoints as categories along the x axis."""
    many = len(steps) > 5
    axes.set_xticks(range(len(steps)), [f"{step:,}" for step in steps],
                    rotation=35 if many else 0, ha="right" if many else "center",
                    rotation_mode="anchor", fontsize=6 if many else 7)  # fmt: skip
    label_axis(axes.xaxis, "training step")


def _monosemanticity(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_title("\nmonosemanticity")
    if rows.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "needs the model's\nembeddings", ha="center", va="center",
                  transform=axes.transAxes, color="#8C8C8C")  # fmt: skip
        return
    steps = distinct(rows["step"])
    for (grouping, at_zero), part in rows.groupby(["grouping", "at_zero"], sort=True):
        style = {"color": GROUPINGS[grouping], "linestyle": "-" if at_zero else (0, (3, 1.4))}
        part = part.set_index("step").loc[steps]
        axes.plot(range(len(steps)), part["mean"], marker="o" if at_zero else "s",
                  label=f"{grouping}, {at_zero} at TE = 0", **style)  # fmt: skip
        axes.fill_between(range(len(steps)), part["low"], part["high"], color=style["color"],
                          alpha=0.2, linewidth=0)  # fmt: skip
    checkpoints(axes, steps)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=6, handlelength=2.4, loc="best")


def by_layer(classes: pd.DataFrame, monosemanticity: pd.DataFrame) -> Figure:
    """One run: mixed share in both readings, monosemanticity at both values at TE = 0, by layer.

    A line a checkpoint (Figs. 5, 8, 12 to 14, of which each is a size).
    """
    run, steps = classes["run"].iloc[0], distinct(classes["step"])
    mixed = classes[classes["class"] == "Mixed"]
    figure, grid = new_figure(TWO_COLUMNS, 4.4, 2, 2, sharex=True)
    for axes, (reading, name) in zip(grid[0], READINGS.items(), strict=True):
        rows = mixed[mixed["reading"] == reading]
        percent = rows.assign(**{part: 100 * rows[part] for part in ("share", "low", "high")})
        layer_lines(axes, percent, "share", steps)
        axes.set_title(f"{title(run)}\n{name}" if reading == "document" else name)
        label_axis(axes.yaxis, "mixed features", "%")
        axes.set_ylim(bottom=0)
    for axes, at_zero in zip(grid[1], (1, 0), strict=True):
        rows = monosemanticity.query("grouping == 'connected' and at_zero == @at_zero")
        layer_lines(axes, rows, "mean", steps)
        axes.set_title(f"monosemanticity, {at_zero} where TE = 0")
        label_axis(axes.yaxis, "mean monosemanticity")
        label_axis(axes.xaxis, "layer")
    _legend(figure, steps)
    return figure


def layer_lines(axes: Axes, rows: pd.DataFrame, value: str, steps: Sequence[int]) -> None:
    """`value` by layer, a line a checkpoint, with its interval as a band."""
    for step, colour in step_colours(steps).items():
        part = rows[rows["step"] == step].sort_values("layer")
        axes.plot(part["layer"], part[value], color=colour, marker="o")
        axes.fill_between(part["layer"], part["low"], part["high"], color=colour, alpha=0.2,
                          linewidth=0)  # fmt: skip
    layers = sorted(distinct(rows["layer"]))
    axes.set_xticks(layers[:: 1 + len(layers) // 14])


def _legend(figure: Figure, steps: Sequence[int]) -> None:
    handles = [Line2D([], [], color=colour, marker="o", label=f"{step:,}")
               for step, colour in step_colours(steps).items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside right center", title="training step")


def span_lengths(frame: pd.DataFrame) -> Figure:
    """Mean span length by layer in both readings, a line a checkpoint, a row a run (Figs. 6, 9)."""
    runs, readings = distinct(frame["run"]), [r for r in SPANS if r in set(frame["reading"])]
    figure, grid = new_figure(TWO_COLUMNS, 2.4 * len(runs) + 0.2, len(runs), len(readings),
                              squeeze=False)  # fmt: skip
    steps = sorted(distinct(frame["step"]))
    for line, run in zip(grid, runs, strict=True):
        mine = frame[frame["run"] == run]
        for axes, reading in zip(line, readings, strict=True):
            layer_lines(axes, mine[mine["reading"] == reading], "mean", steps)
            first = reading == readings[0]
            axes.set_title(f"{title(run)}\n{SPANS[reading]}" if first else SPANS[reading])
            label_axis(axes.xaxis, "layer")
            label_axis(axes.yaxis, "mean span", "tokens")
    _legend(figure, steps)
    return figure


def labels(frame: pd.DataFrame) -> Figure:
    """The project page's hand labels by checkpoint."""
    runs = distinct(frame["run"])
    figure, grid = new_figure(3.5 * len(runs), 2.6, columns=len(runs), squeeze=False)
    total = frame.groupby(["run", "step"])["count"].transform("sum")
    frame = frame.assign(share=frame["count"] / total)
    for axes, run in zip(grid[0], runs, strict=True):
        _stack(axes, frame[frame["run"] == run], "label", LABELS)
        axes.set_title(f"{title(run)}, layer 12: hand labels")
        label_axis(axes.yaxis, "features", "%")
    handles = [mpl.patches.Patch(color=colour, label=name) for name, colour in LABELS.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=6.5)
    return figure


# figures by the stem of their file: tables of the plots folder, function
FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., Figure | None]]] = {
    "over_training": (("classes", "monosemanticity"), over_training),
    "span_lengths": (("spans_by_layer",), span_lengths),
    "hand_labels": (("labels",), labels),
}
# those that are drawn once a run; the run's name ends the stem
BY_RUN: dict[str, tuple[tuple[str, ...], Callable[..., Figure | None]]] = {
    "by_layer": (("classes_by_layer", "monosemanticity_by_layer"), by_layer),
}
