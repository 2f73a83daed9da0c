"""Which features are injected: several draws of each language class, and of all as a control."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langsae.errors import InputError
from replications.llmjp_tracing.described import READINGS, Described
from replications.llmjp_tracing.run import Injecting

NONE, BILINGUAL, RANDOM = "none", "bi", "random"


@dataclass(frozen=True)
class Setting:
    """One row of the results: `features` of kind `add` were asked for, `chosen` are added."""

    add: str
    alpha: float
    features: int
    draw: int
    chosen: tuple[int, ...]


def classed(described: Described, injecting: Injecting, languages: Sequence[str]) -> dict:
    """The features to draw from, by what is added: {en, ja, bi, random: int64 [n]}, ascending.

    Their classes are those of the last checkpoint at the injected layer; `random` is every feature
    that was ever active there. Raises InputError where that layer was not described.
    """
    if injecting.layer not in described.layers:
        layers = ", ".join(map(str, described.layers))
        raise InputError(f"inject: layer {injecting.layer} was not described; take one of {layers}")
    at = described.layers.index(injecting.layer)
    classes = described.arrays[READINGS[injecting.labels]][-1, at]
    kinds = {code: number for number, code in enumerate((*languages, BILINGUAL))}
    found = {kind: np.flatnonzero(classes == number) for kind, number in kinds.items()}
    return found | {RANDOM: np.flatnonzero(classes >= 0)}


def draw(classes: dict[str, np.ndarray], injecting: Injecting) -> list[Setting]:
    """Every setting, the plain model first; a class without features has none.

    Draw i of a class orders its features by NumPy's generator of seed (i, class) and takes the
    first ones, so what is added at 1000 features is among what is added at 3000.
    """
    settings = [Setting(NONE, 0.0, 0, 0, ())]
    for number, (kind, members) in enumerate(classes.items()):
        orders = [
            np.random.default_rng((seed, number)).permutation(members)
            for seed in range(injecting.draws)
        ]
        if len(members):
            settings += [
                Setting(kind, alpha, wanted, seed, tuple(sorted(order[:wanted].tolist())))
                for alpha in injecting.alphas
                for wanted in injecting.features
                for seed, order in enumerate(orders)
            ]
    return settings
