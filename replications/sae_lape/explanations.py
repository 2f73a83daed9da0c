"""The tables that stage interpret publishes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from langsae.files import write_json
from langsae.interpret.judge import Judged
from langsae.interpret.score import Method

FEATURE = ("language", "hook", "layer", "feature")
COLUMNS = {
    "explanations": [*FEATURE, "explanation", "status", "windows", "explainer"],
    "scores": [*FEATURE, "method", "tp", "tn", "fp", "fn", "unread", "explainer"],
    "excerpts": [*FEATURE, "method", "number", "window", "active", "quantile", "answer", "text"],
}


def write(
    part: Path, rows: pd.DataFrame, judged: Sequence[Judged], explainer: str, facts: dict[str, Any]
) -> None:
    """explanations.csv, scores.csv (of explained features), excerpts.csv and settings.json."""
    tables: dict[str, list[dict[str, Any]]] = {"explanations": [], "scores": [], "excerpts": []}
    for row, result in zip(rows.itertuples(), judged, strict=True):
        base = {name: getattr(row, name) for name in FEATURE}
        tables["explanations"].append(
            base | {"explanation": result.explanation, "status": result.status,
                    "windows": result.n_active, "explainer": explainer}
        )  # fmt: skip
        for method in result.excerpts:
            counts = asdict(result.confusion(method))
            tables["scores"].append(base | {"method": method} | counts | {"explainer": explainer})
            tables["excerpts"] += [
                base | {"method": method} | row for row in _excerpts(result, method)
            ]
    for name, columns in COLUMNS.items():
        frame = pd.DataFrame(tables[name], columns=columns)
        frame.to_csv(part / f"{name}.csv", index=False, float_format="%.10g")
    write_json(part / "settings.json", facts)


def _excerpts(result: Judged, method: Method) -> Iterator[dict[str, Any]]:
    pairs = zip(result.excerpts[method], result.said[method], strict=True)
    for number, (excerpt, said) in enumerate(pairs):
        yield {
            "number": number,
            "window": excerpt.window,
            "active": int(excerpt.active),
            "quantile": "" if excerpt.quantile is None else excerpt.quantile,
            "answer": "" if said is None else int(said),
            "text": excerpt.text,
        }
