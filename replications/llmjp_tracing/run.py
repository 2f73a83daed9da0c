"""One run of the study: a model with its training history, and where each stage leaves results."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from langsae.errors import InputError
from langsae.files import read_json
from langsae.models.hooks import HookPoint
from langsae.models.tokens import TokenPolicy
from langsae.params import Spec
from langsae.saes.train import TrainSpec

STUDY = "llmjp_tracing"


class TrainedGrid(Spec):
    """SAEs trained here: one for each checkpoint and layer.

    rates: learning rates tried at the last checkpoint and the middle layer; the one of lowest
    held-out loss trains the whole grid. None: `training.lr` is taken as it is.
    """

    source: Literal["train"]
    training: TrainSpec
    rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=2)] | None = None
    chunk_tokens: PositiveInt = 32_768


class HubGrid(Spec):
    """Published SAEs: `{step}` and `{layer}` (0-based) in repo and path are filled in."""

    source: Literal["hub"]
    repo: str
    revision: str = "main"
    path: str = "."


class NoGrid(Spec):
    """No SAE: profile reference."""

    source: Literal["none"]


class Injecting(Spec):
    """Adding features of the last checkpoint to an earlier one (Eq. 7).

    layer: 1-based; mid: the earlier checkpoint's step. features: how many of a class are drawn
    (all, where it has fewer); draws: how often, with seeds 0, 1, …; labels: by which reading of a
    token's language features are classed. undo_l2: by what a decoded vector is multiplied where
    the SAE divides its input by its norm: the full model's norm at that position, the mid model's,
    or nothing; bias: the decoder's bias is added as well; first: also at the first position, BOS,
    which the SAEs never saw. The paper says none of these three.
    The run's `impact` texts give perplexities; of its `parallel` texts the first `shots` are the
    prompt's examples and the next `translations` are translated both ways (0: no translation),
    `rows` settings at a time. An answer takes at most `new_tokens`, and at least `least_tokens`: a
    small model would rather end the text at once.
    """

    layer: PositiveInt
    mid: int
    alphas: Annotated[tuple[float, ...], Field(min_length=1)]
    features: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    draws: PositiveInt = 5
    labels: Literal["document", "rule"] = "document"
    undo_l2: Literal["full norm", "mid norm", "none"] = "full norm"
    bias: bool = False
    first: bool = False
    translations: NonNegativeInt = 0
    shots: NonNegativeInt = 4
    new_tokens: PositiveInt = 64
    least_tokens: NonNegativeInt = 0
    rows: PositiveInt = 64
    metrics: tuple[Literal["chrf", "comet"], ...] = ("chrf",)


class Run(Spec):
    """What the stages of one run load.

    history: a key of `histories`; layers: 1-based, "layer L" is the output of block L (None: all).
    pretraining, training, evaluation, impact, parallel: corpora of two languages; English is `en`.
    n-gram models are fitted on the first (None: on the second), SAEs trained on the second; the
    last two are what `inject` measures (perplexity, translation). policy: the study takes the
    first 64 tokens and drops BOS. embeddings: the history whose last checkpoint's input embeddings
    say which tokens are similar (the study: the 3.7B model's).
    published: the project page's data, to be read instead of running a model.
    """

    history: str
    layers: tuple[PositiveInt, ...] | None = None
    pretraining: str | None = None
    training: str
    evaluation: str
    impact: str
    parallel: str
    embeddings: str
    policy: TokenPolicy = TokenPolicy(max_tokens=64)
    saes: Annotated[TrainedGrid | HubGrid | NoGrid, Field(discriminator="source")]
    inject: Injecting | None = None
    published: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Run":
        if (self.saes.source == "none") != (self.published is not None):
            raise ValueError("`saes: {source: none}` goes with `published`, and only with it")
        return self


def folder(profile: str, run: str, stage: str) -> Path:
    """Where `stage` (rates, saes, collected, described, …) of a run publishes its results."""
    return Path("artifacts") / STUDY / profile / run / stage


def history_folder(name: str) -> Path:
    """Where stage prepare_history published the history `name`."""
    return Path("artifacts/histories") / name


def steps(history: Path) -> list[int]:
    """The checkpoints of a published history, rising."""
    return [int(step) for step in read_json(history / "history.json")["steps"]]


def checkpoint(history: Path, step: int) -> Path:
    """The model folder (see langsae.models.source) of one checkpoint."""
    return history / f"step_{step:07d}"


def hooks(wanted: tuple[int, ...] | None, n_layers: int) -> list[HookPoint]:
    """The hook points of 1-based layers; None is all of the model's."""
    layers = wanted or tuple(range(1, n_layers + 1))
    beyond = [layer for layer in layers if layer > n_layers]
    if beyond:
        raise InputError(f"layer {beyond[0]}: the model has layers 1..{n_layers}")
    return [HookPoint.parse(f"resid_post.{layer - 1}") for layer in sorted(layers)]
