"""Token-activation strips of the best features, in aligned texts."""

import json

import pandas as pd
from matplotlib.figure import Figure

from langsae.figures import name
from langsae.token_strips import Block, Strip, draw_strips

SHOWN = 3  # best features of each reading


def strips(contexts: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """The best features of each reading, each in its strongest aligned text.

    Where a ranking has no feature ids (published series) every text of contexts is shown.
    """
    return draw_strips(_blocks(contexts, ranking))


def _blocks(contexts: pd.DataFrame, ranking: pd.DataFrame) -> list[Block]:
    """(title, its lines, value of the deepest colour) of each block."""
    blocks = []
    for (model, feature), titles in _titles(contexts, ranking).items():
        here = contexts[(contexts["model"] == model) & (contexts["feature"] == feature)]
        places = [0] if "feature" in ranking and ranking["feature"].notna().any() else None
        shown = here if places is None else here[here["place"].isin(places)]
        values = [value for text in here["activations"] for value in json.loads(text)]
        top = max(values, default=0.0)
        for _, part in shown.groupby("place"):
            texts = [
                Strip(name(text.language), *map(json.loads, (text.pieces, text.activations)))
                for text in part.itertuples()
            ]
            title = f"{model}, feature {feature}" + (f": {titles}" if titles else "")
            blocks.append((title, texts, top))
    return blocks


def _titles(contexts: pd.DataFrame, ranking: pd.DataFrame) -> dict[tuple[str, int], str]:
    """What each shown feature of each model is the best in, as "corrected, rank 0"."""
    if "feature" not in ranking or ranking["feature"].isna().all():
        keys = contexts[["model", "feature"]].drop_duplicates().itertuples(index=False)
        return {tuple(key): "" for key in keys}
    known = set(contexts[["model", "feature"]].itertuples(index=False, name=None))
    titles: dict[tuple[str, int], list[str]] = {}
    for row in ranking[ranking["rank"] < SHOWN].itertuples():
        if pd.notna(row.feature) and (row.model, int(row.feature)) in known:
            where = f"{row.reading}, rank {row.rank}"
            titles.setdefault((row.model, int(row.feature)), []).append(where)
    return {key: "; ".join(readings) for key, readings in titles.items()}
