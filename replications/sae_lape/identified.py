"""What stage identify found, for the stages after it.

Folder `identified/` of a run; CSV columns:
  features.csv    languages, language, hook, layer, feature, entropy, probability, average, maximum,
                  minimum, probability_as_published
                  one row per feature and language it belongs to; languages: how many share it, so
                  1 is language-specific
                  average, maximum, minimum: of the activation over all languages
  neurons.csv     language, hook, layer, neuron, entropy, probability, maximum (over all languages)
  selections.csv  selection, language, hook, layer, feature, rank (from 1)
  summary.json    kept, languages, selections (their names), settings, totals, ...
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from langsae.errors import InputError
from langsae.files import read_json
from langsae.models.hooks import HookPoint

FEATURES = ("languages", "language", "hook", "layer", "feature", "entropy", "probability",
            "average", "maximum", "minimum", "probability_as_published")  # fmt: skip
NEURONS = ("language", "hook", "layer", "neuron", "entropy", "probability", "maximum")
SELECTIONS = ("selection", "language", "hook", "layer", "feature", "rank")
ALL = "all"  # the selection of every language-specific feature


@dataclass(frozen=True)
class Identified:
    """The tables; `languages` are in the study's order, also those without any feature."""

    languages: tuple[str, ...]
    features: pd.DataFrame
    neurons: pd.DataFrame
    selections: pd.DataFrame
    summary: dict[str, Any]

    def selected(self, selection: str = ALL) -> pd.DataFrame:
        """The rows of `features` that a selection names, with their `rank` in it.

        Ordered by language (the study's order), layer and feature. InputError if there is no such
        selection; a language may have no row.
        """
        rows = self.selections[self.selections["selection"] == selection]
        if rows.empty and selection not in self.summary["selections"]:
            known = ", ".join(self.summary["selections"])
            raise InputError(f"no selection '{selection}' was identified; choose one of {known}")
        count = int(selection.removeprefix("shared_")) if selection.startswith("shared_") else 1
        features = self.features[self.features["languages"] == count]
        keys = ["language", "hook", "layer", "feature"]
        joined = features.merge(rows[[*keys, "rank"]], on=keys, validate="one_to_one")
        if len(joined) != len(rows):
            raise InputError(f"selection {selection} names features that features.csv lacks")
        return self._ordered(joined, "feature")

    def lists(self, selection: str = ALL) -> dict[str, list[tuple[HookPoint, int]]]:
        """Per language (all of them, in order) its selected features as (hook, feature)."""
        return self._lists(self.selected(selection), "feature")

    def neuron_lists(self) -> dict[str, list[tuple[HookPoint, int]]]:
        """Per language (all of them, in order) its neurons as (hook, neuron)."""
        return self._lists(self._ordered(self.neurons, "neuron"), "neuron")

    def _lists(self, rows: pd.DataFrame, column: str) -> dict[str, list[tuple[HookPoint, int]]]:
        found: dict[str, list] = {code: [] for code in self.languages}
        for row in rows.itertuples():
            found[row.language].append((HookPoint.parse(row.hook), int(getattr(row, column))))
        return found

    def _ordered(self, rows: pd.DataFrame, column: str) -> pd.DataFrame:
        place = rows["language"].map(self.languages.index)
        order = rows.assign(place=place).sort_values(["place", "layer", column], kind="stable")
        return order.drop(columns="place").reset_index(drop=True)


def load(folder: str | Path) -> Identified:
    """Read a run's `identified/` folder; InputError where a table or a column is missing."""
    folder = Path(folder)
    tables = {
        name: _table(folder / f"{name}.csv", columns)
        for name, columns in
        (("features", FEATURES), ("neurons", NEURONS), ("selections", SELECTIONS))
    }  # fmt: skip
    summary = read_json(folder / "summary.json")
    return Identified(tuple(summary["languages"]), **tables, summary=summary)


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        numbers = dict.fromkeys(FEATURES[5:], "")  # published artefacts leave some out
        table = pd.read_csv(path, keep_default_na=False, na_values=numbers)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run stage identify_sae_lape first") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: lacks column {', '.join(missing)}; run identify again")
    return table


def write(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """The tables by name as CSV, with 10 digits and in the columns' order."""
    wanted = {"features": FEATURES, "neurons": NEURONS, "selections": SELECTIONS}
    for name, columns in wanted.items():
        table = tables[name][list(columns)]
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")
