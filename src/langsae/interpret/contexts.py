"""Windows of text on which a feature is or is not active, and samples of them.

As published (delphi with --center_examples true, which takes windows as they lie): the texts are
cut into windows of equal length that do not overlap, and a feature's windows are ordered by their
largest activation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, model_validator

from langsae.models.tokens import TokenisedCorpus
from langsae.params import Spec


class Sampling(Spec):
    """Which windows explain a feature and which test the explanation; defaults as published.

    width: tokens of a window; chunk: positions of the chunks that texts are joined and cut into
    before the model sees them (None leaves each text alone); chunks_per_language: how many of
    them, None for all; shown: the strongest windows, for explaining; active: windows to test with,
    an equal number from each of `quantiles` parts of all active ones; inactive: windows to test
    with on which the feature is nowhere active; least: features active on fewer windows are left
    out; held_out: test only with windows that were not shown (as published: drawn from all).
    """

    width: PositiveInt = 32
    chunk: PositiveInt | None = 256
    chunks_per_language: PositiveInt | None = None
    shown: PositiveInt = 40
    active: PositiveInt = 50
    inactive: PositiveInt = 50
    quantiles: PositiveInt = 10
    least: NonNegativeInt = 200
    held_out: bool = False

    @model_validator(mode="after")
    def _possible(self) -> "Sampling":
        if self.active % self.quantiles:
            raise ValueError(f"active must be a multiple of quantiles ({self.quantiles})")
        if self.chunk is not None and self.chunk % self.width:
            raise ValueError(f"chunk must be a multiple of width ({self.width})")
        return self

    @property
    def needed(self) -> int:
        """The fewest active windows from which everything can be drawn."""
        return max(self.least, self.active + self.shown * self.held_out)


@dataclass(frozen=True)
class Context:
    """One window: token ids and the feature's value at each, 0 where it is not active.

    quantile: of its largest value among the feature's active windows, 0 holding the largest; None
    where the feature is not active.
    """

    window: int
    ids: tuple[int, ...]
    values: tuple[float, ...]
    quantile: int | None = None

    @property
    def active(self) -> bool:
        return self.quantile is not None

    @property
    def peak(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class Sample:
    """The windows drawn for one feature; n_active counts all on which it is active."""

    shown: tuple[Context, ...]
    tests: tuple[Context, ...]
    n_active: int


class Windows:
    """All whole windows of a corpus, numbered text after text; a text's last part, where shorter
    than a window, belongs to none."""

    def __init__(self, tokens: TokenisedCorpus, width: int) -> None:
        self.tokens, self.width = tokens, width
        counts = np.array(tokens.ids.lengths(), dtype=np.int64) // width
        self._first = np.concatenate([[0], np.cumsum(counts)])
        rows = 1 + max(tokens.example)
        self._text = np.full((len(tokens.languages), rows), -1, dtype=np.int64)
        self._text[list(tokens.language), list(tokens.example)] = np.arange(len(tokens.ids))

    def __len__(self) -> int:
        return int(self._first[-1])

    def ids(self, window: int) -> tuple[int, ...]:
        """The token ids of one window."""
        text = int(np.searchsorted(self._first, window, side="right")) - 1
        start = (window - int(self._first[text])) * self.width
        return self.tokens.ids[text][start : start + self.width]

    def values(
        self, language: np.ndarray, example: np.ndarray, position: np.ndarray, value: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Activations of one feature, one row each, by window: numbers [A], values [A, width]."""
        text = self._text[language, example]
        number = self._first[text] + position // self.width
        inside = number < self._first[text + 1]
        windows, row = np.unique(number[inside], return_inverse=True)
        dense = np.zeros((len(windows), self.width), dtype=np.float32)
        dense[row, position[inside] % self.width] = value[inside]
        return windows, dense


def draw(
    windows: Windows,
    activations: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    sampling: Sampling,
    seed: Sequence[int],
) -> Sample:
    """Sample the windows of one feature.

    activations: language, example, position and value (> 0) of each of its activations. Where it
    is active on fewer windows than needed, or too few are without it, nothing is drawn.
    """
    numbers, values = windows.values(*activations)
    order = np.lexsort((numbers, -values.max(axis=1, initial=0)))
    numbers, values = numbers[order], values[order]
    silent = np.setdiff1d(np.arange(len(windows)), numbers, assume_unique=True)
    if len(numbers) < sampling.needed or len(silent) < sampling.inactive:
        return Sample((), (), len(numbers))

    def context(at: int, quantile: int) -> Context:
        number = int(numbers[at])
        return Context(number, windows.ids(number), tuple(map(float, values[at])), quantile)

    rng = np.random.default_rng(seed)
    picked = _by_quantile(len(numbers), sampling, rng)
    none = (0.0,) * windows.width
    tests = [context(at, quantile) for at, quantile in picked]
    for number in rng.choice(silent, sampling.inactive, replace=False).tolist():
        tests.append(Context(number, windows.ids(number), none))
    shown = tuple(context(at, 0) for at in range(min(sampling.shown, len(numbers))))
    return Sample(shown, tuple(tests), len(numbers))


def _by_quantile(total: int, sampling: Sampling, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(rank, quantile) of the active windows to test with; ranks from 0, the strongest."""
    first = sampling.shown if sampling.held_out else 0
    size, each = (total - first) // sampling.quantiles, sampling.active // sampling.quantiles
    return [
        (first + quantile * size + at, quantile)
        for quantile in range(sampling.quantiles)
        for at in np.sort(rng.choice(size, each, replace=False)).tolist()
    ]
