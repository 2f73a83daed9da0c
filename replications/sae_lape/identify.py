"""Which SAE features, and which neurons, are specific to a language or shared by a few.

SAE-LAPE of Andrylie et al. (2025): features that fire often somewhere, by the number of languages
in which they fire nearly as often as in their first; entropy only orders them.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt

from langsae.command import run
from langsae.files import publish, read_json, write_json
from langsae.metrics import lape
from langsae.models.hooks import HookPoint
from langsae.params import Spec, section
from langsae.paths import expand
from langsae.reducers.base import read
from replications.sae_lape import identified, published_features
from replications.sae_lape.run import STUDY, Run, folder

Share = Annotated[float, Field(ge=0, le=1)]


class Identify(Spec):
    """Thresholds; see conf/common.yaml.

    joint: ask both conditions of one language; as published two languages may meet them.
    decimals: round largest and smallest activations, as published with 3; None does not.
    """

    example_rate: Share
    token_rate: Share
    joint: bool
    mask_ratio: Share
    entropy_threshold: Annotated[float, Field(ge=0)] | None
    top: PositiveInt
    top_per_layer: PositiveInt
    neuron_quantile: Share
    neuron_share: Share
    decimals: NonNegativeInt | None
    histogram_bins: PositiveInt


@dataclass(frozen=True)
class Counts:
    """A reducer's numbers over the languages in their order; arrays are [H, L, F]."""

    hooks: tuple[str, ...]
    languages: tuple[str, ...]
    state: dict[str, np.ndarray]
    tokens: np.ndarray
    texts: np.ndarray

    @classmethod
    def load(cls, collected: Path, name: str) -> "Counts":
        """What stage collect published as `name`."""
        header, state = read(collected / f"{name}.safetensors", name)
        totals = read_json(collected / "totals.json")
        codes = header["languages"]
        tokens, texts = (np.array([totals[key][code] for code in codes])
                         for key in ("tokens", "examples"))  # fmt: skip
        arrays = {key: value.numpy() for key, value in state.items()}
        return cls(tuple(header["hooks"]), tuple(codes), arrays, tokens, texts)

    def keep(self, settings: Identify, joint: bool) -> np.ndarray:
        """The features that fire often: bool [H, F]."""
        return lape.frequent(
            self.state["hits"], self.state["examples"], self.tokens, self.texts,
            settings.example_rate, settings.token_rate, joint,
        )  # fmt: skip

    def extremes(self, kept: lape.Kept, decimals: int | None = None) -> dict[str, np.ndarray]:
        """Over all languages, of these features: average, maximum and minimum of the hits."""
        at = kept.hook, slice(None), kept.feature
        state = {name: self.state[name][at] for name in ("total", "hits", "max", "min")}
        found = {
            "average": state["total"].sum(1) / state["hits"].sum(1),
            "maximum": state["max"].max(1, initial=-np.inf).astype(np.float64),
            "minimum": state["min"].min(1, initial=np.inf).astype(np.float64),
        }
        if decimals is None:
            return found
        return {k: v if k == "average" else v.round(decimals) for k, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    wanted, profile = section(f"{STUDY}.runs.{name}", Run), section("profile", str)
    settings = section(f"{STUDY}.identify", Identify)
    out = folder(profile, name, "identified")
    if wanted.published is not None:
        with publish(out) as part:
            part.mkdir(parents=True)
            published_features.identify(expand(wanted.published), part)
        return
    identify(folder(profile, name, "collected"), settings, out)


def identify(collected: Path, settings: Identify, out: Path) -> None:
    """Identify on the counts in `collected`; publish the tables (see `identified`) at `out`."""
    counts = Counts.load(collected, "lape_counts")
    kept = lape.identify(
        counts.state["hits"], counts.tokens, counts.keep(settings, settings.joint),
        settings.mask_ratio, settings.entropy_threshold,
    )  # fmt: skip
    neurons = Counts.load(collected, "neuron_counts")
    own, bar = lape.identify_neurons(
        neurons.state["hits"], neurons.tokens, settings.neuron_quantile, settings.neuron_share
    )
    selections = list(selected(kept, settings, len(counts.languages)))
    tables = {
        "features": feature_table(counts, kept, settings.decimals),
        "neurons": neuron_table(neurons, own),
        "selections": selection_table(counts, kept, selections),
    }
    summary = {
        "languages": counts.languages,
        "selections": list(dict.fromkeys(name for name, _, _ in selections)),
        "settings": settings.model_dump(),
        "totals": read_json(collected / "totals.json"),
        **_numbers(counts, kept, settings),
        "neurons": {"bar": bar, "kept": len(own.hook), "of": neurons.state["hits"][:, 0].size},
    }
    with publish(out) as part:
        part.mkdir(parents=True)
        identified.write(part, tables)
        write_json(part / "summary.json", summary)


def _numbers(counts: Counts, kept: lape.Kept, settings: Identify) -> dict[str, Any]:
    """How many there are, and how entropies are distributed."""
    hits = counts.state["hits"]
    edges, alive = lape.entropy_histogram(hits, counts.tokens, settings.histogram_bins)
    chosen = np.histogram(kept.entropy.clip(0, edges[-1]), edges)[0]
    return {
        "features": hits[:, 0].size,
        "alive": int(alive.sum()),
        "kept": int(counts.keep(settings, settings.joint).sum()),
        "kept_if_joint": int(counts.keep(settings, joint=True).sum()),
        "idle_hits": int(counts.state["idle"].sum()),
        "hits": int(hits.sum()),
        "shared_by": {str(n): int((kept.languages == n).sum())
                      for n in range(1, len(counts.languages) + 1)},
        "entropy": {"edges": edges.tolist(), "alive": alive.tolist(), "kept": chosen.tolist()},
    }  # fmt: skip


def selected(
    kept: lape.Kept, settings: Identify, languages: int
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Every selection of every language: its name, the language, indices into `kept` by rank."""
    top, each = settings.top, settings.top_per_layer
    wanted: dict[str, dict[str, Any]] = {
        identified.ALL: {},
        f"top_{top}_by_entropy": {"top": top},
        f"top_{top}_by_freq": {"top": top, "by": "frequency"},
        f"top_{each}_per_layer_by_entropy": {"top": each, "per_hook": True},
        f"top_{each}_per_layer_by_freq": {"top": each, "per_hook": True, "by": "frequency"},
        **{f"shared_{n}": {"shared_by": n} for n in range(2, languages + 1)},
    }
    for name, how in wanted.items():
        for language in range(languages):
            yield name, language, lape.select(kept, language, **how)


def feature_table(counts: Counts, kept: lape.Kept, decimals: int | None) -> pd.DataFrame:
    """`identified.FEATURES` by number of languages, language (in order), layer and feature."""
    everywhere = counts.extremes(kept, decimals)
    parts = []
    for shared_by in range(1, len(counts.languages) + 1):
        for language, code in enumerate(counts.languages):
            at = lape.select(kept, language, shared_by)
            part = kept.where(at)
            rate = part.rates[:, language]
            columns = {
                "languages": shared_by,
                "language": code,
                **_place(counts, part),
                "feature": part.feature,
                "entropy": part.entropy,
                "probability": rate,
                **{name: values[at] for name, values in everywhere.items()},
                "probability_as_published": lape.misaligned(part.hook, part.feature, rate),
            }
            rows = pd.DataFrame(columns, index=range(len(at)))
            parts.append(rows.iloc[np.lexsort((part.feature, part.hook))])
    return pd.concat(parts, ignore_index=True)


def neuron_table(counts: Counts, own: lape.Kept) -> pd.DataFrame:
    """`identified.NEURONS` by language (in order), layer and neuron."""
    largest = counts.extremes(own)["maximum"]
    parts = []
    for language, code in enumerate(counts.languages):
        at = own.member[:, language].nonzero()[0]
        part = own.where(at)
        columns = {
            "language": code,
            **_place(counts, part),
            "neuron": part.feature,
            "entropy": part.entropy,
            "probability": part.rates[:, language],
            "maximum": largest[at],
        }
        rows = pd.DataFrame(columns, index=range(len(at)))
        parts.append(rows.iloc[np.lexsort((part.feature, part.hook))])
    return pd.concat(parts, ignore_index=True)


def selection_table(
    counts: Counts, kept: lape.Kept, selections: list[tuple[str, int, np.ndarray]]
) -> pd.DataFrame:
    """`identified.SELECTIONS` by selection, language (in order) and rank."""
    parts = []
    for name, language, at in selections:
        part = kept.where(at)
        columns = {
            "selection": name,
            "language": counts.languages[language],
            **_place(counts, part),
            "feature": part.feature,
            "rank": np.arange(1, len(at) + 1),
        }
        parts.append(pd.DataFrame(columns, index=range(len(at))))
    return pd.concat(parts, ignore_index=True)


def _place(counts: Counts, part: lape.Kept) -> dict[str, list]:
    hooks = [counts.hooks[hook] for hook in part.hook]
    return {"hook": hooks, "layer": [HookPoint.parse(hook).layer for hook in hooks]}


if __name__ == "__main__":
    run(main)
