"""How alike features are in where they fire, and how much languages share. Pure functions."""

import numpy as np


def iou(both: np.ndarray) -> np.ndarray:
    """Intersection over union of n sets, from the sizes of all intersections [n, n]: float64.

    The diagonal of `both` are the sets' own sizes. 0 where the union is empty, and 1 on the
    diagonal, as sae_lape was published.
    """
    both = np.asarray(both, dtype=np.float64)
    size = both.diagonal()
    union = size[:, None] + size[None, :] - both
    out = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    np.fill_diagonal(out, 1.0)
    return out


def pearson(
    both: np.ndarray, total: np.ndarray, square: np.ndarray, product: np.ndarray
) -> np.ndarray:
    """Pearson's r of each pair of n variables over the observations they share: float64 [n, n].

    both[i, j]: number of shared observations; total[i, j], square[i, j]: sum of i's values and of
    their squares over these; product[i, j]: sum of products. All are whole numbers, worked with
    exactly. 0 with fewer than two shared observations and 1 on the diagonal, as sae_lape was
    published; NaN where a variable is constant over them.
    """
    n, x, xx, xy = (
        np.array(
            [[int(value) for value in row] for row in np.asarray(sums).tolist()], object
        ).reshape(np.shape(sums))
        for sums in (both, total, square, product)
    )
    spread = n * xx - x * x
    scale = (spread * spread.T).astype(np.float64)
    covariance = (n * xy - x * x.T).astype(np.float64)
    r = np.full(scale.shape, np.nan)
    np.divide(covariance, np.sqrt(scale), out=r, where=scale > 0)
    r[np.asarray(both) < 2] = 0.0
    np.fill_diagonal(r, 1.0)
    return r.clip(-1.0, 1.0)


def set_overlap(member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the intersections of L sets, int64 [L, L], and their `iou`.

    member: bool [n, L], which of n things each set holds.
    """
    ones = np.asarray(member).astype(np.int64)
    both = ones.T @ ones
    return both, iou(both)
