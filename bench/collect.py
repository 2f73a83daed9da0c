"""Collecting 12 hook points: our one pass against the original's one pass per SAE.

The original runs the whole language model for each SAE, logits included, on ten right-padded
sentences at a time, and makes dense codes [tokens, d_sae] that it decodes and sums. It is timed
kindly: only the wanted activation is cached and no padding enters the SAE. Both ways share one
GPT-2-small-shaped model of random weights and 12 random ReLU SAEs, and must agree.

A round times ours for all 12 SAEs, then the original for the next few of its equal 12 passes and
scales that to 12, so that load on the machine falls on both alike. Run:
    python -m bench.collect [--batches 1 --latents 24576 --rounds 6 --threads 2]
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is made here
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave their core to others

import numpy as np
import torch
from torch import Tensor

from bench.common import RESULTS, machine, markdown, median_ratio, seconds
from langsae import stream
from langsae.compute import Compute
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.source import prepare
from langsae.models.spec import FolderModel, TinyModel
from langsae.models.tiny import write_tiny
from langsae.models.tokens import TokenIds, TokenisedCorpus, TokenPolicy
from langsae.reducers.counts import FeatureCounts
from langsae.reducers.reconstruction import Reconstruction
from langsae.saes.threshold import ThresholdSAE

# Mean GPT-2 tokens of a FLORES-200 dev sentence: the study's token counts / 24,576 / 997.
LENGTHS = {"en": 26, "es": 51, "fr": 51}
HOOKS = [HookPoint("resid_pre", layer) for layer in range(12)]
BOS = 50_256
ACTIVE = 75  # latents active per token; gpt2-small-res-jb has about 50 to 100
ORIGINAL_BATCH = 10  # sentences

Sums = dict[str, Tensor]


def gpt2_shaped(folder: Path) -> LanguageModel:
    """GPT-2 small with random weights, processed as its SAEs want it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    write_tiny(TinyModel(source="tiny"), folder / "hf")  # for its tokenizer, which nobody asks
    torch.manual_seed(0)
    config = GPT2Config(n_ctx=1024)  # as the published config.json has it; TransformerLens reads it
    GPT2LMHeadModel(config).save_pretrained(folder / "hf")
    spec = FolderModel(source="folder", path=str(folder / "hf"), weights="transformer_lens")
    prepare(spec, folder / "model")
    return load(folder / "model", "cpu")


def random_corpus(sentences: int) -> TokenisedCorpus:
    """Random ids; sentence lengths scatter by a third around the language's mean."""
    generator = torch.Generator().manual_seed(1)
    ids = TokenIds()
    for mean in LENGTHS.values():
        spread = torch.randn(sentences, generator=generator).clamp(-2, 2) / 3
        for length in (mean * (1 + spread)).round().int().tolist():
            text = torch.randint(0, BOS, (length,), generator=generator).tolist()
            ids.append([BOS, *text])
    language = [index for index in range(len(LENGTHS)) for _ in range(sentences)]
    example = [*range(sentences)] * len(LENGTHS)
    return TokenisedCorpus(tuple(LENGTHS), ids, tuple(language), tuple(example), TokenPolicy())


def random_saes(model: LanguageModel, corpus: TokenisedCorpus, latents: int) -> list:
    """sae-lens ReLU SAEs, as sparse on this text as trained ones are."""
    from sae_lens import StandardSAE, StandardSAEConfig

    batch = corpus.batch(range(len(corpus.ids)))
    activations = model.activations(batch.ids, HOOKS)
    saes = []
    for hook in HOOKS:
        x = activations[hook][batch.counted]
        config = StandardSAEConfig(d_in=model.d_model, d_sae=latents)
        sae = StandardSAE(config).requires_grad_(False)
        sae.b_dec.copy_(x.mean(0))
        sae.b_enc.copy_(sparse_bias((x - sae.b_dec) @ sae.W_enc))
        saes.append(sae)
    return saes


def sparse_bias(pre: Tensor) -> Tensor:
    """The b_enc for which about ACTIVE latents of each token have pre [N, latents] + b_enc > 0."""
    rare = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - ACTIVE / pre.shape[1]))
    return -rare * pre.std(0) - pre.mean(0)


class Original:
    """Layer by layer, language by language: a whole forward pass, dense codes, their sums."""

    def __init__(self, model: LanguageModel, saes: list, corpus: TokenisedCorpus) -> None:
        self.model, self.saes = model, saes
        texts = range(len(corpus.ids))
        starts = texts[::ORIGINAL_BATCH]
        self.batches = [corpus.batch(texts[start : start + ORIGINAL_BATCH]) for start in starts]
        shape = (len(saes), len(corpus.languages), saes[0].cfg.d_sae)
        self.sums = {"active": torch.zeros(shape).long(), "total": torch.zeros(shape)}
        self.sums["error"] = torch.zeros(shape[:2])

    @torch.inference_mode()
    def run(self, layers: Iterable[int]) -> None:
        """Take in these layers."""
        torch.use_deterministic_algorithms(False)  # which ours asks for: the original did not
        for layer, batch in product(layers, self.batches):
            name = f"blocks.{layer}.hook_resid_pre"
            _, cache = self.model.network.run_with_cache(batch.ids, names_filter=name)
            x = cache[name][batch.counted]
            codes = self.saes[layer].encode(x)
            at = layer, int(batch.language[0])
            self.sums["active"][at] += (codes > 0).sum(0)
            self.sums["total"][at] += codes.sum(0)
            self.sums["error"][at] += (self.saes[layer].decode(codes) - x).square().sum()


def ours(
    model: LanguageModel, bank: stream.Bank, corpus: TokenisedCorpus, compute: Compute
) -> Sums:
    """All layers in one pass, through the engine as a study uses it."""
    compute.apply()
    header = stream.header(model, bank, corpus, "bench")
    shape = (len(bank), len(corpus.languages))
    latents = bank[HOOKS[0]].n_features
    counts = FeatureCounts(header, *shape, latents)
    errors = Reconstruction(header, *shape, model.d_model)
    with tempfile.TemporaryDirectory() as scratch:
        stream.collect(model, bank, corpus, [counts, errors], compute, scratch)
    return {**counts.state, "error": errors.state["error"]}


def compare(theirs: Sums, ours: Sums) -> dict[str, float]:
    """How far both results are apart; raises where that is more than float32 noise."""
    apart = (theirs["active"] != ours["active"]).sum().item()
    events = ours["active"].sum().item()
    error = (theirs["error"] / ours["error"] - 1).abs().max().item()
    total = (theirs["total"] - ours["total"]).abs().max() / ours["total"].max()
    if apart > 1e-4 * events or error > 1e-4 or total > 1e-4:
        raise AssertionError(f"the two ways differ: {apart} counts, error by {error}, sum {total}")
    return {
        "activations": events,
        "counts_compared": ours["active"].numel(),
        "counts_that_differ": apart,
        "largest_relative_difference_of_errors": error,
        "largest_difference_of_sums_per_largest_sum": total.item(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1, help="of ten sentences, per language")
    parser.add_argument("--latents", type=int, default=24_576)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6, help="a divisor of 12")
    given = parser.parse_args(arguments)
    compute = Compute(device="cpu", threads=given.threads)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2_shaped(Path(folder))
    corpus = random_corpus(given.batches * ORIGINAL_BATCH)
    saes = random_saes(model, corpus, given.latents)
    bank = {
        hook: ThresholdSAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, input_bias=sae.b_dec)
        for hook, sae in zip(HOOKS, saes, strict=True)
    }
    theirs = Original(model, saes, corpus)
    mine = ours(model, bank, corpus, compute)  # a warm-up, and what the original must agree with
    times: dict[str, list[float]] = {"original": [], "langsae": []}
    for layers in np.array_split(range(len(HOOKS)), given.rounds):
        times["langsae"].append(seconds(lambda: ours(model, bank, corpus, compute)))
        part = seconds(lambda layers=layers: theirs.run(layers))
        times["original"].append(part * len(HOOKS) / len(layers))
    report(times, vars(given), corpus, compare(theirs.sums, mine))


def report(times: dict[str, list[float]], given: dict, corpus: TokenisedCorpus, same: dict) -> None:
    """Print the table and write bench/results/collect.json."""
    tokens = sum(corpus.counts().values())
    speed = {name: tokens / statistics.median(values) for name, values in times.items()}
    result = {
        "machine": machine(),
        "sizes": {
            **given,
            "tokens": tokens,
            "hooks": len(HOOKS),
            "active_per_token": round(same["activations"] / tokens / len(HOOKS), 1),
        },
        "seconds": times,
        "tokens_per_second": speed,
        "ratio": median_ratio(times, "original", "langsae"),
        "agreement": same,
    }
    write_json(RESULTS / "collect.json", result)
    print(table(result))


def table(result: dict) -> str:
    """The result as markdown."""
    rows = [
        [name, f"{statistics.median(values):.1f}", f"{result['tokens_per_second'][name]:,.0f}"]
        for name, values in result["seconds"].items()
    ]
    same = result["agreement"]
    return "\n".join(
        [
            markdown(["way", "seconds", "tokens/s"], rows),
            "",
            f"langsae is {result['ratio']:.1f} times as fast (target: 5). "
            f"{same['counts_that_differ']:,} of {same['counts_compared']:,} counts differ.",
        ]
    )


if __name__ == "__main__":
    main()
