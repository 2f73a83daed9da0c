"""Tokens coloured by a value, as HTML that needs no other file, script or network.

Text is escaped and keeps its white space; every text takes the direction of its own script
(`dir="auto"`), so that Arabic beside English stays in order.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from langsae.errors import InputError

COLOUR = "#D55E00"  # vermilion of Okabe and Ito; black on it keeps a contrast of 5.9
_FAINTEST = 0.12  # opacity of the smallest value above 0: it must be told from none

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1A1A1A; background: #FFFFFF;
       max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; border-top: 1px solid #DDDDDD; padding-top: 1rem; }
h3 { font-size: .85rem; font-weight: 600; margin: .3rem 0; color: #555555; }
p.note { color: #555555; margin: .2rem 0; max-width: 60rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext;
        margin: .25rem 0; padding: .3rem .5rem; border-left: 3px solid #DDDDDD; }
.text[dir=rtl], .text:dir(rtl) { border-left: 0; border-right: 3px solid #DDDDDD; }
.text span { border-radius: 2px; }
.none { color: #8C8C8C; font-style: italic; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .7rem; border-bottom: 1px solid #EEEEEE; }
th:first-child, td:first-child { text-align: left; }
"""


def spans(pieces: Sequence[str], values: Sequence[float], top: float, colour: str = COLOUR) -> str:
    """The tokens of one text as a block of HTML, deeper in `colour` (#RRGGBB) up to value `top`.

    values: one per piece, >= 0; 0 leaves a piece plain, any other shows its number on hovering.
    Values above `top` are drawn as `top`. Raises InputError for negative or non-finite values, a
    `top` that is not above 0, or another number of values than pieces.
    """
    if len(pieces) != len(values):
        raise InputError(f"{len(pieces)} pieces and {len(values)} values: give one value a piece")
    if not (math.isfinite(top) and top > 0):
        raise InputError(f"top is {top}: give the value of the deepest colour, above 0")
    parts = [_span(*pair, top, colour) for pair in zip(pieces, values, strict=True)]
    return f'<div class="text" dir="auto">{"".join(parts)}</div>'


def _span(piece: str, value: float, top: float, colour: str) -> str:
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"'{piece}' has the value {value}: only finite values from 0 are drawn")
    text = escape(piece.replace("\n", "↵\n"))
    if value == 0 or not piece:  # part of a character: shown with the token that completes it
        return text
    depth = round(255 * (_FAINTEST + (0.85 - _FAINTEST) * min(value / top, 1)))
    return f'<span style="background:{colour}{depth:02X}" title="{value:.4g}">{text}</span>'


def columns(cells: Iterable[tuple[str, str]]) -> str:
    """Blocks of HTML side by side, each under its heading (plain text)."""
    inner = "".join(f"<div><h3>{escape(heading)}</h3>{body}</div>" for heading, body in cells)
    return f'<div class="columns">{inner}</div>'


def note(text: str) -> str:
    """A paragraph of explanation (plain text)."""
    return f'<p class="note">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text; the first column is flush left, the others right."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def page(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """A whole HTML document: each section is a heading (plain text; "" for none) and its HTML."""
    body = "\n".join(
        (f"<h2>{escape(heading)}</h2>\n" if heading else "") + html for heading, html in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
