"""TransformerLens' default weight processing, which some SAEs were trained on.

It folds LayerNorm into the following weights and centres every weight that writes into the
residual stream; gpt2-small-res-jb and pythia-70m-deduped-res-sm read that centred stream.
"""

import tempfile
from pathlib import Path

from torch import nn


def process(network: nn.Module, tokenizer, folder: Path) -> nn.Module:
    """A HookedTransformer with the processed weights of `network`, loaded from local `folder`.

    Built from the local folder, not by name: loading by name would ask the hub for `main`.
    """
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer

    with tempfile.TemporaryDirectory() as neutral:
        # TransformerLens guesses an architecture from any "llama" or "gemma" in the whole path.
        path = Path(neutral) / "model"
        path.symlink_to(folder.resolve())
        config = loading.get_pretrained_model_config(
            str(path), hf_cfg=network.config.to_dict(), fold_ln=True, device="cpu"
        )
        state = loading.get_pretrained_state_dict(str(path), config, network.float())
    # TransformerLens reloads a tokenizer from its `name_or_path`, which is `folder`.
    hooked = HookedTransformer(config, tokenizer, move_to_device=False)
    hooked.load_and_process_state_dict(state)
    return hooked
