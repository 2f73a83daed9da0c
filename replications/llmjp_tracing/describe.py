"""What each feature of each checkpoint and layer is: language, entropies, span length.

Reads what stage collect_llmjp_tracing counted, and the input embeddings that say which tokens are
similar; no text passes a model here. The authors' own data (`published`) takes the same functions.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from safetensors.numpy import save_file
from torch import Tensor

from langsae.command import run
from langsae.errors import InputError
from langsae.files import publish, read_json, write_json
from langsae.metrics.semantics import (
    CLASSES,
    TokenCounts,
    language_class,
    semantic_entropy,
    token_entropy,
)
from langsae.metrics.spans import mean_span, runs_of_entries
from langsae.metrics.token_groups import Similarity
from langsae.models.language_model import load
from langsae.params import Spec, section
from langsae.paths import expand
from langsae.reducers.activating_tokens import SavedActivatingTokens
from langsae.reducers.base import read
from langsae.reducers.span_lengths import SpanLengths
from replications.llmjp_tracing import page
from replications.llmjp_tracing.run import STUDY, Run, checkpoint, folder, history_folder, steps

Arrays = dict[str, np.ndarray]


class Describing(Spec):
    """threshold: share of activating tokens above which a feature is of a language (version 1);
    cosine: similarity of input embeddings above which two tokens mean the same (the paper).
    """

    threshold: float = Field(default=0.9, ge=0.5, lt=1)
    cosine: float = Field(default=0.1, ge=-1, lt=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile = section("profile", str)
    wanted = section(f"{STUDY}.runs.{name}", Run)
    describing = section(f"{STUDY}.describe", Describing)
    out = folder(profile, name, "described")
    if wanted.published is not None:
        describe_page(expand(wanted.published), describing, out)
        return
    describe(folder(profile, name, "collected"), history_folder(wanted.history),
             history_folder(wanted.embeddings), describing, out)  # fmt: skip


def describe(
    collected: Path, history: Path, embeddings: Path, describing: Describing, out: Path
) -> None:
    """Publish features.safetensors (arrays [C, L, F]), index.json and patterns.json at `out`.

    collected: what collecting published; history: the run's; embeddings: the history whose last
    checkpoint's input embeddings are used. Raises InputError where their vocabulary is another.
    """
    size = read_json(collected / "totals.json")["vocabulary"]
    similar = Similarity(input_embeddings(embeddings, size), describing.cosine)
    described, shown = [], []
    names = {step: collected / f"step_{step:07d}" for step in steps(history)}
    for step, cell in names.items():
        described.append(describe_checkpoint(cell, similar, describing.threshold))
        shown += _patterns(cell, step, described[-1], describing.threshold)
    header = SavedActivatingTokens(cell / "activating_tokens.safetensors").header
    layers = [int(hook.rpartition(".")[2]) + 1 for hook in header["hooks"]]
    index = {"steps": list(names), "layers": layers, "languages": header["languages"]}
    arrays = {name: np.stack([one[name] for one in described]) for name in described[0]}
    settings = describing.model_dump() | {"bar": header["bar"]}
    publish_described(out, arrays, index, shown, settings)


def describe_page(path: Path, describing: Describing, out: Path) -> None:
    """The same from the project page's table, without what it cannot tell (see page.py)."""
    rows = page.read(path)
    index = {"steps": sorted({int(row["checkpoint"]) for row in rows}), "layers": [page.LAYER],
             "languages": ["en", "ja"]}  # fmt: skip
    described = []
    for step in index["steps"]:
        by_language, counts = page.windows(rows, step)
        described.append(by_language | classes(by_language, describing.threshold)
                         | entropies(counts))  # fmt: skip
    arrays = {name: np.stack([one[name][None] for one in described]) for name in described[0]}
    publish_described(out, arrays, index, [], {"threshold": describing.threshold})


def input_embeddings(history: Path, vocabulary: int) -> Tensor:
    """Input embeddings [V, d] of a history's last checkpoint; InputError where its tokenizer has
    not the size of the one that made the tokens (the study's model sizes share one tokenizer)."""
    last = checkpoint(history, steps(history)[-1])
    model = load(last, "cpu")
    if len(model.tokenizer) != vocabulary:
        raise InputError(
            f"{last}: its tokenizer has {len(model.tokenizer)} tokens, the run's has {vocabulary}; "
            "take `embeddings` from a history of the same tokenizer"
        )
    return model.network.get_input_embeddings().weight.detach().float()


def describe_checkpoint(cell: Path, similar: Similarity, threshold: float) -> Arrays:
    """Every measure of one checkpoint's features, each [L, F]."""
    near = SavedActivatingTokens(cell / "activating_tokens.safetensors")
    _, spans = read(cell / "span_lengths.safetensors", SpanLengths.name)
    tokens, runs = (spans[name].sum(dim=1).numpy() for name in ("tokens", "runs"))
    hooks, features = near.maximum.shape
    layers = []
    for hook in range(hooks):
        layer = describe_layer(near.entries(hook), features, similar, threshold)
        layers.append(layer | {"span_top_k": mean_span(tokens[hook], runs[hook])})
    return {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}


def describe_layer(found: Arrays, features: int, similar: Similarity, threshold: float) -> Arrays:
    """The measures of one layer's features, each [F], from the columns of its activating tokens."""
    feature = found["feature"].astype(np.int64)
    by_language = {
        f"{language}_{source}": np.bincount(feature[found[column] == code], minlength=features)
        for source, column in (("document", "language"), ("rule", "rule"))
        for code, language in enumerate(("en", "ja"))
    }
    counts = TokenCounts.of(feature, found["token"].astype(np.int64), features)
    semantic = {
        f"semantic_entropy_{grouping}": semantic_entropy(counts, groups)
        for grouping, groups in similar.groups(counts).items()
    }
    order = (found[name] for name in ("feature", "language", "example", "position"))
    spans = {"span_bar": mean_span(*runs_of_entries(*order, features))}
    return by_language | classes(by_language, threshold) | entropies(counts) | semantic | spans


def classes(by_language: Arrays, threshold: float) -> Arrays:
    """Language classes by document and by version 1's rule."""
    return {
        f"class_{source}": language_class(
            by_language[f"en_{source}"], by_language[f"ja_{source}"], threshold
        )
        for source in ("document", "rule")
    }


def entropies(counts: TokenCounts) -> Arrays:
    """Token entropy, and how many kinds of activating tokens there are."""
    return {"token_entropy": token_entropy(counts), "kinds": np.diff(counts.starts)}


def _patterns(cell: Path, step: int, arrays: Arrays, threshold: float) -> list[dict[str, Any]]:
    """The windows that collecting kept, with the class of each feature, by document."""
    shown = read_json(cell / "patterns.json")
    header = SavedActivatingTokens(cell / "activating_tokens.safetensors").header
    places = {int(hook.rpartition(".")[2]) + 1: at for at, hook in enumerate(header["hooks"])}
    return [
        {"step": step, **one,
         "class": CLASSES[arrays["class_document"][places[one["layer"]], one["feature"]]]}
        for one in shown
    ]  # fmt: skip


def publish_described(
    out: Path, arrays: Arrays, index: dict[str, Any], shown: list, settings: dict[str, Any]
) -> None:
    """Publish arrays [C, L, F], what their axes are, and the windows that are shown."""
    features = next(iter(arrays.values())).shape[2]
    with publish(out) as part:
        part.mkdir(parents=True)
        save_file({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)},
                  part / "features.safetensors")  # fmt: skip
        write_json(part / "index.json", {**index, "features": features, "settings": settings})
        write_json(part / "patterns.json", shown, by_line=True)


if __name__ == "__main__":
    run(main)
