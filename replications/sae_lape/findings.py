"""The study's statements as predicates on the tidy numbers of one run.

Each takes the plots' tables of one run (see measure.py for their columns) and answers with the
numbers behind the answer, or with None where the run does not have what the statement is about.
They run on the authors' tables (which satisfy all but one of them) and on measured ones alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from langsae.languages import find
from replications.sae_lape.tables import steered_rows

Tables = Mapping[str, pd.DataFrame]  # by the name of the CSV, rows of one run only

CLOSE = 0.02  # accuracies this far apart count as comparable
SAE, NEURONS = "sae_all_max", "neuron_scaled"  # perplexity settings, before their multiplier
AS_PUBLISHED, NORMALISED = "as published", "normalised by list size"


@dataclass(frozen=True)
class Answer:
    """Whether the finding holds, and the numbers that say so."""

    holds: bool
    detail: str


Predicate = Callable[[Tables], Answer | None]


def late_layers(tables: Tables) -> Answer | None:
    """More than half of the language-specific features lie in the second half of the layers."""
    layers = _by_layer(tables["counts"], "all")
    if len(layers) < 2 or not layers.sum():
        return None
    late = layers.iloc[len(layers) // 2 :]
    share = late.sum() / layers.sum()
    where = f"in layers {late.index[0]} and later"
    return Answer(bool(share > 0.5), f"{late.sum():,} of {layers.sum():,} {where}")


def specific_over_shared(tables: Tables) -> Answer | None:
    """The specific features outnumber those shared by any one number of languages."""
    specific = _by_layer(tables["counts"], "all").sum()
    shared = tables["shared_layers"].groupby("languages")["count"].sum()
    if not specific or not len(shared):
        return None
    most = shared.idxmax()
    return Answer(
        bool(specific > shared.max()),
        f"{specific:,} specific, at most {shared.max():,} shared (by {most} languages)",
    )


def script_shares(tables: Tables) -> Answer | None:
    """Pairs of languages in one script overlap more on average than pairs of different scripts."""
    pairs = tables["overlap"].query("a < b")
    first, second = ([find(code).script for code in pairs[side]] for side in ("a", "b"))
    same = np.array(first) == np.array(second)
    if not same.any() or same.all():
        return None
    means = pairs["iou"][same].mean(), pairs["iou"][~same].mean()
    return Answer(bool(means[0] > means[1]), f"mean overlap {means[0]:.2f} against {means[1]:.2f}")


def as_good_as_fasttext(tables: Tables) -> Answer | None:
    """sae-count is less accurate than fastText by no more than CLOSE, if at all."""
    sae, fasttext = (_accuracy(tables, name) for name in ("sae-count", "fasttext"))
    if sae is None or fasttext is None:
        return None
    holds = sae >= fasttext - CLOSE
    return Answer(holds, f"accuracy {sae:.4f}, fastText {fasttext:.4f}")


def better_than_neurons(tables: Tables) -> Answer | None:
    """sae-count is more accurate than neuron-count by more than CLOSE, both as published."""
    return _against_neurons(tables, AS_PUBLISHED)


def better_than_neurons_normalised(tables: Tables) -> Answer | None:
    """The same where each score is divided by the size of its language's list."""
    return _against_neurons(tables, NORMALISED)


def lowering_hurts_itself(tables: Tables) -> Answer | None:
    """Where features are lowered, a language's own texts suffer most in most cases."""
    rows = _extremes(tables["perplexity"], SAE, lowered=True)
    if not rows:
        return None
    own = sum(most for most, _ in rows)
    return Answer(own > len(rows) / 2, f"in {own} of {len(rows)} rows")


def raising_spares_itself(tables: Tables) -> Answer | None:
    """Where features are raised, a language's own texts suffer least in most cases."""
    rows = _extremes(tables["perplexity"], SAE, lowered=False)
    if not rows:
        return None
    own = sum(least for _, least in rows)
    return Answer(own > len(rows) / 2, f"in {own} of {len(rows)} rows")


def more_specific_than_neurons(tables: Tables) -> Answer | None:
    """Lowered features hurt their own language most in a larger share of cases than neurons do."""
    saes, neurons = (_extremes(tables["perplexity"], kind, True) for kind in (SAE, NEURONS))
    if not saes or not neurons:
        return None
    shares = [sum(most for most, _ in rows) / len(rows) for rows in (saes, neurons)]
    return Answer(shares[0] > shares[1], f"{shares[0]:.0%} of rows, neurons {shares[1]:.0%}")


def steering_reaches(tables: Tables) -> Answer | None:
    """At the strongest raise tried, every language is reached more often than without it.

    Hand labels count texts that changed, so that they need no unsteered texts beside them.
    """
    steps = _strengths(tables["generation"])
    last = [rows.iloc[-1] for rows in steps.values()]
    if not last:
        return None
    more = sum(row["reached"] > np.nan_to_num(row["baseline"]) for row in last)
    weakest = min(last, key=lambda row: row["reached"])
    return Answer(
        more == len(last),
        f"{more} of {len(last)} languages; least {weakest['language']} {weakest['reached']:.0%}",
    )


def stronger_reaches_more(tables: Tables) -> Answer | None:
    """In most languages the strongest raise reaches the language more often than the weakest."""
    return _most_languages(tables["generation"], "reached", larger=True)


def stronger_costs_coherence(tables: Tables) -> Answer | None:
    """In most languages texts are less coherent at the strongest raise than at the weakest."""
    return _most_languages(tables["generation"], "coherence", larger=False)


def interpretable(tables: Tables) -> Answer | None:
    """The mean balanced accuracy of the explanations is above one half in every language."""
    means = tables["interpretation"].set_index(["language", "method"])["accuracy"]
    if not len(means):
        return None
    language, method = means.idxmin()
    return Answer(
        bool((means > 0.5).all()), f"mean {means.mean():.2f}; least {language} {means.min():.2f} "
        f"({method})",
    )  # fmt: skip


def lower_entropy_clearer(tables: Tables) -> Answer | None:
    """Entropy and accuracy of the explanations are negatively correlated, in every method."""
    rows = tables["correlations"].query("metric == 'accuracy'").set_index("method")["pearson"]
    if not len(rows):
        return None
    shown = ", ".join(f"{method} {value:.2f}" for method, value in rows.items())
    return Answer(bool((rows < 0).all()), f"correlation: {shown}")


def _by_layer(counts: pd.DataFrame, selection: str) -> pd.Series:
    rows = counts[counts["selection"] == selection]
    return rows.groupby("layer")["count"].sum().sort_index()


def _accuracy(tables: Tables, classifier: str, reading: str = AS_PUBLISHED) -> float | None:
    rows = tables["accuracy"].query("classifier == @classifier and reading == @reading")
    return float(rows["accuracy"].iloc[0]) if len(rows) else None


def _against_neurons(tables: Tables, reading: str) -> Answer | None:
    sae, neurons = (_accuracy(tables, name, reading) for name in ("sae-count", "neuron-count"))
    if sae is None or neurons is None:
        return None
    return Answer(sae > neurons + CLOSE, f"accuracy {sae:.4f}, neurons {neurons:.4f}")


def _extremes(perplexity: pd.DataFrame, kind: str, lowered: bool) -> list[tuple[bool, bool]]:
    """Per setting of `kind` and intervened language: is its own log-ratio the largest, the least?

    Compared as logarithms of ratios, since plain differences grow with a language's perplexity.
    """
    found = []
    for (setting, language), rows in perplexity.groupby(["setting", "intervened"], sort=True):
        name, _, multiplier = str(setting).partition("/")
        if name != kind or (float(multiplier) < 0) != lowered or len(rows) < 2:
            continue
        by_language = rows.set_index("impacted")["log_ratio"]
        found.append((by_language.idxmax() == language, by_language.idxmin() == language))
    return found


def _strengths(generation: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Per language the rows in which its features are raised at every position, weakest first."""
    raised = steered_rows(generation).query("alpha > 0").sort_values("alpha")
    return {str(code): rows for code, rows in raised.groupby("language", sort=True)}


def _most_languages(generation: pd.DataFrame, column: str, larger: bool) -> Answer | None:
    steps = {code: rows for code, rows in _strengths(generation).items() if len(rows) > 1}
    if not steps:
        return None
    changes = [rows[column].iloc[-1] - rows[column].iloc[0] for rows in steps.values()]
    agreeing = sum(change > 0 if larger else change < 0 for change in changes)
    return Answer(agreeing > len(changes) / 2, f"{agreeing} of {len(changes)} languages")


PREDICATES: dict[str, Predicate] = {
    predicate.__name__: predicate
    for predicate in (
        late_layers,
        specific_over_shared,
        script_shares,
        as_good_as_fasttext,
        better_than_neurons,
        better_than_neurons_normalised,
        lowering_hurts_itself,
        raising_spares_itself,
        more_specific_than_neurons,
        steering_reaches,
        stronger_reaches_more,
        stronger_costs_coherence,
        interpretable,
        lower_entropy_clearer,
    )
}
