"""Where a bank of SAEs comes from: the `saes` section of params.yaml."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from langsae.errors import InputError
from langsae.models.hooks import HookPoint
from langsae.models.tokens import TokenPolicy
from langsae.params import Spec
from langsae.saes.train import TrainSpec


def _hooks(hooks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parsed = [HookPoint.parse(hook) for hook in hooks]
    except InputError as error:
        raise ValueError(str(error)) from error
    if len(set(parsed)) < len(parsed):
        raise ValueError("a hook point is listed twice")
    return tuple(map(str, parsed))


Hooks = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_hooks)]


class _BankSpec(Spec):
    """A bank: one SAE per hook point of one model.

    model, corpus: names from params.yaml; SAEs are trained on (or, when loaded, probed with) that
    corpus under `policy`.
    """

    model: str
    corpus: str
    policy: TokenPolicy = TokenPolicy()
    hooks: Hooks


class TrainedBank(_BankSpec):
    """Trained here. chunk_tokens: activations held in memory at a time, per hook."""

    source: Literal["train"]
    training: TrainSpec
    chunk_tokens: PositiveInt = 32_768


class _LoadedBank(_BankSpec):
    """architecture: what the SAEs are held to be; `{layer}` in a path is the hook's layer."""

    architecture: Literal["relu", "jumprelu", "topk"] | None = None


class SaeLensBank(_LoadedBank):
    """A release of sae-lens' registry: `id` such as blocks.{layer}.hook_resid_pre."""

    source: Literal["sae_lens"]
    release: str
    id: str
    revision: str = "main"


class HubBank(_LoadedBank):
    """Folders of a hub repository: GemmaScope, sparsify, sae-lens or our own layout."""

    source: Literal["hub"]
    repo: str
    revision: str = "main"
    path: str


class FolderBank(_LoadedBank):
    """Local folders in any of those layouts."""

    source: Literal["folder"]
    path: str


class EmptyBank(Spec):
    """No SAE: only texts and tokenizers are measured (profile `reference`)."""

    source: Literal["none"]
    model: str
    corpus: str


BankSpec = Annotated[
    TrainedBank | SaeLensBank | HubBank | FolderBank | EmptyBank, Field(discriminator="source")
]
