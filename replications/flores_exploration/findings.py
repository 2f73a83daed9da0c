"""The post's findings as predicates on tidy numbers of one model.

Each takes the four frames and a model's name and answers with the numbers behind the answer. They
run on the published series (which must satisfy them) and on measured ones alike; a model needs at
least three layers, and English and languages of other scripts beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from langsae.languages import LANGUAGES

# The languages of the study, in the post's order; the findings are about these.
STUDIED = ("en", "de", "ru", "is", "es", "pt", "fr", "zh", "ja", "ko", "hi", "ar")
LATIN = frozenset(code for code, language in LANGUAGES.items() if language.script == "Latn")


@dataclass(frozen=True)
class Series:
    """Tidy frames; `groups.languages` joins ISO codes by ";", rank 1 is the largest group."""

    tokens: pd.DataFrame  # model, language, n_tokens
    monolingual: pd.DataFrame  # model, language, layer, count
    variance: pd.DataFrame  # model, layer, value
    groups: pd.DataFrame  # model, layer, rank, languages


@dataclass(frozen=True)
class Answer:
    """Whether the finding holds, and the numbers that say so."""

    holds: bool
    detail: str


Predicate = Callable[[Series, str], Answer]


def evaluate(series: Series, model: str) -> dict[str, Answer]:
    """Every predicate's answer on `model`, by the predicate's name."""
    return {name: predicate(series, model) for name, predicate in PREDICATES.items()}


def applicable(series: Series, model: str) -> list[str]:
    """Names of the predicates that can be asked of `model`.

    None without all of the study's languages; only those on tokens with fewer than three layers.
    """
    if not set(STUDIED) <= set(_of(series.tokens, model)["language"]):
        return []
    layers = series.monolingual.loc[series.monolingual["model"] == model, "layer"].nunique()
    on_tokens = [english_fewest_tokens.__name__, latin_fewer_tokens.__name__]
    return list(PREDICATES) if layers >= 3 else on_tokens


def _of(frame: pd.DataFrame, model: str) -> pd.DataFrame:
    rows = frame[frame["model"] == model]
    if rows.empty:
        raise ValueError(f"no numbers of model '{model}'")
    return rows


def _counts(series: Series, model: str) -> pd.DataFrame:
    """Monolingual features, layers down and languages across."""
    rows = _of(series.monolingual, model)
    return rows.pivot(index="layer", columns="language", values="count").sort_index()


def _thirds(values: pd.Series) -> tuple[float, float, float]:
    """Means of the first, middle and last third of the layers; outer thirds are rounded down."""
    size = len(values) // 3
    if size == 0:
        raise ValueError(f"{len(values)} layers are too few: three at least")
    parts = values.iloc[:size], values.iloc[size:-size], values.iloc[-size:]
    return tuple(float(part.mean()) for part in parts)


def _groups(series: Series, model: str) -> pd.Series:
    """The largest groups as frozen sets, indexed by (layer, rank)."""
    rows = _of(series.groups, model).set_index(["layer", "rank"]).sort_index()
    return rows["languages"].map(lambda joined: frozenset(joined.split(";")))


def _named(group: frozenset[str]) -> str:
    return "+".join(sorted(group))


def english_fewest_tokens(series: Series, model: str) -> Answer:
    """English needs fewer tokens than every other language."""
    tokens = _of(series.tokens, model).set_index("language")["n_tokens"]
    others = tokens.drop("en")
    return Answer(
        bool(tokens["en"] < others.min()),
        f"en {tokens['en']:,}, next {others.idxmin()} {others.min():,}",
    )


def latin_fewer_tokens(series: Series, model: str) -> Answer:
    """Languages in Latin script need fewer tokens on average than the others."""
    tokens = _of(series.tokens, model).set_index("language")["n_tokens"]
    latin = tokens.index.isin(LATIN)
    means = tokens[latin].mean(), tokens[~latin].mean()
    return Answer(bool(means[0] < means[1]), f"mean {means[0]:,.0f} against {means[1]:,.0f}")


def english_most(series: Series, model: str) -> Answer:
    """Over all layers English has more monolingual features than any other language."""
    totals = _counts(series, model).sum()
    others = totals.drop("en")
    return Answer(
        bool(totals["en"] > others.max()),
        f"en {totals['en']:,}, next {others.idxmax()} {others.max():,}",
    )


def english_grows(series: Series, model: str) -> Answer:
    """English monolingual features: more in the last third than in the first, most at the end."""
    english = _counts(series, model)["en"]
    first, _, last = _thirds(english)
    final = english.iloc[-1]
    return Answer(
        bool(last > first and final == english.max()),
        f"mean {first:,.0f} in the first third, {last:,.0f} in the last; last layer {final:,}",
    )


def other_scripts_first(series: Series, model: str) -> Answer:
    """In the first layer most monolingual features are of languages in other scripts than Latin."""
    first = _counts(series, model).iloc[0]
    other, total = first[~first.index.isin(LATIN)].sum(), first.sum()
    return Answer(bool(other > total / 2), f"{other:,} of {total:,}")


def other_scripts_early(series: Series, model: str) -> Answer:
    """Monolingual features of other scripts are more common in the first third than in the last."""
    counts = _counts(series, model)
    first, _, last = _thirds(counts.loc[:, ~counts.columns.isin(LATIN)].sum(axis=1))
    return Answer(bool(first > last), f"mean {first:,.0f} a layer, then {last:,.0f}")


def middle_dip(series: Series, model: str) -> Answer:
    """The middle third of the layers has fewer monolingual features than either outer third."""
    first, middle, last = _thirds(_counts(series, model).sum(axis=1))
    return Answer(
        middle < min(first, last), f"mean {first:,.0f}, {middle:,.0f}, {last:,.0f} a layer"
    )


def ja_ko_hi_late(series: Series, model: str) -> Answer:
    """Japanese, Korean and Hindi have the most monolingual features in the last layer."""
    counts = _counts(series, model)[["ja", "ko", "hi"]]
    return Answer(
        bool((counts.iloc[-1] == counts.max()).all()),
        "; ".join(
            f"{name} {counts[name].iloc[-1]:,} of at most {counts[name].max():,}" for name in counts
        ),
    )


def variance_follows_monolingual(series: Series, model: str) -> Answer:
    """Layers with a high variance over languages are those with many monolingual features."""
    variance = _of(series.variance, model).set_index("layer")["value"].sort_index()
    correlation = variance.corr(_counts(series, model).sum(axis=1), method="spearman")
    return Answer(
        bool(correlation >= 0.7), f"rank correlation {correlation:.2f}, at least 0.7 asked"
    )


def largest_group_turns_latin(series: Series, model: str) -> Answer:
    """The largest group: no Latin-script language in the first layer, only those in the last."""
    groups = _groups(series, model).xs(1, level="rank")
    first, last = groups.iloc[0], groups.iloc[-1]
    return Answer(
        not first & LATIN and last <= LATIN, f"first {_named(first)}, last {_named(last)}"
    )


def english_alone_outside(series: Series, model: str) -> Answer:
    """English alone is the largest group in the first and in the last layer."""
    groups = _groups(series, model).xs(1, level="rank")
    first, last = groups.iloc[0], groups.iloc[-1]
    return Answer(first == last == {"en"}, f"first {_named(first)}, last {_named(last)}")


def all_languages_group(series: Series, model: str) -> Answer:
    """In some layer between the first and the last the largest group is all languages at once."""
    everything = frozenset(_of(series.tokens, model)["language"])
    groups = _groups(series, model).xs(1, level="rank").iloc[1:-1]
    layers = [str(layer) for layer, group in groups.items() if group == everything]
    return Answer(bool(layers), f"layers: {', '.join(layers) or 'none'}")


def groups_follow_script(series: Series, model: str) -> Answer:
    """Most groups of several languages are all of Latin or all of other scripts."""
    several = [group for group in _groups(series, model) if len(group) > 1]
    pure = sum(group <= LATIN or not group & LATIN for group in several)
    return Answer(pure > len(several) / 2, f"{pure} of {len(several)}")


PREDICATES: dict[str, Predicate] = {
    predicate.__name__: predicate
    for predicate in (
        english_fewest_tokens,
        latin_fewer_tokens,
        english_most,
        english_grows,
        other_scripts_first,
        other_scripts_early,
        middle_dip,
        ja_ko_hi_late,
        variance_follows_monolingual,
        largest_group_turns_latin,
        english_alone_outside,
        all_languages_group,
        groups_follow_script,
    )
}
