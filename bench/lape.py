"""sae_lape at its published size: 16 layers, 131,072 features, 15 languages.

Collecting: our one pass, SAEs and neurons together, against the ways of bench.lape_original, on a
Llama-shaped model of random weights; all must agree. At the published width of 2,048 the SAEs'
encoder is nearly all of the work on a CPU, whoever asks it; a narrow model shows the rest.
All 16 SAEs share one matrix, as 16 of them would not fit here. Memory is the high-water mark of a
fresh process, less what it had with model and SAEs loaded, for a full batch.

Identifying: the whole stage on random counts of that size, from file to tables. Run:
    python -m bench.lape [--widths 64 2048 --texts 3 --rounds 2 --threads 2]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave their core to others

import numpy as np
import torch

from bench.common import RESULTS, machine, markdown, median_ratio, seconds
from bench.lape_original import WAYS, dense
from bench.lape_setting import (
    LATENTS,
    LAYERS,
    LENGTHS,
    K,
    llama_shaped,
    random_corpus,
    random_saes,
    some,
)
from bench.memory import peak
from langsae import stream
from langsae.compute import Compute
from langsae.files import write_json
from langsae.reducers.base import Reducer
from langsae.reducers.lape_counts import LapeCounts, NeuronCounts
from langsae.saes.neurons import neuron_bank
from replications.sae_lape.collect import counters
from replications.sae_lape.identify import Identify, identify

SETTINGS = {"example_rate": 0.98, "token_rate": 0.1, "joint": False, "mask_ratio": 0.5,
            "entropy_threshold": None, "top": 10, "top_per_layer": 1, "neuron_quantile": 0.95,
            "neuron_share": 0.01, "decimals": None, "histogram_bins": 40}  # fmt: skip
BATCH = 2048
WIDE = 512  # from this width on fewer texts, as a token takes a second or more in all ways
TARGETS = {"ratio": 5, "peak_gb": 4, "seconds": 10}


class Collection:
    """A model, its SAEs and a text, to be counted in several ways."""

    def __init__(self, width: int, texts: int, threads: int) -> None:
        self.compute = Compute(device="cpu", threads=threads, batch_tokens=BATCH)
        self.compute.apply()
        self.model, self.saes = llama_shaped(width), random_saes(width)
        self.corpus = random_corpus(texts)

    @property
    def tokens(self) -> int:
        """All that are counted."""
        return sum(self.corpus.counts().values())

    def ours(self) -> list[Reducer]:
        """The stage as sae_lape runs it, without loading and saving."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        neurons = neuron_bank(self.model, range(LAYERS))
        bank = dict(sorted((self.saes | neurons).items(), key=lambda item: item[0].order))
        header = {"languages": list(LENGTHS), "hooks": [str(hook) for hook in bank]}
        reducers = counters(header, bank, list(self.saes), len(LENGTHS), "cpu")
        with tempfile.TemporaryDirectory() as scratch:
            stream.collect(self.model, bank, self.corpus, reducers, self.compute, scratch)
        return reducers


def compare(ours: list[Reducer], theirs: dict[str, np.ndarray], languages: int) -> float:
    """The larger share of counts that differ; raises where it is more than float32 noise."""
    features, neurons = ours
    shares = []
    for name, mine in (("hits", features), ("examples", features), ("neurons", neurons)):
        state = mine.state["hits" if name == "neurons" else name].numpy()[:, :languages]
        shares.append(int(np.abs(state - theirs[name][:, :languages]).sum()) / int(state.sum()))
    if max(shares) > 1e-3:
        raise AssertionError(f"the two ways differ in hits, examples, neurons by {shares}")
    return max(shares)


def measure_speed(given: argparse.Namespace) -> dict:
    """Seconds a token of all ways, taking turns in this process."""
    wide = given.measure >= WIDE
    made = Collection(given.measure, 1 if wide else given.texts, given.threads)
    if wide:
        made.corpus = some(made.corpus, len(LENGTHS) // 3)
    parts = {name: some(made.corpus, 1) if way is dense else made.corpus
             for name, way in WAYS.items()}  # fmt: skip
    costs: dict[str, list[float]] = {name: [] for name in ("langsae", *WAYS)}
    differ: dict[str, float] = {}
    for _ in range(given.rounds):
        mine: list[Reducer] = []
        took = seconds(lambda found=mine: found.extend(made.ours()))
        costs["langsae"].append(took / made.tokens)
        for name, corpus in parts.items():
            found: dict[str, np.ndarray] = {}
            way, tokens = WAYS[name], sum(corpus.counts().values())
            took = seconds(
                lambda way=way, corpus=corpus, found=found: found.update(
                    way(made.model, made.saes, corpus)
                )
            )
            costs[name].append(took / tokens)
            differ[name] = compare(mine, found, len(set(corpus.language)))
    return {
        "tokens": made.tokens,
        "seconds_per_token": costs,
        "ratios": {name: median_ratio(costs, name, "langsae") for name in WAYS},
        "differ": differ,
    }


def measure_memory(given: argparse.Namespace) -> dict:
    """Our way on a full batch, its results saved, in this process."""
    made = Collection(given.measure, -(-BATCH // sum(LENGTHS.values())), given.threads)
    before = resident()  # its peak while these were made is higher
    forget_peak()
    next(iter(made.saes.values())).describe()  # before the pass, a header asks it of each
    described = peak() / 1024
    forget_peak()
    with tempfile.TemporaryDirectory() as folder:
        for reducer in made.ours():
            reducer.save(Path(folder) / reducer.name)
    return {"tokens": made.tokens, "before_gb": before, "describe_gb": described,
            "peak_gb": peak() / 1024}  # fmt: skip


def forget_peak() -> None:
    """Let the high-water mark start again (Linux: proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident() -> float:
    """What this process holds now, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 2**20


def measure_identify(given: argparse.Namespace) -> dict:
    """Seconds of the stage on random counts, most of them of rare features."""
    torch.set_num_threads(given.threads)
    rng = np.random.default_rng(0)
    tokens = {code: 1000 * mean for code, mean in LENGTHS.items()}
    header = {"languages": list(LENGTHS), "hooks": [f"mlp_out.{layer}" for layer in range(LAYERS)]}
    n = np.array(list(tokens.values()))[:, None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, features in ((LapeCounts, LATENTS), (NeuronCounts, 8192)):
            reducer = kind(header, range(LAYERS), len(LENGTHS), features)
            for layer, hits in enumerate(reducer.state["hits"].numpy()):
                rate = 10 ** rng.normal(-4.5, 0.8, features) * rng.lognormal(0, 1.2, hits.shape)
                hits[:] = rng.poisson(n * rate.clip(0, 0.9))
                texts = np.minimum(1000 * (1 - np.exp(-30 * rate)), hits)
                reducer.state["examples"][layer] = torch.from_numpy(texts).long()
            reducer.save(folder / f"{reducer.name}.safetensors")
        texts = dict.fromkeys(LENGTHS, 1000)
        write_json(folder / "totals.json", {"tokens": tokens, "examples": texts})
        del reducer
        times = [
            seconds(lambda: identify(folder, Identify(**SETTINGS), folder / "identified"))
            for _ in range(given.rounds)
        ]
        kept = json.loads((folder / "identified/summary.json").read_text())["kept"]
    return {"seconds": times, "kept": kept, "peak_gb": peak() / 1024}


MEASURES = {"speed": measure_speed, "memory": measure_memory, "identify": measure_identify}


def fresh(kind: str, width: int, given: argparse.Namespace) -> dict:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "bench.lape", "--kind", kind, "--measure", str(width)]
    for name in ("texts", "rounds", "threads"):
        command += [f"--{name}", str(getattr(given, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 2048])
    parser.add_argument("--texts", type=int, default=3, help="per language, at narrow widths")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kind", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.kind:
        print(json.dumps(MEASURES[given.kind](given)))
        return
    torch.set_num_threads(given.threads)
    result = {
        "sizes": {"layers": LAYERS, "latents": LATENTS, "languages": len(LENGTHS), "k": K,
                  "neurons": "4 x width", "batch": BATCH},
        "identify": fresh("identify", 0, given),
        "collect": {
            str(width): {kind: fresh(kind, width, given) for kind in ("speed", "memory")}
            for width in given.widths
        },
        "machine": machine(),
    }  # fmt: skip
    write_json(RESULTS / "lape.json", result)
    print(table(result))


def table(result: dict) -> str:
    """The result as markdown."""
    rows = []
    for width, found in sorted(result["collect"].items(), key=lambda item: int(item[0])):
        speed, memory = found["speed"], found["memory"]
        for name in ("langsae", *WAYS):
            ours, costs = name == "langsae", speed["seconds_per_token"][name]
            beyond, described = (
                memory[key] - memory["before_gb"] for key in ("peak_gb", "describe_gb")
            )
            rows.append([
                name, width, f"{1 / statistics.median(costs):,.1f}",
                "" if ours else f"{speed['ratios'][name]:.1f}", f"{beyond:.1f}" if ours else "",
                f"{described:.1f}" if ours else "",
            ])  # fmt: skip
    header = [
        "way",
        "width",
        "tokens/s",
        "time / langsae",
        "GB beyond model and SAEs",
        "GB while an SAE is hashed",
    ]
    identified = result["identify"]
    median = statistics.median(identified["seconds"])
    return "\n".join(
        [
            markdown(header, rows),
            "",
            f"Targets: {TARGETS['ratio']} times as fast, under {TARGETS['peak_gb']} GB. At width "
            "2,048 the encoder's product, the same in all ways, is most of the work on a CPU. "
            f"Identifying (2,097,152 features, 15 languages), stage from file to tables: "
            f"{median:.1f} s (target: {TARGETS['seconds']} s).",
        ]
    )


if __name__ == "__main__":
    main()
