"""Some features of every layer along the texts in which they are strongest (Figs. 4 and 7).

The study shows chosen examples. Here, in every layer: the features most English, most Japanese and
most evenly shared by language of document, among those with enough activating tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from langsae import stream
from langsae.compute import Compute
from langsae.models.language_model import LanguageModel
from langsae.models.pieces import pieces
from langsae.models.tokens import TokenIds, TokenisedCorpus
from langsae.reducers.activating_tokens import ActivatingTokens
from langsae.reducers.contexts import Context, TopContexts
from langsae.reducers.traces import FeatureTraces

LEAST = 8  # activating tokens: below, a share of languages says little

Window = tuple[int, Context]  # language, and where


def choose(counts: np.ndarray, shown: int) -> list[int]:
    """`shown` features most of language 0, then of language 1, then most evenly shared, rising.

    counts: activating tokens, int64 [2, F]. Ties go to more tokens, then to the lower index;
    features with fewer than LEAST tokens are left out, so there may be fewer features.
    """
    total = counts.sum(axis=0)
    some = np.flatnonzero(total >= LEAST)
    share = counts[0, some] / total[some]
    chosen: set[int] = set()
    for distance in (1 - share, share, np.abs(share - 0.5)):
        order = some[np.lexsort((some, -total[some], distance))].tolist()
        chosen.update([feature for feature in order if feature not in chosen][:shown])
    return sorted(chosen)


def trace(
    model: LanguageModel,
    bank: stream.Bank,
    tokens: TokenisedCorpus,
    near: ActivatingTokens,
    contexts: TopContexts,
    shown: int,
    compute: Compute,
    scratch: Path,
) -> list[dict[str, Any]]:
    """The chosen features of every hook, each with its windows of both languages, as JSON.

    A window is one whole text: language, pieces and values by counted position, and `top`, the
    index of its largest value. Passes these texts through `model` and `bank` once more.
    """
    chosen = {hook: choose(_counts(near, hook), shown) for hook in range(len(bank))}
    windows = {
        (hook, feature): [(language, context) for language in range(len(tokens.languages))
                          for context in contexts.top(hook, language, feature)]
        for hook, features in chosen.items() for feature in features
    }  # fmt: skip
    texts = _texts(tokens, [window for found in windows.values() for window in found])
    if not texts:
        return []
    part = _part(tokens, list(texts.values()))
    features = {f"{hook}": features for hook, features in chosen.items()}
    traces = FeatureTraces(near.header | {"chosen": features, "texts": len(texts)}, chosen)
    stream.collect(model, bank, part, [traces], compute, scratch)
    values = _strips(traces)
    shown_pieces = {text: pieces(model.tokenizer, tokens.ids[at]) for text, at in texts.items()}
    layers = [hook.layer + 1 for hook in bank]
    return [
        {"layer": layers[hook], "feature": feature,
         "windows": [_window(tokens, window, shown_pieces, values.get((hook, feature), {}))
                     for window in found]}
        for (hook, feature), found in windows.items()
    ]  # fmt: skip


def _counts(near: ActivatingTokens, hook: int) -> np.ndarray:
    found = near.entries(hook)
    features = near.maximum.shape[1]
    return np.stack([np.bincount(found["feature"][found["language"] == language],
                                 minlength=features) for language in (0, 1)])  # fmt: skip


def _texts(tokens: TokenisedCorpus, windows: Sequence[Window]) -> dict[tuple[int, int], int]:
    """Index into the corpus of every (language, example) of `windows`."""
    wanted = {(language, context.example) for language, context in windows}
    places = enumerate(zip(tokens.language, tokens.example, strict=True))
    return {text: index for index, text in places if text in wanted}


def _part(tokens: TokenisedCorpus, indices: Sequence[int]) -> TokenisedCorpus:
    columns = {name: tuple(getattr(tokens, name)[index] for index in indices)
               for name in ("language", "example")}  # fmt: skip
    padding = tuple(tokens.padding[index] for index in indices) if tokens.padding else ()
    return replace(tokens, ids=TokenIds(tokens.ids[index] for index in indices), padding=padding,
                   **columns)  # fmt: skip


def _strips(traces: FeatureTraces) -> dict[tuple[int, int], dict[tuple[int, int, int], float]]:
    """By (hook, feature): the values by (language, example, position)."""
    strips: dict[tuple[int, int], dict[tuple[int, int, int], float]] = {}
    columns = traces.columns()
    names = ("hook", "feature", "language", "example", "position", "value")
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    for hook, feature, language, example, position, value in rows:
        strips.setdefault((hook, feature), {})[language, example, position] = value
    return strips


def _window(
    tokens: TokenisedCorpus,
    window: Window,
    shown: Mapping[tuple[int, int], Sequence[str]],
    values: Mapping[tuple[int, int, int], float],
) -> dict[str, Any]:
    language, context = window
    text = shown[language, context.example]
    counted = range(tokens.skipped, len(text))
    return {
        "language": tokens.languages[language],
        "pieces": [text[position] for position in counted],
        "values": [float(f"{values.get((language, context.example, position), 0.0):.4g}")
                   for position in counted],
        "top": context.position - tokens.skipped,
    }  # fmt: skip
