"""Every figure and page of the study, from the tables of one profile.

`python -m replications.llmjp_tracing.figures PROFILE` reads results/llmjp_tracing/plots/PROFILE/
and writes paper_figures/llmjp_tracing/PROFILE. The drawing is in figures_*.py; what a table without
rows would show is not drawn.
"""

from pathlib import Path

import pandas as pd

from langsae.command import run
from langsae.figures import command, house_style, save
from langsae.files import publish
from replications.llmjp_tracing import figures_patterns, figures_runs, figures_training
from replications.llmjp_tracing.figures_training import distinct

STUDY = "llmjp_tracing"
PARTS = (figures_training, figures_runs, figures_patterns)
OPTIONAL = "monosemanticity"  # needs embeddings, which the published data lacks


def draw(plots: Path, out: Path) -> list[Path]:
    """Every figure and page of the tables in `plots`, written under `out`; returns the files."""
    tables = {path.stem: _read(path) for path in sorted(plots.glob("*.csv"))}
    written = []
    with house_style():
        for part in PARTS:
            for stem, (names, function) in part.FIGURES.items():
                written += _draw(function, [tables[name] for name in names], names, out, stem)
            for stem, (names, function) in getattr(part, "BY_RUN", {}).items():
                frames = [tables[name] for name in names]
                for one in distinct(frames[0]["run"]) if len(frames[0]) else ():
                    mine = [frame[frame["run"] == one] for frame in frames]
                    written += _draw(function, mine, names, out, f"{stem}_{one}")
    for stem, (names, function) in figures_patterns.PAGES.items():
        frames = [tables[name] for name in names]
        if all(map(len, frames)):
            with publish(out / f"{stem}.html") as temporary:
                temporary.write_text(function(*frames), encoding="utf-8")
            written.append(out / f"{stem}.html")
    return written


def _draw(function, frames: list[pd.DataFrame], names: tuple[str, ...], out: Path, stem: str
          ) -> list[Path]:  # fmt: skip
    needed = [frame for frame, name in zip(frames, names, strict=True) if name != OPTIONAL]
    figure = function(*frames) if all(map(len, needed)) else None
    return save(figure, out, stem) if figure is not None else []


def _read(path: Path) -> pd.DataFrame:
    """A table; texts stay texts, "null" and "nan" too."""
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], lineterminator="\n",
                        dtype={"model": str})  # fmt: skip
    words = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column])]
    return frame.fillna(dict.fromkeys(words, ""))


def main() -> None:
    command(__doc__, STUDY, draw)


if __name__ == "__main__":
    run(main)
