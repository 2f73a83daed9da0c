"""The study's statements as predicates on the measured numbers of one run.

Each answers with a statistic that is above 0 where the statement holds, and with its bootstrap
interval; it holds where the whole interval is above 0. Where a definition has several readings the
least favourable one decides. None: the run does not have what the statement is about.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from langsae.errors import InputError
from langsae.metrics.bootstrap import interval
from replications.llmjp_tracing.series import Sampled, Series

LANGUAGES = ("en", "ja")
RIVALS = ("none", "en", "ja", "random")  # what else is added, or nothing
LEVEL = 0.95
SAMPLES = 1000  # of a handful of draws


@dataclass(frozen=True)
class Answer:
    """Whether the finding holds, the numbers that say so, and the interval of the statistic."""

    holds: bool
    detail: str
    interval: tuple[float, float]


@dataclass(frozen=True)
class Subject:
    """What predicates read: series of the features, and injections at one alpha and number.

    perplexity: add, added, draw, language, value; translation: with direction for language.
    """

    series: Series
    perplexity: pd.DataFrame
    translation: pd.DataFrame


Predicate = Callable[[Subject], Answer | None]


def mixed_falls_then_rises(one: Subject) -> Answer | None:
    """At some checkpoint in between, fewer features are mixed than at the first and the last."""
    steps = one.series.steps
    if len(steps) < 3:
        return None
    found = []
    for reading, sampled in one.series.mixed.items():
        mixed = sampled.over_layers()
        low = 1 + int(np.argmin(mixed.value[1:-1]))
        both = [_minus(mixed.at(edge), mixed.at(low)) for edge in (0, -1)]
        shown = (f"{mixed.value[at]:.1%} at {steps[at]:,}" for at in (0, low, -1))
        found.append((f"by {reading}: {', '.join(shown)}", _least(both)))
    return _worst(found)


def monosemanticity_rises(one: Subject) -> Answer | None:
    """Mean monosemanticity is higher at the last checkpoint than at the first."""
    if not one.series.monosemanticity or len(one.series.steps) < 2:
        return None
    zero = np.nanmean(one.series.zero, axis=1)
    found = []
    for (grouping, at_zero), sampled in one.series.monosemanticity.items():
        mean = sampled.over_layers()
        shown = f"{grouping}, {at_zero} at TE = 0: {mean.value[0]:.2f} to {mean.value[-1]:.2f}"
        found.append((shown, _minus(mean.at(-1), mean.at(0))))
    return _worst(found, f"TE = 0 for {zero[0]:.0%} of features at first, {zero[-1]:.0%} at last")


def middle_layers_bilingual(one: Subject) -> Answer | None:
    """At the last checkpoint the middle half of the layers has the highest mean mixed share."""
    layers = one.series.layers
    parts = early_middle_late(len(layers))
    if parts is None:
        return None
    found = []
    for reading, sampled in one.series.mixed.items():
        last = sampled.at(-1)
        early, middle, late = (_mean([last.at(at) for at in part]) for part in parts)
        shown = (f"{part.value:.1%}" for part in (early, middle, late))
        found.append(
            (f"by {reading}, early, middle, late: {', '.join(shown)}",
             _least([_minus(middle, early), _minus(middle, late)]))
        )  # fmt: skip
    names = f"middle: layers {', '.join(str(layers[at]) for at in parts[1])}"
    return _worst(found, names)


def early_middle_late(layers: int) -> tuple[range, range, range] | None:
    """Places of the first quarter, the middle half and the last quarter; None below 3 layers."""
    if layers < 3:
        return None
    early = sum(at + 0.5 < layers / 4 for at in range(layers))
    return range(early), range(early, layers - early), range(layers - early, layers)


def bilingual_helps_both(one: Subject) -> Answer | None:
    """Mixed features lower log perplexity in both languages by more than every rival does."""
    logs = one.perplexity.assign(value=-np.log(one.perplexity["value"].astype(float)))
    gain = _gains(logs, "language", LANGUAGES, RIVALS)
    if gain is None:
        return None
    means = one.perplexity.groupby(["add", "language"])["value"].mean()
    shown = (
        f"{code} " + ", ".join(f"{add} {means[add, code]:.2f}" for add in ("bi", *RIVALS))
        for code in LANGUAGES
    )
    return _worst([("; ".join(shown), gain)], _added(one.perplexity))


def bilingual_helps_translation(one: Subject) -> Answer | None:
    """Mixed features raise the score of translations both ways."""
    directions = sorted(set(one.translation["direction"]))
    gain = _gains(one.translation, "direction", directions, ("none",))
    if gain is None:
        return None
    means = one.translation.groupby(["add", "direction"])["value"].mean()
    shown = (f"{way} {means['none', way]:.2f} to {means['bi', way]:.2f}" for way in directions)
    return _worst([("; ".join(shown), gain)], _added(one.translation))


def larger_more_bilingual(sizes: Mapping[str, Series]) -> Answer | None:
    """The mixed share at the last checkpoint rises with size: the slope over ranks is above 0.

    sizes: the runs of one family. Their size is told by the number of layers.
    """
    if len({len(one.layers) for one in sizes.values()}) < max(2, len(sizes)):
        return None
    order = sorted(sizes, key=lambda name: len(sizes[name].layers))
    ranks = np.arange(len(order)) - (len(order) - 1) / 2
    found = []
    for reading in sizes[order[0]].mixed:
        last = [sizes[name].mixed[reading].over_layers().at(-1) for name in order]
        shown = ", ".join(f"{name} {x.value:.1%}" for name, x in zip(order, last, strict=True))
        slope = Sampled(
            np.tensordot(ranks, np.stack([x.value for x in last]), 1),
            np.tensordot(ranks, np.stack([x.samples for x in last]), 1),
        )
        found.append((f"by {reading}: {shown}", slope))
    return _worst(found)


def _added(rows: pd.DataFrame) -> str:
    numbers = rows[rows["add"] != "none"].groupby("add")["added"].max()
    return "added: " + ", ".join(f"{add} {int(number):,}" for add, number in numbers.items())


def _gains(
    rows: pd.DataFrame, part: str, parts: Sequence[str], rivals: Sequence[str]
) -> Sampled | None:
    """By how much the mean value of `bi` exceeds that of each rival, the least over `parts`.

    Draws of features are resampled, those of each addition by themselves. None where `bi`, a rival
    or a part was not measured.
    """
    table = rows.pivot(index=["add", "draw"], columns=part, values="value")
    if not {"bi", *rivals} <= set(rows["add"]) or not set(parts) <= set(table.columns):
        return None
    means = {}
    for number, add in enumerate(("bi", *rivals)):
        values = table.loc[add][list(parts)].to_numpy(float)  # [draws, parts]
        rng = np.random.default_rng([number, len(values)])
        picked = rng.integers(len(values), size=(SAMPLES, len(values)))
        means[add] = Sampled(values.mean(axis=0), values[picked].mean(axis=1).T)
    gains = [_minus(means["bi"], means[rival]) for rival in rivals]
    return _least([gain.at(at) for gain in gains for at in range(len(parts))])


def _minus(a: Sampled, b: Sampled) -> Sampled:
    return Sampled(a.value - b.value, a.samples - b.samples)


def _least(several: Iterable[Sampled]) -> Sampled:
    several = list(several)
    return Sampled(np.min([one.value for one in several], axis=0),
                   np.min([one.samples for one in several], axis=0))  # fmt: skip


def _mean(several: Iterable[Sampled]) -> Sampled:
    """The mean over the layers that have a value."""
    known = [one for one in several if not np.isnan(one.value)]
    if not known:
        raise InputError("at the last checkpoint no feature of some layers is alive; train longer")
    return Sampled(np.mean([one.value for one in known], axis=0),
                   np.mean([one.samples for one in known], axis=0))  # fmt: skip


def _worst(found: Sequence[tuple[str, Sampled]], more: str | None = None) -> Answer:
    """The reading whose interval begins lowest decides; all are told."""
    ends = [tuple(map(float, interval(sampled.samples, LEVEL))) for _, sampled in found]
    low, high = min(ends)
    detail = "; ".join([*(text for text, _ in found), *([more] if more else [])])
    return Answer(low > 0, detail, (low, high))


PREDICATES: dict[str, Predicate] = {
    predicate.__name__: predicate
    for predicate in (
        mixed_falls_then_rises,
        monosemanticity_rises,
        middle_layers_bilingual,
        bilingual_helps_both,
        bilingual_helps_translation,
    )
}
