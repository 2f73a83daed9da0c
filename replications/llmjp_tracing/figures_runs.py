"""Figures of how models and dictionaries were trained, and of what injected features do.

Each function draws one table of plots/ for all its runs; Fig. 11 of the paper, its Tables 1 and 4.
"""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, name, new_figure, thousands
from replications.llmjp_tracing.figures_training import distinct, step_colours, title

ADDED = {  # what is added: name, colour, marker, line
    "en": ("English", LOOKS["en"].colour, "o", "-"),
    "ja": ("Japanese", LOOKS["ja"].colour, "s", LOOKS["ja"].dashes),
    "bi": ("mixed", LOOKS["ko"].colour, "D", "-"),
    "random": ("random", "#8C8C8C", "x", (0, (1, 1.4))),
}
BASELINES = {"unigram": (0, (1, 1.4)), "bigram": (0, (5, 2))}
METRICS = {"chrf": "chrF", "comet": "COMET-22"}


def learning_rates(rates: pd.DataFrame, held_out: pd.DataFrame) -> Figure:
    """The learning-rate grid: loss while training, and on held-out text, a row a run (Fig. 11)."""
    runs = distinct(rates["run"])
    figure, grid = new_figure(TWO_COLUMNS, 2.5 * len(runs), len(runs), 2, squeeze=False)
    for (left, right), run in zip(grid, runs, strict=True):
        mine, found = (frame[frame["run"] == run] for frame in (rates, held_out))
        colours = step_colours(sorted(distinct(mine["rate"])))
        for rate, colour in colours.items():
            part = mine[mine["rate"] == rate]
            left.plot(part["sae_step"], part["loss"], color=colour, label=f"{rate:g}")
        left.set_yscale("log")
        left.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        left.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        left.set_title(f"{title(run)}: training")
        label_axis(left.xaxis, "step of the dictionary's training")
        label_axis(left.yaxis, "mean squared error")
        left.legend(title="learning rate", fontsize=6.5, ncols=2)
        right.plot(found["rate"], found["loss"], color="#8C8C8C", zorder=1)
        right.scatter(found["rate"], found["loss"], c=[colours[r] for r in found["rate"]], zorder=2)
        best = found[found["selected"].astype(bool)].iloc[0]
        right.plot(best["rate"], best["loss"], "o", markersize=9, mfc="none", mec="#1A1A1A")
        right.set_xscale("log")
        right.set_xticks(found["rate"], [f"{rate:g}" for rate in found["rate"]], minor=False)
        right.minorticks_off()
        right.set_title(f"held out: {best['rate']:g} is chosen")
        label_axis(right.xaxis, "learning rate")
        label_axis(right.yaxis, "mean squared error")
    return figure


def pretraining(frame: pd.DataFrame) -> Figure:
    """Training loss of the language models that were trained here."""
    figure, axes = new_figure(3.5, 2.5)
    for run, part in frame.groupby("run", sort=False):
        axes.plot(part["step"], part["loss"], label=title(run), linewidth=0.8)
    axes.set_title("pretraining")
    thousands(axes.xaxis, 6)
    label_axis(axes.xaxis, "training step")
    label_axis(axes.yaxis, "loss", "nats a token")
    axes.legend(fontsize=6.5)
    return figure


def held_out_perplexity(frame: pd.DataFrame) -> Figure:
    """Held-out perplexity by checkpoint and language, beside what n-gram models reach."""
    runs = distinct(frame["run"])
    figure, grid = new_figure(3.6 * len(runs) + 1.4, 2.8, columns=len(runs), squeeze=False)
    for axes, run in zip(grid[0], runs, strict=True):
        mine = frame[frame["run"] == run]
        trained = mine[~mine["model"].isin(list(BASELINES))]
        steps = sorted({int(step) for step in trained["model"]})
        for code in distinct(mine["language"]):
            look = LOOKS[code]
            rows = trained[trained["language"] == code]
            values = rows.set_index(rows["model"].astype(int))["perplexity"].loc[steps]
            axes.plot(range(len(steps)), values, color=look.colour, marker=look.marker,
                      label=name(code))  # fmt: skip
            for model, dashes in BASELINES.items():
                line = mine[(mine["model"] == model) & (mine["language"] == code)]
                for value in line["perplexity"]:
                    axes.axhline(value, color=look.colour, linestyle=dashes, linewidth=0.9,
                                 label=f"{name(code)}, {model}")  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks(range(len(steps)), [f"{step:,}" for step in steps])
        axes.set_title(title(run))
        label_axis(axes.xaxis, "training step")
        label_axis(axes.yaxis, "held-out perplexity")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center")
    return figure


def injection(frame: pd.DataFrame) -> Figure | None:
    """Change of perplexity by what is added and how much of it, a row a run and alpha."""
    return _added(frame, "language", ("en", "ja", "all"),
                  lambda code: "all texts" if code == "all" else name(code),
                  "change of perplexity", "%")  # fmt: skip


def translation(frame: pd.DataFrame) -> Figure | None:
    """Change of the translations' score by what is added and how much of it."""
    frame = frame.assign(way=frame["metric"].map(METRICS) + ", " + frame["direction"])
    order = [f"{metric}, {way}" for metric in METRICS.values() for way in ("en-ja", "ja-en")]
    return _added(frame, "way", order, str, "change of the score", "points")


def _added(
    frame: pd.DataFrame,
    part: str,
    order: Sequence[str],
    head: Callable[[str], str],
    what: str,
    unit: str,
) -> Figure | None:
    added = frame[frame["add"].isin(list(ADDED))]
    if added.empty:
        return None
    rows = list(dict.fromkeys(zip(added["run"], added["alpha"], strict=True)))
    parts = [key for key in order if key in set(added[part])]
    figure, grid = new_figure(TWO_COLUMNS, 2.0 * len(rows) + 0.4, len(rows), len(parts),
                              squeeze=False)  # fmt: skip
    for line, (run, alpha) in zip(grid, rows, strict=True):
        mine = added[(added["run"] == run) & (added["alpha"] == alpha)]
        for axes, key in zip(line, parts, strict=True):
            _lines(axes, mine[mine[part] == key], relative=unit == "%")
            axes.set_title(head(key))
        line[0].set_title(f"{title(run)}, alpha {alpha:g}\n{head(parts[0])}")
        label_axis(line[0].yaxis, what, unit)
    for axes in grid[-1]:
        label_axis(axes.xaxis, "features asked for")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, relative: bool) -> None:
    """Mean change by number of features, with the standard deviation over draws as bars."""
    numbers = sorted(distinct(rows["features"]))
    axes.axhline(0, color="#1A1A1A", linewidth=0.5)
    for shift, (add, (label, colour, marker, line)) in enumerate(ADDED.items()):
        part = rows[rows["add"] == add].sort_values("features")
        if part.empty:
            continue
        base = part["mean"] / (1 + part["change"] / 100)
        spread = 100 * part["spread"] / base if relative else part["spread"]
        places = np.array([numbers.index(n) for n in part["features"]]) + 0.06 * (shift - 1.5)
        axes.errorbar(places, part["change"], spread, color=colour, marker=marker, linestyle=line,
                      elinewidth=0.7, label=label)  # fmt: skip
    axes.set_xticks(range(len(numbers)), [f"{int(n):,}" for n in numbers])
    axes.set_xlim(-0.4, len(numbers) - 0.6)
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5))


# figures by the stem of their file: tables of the plots folder, function
FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., Figure | None]]] = {
    "learning_rates": (("rates", "rates_held_out"), learning_rates),
    "pretraining_loss": (("pretraining_loss",), pretraining),
    "held_out_perplexity": (("perplexity",), held_out_perplexity),
    "injection": (("injection",), injection),
    "translation": (("translation",), translation),
}
