"""Where a model comes from: the `models` section of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from langsae.params import Spec


class _ModelSpec(Spec):
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class HubModel(_ModelSpec):
    """A model of the hub. A branch or tag is resolved to its commit once, when it is prepared.

    weights: `transformer_lens` applies its default processing (folded LayerNorm, centred writing
    weights), which SAEs trained there need; `as published` leaves the weights alone.
    """

    source: Literal["hub"]
    repo: str
    revision: str
    weights: Literal["as published", "transformer_lens"] = "as published"


class FolderModel(_ModelSpec):
    """A model in a local folder, in transformers' layout (config.json + safetensors)."""

    source: Literal["folder"]
    path: str
    weights: Literal["as published", "transformer_lens"] = "as published"


class EmbeddedModel(_ModelSpec):
    """A small model that ships inside a Python package (see models/embedded.py)."""

    source: Literal["embedded"]
    name: Literal["smollm2-135m", "gemma-3-270m"]
    accept_terms: bool = False
    weights: Literal["as published"] = "as published"


class TinyModel(_ModelSpec):
    """A random Llama made on the spot, with a byte-level tokenizer: for smoke runs."""

    source: Literal["tiny"]
    d_model: PositiveInt = 32
    layers: PositiveInt = 3
    seed: int = 0
    weights: Literal["as published"] = "as published"


class PretrainedModel(_ModelSpec):
    """A checkpoint of a history that was trained here: its files lie beside its model.json.

    Only stage prepare_history writes this. step: optimiser steps it was trained for.
    """

    source: Literal["pretrained"]
    step: NonNegativeInt
    weights: Literal["as published"] = "as published"


class TokenizerOnly(Spec):
    """No model: a tokenizer from local files, for claims that texts and tokenizers decide.

    Either `vocab` and `merges` (GPT-2's layout) or `file` (a tokenizer.json).
    """

    source: Literal["tokenizer"]
    vocab: str | None = None
    merges: str | None = None
    file: str | None = None
    bos_token: str

    @model_validator(mode="after")
    def _one_layout(self) -> "TokenizerOnly":
        if (self.file is None) == (self.vocab is None or self.merges is None):
            raise ValueError("give either `file`, or both `vocab` and `merges`")
        return self


class NoModel(Spec):
    """Neither model nor tokenizer: for runs that only read what a study published."""

    source: Literal["none"]


ModelSpec = Annotated[
    HubModel | FolderModel | EmbeddedModel | TinyModel | TokenizerOnly | NoModel,
    Field(discriminator="source"),
]
# What a model.json may hold, where `models` of params.yaml may not.
StoredSpec = Annotated[ModelSpec | PretrainedModel, Field(discriminator="source")]
