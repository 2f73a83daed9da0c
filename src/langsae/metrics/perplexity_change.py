"""What an intervention does to perplexities, as a matrix of intervened by impacted language.

plain: perplexities [M, S] of S texts in M impacted languages; changed: [L, M, S] under the
interventions for L languages. NaN in `changed` is a cell that was not run, and stays NaN.
"""

import numpy as np


def mean_change(plain: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """As published: mean over texts of the difference, [L, M]. Ruled by the few largest texts."""
    return (changed - plain).mean(-1)


def median_change(plain: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Median over texts of the difference, [L, M]."""
    return np.median(changed - plain, axis=-1)


def mean_log_ratio(plain: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Mean over texts of ln(changed / plain), [L, M]: the change in nats a token."""
    return np.log(changed / plain).mean(-1)


def largest_share(plain: np.ndarray, changed: np.ndarray, share: float = 0.01) -> np.ndarray:
    """Part of the sum of absolute differences that the largest `share` of texts carry, [L, M].

    At least one text is taken. NaN where nothing changed.
    """
    size = np.sort(np.abs(changed - plain), axis=-1)[..., ::-1]
    total, top = size.sum(-1), size[..., : max(1, round(share * size.shape[-1]))].sum(-1)
    return np.divide(top, total, out=np.full(total.shape, np.nan), where=total > 0)


def hits_itself_most(change: np.ndarray, own: np.ndarray) -> np.ndarray:
    """For each row of a change matrix [L, M]: is the language's own column (own [L]) the largest?

    A tie with another column is no.
    """
    rows = np.arange(len(change))
    others = change.astype(float)
    others[rows, own] = -np.inf
    return change[rows, own] > others.max(-1)
