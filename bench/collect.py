"""Collecting 12 hook points: our one pass against the original's one pass per SAE.

The original runs the whole language model for each SAE, logits included, on ten right-padded
sentences at a time, and makes dense codes [tokens, d_sae] that it decodes and sums. It is timed
kindly: only the wanted activation is cached and no padding enters the SAE. Both ways share one
GPT-2-small-shaped model of random weights and 12 random ReLU SAEs, and must agree. Run:
    python -m bench.collect [--batches 1 --latents 24576 --rounds 4 --threads 2]
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is made here

import torch
from torch import Tensor

from bench.common import RESULTS, interleaved, machine, markdown, median_ratio
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
    """sae-lens ReLU SAEs; b_enc makes each latent active on about ACTIVE / latents of tokens."""
    from sae_lens import StandardSAE, StandardSAEConfig

    batch = corpus.batch(range(len(corpus.ids)))
    activations = model.activations(batch.ids, HOOKS)
    rare = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - ACTIVE / latents))
    saes = []
    for hook in HOOKS:
        x = activations[hook][batch.counted]
        sae = StandardSAE(StandardSAEConfig(d_in=model.d_model, d_sae=latents)).requires_grad_(
            False
        )
        sae.b_dec.copy_(x.mean(0))
        pre = (x - sae.b_dec) @ sae.W_enc
        sae.b_enc.copy_(-rare * pre.std(0) - pre.mean(0))
        saes.append(sae)
    return saes


@torch.inference_mode()
def original(model: LanguageModel, saes: list, corpus: TokenisedCorpus) -> Sums:
    """Layer by layer, language by language: a whole forward pass, dense codes, their sums."""
    shape = (len(saes), len(corpus.languages), saes[0].cfg.d_sae)
    sums = {"active": torch.zeros(shape).long(), "total": torch.zeros(shape)}
    sums["error"] = torch.zeros(shape[:2])
    groups = [
        [start + row for row in range(ORIGINAL_BATCH)]
        for start in range(0, len(corpus.ids), ORIGINAL_BATCH)
    ]
    for layer, sae in enumerate(saes):
        name = f"blocks.{layer}.hook_resid_pre"
        for group in groups:
            batch = corpus.batch(group)
            _, cache = model.network.run_with_cache(batch.ids, names_filter=name)
            x = cache[name][batch.counted]
            codes = sae.encode(x)
            at = layer, int(batch.language[0])
            sums["active"][at] += (codes > 0).sum(0)
            sums["total"][at] += codes.sum(0)
            sums["error"][at] += (sae.decode(codes) - x).square().sum()
    return sums


def ours(
    model: LanguageModel, bank: stream.Bank, corpus: TokenisedCorpus, compute: Compute
) -> Sums:
    """All layers in one pass, through the engine as a study uses it."""
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=240, help="seconds")
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
    sums: dict[str, Sums] = {}
    tasks = {
        "original": lambda: sums.update(original=original(model, saes, corpus)),
        "langsae": lambda: sums.update(langsae=ours(model, bank, corpus, compute)),
    }
    times = interleaved(tasks, given.rounds, given.budget)
    report(times, vars(given), corpus, compare(sums["original"], sums["langsae"]))


def report(
    times: dict[str, list[float]], given: dict, corpus: TokenisedCorpus, agreement: dict
) -> None:
    """Print the table and write bench/results/collect.json."""
    tokens = sum(corpus.counts().values())
    ratio = median_ratio(times, "original", "langsae")
    medians = {name: statistics.median(values) for name, values in times.items()}
    speed = {name: tokens / value for name, value in medians.items()}
    rows = [[name, f"{medians[name]:.1f}", f"{speed[name]:,.0f}"] for name in times]
    print(markdown(["way", "seconds", "tokens/s"], rows))
    print(f"\nratio {ratio:.2f}; {agreement}; {machine()}")
    result = {
        "machine": machine(),
        "sizes": {**given, "tokens": tokens, "active_per_token": active(agreement, tokens)},
        "seconds": times,
        "tokens_per_second": speed,
        "ratio": ratio,
        "agreement": agreement,
    }
    write_json(RESULTS / "collect.json", result)


def active(agreement: dict, tokens: int) -> float:
    """Mean number of active latents per token and hook."""
    return round(agreement["activations"] / tokens / len(HOOKS), 1)


if __name__ == "__main__":
    main()
