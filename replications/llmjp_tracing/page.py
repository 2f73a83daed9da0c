"""The study's project page: up to 50 windows for each of 100 features of 1.8B's layer 12.

What the page gives takes the place of a run's activating tokens: each window's most active token,
the token whose script decides the window's language, and the window's document. Nothing there says
which tokens are similar (no embeddings) nor where a window's active tokens stand (no spans), so
the arrays that need these are absent.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

from langsae.errors import InputError
from langsae.metrics.semantics import TokenCounts
from langsae.metrics.token_language import language_of_token

LAYER, FEATURES = 12, 100
_COLUMNS = {"checkpoint", "feature", "doc_en", "doc_ja", "top_tokens", "language_tokens"}


def read(path: Path) -> list[dict[str, str]]:
    """The rows of the page's table, one a checkpoint and feature; InputError for another file."""
    csv.field_size_limit(sys.maxsize)  # a row's windows are one field
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; set LANGSAE_REFERENCE") from error
    if not rows or not set(rows[0]) >= _COLUMNS:
        raise InputError(f"{path}: not the project page's table of features; it needs the columns "
                         f"{', '.join(sorted(_COLUMNS))}")  # fmt: skip
    return rows


def windows(rows: list[dict[str, str]], step: int) -> tuple[dict[str, np.ndarray], TokenCounts]:
    """One checkpoint: windows by language (en_document, …, ja_rule; int64 [100] each), and the top
    tokens of each feature's windows, numbered by first appearance.

    A feature that the page leaves out has none.
    """
    names = ("en_document", "ja_document", "en_rule", "ja_rule")
    by_language = {name: np.zeros(FEATURES, dtype=np.int64) for name in names}
    feature, token, ids = [], [], {}
    for row in rows:
        if int(row["checkpoint"]) != step:
            continue
        at, top = int(row["feature"]), json.loads(row["top_tokens"])
        feature += [at] * len(top)
        token += [ids.setdefault(text, len(ids)) for text in top]
        ruled = [language_of_token([text]) for text in json.loads(row["language_tokens"])]
        for language in ("en", "ja"):
            by_language[f"{language}_document"][at] = int(row[f"doc_{language}"])
            by_language[f"{language}_rule"][at] = ruled.count(language)
    columns = (np.array(column, dtype=np.int64) for column in (feature, token))
    return by_language, TokenCounts.of(*columns, FEATURES)
