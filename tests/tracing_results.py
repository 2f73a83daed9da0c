"""Constructed results of every stage of one llmjp_tracing run, whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

STEPS = (0, 10, 100, 1000)
MIXED = (0.6, 0.4, 0.1, 0.3)  # share by checkpoint, before layers are told apart
BY_LAYER = (0.6, 1.4, 1.3, 0.7)  # what layers 1 to 4 make of it
PERPLEXITY = {"none": (50.0, 80.0), "en": (48.0, 79.0), "ja": (49.5, 77.0), "bi": (46.0, 75.0),
              "random": (49.8, 79.5)}  # fmt: skip
RATES = (0.001, 0.002, 0.005)
TEXTS = {
    "en": ["The", " file", " is", " saved", "."],
    "ja": ["フ", "ァイル", "を", "保存", "する。"],
}


def write(root: Path, features: int = 200) -> dict[str, Path]:
    """The folders of all stages under `root`, by the name of their result, and `history`."""
    names = ("evaluated", "rates", "collected", "described", "injected", "history")
    folders = {name: root / name for name in names}
    for folder in folders.values():
        folder.mkdir(parents=True)
    described(folders["described"], features)
    rates(folders["rates"])
    injected(folders["injected"])
    _json(
        folders["collected"] / "totals.json",
        {"tokens": {"en": 9, "ja": 8}, "inputs": {"corpus": "a", "model": "b", "saes": "c"}},
    )
    rows = [[str(step), code, 100, 9000 / (1 + at) + (500 if code == "ja" else 0)]
            for at, step in enumerate(STEPS) for code in ("en", "ja")]  # fmt: skip
    rows += [["unigram", "en", 100, 900.0], ["unigram", "ja", 100, 1200.0],
             ["bigram", "en", 100, 300.0], ["bigram", "ja", 100, 420.0]]  # fmt: skip
    _csv(folders["evaluated"] / "perplexity.csv", ["model", "language", "tokens", "perplexity"],
         rows)  # fmt: skip
    _csv(folders["history"] / "loss.csv", ["step", "loss", "lr", "tokens"],
         [[step, 9 - np.log1p(step), 1e-3, 512 * step] for step in range(0, 1001, 20)])  # fmt: skip
    return folders


def described(folder: Path, features: int) -> None:
    """Classes in the shares of MIXED and BY_LAYER; monosemanticity rises with the checkpoint."""
    shape = (len(STEPS), len(BY_LAYER), features)
    rng = np.random.default_rng(0)
    share = np.outer(MIXED, BY_LAYER)
    order = (np.arange(features) + 0.5) / features
    mixed = order < share[..., None]
    english = ~mixed & (np.arange(features) % 2 == 0)
    classes = np.select([mixed, english], [2, 0], 1)
    classes[:, :, -1] = -1  # one feature is dead
    token = rng.uniform(0.5, 3, shape)
    token[:, :, 0] = 0
    token[:, :, -1] = np.nan
    level = np.linspace(0.8, 0.2, len(STEPS))[:, None, None]
    semantic = np.clip(token * (level + rng.normal(0, 0.05, shape)), 0, None)
    alive = np.where(classes >= 0, 1, 0)
    arrays = {
        "class_document": classes, "class_rule": classes, "token_entropy": token,
        "semantic_entropy_connected": semantic, "semantic_entropy_greedy": semantic * 1.1,
        "span_top_k": np.where(alive, rng.uniform(1, 4, shape), np.nan),
        "span_bar": np.where(alive, rng.uniform(1, 2, shape), np.nan),
        "kinds": alive,
        **{f"{code}_{by}": alive for code in ("en", "ja") for by in ("document", "rule")},
    }  # fmt: skip
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()},
              folder / "features.safetensors")  # fmt: skip
    _json(
        folder / "index.json",
        {
            "steps": STEPS,
            "layers": [1, 2, 3, 4],
            "features": features,
            "languages": ["en", "ja"],
            "settings": {"threshold": 0.9},
        },
    )
    windows = [
        {"language": code, "pieces": TEXTS[code], "values": [0.0, 0.5, 0.0, 2.0, 0.1], "top": 3}
        for code in ("en", "ja") for _ in range(3)
    ]  # fmt: skip
    _json(folder / "patterns.json", [
        {"step": step, "layer": layer, "feature": feature, "class": name, "windows": windows}
        for step in STEPS for layer in (1, 2, 3, 4)
        for feature, name in ((0, "Mixed"), (1, "Japanese"), (2, "English"))
    ])  # fmt: skip


def rates(folder: Path) -> None:
    """Three learning rates of which 0.002 has the lowest loss on held-out text."""
    curves = {
        str(rate): [{"step": step, "loss": 1 / (1 + step * rate), "fvu": 0.5, "dead_fraction": 0.1}
                    for step in range(10, 101, 10)]
        for rate in RATES
    }  # fmt: skip
    held_out = {str(rate): {"loss": abs(rate - 0.002) + 0.2, "fvu": 0.3, "tokens": 9}
                for rate in RATES}  # fmt: skip
    _json(
        folder / "rates.json",
        {
            "grid": RATES,
            "curves": curves,
            "held_out": held_out,
            "selected": 0.002,
            "layer": 2,
            "step": 1000,
            "rule": "lowest",
        },
    )


def injected(folder: Path, perplexity: dict[str, tuple[float, float]] | None = None) -> None:
    """Three draws of 10 and 20 features at alpha 0.1 and 0.2; mixed ones help the most."""
    texts, scores = [], []
    for add, values in (perplexity or PERPLEXITY).items():
        cells = [(0.0, 0, 0)] if add == "none" else [
            (alpha, features, draw)
            for alpha in (0.1, 0.2) for features in (10, 20) for draw in range(3)
        ]  # fmt: skip
        for cell in cells:
            moved = (cell[2] - 1) * 0.01 * (add != "none")
            for code, value in zip(("en", "ja", "all"), (*values, sum(values) / 2), strict=True):
                texts.append([add, *cell, code, value + moved])
            for way, value in zip(("en-ja", "ja-en"), values, strict=True):
                scores += [[add, *cell, way, "chrf", 100 - value + moved],
                           [add, *cell, way, "comet", 110 - value + moved]]  # fmt: skip
    start = ["add", "alpha", "features", "draw"]
    _csv(folder / "perplexity.csv", [*start, "language", "perplexity"], texts)
    _csv(folder / "translation.csv", [*start, "direction", "metric", "score"], scores)
    drawn = {add: {"10": 10, "20": 15 if add == "bi" else 20} for add in PERPLEXITY}
    _json(folder / "settings.json", {"drawn": drawn})


def _csv(path: Path, columns: list[str], rows: list[list]) -> None:
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def _json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
