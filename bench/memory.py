"""Peak memory of collecting a text, and of collecting twice as much.

Each measurement is a fresh process that makes texts in 12 languages, tokenises them, collects
12 hook points of a small random model with SAEs of 24,576 latents into the reducers of
flores_exploration, and saves those. Its peak is the high-water mark of its resident set. Run:
    python -m bench.memory [--texts 20 --repetitions 3]
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.collect import sparse_bias
from bench.common import RESULTS, machine, markdown
from langsae import stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import TokenPolicy, tokenise
from langsae.reducers.counts import FeatureCounts
from langsae.reducers.reconstruction import Reconstruction
from langsae.saes.threshold import ThresholdSAE

LANGUAGES = ["en", "de", "ru", "is", "es", "pt", "fr", "zh", "ja", "ko", "hi", "ar"]
HOOKS = [HookPoint("resid_post", layer) for layer in range(12)]
LATENTS = 24_576
WIDTH = 32
CHARACTERS = 130  # about a FLORES-200 dev sentence in English; the model's tokens are bytes


def random_texts(texts: int) -> ParallelCorpus:
    """Random ASCII, its lengths scattered by a third."""
    rng = np.random.default_rng(0)

    def text() -> str:
        length = int(CHARACTERS * (1 + np.clip(rng.standard_normal(), -2, 2) / 3))
        return rng.integers(33, 127, length, np.uint8).tobytes().decode("ascii")

    made = {code: tuple(text() for _ in range(texts)) for code in LANGUAGES}
    return ParallelCorpus("random", made)


def random_bank(model: LanguageModel) -> dict[HookPoint, ThresholdSAE]:
    """Random ReLU SAEs, calibrated on random ids to be as sparse as trained ones."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 256, (4, 128), generator=generator)
    bank = {}
    for hook, x in model.activations(ids, HOOKS).items():
        W_enc = torch.randn(WIDTH, LATENTS, generator=generator)
        b_enc = sparse_bias(x.flatten(0, 1) @ W_enc)
        bank[hook] = ThresholdSAE(W_enc, b_enc, W_enc.T.contiguous(), torch.zeros(WIDTH))
    return bank


def collect(texts: int, compute: Compute) -> dict[str, float]:
    """One measurement, in this process: `texts` texts in each language."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(TinyModel(source="tiny", d_model=WIDTH, layers=len(HOOKS)), folder / "model")
        model = load(folder / "model", "cpu")
        corpus = tokenise(model.tokenizer, random_texts(texts), TokenPolicy())
        bank = random_bank(model)
        header = stream.header(model, bank, corpus, "bench")
        counts = FeatureCounts(header, len(HOOKS), len(LANGUAGES), LATENTS)
        reducers = [counts, Reconstruction(header, len(HOOKS), len(LANGUAGES), WIDTH)]
        before = peak()
        stream.collect(model, bank, corpus, reducers, compute, folder / "scratch")
        stream.save_all(reducers, folder, {})
    tokens = sum(corpus.counts().values())
    active = int(counts.state["active"].sum()) / tokens / len(HOOKS)
    return {"tokens": tokens, "active_per_token": active, "before_mb": before, "peak_mb": peak()}


def peak() -> float:
    """High-water mark of this process in MB. (getrusage's would include the parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def fresh(texts: int, threads: int) -> dict[str, float]:
    """The measurement in a process of its own."""
    command = [sys.executable, "-m", "bench.memory", "--measure", str(texts)]
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20, help="per language")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    compute = Compute(device="cpu", threads=given.threads)
    compute.apply()
    if given.measure:
        print(json.dumps(collect(given.measure, compute)))
        return
    sizes = {"once": given.texts, "twice": 2 * given.texts}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sizes}
    for _ in range(given.repetitions):
        for name, texts in sizes.items():
            runs[name].append(fresh(texts, given.threads))
    medians = {name: statistics.median(run["peak_mb"] for run in runs[name]) for name in runs}
    result = {
        "machine": machine(),
        "sizes": {"texts": given.texts, "languages": len(LANGUAGES), "hooks": len(HOOKS),
                  "latents": LATENTS},
        "runs": runs,
        "peak_mb": medians,
        "growth": medians["twice"] / medians["once"] - 1,
    }  # fmt: skip
    write_json(RESULTS / "memory.json", result)
    print(table(result))


def table(result: dict) -> str:
    """The result as markdown."""
    rows = [
        [name, f"{runs[0]['tokens']:,}", f"{result['peak_mb'][name]:.0f}"]
        for name, runs in result["runs"].items()
    ]
    growth = f"Twice the text takes {100 * result['growth']:+.1f} % memory (target: within 5 %)."
    return "\n".join([markdown(["text", "tokens", "peak MB"], rows), "", growth])


if __name__ == "__main__":
    main()
