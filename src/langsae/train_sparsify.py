"""SAEs trained by EleutherAI's own library, sparsify, for comparison with our trainer."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from langsae.errors import InputError
from langsae.saes.train import TrainSpec
from langsae.token_sequences import TokenSequences


def train_sparsify(
    network: nn.Module,
    sequences: TokenSequences,
    specs: Mapping[str, TrainSpec],
    out: Path,
    excluded: Iterable[int] = (),
) -> None:
    """Train one SAE per hook point of `specs` and leave out/HOOKPOINT/ in sparsify's layout.

    Adam, a linearly rising and falling learning rate, no auxiliary loss, one pass over `sequences`.
    A batch is a whole number of sequences; a killed run starts anew. excluded: token ids that are
    not trained on. Raises InputError for specs that differ, and for less than a batch of text.
    """
    spec = next(iter(specs.values()))
    if any(other != spec for other in specs.values()):
        raise InputError("sparsify's trainer takes hook points of one width at a time")
    if not torch.cuda.is_available():
        # its Triton kernel crashes on a CPU; the library reads this when it is imported
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    batch_size = max(1, spec.batch_tokens // sequences.length)
    if len(sequences) < batch_size:
        raise InputError(f"{len(sequences)} sequences are less than a batch of {batch_size}; "
                         "give more text or lower --batch-tokens")  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    config = TrainConfig(
        SparseCoderConfig(num_latents=spec.n_latents, k=spec.k),
        batch_size=batch_size,
        optimizer="adam",
        lr=spec.lr,
        lr_warmup_steps=spec.warmup_steps,
        dead_feature_threshold=spec.dead_tokens,
        exclude_tokens=sorted(excluded),
        hookpoints=list(specs),
        init_seeds=[spec.seed],
        save_every=len(sequences) + 1,  # only at the end
        log_to_wandb=False,
        run_name=out.name,
        save_dir=str(out.parent),
    )
    # sparsify asks for lower matmul precision, for good
    precision = torch.get_float32_matmul_precision()
    try:
        Trainer(config, sequences, network).fit()
    finally:
        torch.set_float32_matmul_precision(precision)
