"""Language activation probability entropy (LAPE): which features, or neurons, are a language's.

Pure functions. Shapes: hits, examples int64 [H, L, F] (tokens and texts on which a feature fires;
H hook points, L languages, F features), tokens and texts int64 [L] (their totals).
Definitions: Tang et al. 2024 (neurons), Andrylie et al. 2025 (SAE features: sae_lape).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from langsae.errors import InputError

Order = Literal["entropy", "frequency"]


@dataclass(frozen=True)
class Kept:
    """n features by ascending entropy; ties by hook, then feature.

    hook, feature: int64 [n]; entropy: float64 [n], natural logarithm; rates: float64 [n, L], hits
    per token; member: bool [n, L], the languages a feature belongs to.
    """

    hook: np.ndarray
    feature: np.ndarray
    entropy: np.ndarray
    rates: np.ndarray
    member: np.ndarray

    @property
    def languages(self) -> np.ndarray:
        """How many languages each feature belongs to, int64 [n]."""
        return self.member.sum(axis=1)

    def where(self, keep: np.ndarray) -> "Kept":
        """The features for which `keep` [n] holds, or of these indices, in that order."""
        return Kept(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def entropy(rates: np.ndarray) -> np.ndarray:
    """Entropy over axis -2 (languages) of rates [..., L, F], normalised to sum 1; natural log.

    0 where all rates are 0, as published: such a feature is told by its rates.
    """
    total = rates.sum(axis=-2, keepdims=True)
    share = np.divide(rates, total, out=np.zeros_like(rates), where=total > 0)
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    return -np.multiply(share, logarithm, out=share).sum(axis=-2)


def frequent(
    hits: np.ndarray, examples: np.ndarray, tokens: np.ndarray, texts: np.ndarray,
    example_rate: float, token_rate: float, joint: bool = False,
) -> np.ndarray:  # fmt: skip
    """Features that fire in nearly all texts and on many tokens of some language: bool [H, F].

    In a language, at least int(example_rate * texts) of its texts and more than
    int(token_rate * tokens) of its tokens. joint: both in one language; as published the two
    languages may differ.
    """
    _check(tokens, texts)
    least = np.array([int(example_rate * int(n)) for n in texts])[:, None]
    above = np.array([int(token_rate * int(n)) for n in tokens])[:, None]
    kept = np.empty((hits.shape[0], hits.shape[2]), bool)
    for hook in range(len(hits)):
        often, much = examples[hook] >= least, hits[hook] > above
        kept[hook] = (often & much).any(0) if joint else often.any(0) & much.any(0)
    return kept


def identify(
    hits: np.ndarray, tokens: np.ndarray, keep: np.ndarray, mask_ratio: float,
    entropy_threshold: float | None = None,
) -> Kept:  # fmt: skip
    """SAE-LAPE: the features of `keep` [H, F], and the languages each belongs to.

    A feature belongs to the languages whose rate is at least mask_ratio times its largest.
    entropy_threshold: leave out features of higher entropy.
    """
    hook, feature = keep.nonzero()
    rates = hits[hook, :, feature] / tokens
    member = rates >= mask_ratio * rates.max(axis=1, keepdims=True, initial=0)
    kept = _sorted(Kept(hook, feature, entropy(rates.T), rates, member))
    if entropy_threshold is None:
        return kept
    return kept.where(kept.entropy <= entropy_threshold)


def identify_neurons(
    hits: np.ndarray, tokens: np.ndarray, quantile: float = 0.95, share: float = 0.01
) -> tuple[Kept, float]:
    """LAPE of neurons, and its bar: the k-th smallest of all rates, k = round(quantile * number).

    Of the neurons with a rate above the bar in some language, the round(share * number of neurons)
    with the lowest entropy; each belongs to every language in which its rate is above the bar.
    """
    _check(tokens)
    rates = hits / tokens[:, None]
    k = max(round(quantile * rates.size), 1)
    bar = float(np.partition(rates, k - 1, axis=None)[k - 1])
    candidates = (rates > bar).any(axis=1)
    hook, neuron = candidates.nonzero()
    chosen = rates[hook, :, neuron]
    kept = _sorted(Kept(hook, neuron, entropy(chosen.T), chosen, chosen > bar))
    return kept.where(np.arange(min(len(hook), round(share * candidates.size)))), bar


def select(
    kept: Kept,
    language: int,
    shared_by: int = 1,
    top: int | None = None,
    by: Order = "entropy",
    per_hook: bool = False,
) -> np.ndarray:
    """Indices into `kept` of one language's features that `shared_by` languages share, best first.

    by entropy: lowest first; by frequency: highest rate in that language first, ties by entropy.
    top: only so many, or so many at each hook.
    """
    found = (kept.member[:, language] & (kept.languages == shared_by)).nonzero()[0]
    if by == "frequency":
        found = found[np.argsort(-kept.rates[found, language], kind="stable")]
    if top is None:
        return found
    if not per_hook:
        return found[:top]
    together = np.argsort(kept.hook[found], kind="stable")
    hooks = kept.hook[found][together]
    place = np.empty(len(found), np.int64)  # of each among its hook's
    place[together] = np.arange(len(found)) - np.searchsorted(hooks, hooks)
    return found[place < top]


def misaligned(hook: np.ndarray, feature: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` of a list in order of entropy, as sae_lape published them beside its features.

    There the features of a language's list were sorted by (layer, index) and their probabilities
    left in order of entropy, so the j-th feature shows the j-th value. Aligned with the input.
    """
    published = np.empty_like(values)
    published[np.lexsort((feature, hook))] = values
    return published


def entropy_histogram(
    hits: np.ndarray, tokens: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features that fire at all by their entropy: edges [bins + 1] from 0 to ln L, int64 [bins]."""
    edges = np.linspace(0, np.log(hits.shape[1]), bins + 1)
    counts = np.zeros(bins, np.int64)
    for layer in hits:
        alive = layer.any(axis=0)
        values = entropy(layer[:, alive] / tokens[:, None])
        counts += np.histogram(values.clip(0, edges[-1]), edges)[0]
    return edges, counts


def _sorted(kept: Kept) -> Kept:
    ordered = kept.where(np.lexsort((kept.feature, kept.hook, kept.entropy)))
    return replace(ordered, entropy=ordered.entropy + 0.0)  # -0.0 of one language as 0.0


def _check(*totals: np.ndarray) -> None:
    for total in totals:
        if len(total) < 2 or np.any(np.asarray(total) <= 0):
            raise InputError("LAPE compares two or more languages, each with tokens and texts")
