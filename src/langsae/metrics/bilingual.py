"""How alike a feature's activation over aligned texts is in several languages: Gómez (2024).

Shapes: maxima float32 [L, S, F], the largest activation of F features in each of S rows of aligned
texts in L languages, 0 where a feature is not active. Natural logarithms; lower scores are better.
A feature is alive if every language activates it in some row. P_l is language l's distribution
over rows, M the mean of P_l over languages, df the texts (of L*S) that activate a feature.

as_published, the author's code: P_l is the softmax over rows of 100 m / (largest m of the language,
all features); divergence J = mean over languages and over rows of M (ln M - ln P_l), so KL *from*
the mixture, unbounded; score J + b idf with idf = L*S / df (1 where df < 10) and b = (J_k - J_0) /
(largest - least idf) > 0, J_k the k-th of the rising J of live features, from 0; b idf in float32.
Rarity is charged.

as_described, the post: P_l as above, but with the largest m of the *feature* in the language; J
the Jensen-Shannon divergence, mean over languages of the sum over rows of P_l (ln P_l - ln M), at
most ln L; score J + b idf with idf = L*S / df throughout and b = -(J_k - J_0) / (largest - least
idf) <= 0, so rarity is rewarded. Its "300th value" is read as the code's, counted from 0.

corrected, ours:
1. A row in which a feature is silent has no mass: P_l = m / (sum of m over rows), without softmax.
   The published softmax gives a silent row e^0 and an active one up to e^100, so J tells how
   strong an unmatched activation is beside the largest of all features rather than whether rows
   match: a weak feature that shares no row has a smaller J than a strong one that shares most.
   Scaled by feature, the one or two strongest rows have all the mass and the others do not matter.
2. J is the Jensen-Shannon divergence: symmetric, from 0 to ln L, so values compare across data.
3. J alone prefers a feature that is always on. What pairing explains is J0 - J: J0 is the mean of
   J over rotations that pair each row with rows of other texts. It is near 0 for an always-on
   feature (both small) and for a monolingual one (both near ln L), and large only where the same
   rows are active and the others silent. No rarity term and no b are needed. Rows should be in no
   order of topic: like neighbours make J0 smaller, hence the score worse.
4. One shared row is weak evidence. a, the effective number of shared rows, is the exponential of
   the entropy of min_l P_l, normalised; the gain is shrunk as if `least_df` rows without gain had
   been seen beside: score = 1 - (J0 - J) / ln L * a / (a + least_df). A perfect feature scores
   near 0, one that pairing does not explain scores 1, whatever L, S or the unit of activation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from langsae.errors import InputError

Variant = Literal["as_published", "as_described", "corrected"]
VARIANTS: tuple[Variant, ...] = ("as_published", "as_described", "corrected")

_CHUNK = 2**19  # float64 numbers of one chunk of features: 4 MB, so that steps stay in cache
_ROTATIONS = 32  # at most, for J0 of `corrected`
_LARGEST_SCALE = 700  # exp of it is still finite in float64


@dataclass(frozen=True)
class BilingualScores:
    """Scores of F features; NaN in float64 [F] columns where a feature is not alive."""

    score: np.ndarray  # float64 [F], lower is better
    divergence: np.ndarray  # float64 [F], J
    idf: np.ndarray  # float64 [F], L*S / df, clamped where the variant does
    df: np.ndarray  # int64 [F], texts (of L*S) with a value above 0
    alive: np.ndarray  # bool [F]
    order: np.ndarray  # int64 [alive], feature ids, best first; ties by id
    beta: float | None  # weight of idf in the score; None for `corrected`
    threshold: float | None  # J_k, from which beta follows; None for `corrected`
    chance: np.ndarray | None = None  # float64 [F], J0; `corrected` only
    support: np.ndarray | None = None  # float64 [F], a; `corrected` only

    @property
    def ranked(self) -> np.ndarray:
        """The rising scores of live features, float64 [alive]."""
        return self.score[self.order]


def bilingual_score(
    maxima: np.ndarray,
    variant: Variant,
    k: int = 300,
    scale: float = 100.0,
    least_df: int = 10,
) -> BilingualScores:
    """Score every feature of `maxima` [L, S, F]; see above for the variants.

    k, scale: of the first two variants; least_df: texts below which as_published does not count
    idf, pseudo-rows of `corrected`. Raises InputError for fewer than two languages or rows, fewer
    than k + 1 live features (`corrected`: none), or where idf does not vary among them.
    """
    _check(maxima, variant, scale, least_df)
    languages, rows, _ = maxima.shape
    df = (maxima > 0).sum(axis=(0, 1))
    alive = (maxima > 0).any(axis=1).all(axis=0)
    idf = np.divide(languages * rows, df, where=alive, out=np.full(len(df), np.nan))
    if variant == "corrected":
        _enough(int(alive.sum()), 1, "to rank")
        return _corrected(maxima, df, alive, idf, least_df)
    _enough(int(alive.sum()), k + 1, f"for beta, which uses the divergence of rank {k}")
    if variant == "as_published":
        idf[alive & (df < least_df)] = 1.0
        idf = idf.astype(np.float32)
    tops = maxima.max(axis=1).astype(np.float64)  # [L, F]
    if variant == "as_published":
        tops[:] = tops.max(axis=1, keepdims=True)
    divergence = np.full(len(df), np.nan)
    measure = _reversed_divergence if variant == "as_published" else jensen_shannon
    for ids, chunk in _chunks(maxima, alive):
        scaled = chunk * (scale / torch.from_numpy(tops[:, None, ids]))
        divergence[ids] = measure(scaled.log_softmax(dim=1)).numpy()
    threshold, beta = _beta(divergence[alive], idf[alive], k, variant)
    charge = np.float32(beta) * idf if variant == "as_published" else beta * idf
    score = divergence + charge
    order = _ranking(score, alive)
    return BilingualScores(score, divergence, idf.astype(np.float64), df, alive, order,
                           float(beta), threshold)  # fmt: skip


def jensen_shannon(log_p: Tensor) -> Tensor:
    """Generalised Jensen-Shannon divergence in nats of log-probabilities [L, S, F]: [F].

    The mean over languages of sum_s P ln(P/M) - P + M, whose terms are not negative: small
    divergences keep their relative precision.
    """
    centred, log_mixture = _against_mixture(log_p)
    beyond = torch.expm1(centred - log_mixture)  # P / M - 1
    mixture = log_p.exp().mean(dim=0)
    terms = torch.special.xlog1py(1 + beyond, beyond) - beyond
    return (mixture * terms.mean(dim=0)).sum(dim=0).clamp_(min=0)


def _reversed_divergence(log_p: Tensor) -> Tensor:
    """Mean over languages and rows of M (ln M - ln P), [F]: KL from the mixture, over S."""
    _, log_mixture = _against_mixture(log_p)
    # the mean over languages of ln M - ln P is ln M less the mean of ln P
    return (log_p.exp().mean(dim=0) * log_mixture).mean(dim=0).clamp_(min=0)


def _against_mixture(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """ln P_l [L, S, F] and ln M [S, F], both less the mean over languages of ln P_l.

    Written with expm1 and log1p, so that languages which nearly agree do not cancel.
    """
    centred = log_p - log_p.mean(dim=0)
    return centred, torch.log1p(torch.expm1(centred).mean(dim=0))


def _corrected(
    maxima: np.ndarray, df: np.ndarray, alive: np.ndarray, idf: np.ndarray, least_df: int
) -> BilingualScores:
    languages, rows, features = maxima.shape
    divergence, chance, support = np.full((3, features), np.nan)
    turns = rotations(languages, rows)
    for ids, chunk in _chunks(maxima, alive):
        p = chunk / chunk.sum(dim=1, keepdim=True)
        own = _entropy(p).mean(dim=0)
        divergence[ids] = (_mixture_entropy(p) - own).clamp_(min=0).numpy()
        twice = torch.cat([p, p], dim=1)  # a rotation is a window of it
        turned = sum(_mixture_entropy(_rotated(twice, turn)) for turn in turns)
        chance[ids] = (turned / len(turns) - own).clamp_(min=0).numpy()
        shared = p.amin(dim=0)
        total = shared.sum(dim=0)
        spread = _entropy((shared / total.clamp(min=torch.finfo(total.dtype).tiny))[None])[0]
        support[ids] = torch.where(total > 0, spread.exp(), 0.0).numpy()
    gain = (chance - divergence) / math.log(languages)
    score = 1 - gain * support / (support + least_df)
    order = _ranking(score, alive)
    return BilingualScores(score, divergence, idf, df, alive, order, None, None, chance, support)


def _entropy(p: Tensor) -> Tensor:
    """Entropy in nats over the rows of distributions [L, S, F]: [L, F]."""
    return torch.special.entr(p).sum(dim=1)


def _rotated(twice: Tensor, turn: int) -> list[Tensor]:
    """Language l's rows [S, F], l * turn of them moved to the end; of rows that stand twice."""
    rows = twice.shape[1] // 2
    starts = [index * turn % rows for index in range(len(twice))]
    return [part[start : start + rows] for part, start in zip(twice, starts, strict=True)]


def _mixture_entropy(p: Sequence[Tensor] | Tensor) -> Tensor:
    """Entropy in nats of the mean of distributions [S, F]: [F].

    With t their sum over L languages, it is (sum over rows of -t ln t) / L + ln L.
    """
    total = p[0]
    for part in p[1:]:
        total = total + part
    return torch.special.entr(total).sum(dim=0) / len(p) + math.log(len(p))


def rotations(languages: int, rows: int, most: int = _ROTATIONS) -> list[int]:
    """Turns r such that rotating language l by l*r rows aligns no two languages; evenly spread.

    Rotation by one is always among the candidates, as rows >= languages; at most `most` are kept.
    """
    valid = [
        turn for turn in range(1, rows)
        if all(turn * apart % rows for apart in range(1, languages))
    ]  # fmt: skip
    if not valid:
        raise InputError(f"{rows} rows of texts are too few to shuffle {languages} languages")
    picks = np.unique(np.linspace(0, len(valid) - 1, min(most, len(valid))).round().astype(int))
    return [valid[pick] for pick in picks]


def _chunks(maxima: np.ndarray, alive: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Ids of live features and their maxima float64 [L, S, ids], a few MB at a time."""
    ids = np.flatnonzero(alive)
    step = max(1, _CHUNK // (maxima.shape[0] * maxima.shape[1]))
    for start in range(0, len(ids), step):
        some = ids[start : start + step]
        yield some, torch.from_numpy(maxima[:, :, some].astype(np.float64))


def _beta(
    divergence: np.ndarray, idf: np.ndarray, k: int, variant: Variant
) -> tuple[float, np.floating]:
    """J_k and the weight of idf, both of live features."""
    spread = idf.max() - idf.min()
    if not spread > 0:
        raise InputError("every live feature is active in equally many texts: beta is undefined; "
                         "use the variant 'corrected', or more texts")  # fmt: skip
    threshold = np.partition(divergence, k)[k]
    reach = threshold - divergence.min()
    if variant == "as_published":
        # float32, and a product with the reciprocal, as PyTorch divides a number by a tensor
        return float(threshold), np.float32(reach) * (np.float32(1) / spread)
    return float(threshold), -reach / spread


def _ranking(score: np.ndarray, alive: np.ndarray) -> np.ndarray:
    ids = np.flatnonzero(alive)
    return ids[np.argsort(score[ids], kind="stable")]


def _check(maxima: np.ndarray, variant: Variant, scale: float, least_df: int) -> None:
    if variant not in VARIANTS:
        raise InputError(f"no variant '{variant}' of the bilingual score; one of {VARIANTS}")
    if maxima.ndim != 3 or maxima.shape[0] < 2 or maxima.shape[1] < 2:
        raise InputError(f"maxima of shape {maxima.shape}: needs [languages, rows, features] with "
                         "at least two languages and two rows")  # fmt: skip
    if not 0 < scale <= _LARGEST_SCALE:
        raise InputError(f"scale is {scale}: choose one above 0, up to {_LARGEST_SCALE}")
    if least_df < 1:
        raise InputError(f"least_df is {least_df}: choose at least 1")
    low, high = float(maxima.min(initial=0)), float(maxima.max(initial=0))
    if not (low >= 0 and math.isfinite(high)):
        raise InputError("maxima are negative or not finite; check the SAE's codes")


def _enough(alive: int, needed: int, why: str) -> None:
    if alive < needed:
        raise InputError(f"{alive} features are alive in every language, but {needed} are needed "
                         f"{why}; use more texts, or a lower k")  # fmt: skip
