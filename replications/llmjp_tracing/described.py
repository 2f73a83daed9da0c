"""What stage describe_llmjp_tracing left of one run: a value per checkpoint, layer and feature."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from langsae.errors import InputError
from langsae.files import read_json

READINGS = {"document": "class_document", "rule": "class_rule"}  # of a token's language
GROUPINGS = ("connected", "greedy")  # of tokens that are similar
SPANS = ("top_k", "bar")  # when a token counts as active


@dataclass(frozen=True)
class Described:
    """Arrays [C, L, F] by name, over C checkpoints (`steps`) and L layers (1-based `layers`).

    Semantic entropies are absent where no embeddings are at hand (published data).
    """

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        wanted = {*READINGS.values(), "token_entropy"}
        missing = sorted(wanted - set(self.arrays))
        if missing:
            raise InputError(f"described features: no array {missing[0]}; run the stage again")
        for name, array in self.arrays.items():
            if array.ndim != 3 or array.shape[:2] != (len(self.steps), len(self.layers)):
                raise InputError(
                    f"described features: {name} is {array.shape}, not {len(self.steps)} "
                    f"checkpoints x {len(self.layers)} layers; run the stage again"
                )

    @property
    def groupings(self) -> tuple[str, ...]:
        """Those whose semantic entropy is there."""
        return tuple(name for name in GROUPINGS if f"semantic_entropy_{name}" in self.arrays)

    @property
    def spans(self) -> tuple[str, ...]:
        """The readings of span length that are there."""
        return tuple(name for name in SPANS if f"span_{name}" in self.arrays)


def load(folder: Path) -> Described:
    """The described features of one run; InputError where steps, layers and arrays do not fit."""
    index = read_json(folder / "index.json")
    return Described(
        tuple(index["steps"]),
        tuple(index["layers"]),
        load_file(folder / "features.safetensors"),
        index.get("settings", {}),
    )
