"""What the post says in words, as predicates on one model's numbers.

Each takes the frames and a model's name and answers with the numbers behind the answer. They run
on the published series and on measured values alike; `applicable` says which can be asked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

BEST = 11  # rows of the post's table


@dataclass(frozen=True)
class Series:
    """Tidy frames in the reading "as published"; columns may be missing from a published series."""

    ranking: pd.DataFrame  # model, rank, score[, df, together]
    curves: pd.DataFrame  # model, group, threshold, any: features above it in any text
    rows: dict[str, int]  # aligned texts, by model
    texts: dict[str, int]  # texts in all languages, by model


@dataclass(frozen=True)
class Answer:
    """Whether the finding holds, and the numbers that say so."""

    holds: bool
    detail: str


Predicate = Callable[[Series, str], Answer]


def applicable(series: Series, model: str) -> list[str]:
    """Names of the predicates that can be asked of `model`."""
    ranking = series.ranking[series.ranking["model"] == model]
    groups = set(series.curves.loc[series.curves["model"] == model, "group"])
    names = []
    if len(ranking) > BEST:
        names += [p.__name__ for p in (orders_of_magnitude, exponential, little_separation)]
        names += [exceeds_ln2.__name__]
    if {"es", "en"} <= groups:
        names.append(english_wakes_more.__name__)
    if len(ranking) > BEST and "together" in ranking and bool(ranking["together"].notna().all()):
        names += [best_fire_together.__name__, best_are_rare.__name__]
    return names


def _ranked(series: Series, model: str) -> pd.DataFrame:
    rows = series.ranking[series.ranking["model"] == model].sort_values("rank")
    if rows.empty:
        raise ValueError(f"no numbers of model '{model}'")
    return rows


def orders_of_magnitude(series: Series, model: str) -> Answer:
    """The worst score is 10^7 times the best, to the nearest power."""
    scores = _ranked(series, model)["score"].to_numpy()
    decades = float(np.log10(scores[-1] / scores[0]))
    return Answer(decades >= 6.5, f"{decades:.2f} orders of magnitude, at least 6.5 asked")


def exponential(series: Series, model: str) -> Answer:
    """A straight line through the logarithm of the score explains it over the ranks."""
    scores = np.log(_ranked(series, model)["score"].to_numpy())
    fit = float(np.corrcoef(np.arange(len(scores)), scores)[0, 1] ** 2)
    return Answer(fit >= 0.9, f"R² of a line through the log score {fit:.2f}, at least 0.9 asked")


def little_separation(series: Series, model: str) -> Answer:
    """The best scores lie within one percent of each other."""
    scores = _ranked(series, model)["score"].to_numpy()
    away = float(scores[BEST - 1] / scores[0] - 1)
    return Answer(away < 0.01, f"rank {BEST - 1} is {away:.2%} above rank 0, less than 1 % asked")


def exceeds_ln2(series: Series, model: str) -> Answer:
    """The largest score, a mean over pairs, is above ln 2 / pairs."""
    nats = float(_ranked(series, model)["score"].max()) * series.rows[model]
    return Answer(nats > np.log(2), f"largest {nats:.3g} nats, ln 2 is {np.log(2):.3f}")


def english_wakes_more(series: Series, model: str) -> Answer:
    """At each threshold more features exceed it in some English text than in some Spanish one."""
    rows = series.curves[series.curves["model"] == model]
    any_ = rows.pivot(index="threshold", columns="group", values="any")
    more = int((any_["en"] > any_["es"]).sum())
    return Answer(more == len(any_), f"at {more} of {len(any_)} thresholds")


def best_fire_together(series: Series, model: str) -> Answer:
    """The best features share more of their pairs than most features do."""
    together = _ranked(series, model)["together"].to_numpy()
    best, all_ = float(np.median(together[:BEST])), float(np.median(together))
    detail = f"share of active pairs that are active in both languages: {best:.0%} for the {BEST} "
    return Answer(best > all_, f"{detail}best, {all_:.0%} for all live ones (medians)")


def best_are_rare(series: Series, model: str) -> Answer:
    """None of the best features is active in a tenth of the texts."""
    share = _ranked(series, model)["df"].to_numpy()[:BEST] / series.texts[model]
    detail = f"the {BEST} best: in {np.median(share):.1%} of the texts (median)"
    return Answer(bool(share.max() < 0.1), f"{detail}, at most {share.max():.1%}")


PREDICATES: dict[str, Predicate] = {
    predicate.__name__: predicate
    for predicate in (
        orders_of_magnitude,
        exponential,
        little_separation,
        exceeds_ln2,
        english_wakes_more,
        best_fire_together,
        best_are_rare,
    )
}
