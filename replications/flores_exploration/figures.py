"""The post's figures, and two it stops short of, from the tidy tables of one profile.

`python -m replications.flores_exploration.figures PROFILE` reads
results/flores_exploration/plots/PROFILE/*.csv and writes paper_figures/flores_exploration/PROFILE.
Each function draws one table for all its models.
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
    label_lines,
    name,
    new_figure,
    save,
    thousands,
)

STUDY = "flores_exploration"
TITLES = {"gpt2": "GPT-2 small", "pythia": "Pythia-70m"}  # other models go by their own name
READING = "normalised"  # the reading drawn where a table has several
GREY = "#444444"
HEAT = "cividis"  # the same order of lightness for all forms of colour blindness


def _panels(frame: pd.DataFrame, height: float, **options) -> tuple[Figure, dict[str, Axes]]:
    """One panel a model, side by side."""
    models = list(dict.fromkeys(frame["model"]))
    width = TWO_COLUMNS if len(models) > 1 else 4.6
    figure, axes = new_figure(width, height, columns=len(models), squeeze=False, **options)
    for axis, model in zip(axes[0], models, strict=True):
        axis.set_title(TITLES.get(model, model))
    return figure, dict(zip(models, axes[0], strict=True))


def _reading(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first reading that starts with READING; of the first at all without one."""
    readings = list(dict.fromkeys(frame["reading"]))
    drawn = next((reading for reading in readings if reading.startswith(READING)), readings[0])
    return frame[frame["reading"] == drawn]


def _layers(axes: Axes, layers: pd.Index) -> None:
    """Ticks at the layers there are; at most a dozen."""
    step = -(-len(layers) // 12)
    axes.set_xticks(list(layers)[::step])
    label_axis(axes.xaxis, "layer")


def tokens(frame: pd.DataFrame) -> Figure:
    """Number of tokens of the corpus in each language: bars, fewest first."""
    figure, panels = _panels(frame, 2.9)
    for model, axes in panels.items():
        rows = frame[frame["model"] == model].sort_values("n_tokens", ascending=False)
        for row in rows.itertuples():
            look = LOOKS[row.language]
            axes.barh(
                name(row.language),
                row.n_tokens,
                color=look.colour,
                hatch=look.hatch,
                edgecolor="white",
            )
            axes.annotate(
                f"{row.n_tokens:,}", (row.n_tokens, name(row.language)), (3, 0),
                textcoords="offset points", va="center", fontsize=7, color=GREY,
            )  # fmt: skip
        axes.margins(x=0.16)
        thousands(axes.xaxis, ticks=4)
        axes.tick_params(axis="y", length=0)
        label_axis(axes.xaxis, "tokens")
    return figure


def _pivot(frame: pd.DataFrame, model: str, values: str) -> pd.DataFrame:
    """Layers down, languages across, the largest of the last layer first."""
    table = frame[frame["model"] == model].pivot(index="layer", columns="language", values=values)
    return table.sort_index().sort_values(table.index.max(), axis=1, ascending=False)


def monolingual(frame: pd.DataFrame) -> Figure:
    """Monolingual features by layer, a line a language, on a logarithmic scale."""
    frame = _reading(frame)
    figure, panels = _panels(frame, 3.4, sharey=True)
    for model, axes in panels.items():
        counts = _pivot(frame, model, "count")
        for code in counts:
            look = LOOKS[code]
            axes.plot(
                counts.index,
                counts[code],
                color=look.colour,
                linestyle=look.dashes,
                marker=look.marker,
            )
        axes.set_yscale("symlog", linthresh=1)  # a language may have no such feature
        axes.set_ylim(bottom=max(0, counts.min().min() / 2))
        thousands(axes.yaxis)
        _layers(axes, counts.index)
        axes.margins(x=0.03)
    label_axis(next(iter(panels.values())).yaxis, "monolingual features")
    for model, axes in panels.items():
        last = _pivot(frame, model, "count").iloc[-1]
        label_lines(axes, [(count, name(code), LOOKS[code]) for code, count in last.items()])
    return figure


def monolingual_stacked(frame: pd.DataFrame) -> Figure:
    """Monolingual features by layer, stacked, as the post draws them."""
    frame = _reading(frame)
    figure, panels = _panels(frame, 3.2)
    order = _pivot(frame, next(iter(panels)), "count").columns
    for model, axes in panels.items():
        counts = _pivot(frame, model, "count")[order]
        areas = axes.stackplot(
            counts.index, counts.T.to_numpy(), colors=[LOOKS[code].colour for code in counts]
        )
        for area, code in zip(areas, counts, strict=True):
            area.set(hatch=LOOKS[code].hatch, edgecolor="white", linewidth=0.4)
        thousands(axes.yaxis)
        _layers(axes, counts.index)
        axes.margins(x=0)
        label_axis(axes.yaxis, "monolingual features")
    figure.legend(
        areas,
        [name(code) for code in order],
        loc="outside lower center",
        ncols=6 if len(panels) > 1 else 4,
    )
    return figure


def variance(frame: pd.DataFrame) -> Figure:
    """Mean over features of the variance over languages, by layer."""
    frame = _reading(frame)
    figure, panels = _panels(frame, 2.2)
    for model, axes in panels.items():
        values = frame[frame["model"] == model].set_index("layer")["value"].sort_index()
        axes.fill_between(values.index, values, color=LOOKS["fr"].colour, alpha=0.35, linewidth=0)
        axes.plot(values.index, values, color=LOOKS["de"].colour, marker="o")
        axes.set_ylim(0, values.max() * 1.12)
        axes.margins(x=0.02)
        _layers(axes, values.index)
        label_axis(axes.yaxis, "mean variance of shares")
    return figure


def groups(frame: pd.DataFrame) -> Figure:
    """The largest language groups of each layer: a row of dots a group, with its features."""
    frame = _reading(frame).rename(columns={"count": "features"})
    rows = frame.sort_values(["model", "layer", "rank"])
    present = {code for joined in rows["languages"] for code in joined.split(";")}
    # Latin script first, then the others, each in the order of the palette
    order = sorted(LOOKS, key=lambda code: bool(LOOKS[code].hatch))
    columns = {code: i for i, code in enumerate(code for code in order if code in present)}
    tallest = rows.groupby("model").size().max() + rows.groupby("model")["layer"].nunique().max()
    figure, panels = _panels(frame, 0.105 * tallest + 1.1)
    for model, axes in panels.items():
        _dot_rows(axes, rows[rows["model"] == model], columns)
        axes.set_ylim(tallest, -1)
    return figure


def _dot_rows(axes: Axes, rows: pd.DataFrame, columns: dict[str, int]) -> None:
    layers = rows["layer"].rank(method="dense").to_numpy() - 1
    heights = np.arange(len(rows)) + layers  # a row left free between layers
    for height, row in zip(heights, rows.itertuples(), strict=True):
        members = sorted(row.languages.split(";"), key=columns.__getitem__)
        places = [columns[code] for code in members]
        axes.plot([places[0], places[-1]], [height] * 2, color="#C8C8C8", linewidth=1, zorder=1)
        colours = [LOOKS[code].colour for code in members]
        axes.scatter(places, [height] * len(places), s=14, color=colours, zorder=2)
        count = f"{row.features:,}"
        axes.text(len(columns) + 0.5, height, count, ha="center", va="center", fontsize=6)
    middle = pd.Series(heights).groupby(rows["layer"].to_numpy()).mean()
    axes.set_yticks(middle, [str(layer) for layer in middle.index])
    names = [*(name(code) for code in columns), "features"]
    axes.set_xticks([*columns.values(), len(columns) + 0.5], names, rotation=90)
    axes.xaxis.tick_top()
    axes.set_xlim(-0.7, len(columns) + 1.2)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    label_axis(axes.yaxis, "layer")


def shares(frame: pd.DataFrame) -> Figure:
    """Distribution over features of their largest language share, a row a layer."""
    frame = _reading(frame)
    figure, panels = _panels(frame, 3.2)
    for model, axes in panels.items():
        rows = frame[frame["model"] == model]
        table = rows.pivot(index="layer", columns="bin_left", values="count").sort_index()
        percent = 100 * table.div(table.sum(axis=1), axis=0)
        edges = [*percent.columns, rows["bin_right"].max()]
        mesh = axes.pcolormesh(edges, np.arange(len(table) + 1) - 0.5, percent, cmap=HEAT, vmin=0)
        axes.set_yticks(range(len(table)), [str(layer) for layer in table.index])
        axes.axvline(0.5, color="white", linewidth=0.8, linestyle="--")
        label_axis(axes.xaxis, "largest share of one language")
        label_axis(axes.yaxis, "layer")
        figure.colorbar(mesh, ax=axes, label="live features (%)", pad=0.02)
    return figure


def reconstruction(frame: pd.DataFrame) -> Figure:
    """Fraction of variance unexplained by the SAE, by language and layer."""
    figure, panels = _panels(frame, 3.0)
    for model, axes in panels.items():
        table = frame[frame["model"] == model].pivot(
            index="language", columns="layer", values="fvu"
        )
        table = table.loc[table.mean(axis=1).sort_values().index]
        seaborn.heatmap(
            table.rename(index=name),
            ax=axes,
            annot=True,
            fmt=".2f",
            annot_kws={"fontsize": 6},
            cmap=HEAT,
            vmin=0,
            cbar_kws={"label": "fraction of variance unexplained", "pad": 0.02},
        )
        axes.tick_params(length=0, labelrotation=0)
        axes.set_ylabel("")
        label_axis(axes.xaxis, "layer")
    return figure


# table of the plots folder → the figures drawn from it, by the stem of their files
FIGURES: dict[str, dict[str, Callable[[pd.DataFrame], Figure]]] = {
    "tokens": {"tokens": tokens},
    "monolingual": {"monolingual": monolingual, "monolingual_stacked": monolingual_stacked},
    "variance": {"variance": variance},
    "groups": {"groups": groups},
    "shares": {"shares": shares},
    "reconstruction": {"reconstruction": reconstruction},
}


def draw(plots: Path, out: Path) -> list[Path]:
    """Every figure of the tables in `plots`, written under `out`; returns the files."""
    written = []
    with house_style():
        for table, figures in FIGURES.items():
            frame = pd.read_csv(plots / f"{table}.csv")
            for stem, function in figures.items() if len(frame) else ():  # no model, no features
                written += save(function(frame), out, stem)
    return written


def main() -> None:
    command(__doc__, STUDY, draw)


if __name__ == "__main__":
    run(main)
