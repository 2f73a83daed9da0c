"""Figures of what interventions do to perplexities, from the table perplexity of one profile.

A change is drawn as the mean over texts of ln(perplexity after / before): nats a token.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, label_lines, name, new_figure
from langsae.languages import by_name
from replications.sae_lape.figures_features import distinct, title

DIVERGING = "RdBu_r"  # its two hues are told apart by all forms of colour blindness
LIMIT = 2.0  # nats; beyond it a text is 7.4 times as hard, and drawn as hard as that
ACROSS = 4  # heat maps in a row
WHAT = {
    "sae_all_max": "all features",
    "sae_all_avg": "all features, mean,",
    "sae_all_min": "all features, least,",
    "neuron_scaled": "neurons",
    "neuron_fixed": "neurons set to",
}
PALE = "#BBBBBB"
RATIO = "mean ln(perplexity after / before)"


def _families(frame: pd.DataFrame) -> pd.DataFrame:
    """With the two parts of a setting's name: `family`, and `amount` as a number."""
    parts = [setting.rpartition("/") for setting in frame["setting"]]
    return frame.assign(
        family=[family for family, _, _ in parts], amount=[float(amount) for _, _, amount in parts]
    )


def _square(frame: pd.DataFrame, values: str) -> pd.DataFrame:
    """Intervened language down, impacted across, each by English name; NaN where not run."""
    rows, columns = by_name(distinct(frame["intervened"])), by_name(distinct(frame["impacted"]))
    table = frame.pivot(index="intervened", columns="impacted", values=values)
    return table.reindex(index=rows, columns=columns)


def _square_ticks(axes: Axes, table: pd.DataFrame, size: float) -> None:
    axes.set_xticks(range(table.shape[1]), table.columns, rotation=90, fontsize=size)
    axes.set_yticks(range(table.shape[0]), table.index, fontsize=size)
    axes.tick_params(length=0, pad=1)
    axes.spines[:].set_visible(False)


def _mark_own(axes: Axes, table: pd.DataFrame) -> None:
    """A box round each language's own cell."""
    for row, code in enumerate(table.index):
        if code in table.columns:
            corner = (table.columns.get_loc(code) - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=0.6))


def _panels(frame: pd.DataFrame) -> list[tuple[str, str, float]]:
    """(run, family, amount) of each matrix, by amount; the neurons that are set come last."""
    keys = frame[["run", "family", "amount"]].drop_duplicates()
    families = distinct(keys["family"])
    place = keys["family"].map(lambda family: (family == "neuron_fixed", families.index(family)))
    order = keys.assign(place=place).sort_values(["run", "place", "amount"], kind="stable")
    return list(order[["run", "family", "amount"]].itertuples(index=False, name=None))


def _label(family: str, amount: float) -> str:
    if family in WHAT:
        return f"{WHAT[family]} {amount:{'' if family == 'neuron_fixed' else '+'}g}"
    selection, value = family.removeprefix("sae_").rsplit("_", 1)
    return f"{selection.replace('_', ' ')}\n{value} {amount:+g}"


def _matrices(frame: pd.DataFrame) -> Figure | None:
    """A heat map a setting of the change in nats a token; black boxes: the language's own texts."""
    frame = _families(frame)
    keys = _panels(frame)
    if not keys:
        return None
    across = min(ACROSS, len(keys))
    rows = -(-len(keys) // across)
    side = min(2.4, TWO_COLUMNS / across)
    width = side * across + (0.8 if across < ACROSS else 0)  # and the colour bar
    figure, grid = new_figure(width, (side + 0.1) * rows, rows, across, squeeze=False)
    runs = distinct(frame["run"])
    for axes in grid.flat[len(keys) :]:
        axes.set_visible(False)
    for axes, (run, family, amount) in zip(grid.flat, keys, strict=False):
        mine = frame["run"].eq(run) & frame["family"].eq(family) & frame["amount"].eq(amount)
        table = _square(frame[mine], "log_ratio")
        image = axes.imshow(table, cmap=DIVERGING, vmin=-LIMIT, vmax=LIMIT)
        _square_ticks(axes, table, max(4.0, 24 * side / max(10, len(table))))
        _mark_own(axes, table)
        before = "" if len(runs) == 1 else f"{title(run)}: "
        axes.set_title(before + _label(family, amount), fontsize=7)
    for axes in grid[:, 0]:
        axes.set_ylabel("intervened", fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("texts in", fontsize=7)
    figure.colorbar(image, ax=grid, label=RATIO, extend="both", aspect=30, shrink=0.8)
    return figure


def perplexity_features(frame: pd.DataFrame) -> Figure | None:
    """All features of a language, by multiplier of their largest (or other) activation."""
    return _matrices(frame[frame["setting"].str.startswith("sae_all_")])


def perplexity_selections(frame: pd.DataFrame) -> Figure | None:
    """Smaller selections of features."""
    sae = frame["setting"].str.startswith("sae_")
    own = frame.groupby(["run", "setting"])["intervened"].transform("size")
    whole = own > frame.groupby(["run", "setting"])["intervened"].transform("nunique")
    return _matrices(frame[sae & whole & ~frame["setting"].str.startswith("sae_all_")])


def perplexity_neurons(frame: pd.DataFrame) -> Figure | None:
    """Neurons, set or scaled."""
    return _matrices(frame[frame["setting"].str.startswith("neuron_")])


def perplexity_measures(frame: pd.DataFrame) -> Figure | None:
    """The published mean of differences beside the ratio: features moved down, all of them."""
    frame = _families(frame)
    down = frame[frame["family"].str.startswith("sae_all_") & frame["amount"].lt(0)]
    if down.empty:
        return None
    chosen = down[down["amount"] == down.groupby("run")["amount"].transform("min")]
    runs = distinct(chosen["run"])
    figure, grid = new_figure(TWO_COLUMNS, 3.3 * len(runs), len(runs), 2, squeeze=False)
    for (left, right), run in zip(grid, runs, strict=True):
        mine = chosen[chosen["run"] == run]
        left.set_title(f"{title(run)}, multiplier {mine['amount'].iloc[0]:g}")
        change, ratio = _square(mine, "change"), _square(mine, "log_ratio")
        top = float(np.nanmax(np.abs(change)))
        image = left.imshow(change, cmap=DIVERGING, norm=SymLogNorm(1, vmin=-top, vmax=top))
        bar = figure.colorbar(image, ax=left, label="mean (perplexity after - before)", shrink=0.85)
        bar.set_ticks([tick for tick in _powers(top) if tick >= min(0, np.nanmin(change))])
        bar.ax.set_ylim(min(0.0, float(np.nanmin(change))), top)
        image = right.imshow(ratio, cmap=DIVERGING, vmin=-LIMIT, vmax=LIMIT)
        figure.colorbar(image, ax=right, label=RATIO, extend="both", shrink=0.85)
        for axes, table in ((left, change), (right, ratio)):
            _square_ticks(axes, table, 6)
            _mark_own(axes, table)
            label_axis(axes.xaxis, "texts in")
        label_axis(left.yaxis, "intervened")
    return figure


def _powers(top: float) -> list[float]:
    """Ticks of a symmetric logarithmic scale: at most five above 0."""
    last = int(np.log10(max(top, 1)))
    step = max(1, -(-last // 5))
    above = [10.0**power for power in range(0, last + 1, step)]
    return [*(-value for value in reversed(above)), 0.0, *above]


def perplexity_own(frame: pd.DataFrame) -> Figure | None:
    """All features, by multiplier: a language's own texts against those of the others."""
    frame = _families(frame)
    frame = frame[frame["family"].str.startswith("sae_all_")]
    runs = [run for run, part in frame.groupby("run", sort=False) if part["amount"].nunique() > 1]
    if not runs:
        return None
    figure, grid = new_figure(TWO_COLUMNS, 3.2 * len(runs), len(runs), 2, squeeze=False)
    for (left, right), run in zip(grid, runs, strict=True):
        mine = frame[frame["run"] == run]
        own = mine[mine["intervened"] == mine["impacted"]]
        others = mine[mine["intervened"] != mine["impacted"]]
        for axes, rows, text in ((left, own, "its own texts"), (right, others, "others' texts")):
            table = rows.pivot_table(index="amount", columns="intervened", values="log_ratio")
            # 0 is no intervention, and changes nothing
            table = pd.concat([table, pd.DataFrame(0.0, [0.0], table.columns)]).sort_index()
            draw_lines(axes, table)
            axes.axhline(0, color=PALE, linewidth=0.6, zorder=0)
            axes.set_title(f"{title(run)}: {text}")
            axes.set_yscale("symlog", linthresh=0.5, linscale=1.5)
            label_axis(axes.xaxis, "multiplier")
        top, low = mine["log_ratio"].max(), mine["log_ratio"].min()
        for axes in (left, right):
            axes.set_ylim(min(low, 0) * 1.3 - 0.05, top * 1.3)
        last = own.sort_values("amount").groupby("intervened")["log_ratio"].last()
        ends = [(value, name(code), LOOKS[code]) for code, value in last.items()]
        label_axis(left.yaxis, RATIO)
        label_lines(left, ends)
    return figure


def draw_lines(axes: Axes, table: pd.DataFrame) -> None:
    """A line a column (language) over the index, through the values that are there."""
    for code in table:
        look = LOOKS[code]
        values = table[code].dropna()
        axes.plot(values.index, values, color=look.colour, linestyle=look.dashes,
                  marker=look.marker)  # fmt: skip


FIGURES: dict[str, dict[str, Callable[[pd.DataFrame], Figure | None]]] = {
    "perplexity": {
        "perplexity_features": perplexity_features,
        "perplexity_selections": perplexity_selections,
        "perplexity_neurons": perplexity_neurons,
        "perplexity_measures": perplexity_measures,
        "perplexity_own": perplexity_own,
    },
}
