"""Examples of activation patterns: tokens of the strongest texts, coloured (Figs. 4 and 7)."""

import json
from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from langsae.coloured_text import columns, note, page, spans
from langsae.figures import name
from langsae.token_strips import Block, Strip, draw_strips
from replications.llmjp_tracing.figures_training import distinct, title

CLASSES = ("English", "Japanese", "Mixed")
ABOUT = (
    "Features of sparse autoencoders at the middle layer, at each checkpoint: those most English, "
    "most Japanese and most evenly shared among features with enough activating tokens. Every "
    "checkpoint has dictionaries of its own, so a feature's number says nothing at another. Colour "
    "grows with the activation, up to the feature's largest here; hover over a token for the "
    "number. Left the English texts in which a feature is strongest, right the Japanese ones."
)


def patterns(frame: pd.DataFrame) -> Figure:
    """For a few checkpoints a feature of each class, a line a language."""
    return draw_strips([block for run, part in frame.groupby("run", sort=False)
                        for block in _blocks(run, part)])  # fmt: skip


def _blocks(run: str, frame: pd.DataFrame) -> Iterator[Block]:
    steps = sorted(distinct(frame["step"]))
    for step in sorted({steps[0], steps[len(steps) // 2], steps[-1]}):
        here = frame[frame["step"] == step]
        for kind in CLASSES:
            mine = here[here["class"] == kind]
            if len(mine):
                feature = mine["feature"].iloc[0]
                head = f"{title(run)}, step {step:,}, layer {mine['layer'].iloc[0]}"
                yield _block(f"{head}, feature {feature}: {kind}", mine[mine["feature"] == feature])


def _block(head: str, rows: pd.DataFrame) -> Block:
    first = rows[rows["place"] == rows.groupby("language")["place"].transform("min")]
    texts = [Strip(name(row.language), json.loads(row.pieces), json.loads(row.values_))
             for row in first.rename(columns={"values": "values_"}).itertuples()]  # fmt: skip
    return head, texts, _top(rows)


def _top(rows: pd.DataFrame) -> float:
    return max((max(json.loads(text), default=0.0) for text in rows["values"]), default=0.0) or 1.0


def patterns_page(frame: pd.DataFrame) -> str:
    """An HTML document of all features of the table, by checkpoint."""
    sections = [("", note(ABOUT))]
    for (run, step), part in frame.groupby(["run", "step"], sort=False):
        blocks = [_feature(feature, rows) for feature, rows in part.groupby("feature", sort=False)]
        heading = f"{title(run)}: training step {step:,}, layer {part['layer'].iloc[0]}"
        sections.append((heading, "".join(blocks)))
    return page("Activation patterns over training", sections)


def _feature(feature: int, rows: pd.DataFrame) -> str:
    top = _top(rows)
    cells = []
    for code in distinct(rows["language"]):
        texts = rows[rows["language"] == code]
        shown = zip(texts["pieces"], texts["values"], strict=True)
        body = "".join(spans(json.loads(words), json.loads(values), top) for words, values in shown)
        cells.append((name(code), body))
    head = f"Feature {feature}: {rows['class'].iloc[0]}; largest activation here {top:.4g}"
    return note(head) + columns(cells)


FIGURES = {"activation_patterns": (("patterns",), patterns)}
PAGES = {"activation_patterns": (("patterns",), patterns_page)}
