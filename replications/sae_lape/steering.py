"""From identified features and neurons to interventions, for the stages that steer.

The study adds, at the output of every MLP, the sum over a language's features of
multiplier * value * decoder row; value is the feature's largest, mean or smallest activation over
all languages. Neurons are set to a value, or have multiplier * largest activation added.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import pandas as pd
from pydantic import NonNegativeInt

from langsae.interventions import Intervention, add_features, add_to_neurons, set_neurons
from langsae.models.hooks import HookPoint
from langsae.params import Spec
from langsae.saes.codes import SparseCoder
from replications.sae_lape.identified import ALL, Identified

COLUMNS = {"max": "maximum", "avg": "average", "min": "minimum"}


class FeatureSetting(Spec):
    """Which features (a name in selections.csv), times which of their activations, in which layers
    (None: all)."""

    selection: str = ALL
    value: Literal["max", "avg", "min"] = "max"
    layers: tuple[NonNegativeInt, ...] | None = None

    @property
    def name(self) -> str:
        """How results call it."""
        layers = "" if self.layers is None else "_layers_" + "_".join(map(str, self.layers))
        return f"sae_{self.selection}_{self.value}{layers}"


class NeuronSetting(Spec):
    """fixed: neurons are set to the amount; scaled: amount * largest activation is added."""

    method: Literal["fixed", "scaled"]

    @property
    def name(self) -> str:
        """How results call it."""
        return f"neuron_{self.method}"


def feature_interventions(
    identified: Identified,
    bank: Mapping[HookPoint, SparseCoder],
    setting: FeatureSetting,
    multiplier: float,
    l2_scale: float | None = None,
) -> dict[str, Intervention]:
    """Per language (all that were identified, in order) what the setting adds; {} for none."""
    rows = identified.selected(setting.selection)
    if setting.layers is not None:
        rows = rows[rows["layer"].isin(setting.layers)]
    out: dict[str, Intervention] = {code: {} for code in identified.languages}
    for (code, hook), part in _by_hook(rows):
        amounts = (multiplier * part[COLUMNS[setting.value]]).tolist()
        out[code][hook] = add_features(bank[hook], part["feature"].tolist(), amounts, l2_scale)
    return out


def neuron_interventions(
    identified: Identified, widths: Mapping[HookPoint, int], setting: NeuronSetting, amount: float
) -> dict[str, Intervention]:
    """Per language what the setting does to its neurons; widths: neurons of each layer."""
    out: dict[str, Intervention] = {code: {} for code in identified.languages}
    for (code, hook), part in _by_hook(identified.neurons):
        neurons = part["neuron"].tolist()
        if setting.method == "fixed":
            out[code][hook] = set_neurons(widths[hook], neurons, amount)
        else:
            amounts = (amount * part["maximum"]).tolist()
            out[code][hook] = add_to_neurons(widths[hook], neurons, amounts)
    return out


def _by_hook(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, HookPoint], pd.DataFrame]]:
    for (code, hook), part in rows.groupby(["language", "hook"], sort=True):
        yield (code, HookPoint.parse(hook)), part
