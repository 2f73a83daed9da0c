"""Features whose answer is known, to show what each reading of the score rewards.

Among `CROWD` ordinary features stand one that is active on the same pairs in both languages and
silent elsewhere, and three that a good score must not take for it.
"""

import numpy as np
import pandas as pd

from replications.bilingual_score.readings import rank
from replications.bilingual_score.run import MASKED, Score

ROWS, CROWD = 500, 600
KINDS = (
    "the same 40 pairs in both languages",
    "one pair only, in both languages",
    "always on, in both languages",
    "40 pairs in one language, one in the other",
)


def maxima(seed: int = 0) -> np.ndarray:
    """Maxima float32 [2, ROWS, 4 + CROWD]; the first four are KINDS, in their order.

    The crowd: each is active in 2 to 60 % of the rows of each language, a fifth of them the same
    rows in both, with gamma-distributed values of a scale of its own. One outlier sets the
    languages' largest value to eight times the special features' (as in Gemma: 213 against 20-30).
    """
    draw = np.random.default_rng(seed)
    out = np.zeros((2, ROWS, len(KINDS) + CROWD), dtype=np.float32)
    shared, other = np.split(draw.permutation(ROWS)[:80], 2)
    strength = 20 + 10 * draw.random((2, 40))
    out[:, shared, 0] = strength
    out[:, shared[0], 1] = 25
    out[:, :, 2] = 20 + 10 * draw.random((2, ROWS))
    out[0, shared, 3] = strength[0]
    out[1, other[0], 3] = 25
    for feature in range(len(KINDS), out.shape[2]):
        count = round(ROWS * draw.uniform(0.02, 0.6))
        size = draw.uniform(5, 60)
        common = draw.permutation(ROWS)
        for language in range(2):
            own = draw.permutation(ROWS)
            rows = np.concatenate([common[: count // 5], own[: count - count // 5]])
            out[language, rows, feature] = size * draw.gamma(2.0, 0.5, len(rows))
    out[:, 0, -1] = 200
    return out


def constructed(settings: Score) -> pd.DataFrame:
    """Where each reading ranks each kind: feature, reading, rank, of (how many), score."""
    values = maxima()
    table = rank(values, values, ("one", "other"), settings).table
    rows = table[(table["feature"] < len(KINDS)) & (table["reading"] != MASKED)].copy()
    rows["kind"] = [KINDS[feature] for feature in rows["feature"]]
    rows["of"] = rows["reading"].map(table.groupby("reading").size())
    return rows.sort_values(["feature", "reading"])[["kind", "reading", "rank", "of", "score"]]
