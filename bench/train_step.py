"""Whole TopK training steps: ours against eai-sparsify, sae-lens and a dense PyTorch step.

Every step takes the same activations, finds the k largest of n pre-activations, descends with
Adam and (where the library does so) brings the decoder back to unit norm. Run:
    python bench/train_step.py [--tokens 4096 --latents 32768 --d 576 --k 32 --threads 2]
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its Triton decode needs a GPU

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.common import RESULTS, interleaved, machine, markdown, median_ratio
from langsae.files import write_json
from langsae.saes.train import TopKTrainer, TrainSpec

EPS = 6.25e-10
Step = Callable[[], object]


BATCHES = 10  # no step sees a batch twice in a default run


def activations(tokens: int, d: int, device: str) -> Tensor:
    """Sparse mixtures of 3,000 directions, two dimensions times 10: [BATCHES, tokens, d]."""
    torch.manual_seed(0)
    directions = F.normalize(torch.randn(3000, d), dim=1)
    mix = torch.rand(BATCHES * tokens, 3000)
    x = (mix * (mix > 0.98)) @ directions
    x[:, [5, d // 2]] *= 10
    return ((x - x.mean(0)) / x.std()).view(BATCHES, tokens, d).to(device)


def ours(encoder: str, x: Tensor, n: int, k: int) -> Step:
    spec = TrainSpec(
        n_latents=n,
        k=k,
        batch_tokens=x.shape[1],
        input_norm="none",
        encoder=encoder,
        warmup_steps=10,
    )
    trainer = TopKTrainer(spec, x.shape[2], "bench", device=x.device)
    batches = cycle(x)
    return lambda: trainer.step(next(batches))


def sparsify_adam(x: Tensor, n: int, k: int) -> Step:
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(x.shape[2], SparseCoderConfig(num_latents=n, k=k), device=x.device)
    adam = torch.optim.Adam(coder.parameters(), 1e-3, eps=EPS)
    batches = cycle(x)

    def step() -> None:
        coder(next(batches)).fvu.backward()
        adam.step()
        adam.zero_grad()
        coder.set_decoder_norm_to_unit_norm()

    return step


def sae_lens_trainer(x: Tensor, n: int, k: int) -> Step:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = str(x.device)
    config = TopKTrainingSAEConfig(d_in=x.shape[2], d_sae=n, k=k, device=device)
    sizes = {"total_training_samples": 10**6, "train_batch_size_samples": x.shape[1]}
    schedule = SAETrainerConfig(**sizes, lr=1e-3, lr_end=1e-3, device=device)
    trainer = SAETrainer(schedule, TopKTrainingSAE(config), data_provider=iter(()))
    batches = cycle(x)
    return lambda: trainer.step(next(batches))


def dense(x: Tensor, n: int, k: int) -> Step:
    """As the llm-jp study's code does it: dense codes, dense decode, dense gradients."""
    d, batches = x.shape[2], cycle(x)
    encoder = torch.nn.Linear(d, n, device=x.device)
    decoder = torch.nn.Linear(n, d, bias=False, device=x.device)
    b_pre = torch.nn.Parameter(torch.zeros(d, device=x.device))
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), b_pre], 1e-3, eps=EPS)

    def step() -> None:
        x = next(batches)
        top = F.relu(encoder(x - b_pre)).topk(k, dim=1)
        codes = torch.zeros(len(x), n, device=x.device).scatter(1, top.indices, top.values)
        loss = (decoder(codes) + b_pre - x).square().sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            decoder.weight /= decoder.weight.norm(dim=0, keepdim=True)

    return step


def encoder_limit(x: Tensor, n: int) -> dict[str, Step]:
    """The encoder product alone, which no step that looks at each latent can undercut."""
    x = x[0]
    weights = torch.randn(n, x.shape[1], device=x.device)
    low = weights.bfloat16()
    return {
        "encoder product, float32": lambda: [rows @ weights.T for rows in x.split(512)],
        "encoder product, bfloat16": lambda: [rows @ low.T for rows in x.bfloat16().split(512)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"tokens": 4096, "latents": 32_768, "d": 576, "k": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=240, help="seconds")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    x = activations(given.tokens, given.d, "cuda" if torch.cuda.is_available() else "cpu")
    size = (x, given.latents, given.k)
    encoders = ("float32", "bfloat16", "int8")
    steps = {f"langsae {encoder}": ours(encoder, *size) for encoder in encoders}
    steps |= {
        "eai-sparsify + Adam": sparsify_adam(*size),
        "sae-lens trainer": sae_lens_trainer(*size),
    }
    steps |= {"dense PyTorch": dense(*size), **encoder_limit(x, given.latents)}
    times = interleaved(steps, given.rounds, given.budget)
    report(times, vars(given))


def report(times: dict[str, list[float]], given: dict) -> None:
    """Print the table and write bench/results/train_step.json."""
    fastest = [name for name in times if name.startswith("langsae")]
    others = [name for name in times if not name.startswith("langsae")]
    ratios = {
        name: {mine: round(median_ratio(times, name, mine), 2) for mine in fastest}
        for name in others
    }
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        [name, f"{seconds:.2f}", f"{given['tokens'] / seconds:,.0f}"]
        + [f"{ratios[name][mine]:.2f}" if name in ratios else "" for mine in fastest]
        for name, seconds in medians.items()
    ]
    header = ["step", "seconds", "tokens/s", *(f"time / {mine}" for mine in fastest)]
    print(markdown(header, rows))
    result = {"machine": machine(), "sizes": given, "seconds": times, "time_ratios": ratios}
    write_json(RESULTS / "train_step.json", result)


if __name__ == "__main__":
    main()
