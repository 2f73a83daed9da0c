"""TransformerLens' default weight processing, which some SAEs were trained on.

It folds LayerNorm into the following weights and centres every weight that writes into the
residual stream; gpt2-small-res-jb and pythia-70m-deduped-res-sm read that centred stream.
"""

from pathlib import Path

import torch
from torch import nn


def process(network: nn.Module, tokenizer, folder: Path) -> nn.Module:
    """A HookedTransformer with the processed weights of `network`, loaded from local `folder`.

    Built from the local folder, not by name: loading by name would ask the hub for `main`.
    """
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer

    # TransformerLens reloads a tokenizer from `name_or_path`; ours came from `folder`.
    config = loading.get_pretrained_model_config(
        str(folder), hf_cfg=network.config.to_dict(), fold_ln=True, device="cpu",
        dtype=torch.float32,
    )  # fmt: skip
    hooked = HookedTransformer(config, tokenizer, move_to_device=False)
    hooked.load_and_process_state_dict(
        loading.get_pretrained_state_dict(str(folder), config, network.float())
    )
    return hooked
