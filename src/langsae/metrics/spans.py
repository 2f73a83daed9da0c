"""Span length: over how many consecutive tokens a feature stays active (Inaba et al. 2025).

The study does not say when a token counts as active. Two readings: any value left by TopK (counted
while collecting, see reducers/span_lengths.py), and a value above the bar of activating tokens,
which is known at the end of collecting only and hence counted here.
"""

import numpy as np


def runs_of_entries(
    feature: np.ndarray,
    language: np.ndarray,
    example: np.ndarray,
    position: np.ndarray,
    features: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Entries, and runs of entries at consecutive positions of a text, per feature: 2 x int64 [F].

    The columns have one row per entry and are sorted by feature, language, example, position.
    """
    follows = np.zeros(len(feature), dtype=bool)
    if len(feature):
        same = [column[1:] == column[:-1] for column in (feature, language, example)]
        follows[1:] = same[0] & same[1] & same[2] & (position[1:] == position[:-1] + 1)
    tokens = np.bincount(feature, minlength=features)
    return tokens, np.bincount(feature[~follows], minlength=features)


def mean_span(tokens: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Mean length of a feature's runs, float64; NaN for a feature without any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(runs > 0, tokens / runs, np.nan)
