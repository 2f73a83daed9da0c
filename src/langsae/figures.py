"""House style of every figure: one look per language, fonts for every script, the same bytes.

Figures are `matplotlib.figure.Figure` objects, never pyplot's, drawn inside `house_style()` and
written by `save`. Names on axes are English, set in DejaVu Sans, which matplotlib carries: such
figures have the same bytes on every machine. Text in other scripts takes the first of `FALLBACKS`
that has the glyph.
"""

import argparse
import contextlib
import functools
import importlib.util
import statistics
import string
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from langsae.files import publish
from langsae.languages import LANGUAGES

ONE_COLUMN, TWO_COLUMNS = 3.5, 7.2  # widths in inches
DPI = 160

# Arabic and Cyrillic are in DejaVu Sans; the fallbacks add Devanagari, Thai, Chinese, Japanese,
# Korean: Debian's fonts first, then the faces that the packages of the extra `fonts` carry.
FALLBACKS = (
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
)
FONT_PACKAGES = ("manimgx_fonts", "pylopdf_fonts_jp", "pylopdf_fonts_ko", "pylopdf_fonts_zh_cn")
FONT_FILES = {
    "NotoSansDevanagari-Regular",
    "NotoSansDevanagari[wght]",
    "NotoSansThai-Regular",
    "NotoSansThai[wght]",
    "NotoSansCJK-Regular",
    "NotoSansSC-Regular",
    "NotoSansJP-Regular",
    "NotoSansKR-Regular",
}


@dataclass(frozen=True)
class Look:
    """How a language is drawn: Latin script solid, the other scripts dashed and hatched."""

    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str
    hatch: str


# Okabe and Ito's colours (2008), told apart by all forms of colour blindness; yellow darkened to
# show on white, grey added. Each serves one Latin-script language and one other.
_COLOURS = {
    "black": ("#1A1A1A", "en", "bg"),
    "blue": ("#0072B2", "de", "ar"),
    "sky": ("#56B4E9", "fr", "hi"),
    "orange": ("#E69F00", "es", "ja"),
    "vermilion": ("#D55E00", "pt", "zh"),
    "green": ("#009E73", "is", "ko"),
    "purple": ("#CC79A7", "it", "ru"),
    "grey": ("#8C8C8C", "tr", "th"),
    "ochre": ("#B59F00", "vi", ""),
}
_DASHED = (0, (3.0, 1.4))
LOOKS = {
    code: Look(colour, dashes, marker, hatch)
    for colour, latin, other in _COLOURS.values()
    for code, dashes, marker, hatch in ((latin, "-", "o", ""), (other, _DASHED, "s", "////"))
    if code
}


def name(code: str) -> str:
    """The English name of a language, safe in every font."""
    return LANGUAGES[code].name


@functools.cache
def fonts() -> tuple[str, ...]:
    """DejaVu Sans, then the fallbacks this machine has."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}  # a cache, older than fonts installed since
    for path in (*font_manager.findSystemFonts(), *_packaged()):
        if Path(path).stem in FONT_FILES and path not in known:
            manager.addfont(path)
    installed = set(manager.get_font_names())
    return ("DejaVu Sans", *(family for family in FALLBACKS if family in installed))


def _packaged() -> Iterator[str]:
    for package in FONT_PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            yield from map(str, sorted(Path(folder).glob("NotoSans*.[ot]tf")))


def missing_glyphs(text: str) -> str:
    """The characters of `text` that no font at hand can draw, each once."""
    charmaps = [_charmap(family) for family in fonts()]
    letters = sorted(set(text) - set(string.whitespace))
    return "".join(char for char in letters if not any(ord(char) in glyphs for glyphs in charmaps))


@functools.cache
def _charmap(family: str) -> frozenset[int]:
    path = font_manager.findfont(family, fallback_to_default=False)
    return frozenset(FT2Font(path, face_index=getattr(path, "face_index", 0)).get_charmap())


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Settings under which every figure is made and saved; seaborn's functions follow them."""
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change the bytes
        mpl.rcParams.update(
            seaborn.axes_style("ticks")
            | seaborn.plotting_context("paper")
            | {
                "font.family": list(fonts()),
                "font.size": 8,
                "axes.titlesize": 9,
                "axes.titlelocation": "left",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.6,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "legend.frameon": False,
                "lines.linewidth": 1.3,
                "lines.markersize": 3.2,
                "hatch.linewidth": 0.5,
                "figure.dpi": DPI,
                "savefig.dpi": DPI,
                "svg.fonttype": "path",  # glyphs as outlines: no font is needed to look at it
                "svg.hashsalt": "langsae",
            }
        )
        yield


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """A figure of `width` × `height` inches and its axes; `options` go to `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def label_axis(axis: Any, quantity: str, unit: str | None = None) -> None:
    """`quantity (unit)` beside an x or y axis; no unit for pure numbers."""
    axis.set_label_text(f"{quantity} ({unit})" if unit else quantity)


def thousands(axis: Any, ticks: int | None = None) -> None:
    """Ticks as 12,000 in place of 12000; `ticks` at most, where given."""
    if ticks:
        axis.set_major_locator(MaxNLocator(ticks))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def label_lines(axes: Axes, ends: Iterable[tuple[float, str, Look]], gap: float = 0.045) -> None:
    """Name lines at their right ends, given as (value, text, look), without overlap.

    Names are at least `gap` of the axes' height apart; call it when scale and limits are final.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    edge = axes.get_xlim()[1]
    ends = sorted(ends, key=lambda end: end[0])
    heights = [float(to_axes.transform((edge, value))[1]) for value, _, _ in ends]
    beside = {"transform": axes.transAxes, "clip_on": False}
    for (_, text, look), end, height in zip(ends, heights, _spread(heights, gap), strict=True):
        axes.plot([1.0, 1.06], [end, height], color=look.colour, linewidth=0.5, **beside)
        axes.plot(1.06, height, color=look.colour, marker=look.marker, **beside)
        axes.text(1.085, height, text, color=look.colour, va="center", transform=axes.transAxes)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising `heights` at least `gap` apart, moved as little as possible (least squares)."""
    runs: list[list[float]] = []  # neighbours that touch, each as its height less the gaps below
    for index, height in enumerate(heights):
        runs.append([height - index * gap])
        while len(runs) > 1 and statistics.fmean(runs[-2]) > statistics.fmean(runs[-1]):
            runs[-2:] = [runs[-2] + runs[-1]]
    level = [statistics.fmean(run) for run in runs for _ in run]
    return [height + index * gap for index, height in enumerate(level)]


def save(figure: Figure, folder: str | Path, stem: str) -> list[Path]:
    """Write `stem`.svg and .png under `folder`; the same figure gives the same bytes."""
    boxes = missing_glyphs("".join(text.get_text() for text in figure.findobj(Text)))
    if boxes:
        warnings.warn(
            f"{stem}: no font shows {boxes}, drawn as boxes; install Debian's fonts-noto-core and "
            "fonts-noto-cjk, or `pip install langsae[fonts]`",
            stacklevel=2,
        )
    undated: dict[str, dict[str, None]] = {"svg": {"Date": None}, "png": {"Software": None}}
    paths = [Path(folder) / f"{stem}.{kind}" for kind in undated]
    with house_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # said above
        figure.draw_without_rendering()  # lays the axes out: once, not again for each format
        figure.set_layout_engine("none")
        for path, (kind, metadata) in zip(paths, undated.items(), strict=True):
            with publish(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
    return paths


def command(description: str, study: str, draw: Callable[[Path, Path], Iterable[Path]]) -> None:
    """The command line of a study's figures: a profile, and where tables and figures lie."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("--plots", type=Path, help="default: results/…/plots/PROFILE")
    parser.add_argument("--out", type=Path, help="default: paper_figures/…/PROFILE")
    options = parser.parse_args()
    plots = options.plots or Path("results") / study / "plots" / options.profile
    for path in draw(plots, options.out or Path("paper_figures") / study / options.profile):
        print(path)
