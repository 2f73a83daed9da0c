"""Figures of steered texts: how many reach the language, and what that does to them.

Each function draws one table of plots/ for all its runs; see tables.py for the columns.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter

from langsae.figures import LOOKS, TWO_COLUMNS, label_axis, name, new_figure
from langsae.languages import by_name
from replications.sae_lape import figures_perplexity
from replications.sae_lape.figures_features import distinct, heat, run_panels, title
from replications.sae_lape.figures_perplexity import draw_lines
from replications.sae_lape.pages_steering import active_features

COHERENCE = ("coherent", "partly", "incoherent")


def steering(frame: pd.DataFrame) -> Figure | None:
    """Steered texts by multiplier: share found in the language, and what stands for coherence.

    Languages that are moved down, away from themselves, are left out.
    """
    frame = frame[frame["language"].ne("") & frame["alpha"].gt(0)]
    keys = list(dict.fromkeys(zip(frame["run"], frame["setting"], frame["positions"], strict=True)))
    if not keys:
        return None
    figure, grid = new_figure(TWO_COLUMNS, 2.9 * len(keys), len(keys), 2, squeeze=False)
    for (left, right), key in zip(grid, keys, strict=True):
        rows = frame[(frame[["run", "setting", "positions"]] == list(key)).all(axis=1)]
        reached = _by_alpha(rows, "reached", "baseline")
        draw_lines(left, 100 * reached)
        left.set_title(f"{title(key[0])}: {key[1].removeprefix('sae_').replace('_', ' ')}")
        label_axis(left.yaxis, "texts in the language", "%")
        by_hand = rows["perplexity"].isna().all()
        draw_lines(right, _by_alpha(rows, "coherence" if by_hand else "perplexity"))
        if by_hand:
            label_axis(right.yaxis, "share judged coherent")
        else:
            right.set_yscale("log")
            right.yaxis.set_major_formatter("{x:g}")
            right.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
            label_axis(right.yaxis, "perplexity, unsteered model")
        for axes in (left, right):
            label_axis(axes.xaxis, "multiplier")
    codes = by_name(distinct(frame["language"]))
    handles = [
        Line2D([], [], color=LOOKS[code].colour, linestyle=LOOKS[code].dashes,
               marker=LOOKS[code].marker, label=name(code))
        for code in codes
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _by_alpha(rows: pd.DataFrame, column: str, at_zero: str | None = None) -> pd.DataFrame:
    """Multipliers down, languages across; at 0 the unsteered texts, where there are any."""
    table = rows.pivot(index="alpha", columns="language", values=column)
    table = table[by_name(table.columns)]
    if at_zero and at_zero in rows and rows[at_zero].notna().any():
        table.loc[0.0] = rows.groupby("language")[at_zero].first()
    return table.sort_index()


def steering_detected(frame: pd.DataFrame) -> Figure | None:
    """Of the texts steered furthest: in which languages they are found."""
    frame = frame[frame["language"] != ""]
    if frame.empty:
        return None
    far = frame.groupby(["run", "language"])["alpha"].transform(lambda a: a[a.abs().idxmax()])
    frame = frame[frame["alpha"] == far]
    codes = by_name(set(frame["language"]))
    figure, panels = run_panels(frame, 0.2 * len(codes) + 1.1)
    for axes, run, mine in panels:
        mine["detected"] = mine["detected"].where(mine["detected"].isin(codes), "other")
        sums = mine.groupby(["language", "detected"])["count"].sum().unstack(fill_value=0)
        shares = 100 * sums.div(sums.sum(axis=1), axis=0)
        order = [code for code in codes if code in shares.index]
        shares = shares.reindex(index=order, columns=[*order, "other"], fill_value=0.0)
        heat(axes, shares, vmin=0, vmax=100)
        axes.set_yticks(range(len(order)), map(name, order))
        axes.set_title(title(run))
        label_axis(axes.xaxis, "found in", "% of texts")
        label_axis(axes.yaxis, "steered towards")
    return figure


def steering_labels(frame: pd.DataFrame) -> Figure:
    """The annotators' verdicts: texts that changed language, and those that did not."""
    parts = list(dict.fromkeys(zip(frame["run"], frame["table"], strict=True)))
    parts.sort(key=lambda part: part[1] == "higher")
    tall = 0.2 * frame["language"].nunique() + 1.0
    figure, grid = new_figure(TWO_COLUMNS, tall, 1, len(parts), squeeze=False)
    shades = dict(zip(COHERENCE, ("#0072B2", "#56B4E9", "#C6E2F2"), strict=True))
    greys = dict(zip(COHERENCE, ("#6E6E6E", "#A9A9A9", "#DCDCDC"), strict=True))
    for axes, (run, table) in zip(grid[0], parts, strict=True):
        rows = frame[(frame["run"] == run) & (frame["table"] == table)]
        codes = by_name(distinct(rows["language"]))[::-1]
        for height, code in enumerate(codes):
            counts = rows[rows["language"] == code].set_index(["changed", "label"])["count"]
            pieces = [(True, label) for label in COHERENCE]
            pieces += [(False, label) for label in reversed(COHERENCE)]
            ends = np.cumsum([0, *(counts[piece] for piece in pieces)])
            for (changed, label), (start, end) in zip(pieces, pairwise(ends), strict=True):
                colour = (shades if changed else greys)[label]
                axes.barh(height, end - start, left=start, color=colour, height=0.75)
        alphas = rows.groupby("language")["alpha"].first()
        axes.set_yticks(range(len(codes)), [f"{name(c)} {alphas[c]:g}" for c in codes])
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0, y=0.01)
        axes.set_title(f"{table} multiplier" if table else title(run))
        label_axis(axes.xaxis, "texts")
    handles = [Patch(color=c, label=f"changed, {label}") for label, c in shades.items()]
    handles += [Patch(color=c, label=f"unchanged, {label}") for label, c in greys.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


FIGURES: dict[str, dict[str, Callable[[pd.DataFrame], Figure | None]]] = {
    **figures_perplexity.FIGURES,
    "generation": {"steering": steering},
    "detected": {"steering_detected": steering_detected},
    "labels": {"steering_labels": steering_labels},
}
PAGES: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "active_features": (("active", "pieces"), active_features),
}
