"""Every figure and page of the study, from the tables of one profile.

`python -m replications.sae_lape.figures PROFILE` reads results/sae_lape/plots/PROFILE/*.csv and
writes paper_figures/sae_lape/PROFILE. The drawing is in figures_*.py; what a table without rows
would show is not drawn.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from langsae.command import run
from langsae.figures import command, house_style, save
from langsae.files import publish
from replications.sae_lape import (
    figures_classify,
    figures_features,
    figures_interpret,
    figures_steering,
)

STUDY = "sae_lape"
PARTS = (figures_features, figures_classify, figures_steering, figures_interpret)


def draw(plots: Path, out: Path) -> list[Path]:
    """Every figure and page of the tables in `plots`, written under `out`; returns the files."""
    written = []
    tables = {path.stem: _read(path) for path in sorted(plots.glob("*.csv"))}
    with house_style():
        for stem, names, function in _figures():
            frames = [tables[name] for name in names]
            figure = function(*frames) if all(map(len, frames)) else None
            written += save(figure, out, stem) if figure is not None else []
    for part in PARTS:
        for stem, (names, function) in getattr(part, "PAGES", {}).items():
            frames = [tables[name] for name in names]
            if all(map(len, frames)):
                with publish(out / f"{stem}.html") as temporary:
                    temporary.write_text(function(*frames), encoding="utf-8")
                written.append(out / f"{stem}.html")
    return written


def _figures() -> Iterator[tuple]:
    """(file stem, names of the tables, function) of all figures."""
    for part in PARTS:
        for name, figures in part.FIGURES.items():
            for stem, function in figures.items():
                yield stem, (name,), function
        for stem, (names, function) in getattr(part, "JOINT", {}).items():
            yield stem, names, function


def _read(path: Path) -> pd.DataFrame:
    """A table; empty cells of text stay texts, "null" and "nan" too."""
    frame = pd.read_csv(  # a piece of text may be a carriage return
        path, keep_default_na=False, na_values=[""], dtype={"piece": str}, lineterminator="\n"
    )
    words = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column])]
    return frame.fillna(dict.fromkeys(words, ""))


def main() -> None:
    command(__doc__, STUDY, draw)


if __name__ == "__main__":
    run(main)
