"""Two ways in which sae_lape's features and neurons were, or could have been, counted.

sparse codes: as the authors' scripts do it. The model runs text by text, logits included; the MLP
outputs of all texts wait in memory; layer by layer they are encoded, 100 tokens at a time, and the
k slots of every token go to disk; these are read back and counted text by text.
dense codes: text by text, all latents of every token (8 MB) go to disk, are read back and counted.
In both, neurons are a second run of the model: all their values go to disk and are counted.
Timed kindly: nothing of nnsight's and sparsify's own work beside the arithmetic.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, blocks
from langsae.models.tokens import TokenisedCorpus
from langsae.saes.topk import TopKSAE

CHUNK = 100  # tokens encoded at a time

Saes = dict[HookPoint, TopKSAE]
Arrays = dict[str, np.ndarray]


def run_texts(
    model: LanguageModel, corpus: TokenisedCorpus, neurons: bool
) -> Iterator[tuple[int, list[Tensor]]]:
    """Per text its language, and the outputs [T, d] of all MLPs, or of their activations."""
    kept: list[Tensor] = []
    handles = [
        (block.mlp.act_fn if neurons else block.mlp).register_forward_hook(
            lambda module, args, out: kept.append(out[0])
        )
        for block in blocks(model.network, model.n_layers)
    ]
    try:
        for ids, language in zip(corpus.ids, corpus.language, strict=True):
            kept.clear()
            model.network(input_ids=torch.tensor([ids]), use_cache=False)
            yield language, list(kept)
    finally:
        for handle in handles:
            handle.remove()


def pre_activations(sae: TopKSAE, x: Tensor) -> Tensor:
    """All latents of x [N, d], dense."""
    return F.relu(F.linear(x - sae.b_dec, sae.W_enc, sae.b_enc))


@torch.inference_mode()
def sparse(model: LanguageModel, saes: Saes, corpus: TokenisedCorpus) -> Arrays:
    """As the authors' scripts: k slots a token to disk."""
    torch.use_deterministic_algorithms(False)  # which ours asks for
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [outputs for _, outputs in run_texts(model, corpus, neurons=False)]
        sizes = [len(outputs[0]) for outputs in texts]
        for layer, sae in enumerate(saes.values()):
            whole = torch.cat([outputs[layer] for outputs in texts])
            parts = [
                pre_activations(sae, chunk).topk(sae.k, sorted=False)
                for chunk in whole.split(CHUNK)
            ]
            slots = [torch.cat(part).split(sizes) for part in zip(*parts, strict=True)]
            torch.save(list(zip(*slots, strict=True)), folder / f"{layer}.pt")
        counts = Counts(saes, corpus)
        for layer in range(len(saes)):
            for language, (values, indices) in zip(
                corpus.language, torch.load(folder / f"{layer}.pt"), strict=True
            ):
                counts.add_slots(layer, language, values.flatten(), indices.flatten())
        counts.neurons = count_neurons(model, corpus, folder)
    return counts.arrays()


@torch.inference_mode()
def dense(model: LanguageModel, saes: Saes, corpus: TokenisedCorpus) -> Arrays:
    """Every latent of every token to disk, one text at a time."""
    torch.use_deterministic_algorithms(False)
    counts = Counts(saes, corpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text, (_, outputs) in enumerate(run_texts(model, corpus, neurons=False)):
            for layer, sae in enumerate(saes.values()):
                pre = pre_activations(sae, outputs[layer])
                top = pre.topk(sae.k, sorted=False)
                codes = torch.zeros_like(pre).scatter_(1, top.indices, top.values)
                torch.save(codes, folder / f"{text}.{layer}.pt")
        for text, language in enumerate(corpus.language):
            for layer in range(len(saes)):
                path = folder / f"{text}.{layer}.pt"
                counts.add_dense(layer, language, torch.load(path))
                path.unlink()
        counts.neurons = count_neurons(model, corpus, folder)
    return counts.arrays()


def count_neurons(model: LanguageModel, corpus: TokenisedCorpus, folder: Path) -> Tensor:
    """Tokens on which each neuron is above 0, per layer and language."""
    for text, (_, outputs) in enumerate(run_texts(model, corpus, neurons=True)):
        torch.save(outputs, folder / f"neurons.{text}.pt")
        width = outputs[0].shape[1]
    shape = (model.n_layers, len(corpus.languages), width)
    hits, total = torch.zeros(shape), torch.zeros(shape)
    largest, smallest = torch.zeros(shape), torch.full(shape, torch.inf)
    texts = torch.zeros(shape)
    for text, language in enumerate(corpus.language):
        for layer, values in enumerate(torch.load(folder / f"neurons.{text}.pt")):
            at = layer, language
            hits[at] += (values > 0).sum(0)
            texts[at] += (values > 0).any(0)
            total[at] += values.sum(0)
            largest[at] = torch.maximum(largest[at], values.amax(0))
            smallest[at] = torch.minimum(smallest[at], values.amin(0))
    return hits


class Counts:
    """float32 sums and extremes per layer, language and latent, filled text by text."""

    def __init__(self, saes: Saes, corpus: TokenisedCorpus) -> None:
        width = next(iter(saes.values())).n_features
        shape = (len(saes), len(corpus.languages), width)
        self.hits, self.examples, self.total, self.largest = torch.zeros(4, *shape)
        self.smallest = torch.full(shape, torch.inf)
        self.neurons = torch.zeros(0)

    def add_slots(self, layer: int, language: int, values: Tensor, indices: Tensor) -> None:
        """The slots of one text."""
        at = layer, language
        self.examples[at][indices.unique()] += 1
        self.hits[at].scatter_add_(0, indices, torch.ones_like(values))
        self.total[at].scatter_add_(0, indices, values)
        rounded = values.round(decimals=3)
        self.largest[at].scatter_reduce_(0, indices, rounded, "amax")
        self.smallest[at].scatter_reduce_(0, indices, rounded, "amin")

    def add_dense(self, layer: int, language: int, codes: Tensor) -> None:
        """The codes [T, latents] of one text."""
        at, hit = (layer, language), codes > 0
        self.hits[at] += hit.sum(0)
        self.examples[at] += hit.any(0)
        self.total[at] += codes.sum(0)
        self.largest[at] = torch.maximum(self.largest[at], codes.amax(0))
        smallest = codes.masked_fill(~hit, torch.inf).amin(0)
        self.smallest[at] = torch.minimum(self.smallest[at], smallest)

    def arrays(self) -> Arrays:
        """What is compared with ours."""
        found = {"hits": self.hits, "examples": self.examples, "neurons": self.neurons}
        return {name: tensor.numpy() for name, tensor in found.items()}


WAYS: dict[str, Callable[[LanguageModel, Saes, TokenisedCorpus], Arrays]] = {
    "original: sparse codes": sparse,
    "dense codes to disk": dense,
}
