"""The authors' lists of features, as our tables and as a result of LAPE."""

from pathlib import Path

import numpy as np
import pandas as pd

from langsae.errors import InputError
from langsae.languages import by_name, find
from langsae.metrics import lape
from replications.sae_lape import identified


def features(source: Path) -> pd.DataFrame:
    """features.csv without the extremes: specific and shared, a row a feature and language."""
    own = specific(source).rename(
        columns={"selected_prob_realigned": "probability",
                 "selected_prob_published_misaligned": "probability_as_published"}
    )  # fmt: skip
    shared = _table(source, "features_shared.csv").rename(
        columns={"shared_count": "languages", "entropy_2dp": "entropy",
                 "prob_realigned_2dp": "probability"}
    )  # fmt: skip
    table = pd.concat([own.assign(languages=1), shared], ignore_index=True)
    table = table.reindex(columns=identified.FEATURES)
    place = table["language"].map(by_name(set(table["language"])).index)
    order = ["languages", "place", "layer", "feature"]
    return table.assign(place=place).sort_values(order, ignore_index=True).drop(columns="place")


def specific(source: Path) -> pd.DataFrame:
    """The authors' table of language-specific features, with everything they say of each."""
    return _table(source, "features_specific.csv")


def _table(source: Path, name: str) -> pd.DataFrame:
    """A table of features, with language codes and hook points."""
    try:
        table = pd.read_csv(source / name, comment="#", keep_default_na=False)
    except FileNotFoundError as error:
        raise InputError(f"{source / name}: no such file; set LANGSAE_REFERENCE") from error
    code = table["language"].map(lambda name: find(name).code)
    return table.assign(language=code, hook="mlp_out." + table["layer"].astype(str))


def kept(table: pd.DataFrame) -> tuple[lape.Kept, list[str]]:
    """The features of `features` as SAE-LAPE gives them, and the languages' codes in order.

    A feature's rate is known, and set, in the languages it belongs to only.
    """
    codes = by_name(set(table["language"]))
    place = {code: i for i, code in enumerate(codes)}
    once = table.drop_duplicates(["layer", "feature"]).sort_values(
        ["entropy", "layer", "feature"], ignore_index=True
    )
    row = {key: i for i, key in enumerate(zip(once["layer"], once["feature"], strict=True))}
    rates = np.zeros((len(once), len(codes)))
    member = np.zeros(rates.shape, bool)
    for entry in table.itertuples():
        at = row[entry.layer, entry.feature], place[entry.language]
        rates[at], member[at] = entry.probability, True
    columns = (once[name].to_numpy() for name in ("layer", "feature", "entropy"))
    return lape.Kept(*columns, rates, member), codes
