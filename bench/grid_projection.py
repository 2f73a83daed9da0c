"""The paper's whole grid in A100-hours, projected from rates measured here at its own sizes.

What a token costs is measured for one block of each LLM-jp-3 size, its output head, a dense SAE
step and ours. The share of the model's pass in (pass + dense step) divides the published minutes of
one SAE (Table 3) into the two; from there on the layers share a pass and steps are ours.
"""

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple

import torch

from bench.common import markdown, seconds
from bench.train_step import BATCHES, activations, dense, ours
from langsae.saes.train import TrainSpec
from replications.llmjp_tracing.grid import at_once

LATENTS, K, CHECKPOINTS, RATES = 32_768, 32, 6, 6
VOCABULARY = 99_584
DEVICE, RESERVED = 40e9, 3e9  # bytes of an A100-40GB, and of it for texts in flight
TEXTS, TEXT = 8, 64


class Size(NamedTuple):
    """LLM-jp-3 as in its model cards, and the published minutes of one SAE (Table 3)."""

    layers: int
    d_model: int
    d_mlp: int
    heads: int
    parameters: float
    minutes: int


SIZES = {
    "150M": Size(12, 512, 2048, 8, 0.15e9, 20),
    "440M": Size(16, 1024, 3584, 8, 0.45e9, 25),
    "980M": Size(20, 1536, 5376, 8, 0.99e9, 40),
    "1.8B": Size(24, 2048, 7168, 16, 1.87e9, 60),
    "3.7B": Size(28, 3072, 8192, 24, 3.78e9, 90),
}


def projection(tokens: int) -> dict[str, Any]:
    """Rates of every size, and hours that follow from them."""
    found = {name: hours(size, rates(size, tokens)) for name, size in SIZES.items()}
    total = {
        key: sum(of_size[key] for of_size in found.values())
        for key in ("original", "ours", "one_pass_only")
    }
    return {"sizes": found, "checkpoint": total, "tokens": tokens}


@torch.inference_mode()
def _model_rates(size: Size) -> dict[str, float]:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=size.d_model, intermediate_size=size.d_mlp, num_hidden_layers=1,
        num_attention_heads=size.heads, num_key_value_heads=size.heads, vocab_size=256,
    )  # fmt: skip
    block = LlamaModel(config).eval()
    ids = torch.randint(256, (TEXTS, TEXT))
    head, x = torch.randn(VOCABULARY, size.d_model), torch.randn(TEXTS * TEXT, size.d_model)
    return {
        "block": _best(lambda: block(input_ids=ids, use_cache=False)) / ids.numel(),
        "head": _best(lambda: x @ head.T) / ids.numel(),
    }


def rates(size: Size, tokens: int) -> dict[str, float]:
    """Seconds a token: a block, the output head, a dense SAE step and ours."""
    found = _model_rates(size)
    x = activations(-(-tokens // BATCHES), size.d_model, "cpu").view(1, -1, size.d_model)
    x = x[:, :tokens]
    # one after the other: two such SAEs in training do not fit in the memory of a small machine
    found["dense_step"] = _best(dense(x, LATENTS, K)) / tokens
    found["our_step"] = _best(ours("float32", x, LATENTS, K)) / tokens
    return found


def _best(task: Callable[[], object]) -> float:
    """The shortest of two calls after a first one: least disturbed by what else runs."""
    task()
    return min(seconds(task) for _ in range(2))


def hours(size: Size, rate: dict[str, float]) -> dict[str, Any]:
    """A100-hours of one checkpoint, all layers: as published, and projected."""
    blocks = size.layers * rate["block"]
    share = (blocks + rate["head"]) / (blocks + rate["head"] + rate["dense_step"])
    model, steps = share * size.minutes / 60, (1 - share) * size.minutes / 60
    free = int(DEVICE - RESERVED - 2 * size.parameters)  # beside the model in bfloat16
    passes = ceil(size.layers / at_once(free, TrainSpec(n_latents=LATENTS), size.d_model))
    of_passes = passes * model * blocks / (blocks + rate["head"])
    slower = rate["our_step"] / rate["dense_step"]
    return {
        "rates": rate, "share": share, "passes": passes,
        "original": size.layers * size.minutes / 60,
        "ours": of_passes + size.layers * steps * slower,
        "one_pass_only": of_passes + size.layers * steps,
    }  # fmt: skip


def projection_table(found: dict[str, Any]) -> str:
    """The hours of a checkpoint by size, of the whole grid, and what was assumed."""
    rows = [
        [name, f"{of_size['share']:.0%}",
         f"{of_size['rates']['dense_step'] / of_size['rates']['our_step']:.1f}", of_size["passes"],
         *(f"{of_size[key]:.1f}" for key in ("original", "ours", "one_pass_only"))]
        for name, of_size in found["sizes"].items()
    ]  # fmt: skip
    total = found["checkpoint"].values()
    rows.append(["a checkpoint, all sizes", "", "", "", *(f"{value:.1f}" for value in total)])
    grid = [CHECKPOINTS * value for value in total]
    rows.append([f"the grid, {CHECKPOINTS} checkpoints", "", "", "", *(f"{v:.0f}" for v in grid)])
    header = ["size", "model's share", "dense / our step", "passes", "Table 3, h", "projected, h",
              "sharing passes alone, h"]  # fmt: skip
    return f"""A100-40GB hours of the paper's grid, projected from rates measured here:

{markdown(header, rows)}

Assumed: the share of the model's pass, measured here in float32 with {found["tokens"]} tokens a
step, is that of the authors' GPU, where both are bound by the same kind of products; so is the
ratio of dense to our step in the column "projected" (gathers gain less from a GPU than products,
hence the last column, which keeps the authors' steps and saves only passes). The states of the SAEs
(weights and two moments) share 40 GB with the model, hence more than one pass for larger sizes.
Not counted: the search for learning rates, loading, and the evaluation."""
