"""Token-activation strips: lines of tokens in a figure, coloured by their activation.

A strip is one line of a monospaced font, East Asian characters two columns wide, around the token
of the largest value.
"""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle

from langsae.figures import LOOKS, TWO_COLUMNS, fonts, new_figure

CELLS = 118  # characters a line
LABEL = 9  # columns that the name of a language takes
WIDTH = 0.98  # of the figure
# a glyph of DejaVu Sans Mono is 0.602 em wide: as wide as a column
FONT = WIDTH * TWO_COLUMNS * 72 / (CELLS + LABEL) / 0.602
COLOUR = LOOKS["pt"].colour


@dataclass(frozen=True)
class Strip:
    """One line of a block: a text's tokens around its largest activation."""

    label: str
    pieces: list[str]
    values: list[float]


Block = tuple[str, list[Strip], float]  # title, its lines, value of the deepest colour


def draw_strips(blocks: Sequence[Block]) -> Figure:
    """A figure of titled blocks, one under another."""
    lines = sum(1.6 + len(texts) for _, texts, _ in blocks)
    figure, axes = new_figure(TWO_COLUMNS, 0.165 * lines + 0.1)
    figure.set_layout_engine("none")  # columns must be exactly as wide as glyphs
    axes.set_position((1 - WIDTH, 0, WIDTH, 1))
    axes.set_axis_off()
    axes.set_xlim(0, CELLS + LABEL)
    axes.set_ylim(lines, 0)
    height = 0.9
    for title, texts, top in blocks:
        axes.text(0, height, title, fontsize=7.5, va="center")
        for strip in texts:
            height += 1
            _line(axes, height, strip, top)
        height += 1.6
    return figure


def _line(axes: Axes, height: float, strip: Strip, top: float) -> None:
    axes.text(0, height, strip.label, fontsize=FONT, va="center", color="#444444")
    left = float(LABEL)
    style = {"fontsize": FONT, "va": "center", "family": ["DejaVu Sans Mono", *fonts()[1:]]}
    for piece, value in _window(strip):
        width = _cells(piece)
        if value > 0:
            colour = to_rgba(COLOUR, 0.12 + 0.73 * value / top)
            axes.add_patch(Rectangle((left, height - 0.46), width, 0.92, color=colour, lw=0))
        # a script that DejaVu Sans Mono lacks is set glyph by glyph, to keep to the columns
        plain = piece.isascii() or not _missing_in_mono(piece)
        for part in [piece] if plain else piece:
            text = part.lstrip(" ")
            if text:
                axes.text(left + len(part) - len(text), height, text, **style)
            left += _cells(part)


@functools.cache
def _mono() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans Mono")).get_charmap())


def _missing_in_mono(text: str) -> bool:
    """Whether DejaVu Sans Mono lacks a glyph of `text`."""
    return any(ord(char) not in _mono() for char in text)


def _window(strip: Strip) -> list[tuple[str, float]]:
    """The tokens around the largest value that fit into a line, marked … where cut."""
    pairs = [
        (piece.replace("\n", "↵"), value)
        for piece, value in zip(strip.pieces, strip.values, strict=True)
    ]
    peak = max(range(len(pairs)), key=lambda at: (pairs[at][1], -at), default=0)
    first = last = peak
    room = CELLS - 2 - _cells(pairs[peak][0])
    while True:
        before = _cells(pairs[first - 1][0]) if first else None
        after = _cells(pairs[last + 1][0]) if last + 1 < len(pairs) else None
        if before is not None and before <= room and (after is None or peak - first <= last - peak):
            first, room = first - 1, room - before
        elif after is not None and after <= room:
            last, room = last + 1, room - after
        else:
            break
    shown = pairs[first : last + 1]
    start = [("…", 0.0)] if first else []
    return [*start, *shown, *([("…", 0.0)] if last + 1 < len(pairs) else [])]


def _cells(text: str) -> int:
    """Columns of a monospaced line that `text` takes; East Asian characters take two."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
               for c in text)  # fmt: skip
