"""Where a bank of SAEs comes from: the `saes` section of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from langsae.errors import InputError
from langsae.models.hooks import SITES, HookPoint
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
    """Trained here. chunk_tokens: activations held in memory at a time, per hook.

    sites: what hooks of a site have in `training` instead, as in {mlp_out: {input_norm: standard}}.
    """

    source: Literal["train"]
    training: TrainSpec
    sites: dict[Literal[SITES], dict[str, Any]] = Field(default={})
    chunk_tokens: PositiveInt = 32_768

    def specs(self) -> dict[str, TrainSpec]:
        """The training of each hook."""
        common = self.training.model_dump()
        return {
            hook: TrainSpec(**common | self.sites.get(HookPoint.parse(hook).site, {}))
            for hook in self.hooks
        }

    @model_validator(mode="after")
    def _sites_fit(self) -> "TrainedBank":
        unused = set(self.sites) - {HookPoint.parse(hook).site for hook in self.hooks}
        if unused:
            raise ValueError(f"sites: no hook is at {', '.join(sorted(unused))}")
        self.specs()
        return self


class LoadedBank(_BankSpec):
    """SAEs that others trained.

    architecture: what they are held to be; `{layer}` in a path is the hook's layer.
    """

    architecture: Literal["relu", "jumprelu", "topk"] | None = None


class SaeLensBank(LoadedBank):
    """A release of sae-lens' registry: `id` such as blocks.{layer}.hook_resid_pre."""

    source: Literal["sae_lens"]
    release: str
    id: str
    revision: str = "main"


class HubBank(LoadedBank):
    """Folders of hub repositories: GemmaScope, sparsify, sae-lens, llm-jp or our own layout.

    `{layer}` may stand in `repo` too; `path` "." is a repository that holds one SAE.
    """

    source: Literal["hub"]
    repo: str
    revision: str = "main"
    path: str


class FolderBank(LoadedBank):
    """Local folders in any of those layouts, from the project's folder where not absolute."""

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
