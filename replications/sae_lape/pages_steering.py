"""The page of active features: sentences with the tokens on which a language's features fire."""

from collections.abc import Iterator

import pandas as pd

from langsae.coloured_text import columns, note, page, spans, table
from langsae.languages import by_name
from langsae.languages import find as find_language

LISTED = 8  # features of a sentence in its table
INTRODUCTION = (
    "A token is the deeper in colour the more features of the language fire on it, up to the most "
    "on any token of the sentence; the number shows on hovering. Languages follow by how often "
    "their features fire."
)
SHOWN = 3  # languages whose features are shown on a sentence, those with most activity first


def active_features(active: pd.DataFrame, pieces: pd.DataFrame) -> str:
    """Each sentence once for each language whose features fire on it, and its busiest features."""
    return page("Language-specific features on single tokens", _sections(active, pieces))


def _sections(active: pd.DataFrame, pieces: pd.DataFrame) -> Iterator[tuple[str, str]]:
    yield "", note(INTRODUCTION)
    keys = ["run", "language", "sentence"]
    fired = dict(list(active.groupby(keys, sort=False)))
    for key, text in pieces.groupby(keys, sort=False):
        run, language, sentence = key
        heading = f"{run}: {find_language(language).name}, sentence {int(sentence) + 1}"
        rows = fired.get(key)
        yield heading, _sentence(text, active.iloc[:0] if rows is None else rows)


def _sentence(text: pd.DataFrame, rows: pd.DataFrame) -> str:
    text = text.sort_values("position")
    shown = text["piece"].tolist()
    if rows.empty:
        return spans(shown, [0.0] * len(shown), 1.0) + note("No language-specific feature fires.")
    counts = rows.groupby(["feature_language", "position"]).size()
    totals = counts.groupby("feature_language").sum()
    order = sorted(by_name(totals.index), key=lambda code: -totals[code])
    cells = []
    for code in order[:SHOWN]:
        values = counts[code].reindex(text["position"], fill_value=0).astype(float).tolist()
        heading = f"features of {find_language(code).name}: {totals[code]:,} activations"
        cells.append((heading, spans(shown, values, float(counts.max()))))
    left_out = [f"{find_language(code).name} {totals[code]:,}" for code in order[SHOWN:]]
    rest = note("Also: " + ", ".join(left_out)) if left_out else ""
    return columns(cells) + rest + _busiest(rows)


def _busiest(rows: pd.DataFrame) -> str:
    keys = ["feature_language", "hook", "feature"]
    sums = rows.groupby(keys).agg(tokens=("position", "nunique"), strongest=("value", "max"))
    top = sums.sort_values(["tokens", "strongest"], ascending=False, kind="stable").head(LISTED)
    at = rows.loc[rows.groupby(keys)["value"].idxmax()].set_index(keys)["piece"]
    lines = [
        (find_language(key[0]).name, key[1], str(key[2]), str(row.tokens), f"{row.strongest:.3g}",
         at[key].strip() or "(space)")
        for key, row in zip(top.index, top.itertuples(), strict=True)
    ]  # fmt: skip
    head = ("feature of", "hook point", "feature", "tokens", "largest value", "on")
    return table(head, lines)
