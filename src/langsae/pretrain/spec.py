"""How a small Llama is pretrained here: its tokenizer, its shape and its training."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from langsae.params import Spec

SPECIAL = ("<unk>", "<s>", "</s>")
SMALLEST_VOCABULARY = len(SPECIAL) + 256 + 1  # byte tokens too, and something to learn


class TokenizerSpec(Spec):
    """A byte-pair vocabulary learnt from the training text (see langsae.pretrain.tokenizer).

    vocabulary: entries, special and byte tokens among them. least: how often a character must occur
    to have an entry of its own; rarer ones are written as bytes.
    """

    vocabulary: Annotated[int, Field(ge=SMALLEST_VOCABULARY)] = 4096
    least: PositiveInt = 5


class LlamaShape(Spec):
    """Sizes of a Llama without grouped queries.

    tied: the output head is the input embeddings. They then share the head's common direction
    (rows of an untied head here have a mean cosine of 0.34, input embeddings of 0.00), and cosines
    no longer tell which tokens mean the same. context: positions that the configuration admits.
    """

    d_model: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    d_mlp: PositiveInt = 384
    tied: bool = False
    context: PositiveInt = 512
    initial_std: PositiveFloat = 0.02

    @model_validator(mode="after")
    def _heads_divide(self) -> "LlamaShape":
        if self.d_model % (2 * self.heads):
            raise ValueError(f"d_model {self.d_model} is no even multiple of {self.heads} heads")
        return self


class Pretraining(Spec):
    """AdamW over packed rows of text.

    steps: of `rows` rows of `row_tokens` tokens each. lr: reached after a linear warm-up of
    `warmup_steps`, then lowered on a cosine to `final_lr` of it at the last step. muon_lr: the
    blocks' matrices are trained by Muon at this rate, on the same schedule; None: by AdamW too.
    weight_decay: of matrices alone. clip: the gradients' largest norm. log_every: steps whose mean
    loss is a line of the loss curve.
    """

    steps: PositiveInt
    rows: PositiveInt = 8
    row_tokens: Annotated[int, Field(ge=2)] = 128
    lr: PositiveFloat = 3e-3
    muon_lr: PositiveFloat | None = None
    warmup_steps: NonNegativeInt = 30
    final_lr: Annotated[float, Field(ge=0, le=1)] = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip: PositiveFloat = 1.0
    seed: NonNegativeInt = 0
    log_every: PositiveInt = 10
