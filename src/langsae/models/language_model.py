"""Loading a causal LM and tapping its hook points in one pass."""

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.models.source import LoadedModel, load_source

# |row mean| / RMS of a stream whose writers TransformerLens has centred is float32 noise;
# an uncentred GPT-2 stream is near 1e-2.
CENTRED = 1e-4

# TransformerLens' names where they are not hook_SITE.
_PROCESSED_SITES = {"mlp_act": "mlp.hook_post"}


class LanguageModel:
    """A causal LM, of which only the activations at hook points are asked.

    One call runs one forward pass for all hooks, stops after the last and computes no logits.
    """

    def __init__(self, loaded: LoadedModel, device: str = "cpu") -> None:
        self.tokenizer = loaded.tokenizer
        self.description = loaded.description
        self.device = torch.device(device)
        self.network = loaded.network.to(self.device).eval()
        self.centred = loaded.processed
        self.n_layers = loaded.n_layers
        self.d_model = loaded.d_model

    def check(self, hooks: Iterable[HookPoint]) -> None:
        """Refuse a hook point beyond the last layer."""
        for hook in hooks:
            if hook.layer >= self.n_layers:
                raise InputError(
                    f"hook {hook}: the model has layers 0..{self.n_layers - 1}; choose one of them"
                )

    @torch.inference_mode()
    def activations(self, ids: Tensor, hooks: Iterable[HookPoint]) -> dict[HookPoint, Tensor]:
        """Activations [B, T, d] at each hook for right-padded ids [B, T].

        No attention mask is needed: attention is causal, so padding on the right cannot reach a
        real position.
        """
        wanted = sorted(set(hooks), key=lambda hook: hook.order)
        self.check(wanted)
        run = self._run_processed if self.centred else self._run_plain
        taken = run(ids.to(self.device), wanted)
        if self.centred:
            for hook in wanted:
                if hook.site.startswith("resid"):
                    _assert_centred(hook, taken[hook])
        return taken

    def _run_plain(self, ids: Tensor, wanted: list[HookPoint]) -> dict[HookPoint, Tensor]:
        taken: dict[HookPoint, Tensor] = {}
        with ExitStack() as stack:
            for hook in wanted:
                stack.callback(_register(self.network, hook, taken, wanted[-1]).remove)
            with suppress(_LastHookReached):
                self.network.base_model(input_ids=ids, use_cache=False)
        return taken

    def _run_processed(self, ids: Tensor, wanted: list[HookPoint]) -> dict[HookPoint, Tensor]:
        taken: dict[HookPoint, Tensor] = {}

        names = {
            f"blocks.{hook.layer}.{_PROCESSED_SITES.get(hook.site, f'hook_{hook.site}')}": hook
            for hook in wanted
        }

        def keep(value: Tensor, hook) -> None:
            taken[names[hook.name]] = value
            if names[hook.name] == wanted[-1]:
                raise _LastHookReached

        with suppress(_LastHookReached):
            self.network.run_with_hooks(
                ids, return_type=None, fwd_hooks=[(name, keep) for name in names]
            )
        return taken


class _LastHookReached(Exception):
    """Ends a forward pass early."""


def blocks(network: nn.Module, n_layers: int) -> nn.ModuleList:
    """The list of transformer blocks, whatever the architecture calls it."""
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    raise InputError(f"{type(network).__name__} has no list of {n_layers} blocks to tap")


def _register(network: nn.Module, hook: HookPoint, taken: dict, last: HookPoint):
    block = blocks(network, network.config.num_hidden_layers)[hook.layer]

    def keep(value: Tensor) -> None:
        taken[hook] = value[0] if isinstance(value, tuple) else value
        if hook == last:
            raise _LastHookReached

    if hook.site == "resid_pre":
        return block.register_forward_pre_hook(
            lambda module, args, kwargs: keep(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    return site_module(block, hook.site).register_forward_hook(lambda module, args, out: keep(out))


def site_module(block: nn.Module, site: str) -> nn.Module:
    """The module of `block` whose output the site is: any but resid_pre, which is its input."""
    if site == "resid_post":
        return block
    if site == "mlp_out":
        return block.mlp
    return block.mlp.act_fn if hasattr(block.mlp, "act_fn") else block.mlp.act


def _assert_centred(hook: HookPoint, value: Tensor) -> None:
    mean = value.float().mean(-1).abs()
    scale = value.float().pow(2).mean(-1).sqrt().clamp_min(1e-6)
    if bool((mean / scale > CENTRED).any()):
        raise InputError(
            f"{hook}: the residual stream is not centred, although the model's weights were "
            "processed by TransformerLens; check the versions of torch and transformer-lens"
        )


def load(folder: str | Path, device: str = "auto") -> LanguageModel:
    """The model that stage prepare_model left in `folder`; device auto takes CUDA if present."""
    return LanguageModel(load_source(Path(folder)), pick_device(device))


def pick_device(device: str) -> str:
    """`auto`, `cpu` or `cuda[:n]` as a torch device name."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device}: no CUDA device here; set `compute.device: auto`")
    return device
