"""Where the language-specific features point: their decoder rows in the plane.

SAEs are loaded one layer at a time; importing umap takes long, so this is a stage of its own.
"""

import argparse
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from langsae.command import run
from langsae.compute import Compute
from langsae.files import publish
from langsae.interventions import directions
from langsae.params import Spec, section
from langsae.paths import expand
from langsae.saes.bank import load_bank
from replications.sae_lape import artefacts, identified
from replications.sae_lape.run import STUDY, Run, folder

COLUMNS = ("language", "layer", "feature", "x", "y")
FEWEST = 5  # points that can be laid out in the plane


class Directions(Spec):
    """selection: of which features; neighbours and min_dist: UMAP's own, at its defaults.

    layout: `pca` takes a moment where UMAP takes a minute.
    """

    selection: str = identified.ALL
    layout: Literal["umap", "pca"] = "umap"
    neighbours: Annotated[int, Field(ge=2)] = 15
    min_dist: Annotated[float, Field(ge=0)] = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile = section("profile", str)
    section("compute", Compute).apply()
    settings = section(f"{STUDY}.directions", Directions)
    chosen = section(f"{STUDY}.runs.{name}", Run)
    out = folder(profile, name, "directions")
    if chosen.published is not None:
        artefacts.directions(expand(chosen.published), out)
        return
    rows = identified.load(folder(profile, name, "identified")).selected(settings.selection)
    lay_out(Path("artifacts/saes") / chosen.saes, rows, settings, section("seed", int), out)


def lay_out(bank: Path, rows: pd.DataFrame, settings: Directions, seed: int, out: Path) -> None:
    """Publish umap.csv, one row for each of `rows` (language, hook, layer, feature), at `out`.

    The distance of two features is one minus the cosine of their decoder rows. Fewer than FEWEST
    features give a table without rows.
    """
    rows = rows.sort_values(["layer", "feature", "language"], ignore_index=True)
    table = pd.DataFrame(columns=COLUMNS)
    if len(rows) >= FEWEST:
        vectors = decoder_rows(bank, rows)
        if settings.layout == "pca":
            place = principal(vectors)
        else:
            place = plane(vectors, settings.neighbours, settings.min_dist, seed)
        table = rows.assign(x=place[:, 0], y=place[:, 1])[list(COLUMNS)]
    with publish(out) as part:
        part.mkdir(parents=True)
        table.to_csv(part / "umap.csv", index=False, float_format="%.6g")


def decoder_rows(bank: Path, rows: pd.DataFrame) -> np.ndarray:
    """Unit decoder rows of the features in `rows`, float64 [n, d]."""
    parts = []
    for hook, part in rows.groupby("hook", sort=False):
        coder = next(iter(load_bank(bank, torch.device("cpu"), [str(hook)]).values()))
        found = directions(coder, part["feature"].tolist(), l2_scale=1.0)  # lengths do not matter
        unit = found / found.norm(dim=1, keepdim=True)
        parts.append(pd.DataFrame(unit.numpy(), index=part.index))
    return pd.concat(parts).sort_index().to_numpy()


def plane(vectors: np.ndarray, neighbours: int, min_dist: float, seed: int) -> np.ndarray:
    """UMAP of `vectors` [n, d] by cosine distance: float [n, 2], the same for the same seed."""
    from umap import UMAP  # imported here: it takes many seconds

    mapper = UMAP(
        n_neighbors=min(neighbours, len(vectors) - 1),
        min_dist=min_dist,
        metric="cosine",
        init="pca",
        random_state=seed,
        n_jobs=1,
    )
    return mapper.fit_transform(vectors)


def principal(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components of `vectors` [n, d]: float64 [n, 2].

    Each component's largest entry is positive, since its sign means nothing.
    """
    left, scale, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    place = left[:, :2] * scale[:2]
    largest = place[np.abs(place).argmax(0), [0, 1]]
    return place * np.sign(largest)


if __name__ == "__main__":
    run(main)
