"""The page one looks at: the best features, with the aligned texts in which they are strongest."""

import json

import pandas as pd

from langsae.coloured_text import columns, note, page, spans, table
from langsae.figures import name

LISTED = 11  # features of each reading in the tables at the top
ABOUT = (
    "Features of a sparse autoencoder, ranked by how alike their activation is over translations. "
    "Lower scores are better. Colour grows with the activation, up to the feature's largest on "
    "this page; hover over a token for the number. Texts are those in which the feature is "
    "strongest in one of the languages, beside their translation."
)


def contexts_page(contexts: pd.DataFrame, ranking: pd.DataFrame) -> str:
    """An HTML document from the tables `contexts` and `ranking` of one profile."""
    sections = [("", note(ABOUT))]
    for (model, reading), part in ranking.groupby(["model", "reading"], sort=False):
        if "feature" in part and bool(part["feature"].notna().all()):
            sections.append((f"{model}: {reading}", _ranked(part.sort_values("rank")[:LISTED])))
    for (model, feature), part in contexts.groupby(["model", "feature"], sort=False):
        sections.append((f"{model}: feature {feature}", _feature(part, ranking)))
    return page("Bilingual features", sections)


def _ranked(part: pd.DataFrame) -> str:
    codes = [column.split(":")[1] for column in part if column.startswith("texts:")]
    codes = [code for code in codes if bool(part[f"texts:{code}"].notna().all())]
    head = ["rank", "feature", "score", "active together"]
    head += [f"texts in {name(code)}" for code in codes]
    rows = [
        [str(row["rank"]), str(int(row["feature"])), f"{row['score']:.6g}",
         f"{row['together']:.0%}", *(f"{row[f'texts:{code}']:.0f}" for code in codes)]
        for row in part.to_dict("records")
    ]  # fmt: skip
    return table(head, rows)


def _feature(part: pd.DataFrame, ranking: pd.DataFrame) -> str:
    """Where one feature ranks, and its texts side by side."""
    model, feature = part[["model", "feature"]].iloc[0]
    places = []
    if "feature" in ranking:
        found = ranking[(ranking["model"] == model) & (ranking["feature"] == feature)]
        places = [f"{row.reading}: rank {row.rank}" for row in found.itertuples()]
    texts = [
        (text.place, text.language, json.loads(text.pieces), json.loads(text.activations))
        for text in part.itertuples()
    ]
    top = max((value for _, _, _, values in texts for value in values), default=0)
    if not top > 0:
        return note("; ".join([*places, "active on padding or in other texts only"]))
    blocks = []
    for place in dict.fromkeys(place for place, *_ in texts):
        cells = [(name(code), spans(words, values, top))
                 for at, code, words, values in texts if at == place]  # fmt: skip
        blocks.append(columns(cells))
    return note("; ".join([*places, f"largest activation here {top:.4g}"])) + "".join(blocks)
