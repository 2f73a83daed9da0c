"""Changing activations during a forward pass: SAE directions added, neurons set or scaled.

Every change is open loop, as in SAE-LAPE (Andrylie et al. 2025): it does not look at how active a
feature is, but adds a fixed vector, at every position or at those of a mask. The hooks go when the
`with` block ends, also on an error, and leave the model's outputs as they were, to the bit.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, blocks, site_module
from langsae.saes.codes import SparseCoder
from langsae.saes.topk import InputNorm


@dataclass(frozen=True)
class Edit:
    """x becomes x * keep + shift at one hook point; keep None is all ones.

    shift, keep: float32 [d], the same for every text, or [B, 1, d], one a text of the batch.
    """

    shift: Tensor
    keep: Tensor | None = None

    def __call__(self, x: Tensor, where: Tensor | None = None) -> Tensor:
        """The edited x [B, T, d]; `where` bool [B, T] limits it to some positions."""
        kept = x if self.keep is None else x * self.keep.to(x.dtype)
        edited = kept + self.shift.to(x.dtype)
        return edited if where is None else torch.where(where[..., None], edited, x)

    def to(self, device: torch.device) -> "Edit":
        """A copy on `device`."""
        return Edit(self.shift.to(device), None if self.keep is None else self.keep.to(device))


Intervention = Mapping[HookPoint, Edit]


def directions(
    coder: SparseCoder, features: Sequence[int], l2_scale: float | None = None
) -> Tensor:
    """What one unit of each feature adds to the model's own activation: float64 [n, d].

    This is the decoder row, times the scale of an SAE that normalises its input by a scalar. An
    SAE that divides each vector by its norm has no fixed scale: `l2_scale`, a typical norm, says
    which to take. Raises InputError where that is missing, the coder has no decoder, or it has no
    such feature.
    """
    if not hasattr(coder, "W_dec"):
        raise InputError(f"{type(coder).__name__} has no decoder to take directions from")
    wrong = [feature for feature in features if not 0 <= feature < coder.n_features]
    if wrong:
        raise InputError(f"feature {wrong[0]}: the SAE has features 0..{coder.n_features - 1}")
    norm = getattr(coder, "norm", InputNorm())
    scale = norm.scale
    if norm.kind == "l2":
        if l2_scale is None:
            raise InputError(
                "the SAE divides each vector by its norm: set `l2_scale` to the norm that its "
                "directions shall have in the model, or take SAEs of another input_norm"
            )
        scale = l2_scale
    rows = coder.W_dec[torch.as_tensor(features, dtype=torch.int64, device=coder.W_dec.device)]
    return scale * rows.cpu().double()


def add_features(
    coder: SparseCoder,
    features: Sequence[int],
    amounts: Sequence[float],
    l2_scale: float | None = None,
) -> Edit:
    """Adds sum over features of amount (an activation) times direction."""
    weights = torch.tensor(list(amounts), dtype=torch.float64)
    return Edit((weights @ directions(coder, features, l2_scale)).float())


def add_to_neurons(width: int, neurons: Sequence[int], amounts: Sequence[float]) -> Edit:
    """Adds an amount to each neuron of a layer of `width`."""
    shift = torch.zeros(width)
    shift[_neurons(width, neurons)] = torch.tensor(list(amounts), dtype=torch.float32)
    return Edit(shift)


def set_neurons(width: int, neurons: Sequence[int], value: float) -> Edit:
    """Sets neurons of a layer of `width` to `value`, whatever they were."""
    index = _neurons(width, neurons)
    shift, keep = torch.zeros(width), torch.ones(width)
    shift[index], keep[index] = value, 0.0
    return Edit(shift, keep)


def _neurons(width: int, neurons: Sequence[int]) -> Tensor:
    index = torch.as_tensor(list(neurons), dtype=torch.int64)
    wrong = index[(index < 0) | (index >= width)].tolist()
    if wrong:
        raise InputError(f"neuron {wrong[0]}: the layer has neurons 0..{width - 1}")
    return index


def stack(rows: Sequence[Intervention]) -> Intervention:
    """One intervention of a batch: row b of it is changed as `rows[b]` says."""
    out = {}
    for hook in sorted({hook for row in rows for hook in row}, key=lambda hook: hook.order):
        edits = [row.get(hook) for row in rows]
        like = next(edit.shift for edit in edits if edit is not None)
        shifts = [torch.zeros_like(like) if edit is None else edit.shift for edit in edits]
        keeps = None
        if any(edit is not None and edit.keep is not None for edit in edits):
            ones = torch.ones_like(like)
            keeps = [ones if edit is None or edit.keep is None else edit.keep for edit in edits]
        out[hook] = Edit(*(None if p is None else torch.stack(p)[:, None] for p in (shifts, keeps)))
    return out


def fingerprint(intervention: Intervention) -> dict[str, str]:
    """A SHA-256 of each edit by hook: a key for caches."""
    out = {}
    for hook, edit in intervention.items():
        parts = [
            part.cpu().numpy().tobytes() for part in (edit.shift, edit.keep) if part is not None
        ]
        out[str(hook)] = hashlib.sha256(b"|".join(parts)).hexdigest()
    return out


@contextmanager
def intervened(
    model: LanguageModel, intervention: Intervention, where: Tensor | None = None
) -> Iterator[None]:
    """Within the block, forward passes of `model.network` are changed; `where` bool [B, T].

    Raises InputError for a hook beyond the last layer, or a model whose weights were processed.
    """
    check(model)
    model.check(intervention)
    with ExitStack() as stack:
        for hook, edit in intervention.items():
            handle = _register(model, hook, edit.to(model.device), where)
            stack.callback(handle.remove)
        yield


def check(model: LanguageModel) -> None:
    """Refuse what cannot be intervened on: no network, or one of TransformerLens."""
    if model.centred:
        raise InputError("interventions need a model with `weights: as published`")


def _register(model: LanguageModel, hook: HookPoint, edit: Edit, where: Tensor | None):
    block = blocks(model.network, model.n_layers)[hook.layer]

    def change(value: Tensor) -> Tensor:
        width = edit.shift.shape[-1]
        if value.shape[-1] != width:
            raise InputError(f"{hook} is {value.shape[-1]} wide, its intervention {width}")
        return edit(value, where)

    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    def after(module: nn.Module, args: tuple, out):
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    if hook.site == "resid_pre":
        return block.register_forward_pre_hook(before, with_kwargs=True)
    return site_module(block, hook.site).register_forward_hook(after)
