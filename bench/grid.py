"""The SAEs of all layers of a checkpoint from one pass, against a pass of the model for each.

Ours: one pass up to the last layer gives the activations of all, then sparse steps. Original, as in
the llm-jp study's code: for each layer a whole pass, logits included, then dense steps (dense
codes, dense decoder, dense gradients). Both ways take the same texts of 64 tokens, and their
activations must agree. What that means for the paper's grid is projected by grid_projection. Run:
    python -m bench.grid [--rounds 5 --budget 60]
"""

import argparse
import statistics
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common import RESULTS, interleaved, machine, markdown, median_ratio
from bench.grid_projection import projection, projection_table
from bench.train_step import dense, ours
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel
from langsae.models.source import LoadedModel

TEXT = 64  # positions of a text, BOS among them
SAVED, WHOLE = 0.7, 3  # of L passes of the model; times as fast as a whole


class Shape(NamedTuple):
    """A Llama, and the SAEs of its layers."""

    layers: int
    d_model: int
    d_mlp: int
    vocabulary: int
    latents: int
    k: int
    tokens: int  # of a batch of the SAEs


SHAPES = {
    "demo's model": Shape(4, 128, 384, 4096, 1024, 16, 2048),
    "12 layers": Shape(12, 192, 512, 8192, 2048, 32, 1024),
}
BATCHES = 2


def language_model(shape: Shape) -> LanguageModel:
    """Random weights: the arithmetic does not depend on them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape.d_model, intermediate_size=shape.d_mlp, num_hidden_layers=shape.layers,
        num_attention_heads=4, num_key_value_heads=4, vocab_size=shape.vocabulary,
    )  # fmt: skip
    loaded = LoadedModel(
        LlamaForCausalLM(config), None, {}, n_layers=shape.layers, d_model=shape.d_model
    )
    return LanguageModel(loaded)


def one_pass(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """Activations [tokens, d] of every layer, BOS left out."""
    hooks = [HookPoint.parse(f"resid_post.{layer}") for layer in range(model.n_layers)]
    taken = [model.activations(part, hooks) for part in ids.split(32)]
    return [torch.cat([part[hook][:, 1:].flatten(0, 1) for part in taken]) for hook in hooks]


@torch.inference_mode()
def pass_a_layer(model: LanguageModel, ids: Tensor) -> list[Tensor]:
    """The same, by a whole pass for each layer."""
    found: list[Tensor] = []
    for block in model.network.model.layers:
        parts: list[Tensor] = []

        def keep(module, args, out, parts=parts) -> None:
            parts.append((out[0] if isinstance(out, tuple) else out)[:, 1:].flatten(0, 1))

        handle = block.register_forward_hook(keep)
        for part in ids.split(32):
            model.network(part, use_cache=False)
        handle.remove()
        found.append(torch.cat(parts))
    return found


def measure(shape: Shape, rounds: int, budget: float) -> dict[str, Any]:
    """Seconds of BATCHES batches for all layers: the model's part and the SAEs', both ways."""
    model = language_model(shape)
    texts = -(-shape.tokens * BATCHES // (TEXT - 1))
    ids = torch.randint(shape.vocabulary, (texts, TEXT), generator=torch.Generator().manual_seed(1))
    together, apart = one_pass(model, ids), pass_a_layer(model, ids)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    x = [F.normalize(one, dim=1)[: shape.tokens * BATCHES] for one in together]
    x = [rows.view(BATCHES, shape.tokens, shape.d_model) for rows in x]
    sparse = [ours("float32", rows, shape.latents, shape.k) for rows in x]
    full = [dense(rows, shape.latents, shape.k) for rows in x]
    tasks = {
        "model, ours": lambda: one_pass(model, ids),
        "model, original": lambda: pass_a_layer(model, ids),
        "SAEs, ours": lambda: [step() for step in sparse for _ in range(BATCHES)],
        "SAEs, original": lambda: [step() for step in full for _ in range(BATCHES)],
    }
    times = interleaved(tasks, rounds, budget)
    for way in ("ours", "original"):
        parts = zip(times[f"model, {way}"], times[f"SAEs, {way}"], strict=True)
        times[f"whole, {way}"] = [sum(part) for part in parts]
    ratios = {
        part: round(median_ratio(times, f"{part}, original", f"{part}, ours"), 2)
        for part in ("model", "SAEs", "whole")
    }
    return {"shape": shape._asdict(), "seconds": times, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    """The two sizes with their targets, then the paper's grid."""
    rows = []
    for name, found in result["models"].items():
        layers = found["shape"]["layers"]
        for part, ratio in found["ratios"].items():
            medians = [
                statistics.median(found["seconds"][f"{part}, {way}"])
                for way in ("original", "ours")
            ]
            target = {"model": f"{SAVED * layers:.1f}", "whole": WHOLE}.get(part, "")
            label = {"model": "passes of the model", "SAEs": "SAE steps"}.get(part, part)
            rows.append([name, label, *(f"{value:.3g}" for value in medians), ratio, target])
    header = ["model", "part", "original, s", "ours, s", "times as fast", "target"]
    return f"{markdown(header, rows)}\n\n{projection_table(result['projection'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=60, help="seconds for each model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024, help="of a step at the paper's sizes")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = {
        "models": {
            name: measure(shape, given.rounds, given.budget) for name, shape in SHAPES.items()
        },
        "projection": projection(given.tokens),
        "sizes": vars(given),
        "machine": machine(),
    }
    print(table(result))
    write_json(RESULTS / "grid.json", result)


if __name__ == "__main__":
    main()
