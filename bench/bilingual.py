"""Memory and time of the bilingual score, against keeping every activation as the original did.

Each measurement is a fresh process that makes synthetic sparse codes of the published size (34,098
positions per 500 pairs, 16,384 features, about 70 active) batch by batch, and ends with the ranked
list. Ours: all reducers of the study, with and without padding, then the three scores and the
frequency curves. Dense: one zero-padded array [pairs, 2, 226, features] as in the author's code,
its thresholds, curves and published score, in NumPy. Making codes is not timed; a peak is the
high-water mark of the process's resident set. Run:
    python -m bench.bilingual [--pairs 500 --dense 80]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.bilingual_codes import LATENTS, LONGEST, batches
from bench.common import RESULTS, machine, markdown
from bench.memory import peak
from langsae.compute import Compute
from langsae.files import write_json
from langsae.metrics import activation_frequency as frequency
from langsae.metrics.bilingual import VARIANTS, BilingualScores, bilingual_score
from langsae.reducers.base import Reducer
from langsae.reducers.contexts import TopContexts
from langsae.reducers.example_maxima import ExampleMaxima
from langsae.reducers.positive_values import PositiveValues

SECONDS, MEGABYTES = 30, 1024  # what we promise at the published size
FIGURE = Path(__file__).parent / "bilingual_memory"


class Stopwatch:
    """Wall and processor seconds of the blocks it is entered for."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> "Stopwatch":
        self._since = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_) -> None:
        self.wall += time.perf_counter() - self._since[0]
        self.cpu += time.process_time() - self._since[1]

    def read(self) -> dict[str, float]:
        return {"seconds": self.wall, "cpu_seconds": self.cpu}


def stream(pairs: int) -> dict:
    """Ours: from the stream to ranked lists."""
    both = (False, True)
    maxima = [ExampleMaxima({}, 1, 2, pairs, LATENTS, masked) for masked in both]
    values = [PositiveValues({}, 1, 2, masked) for masked in both]
    reducers: list[Reducer] = [*maxima, *values, TopContexts({}, 1, 2, LATENTS, 10, masked=True)]
    watch, entries, positions = Stopwatch(), 0, 0
    for batch in batches(pairs):
        entries, positions = entries + len(batch.codes.value), positions + len(batch.tokens)
        with watch:
            for reducer in reducers:
                reducer.update(batch)
    with watch:
        published = rank(maxima, values)
    return {
        **watch.read(),
        "active_per_position": entries / positions,
        "alive": int(published.alive.sum()),
        "best": published.ranked[:50].tolist(),
    }


def rank(maxima: Sequence[ExampleMaxima], values: Sequence[PositiveValues]) -> BilingualScores:
    """All scores and curves, of both paddings; as_published with padding is returned."""
    for masked in (True, False):
        dense = maxima[masked].dense(0)
        for group, rows in (((0, 1), dense), ((0,), dense[0]), ((1,), dense[1])):
            quantiles = values[masked].quantiles(0, group, frequency.QUANTILES)
            mean = values[masked].mean(0, group)
            frequency.frequency_curves(rows, frequency.thresholds(mean, quantiles))
        ranked = {variant: bilingual_score(dense, variant) for variant in VARIANTS}
    return ranked["as_published"]


def dense(pairs: int) -> dict:
    """The original's way: every activation, then maxima, thresholds, curves and the score."""
    # written once, as padding does: pages of np.zeros would not count before they are touched
    kept = np.full((pairs, 2, LONGEST, LATENTS), 0, np.float32)
    for batch in batches(pairs):
        table, codes = batch.tokens, batch.codes
        at = (column[codes.token].numpy() for column in (table.example, table.language,
                                                         table.position))  # fmt: skip
        kept[(*at, codes.feature.numpy())] = codes.value.numpy()
    with Stopwatch() as watch:
        alive, ranked = dense_ranking(kept)
    return {**watch.read(), "alive": alive, "best": ranked[:50].tolist()}


def dense_ranking(kept: np.ndarray) -> tuple[int, np.ndarray]:
    """Live features and their rising scores, from activations [pairs, 2, T, F]; curves beside."""
    pairs = len(kept)
    maxima = kept[:, :, 1:].max(axis=2)
    for group in (kept[:, :, 1:], kept[:, :1, 1:], kept[:, 1:, 1:]):
        positive = group[group > 0]
        for h in (positive.mean(), *np.quantile(positive, frequency.QUANTILES)):
            np.sort((group.max(axis=2) > h).reshape(-1, LATENTS).mean(axis=0))
    logits = [maxima[:, i].astype(np.float64) * 100 / maxima[:, i].max() for i in (0, 1)]
    p = [np.exp(x) / np.exp(x).sum(axis=0) for x in logits]
    m = (p[0] + p[1]) / 2
    divergence = sum((m * (np.log(m) - np.log(part))).mean(axis=0) for part in p) / 2
    df = (maxima > 0).sum(axis=(0, 1))
    alive = (maxima > 0).any(axis=0).all(axis=0)
    idf = np.where(df < 10, 1.0, 2 * pairs / np.maximum(df, 1))
    rising = np.sort(divergence[alive])
    weight = (rising[300] - rising[0]) / (idf[alive].max() - idf[alive].min())
    ids = np.flatnonzero(alive)
    ranked = np.sort((divergence + weight * idf)[ids])
    return int(alive.sum()), ranked


WAYS = {"langsae": stream, "dense NumPy": dense}


def fresh(way: str, pairs: int, threads: int) -> dict:
    """One measurement, in a process of its own."""
    command = [sys.executable, "-m", "bench.bilingual", "--measure", way, "--pairs", str(pairs)]
    done = subprocess.run(
        [*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, check=True
    )
    return {"pairs": pairs} | json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--dense", type=int, default=80, help="most pairs for the dense way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    Compute(device="cpu", threads=given.threads).apply()
    if given.measure:
        before = peak()
        measured = WAYS[given.measure](given.pairs)
        print(json.dumps(measured | {"before_mb": before, "peak_mb": peak()}))
        return
    small = [given.dense // 4, given.dense // 2, given.dense]
    sizes = {"langsae": [*small, given.pairs // 2, given.pairs, 2 * given.pairs],
             "dense NumPy": small}  # fmt: skip
    runs = {way: [fresh(way, n, given.threads) for n in sizes[way]] for way in WAYS}
    for ours, theirs in zip(runs["langsae"], runs["dense NumPy"], strict=False):
        same = np.allclose(ours["best"], theirs["best"], rtol=1e-5, atol=0)
        if not same or ours["alive"] != theirs["alive"]:
            raise SystemExit(f"the two ways score {ours['pairs']} pairs differently")
    result = {"machine": machine(), "runs": runs,
              "sizes": {"latents": LATENTS, "longest": LONGEST, "pairs": given.pairs}}  # fmt: skip
    write_json(RESULTS / "bilingual.json", result)
    draw(result)
    print(table(result))


def extrapolated(result: dict, pairs: int) -> float:
    """MB that the dense way would take for `pairs`: the line through its measurements."""
    runs = result["runs"]["dense NumPy"]
    line = np.polyfit([run["pairs"] for run in runs], [run["peak_mb"] for run in runs], 1)
    return float(np.polyval(line, pairs))


def draw(result: dict) -> None:
    """Peak memory against pairs, both ways, as bench/bilingual_memory.svg and .png."""
    # not above: their memory would weigh on the processes that are measured
    from matplotlib.ticker import FixedLocator, NullLocator

    from langsae import figures

    looks = {"langsae": figures.LOOKS["de"], "dense NumPy": figures.LOOKS["pt"]}
    target = result["sizes"]["pairs"]
    with figures.house_style():
        figure, axes = figures.new_figure(figures.ONE_COLUMN, 2.6)
        for way, look in looks.items():
            at = [run["pairs"] for run in result["runs"][way]]
            gb = [run["peak_mb"] / 1024 for run in result["runs"][way]]
            axes.plot(at, gb, color=look.colour, marker=look.marker)
            axes.annotate(way, (at[2], gb[2]), (-6, 5), textcoords="offset points",
                          color=look.colour, ha="right")  # fmt: skip
        whole = extrapolated(result, target) / 1024
        line = np.linspace(at[-1], target, 50)
        axes.plot(line, [extrapolated(result, n) / 1024 for n in line], ":", color=look.colour)
        axes.plot(target, whole, color=look.colour, marker=look.marker, markerfacecolor="white")
        axes.annotate(f"{whole:.0f} GB", (target, whole), (6, 0), textcoords="offset points",
                      color=look.colour, va="center")  # fmt: skip
        axes.axhline(MEGABYTES / 1024, color="#8C8C8C", linewidth=0.6)
        for axis, ticks in ((axes.xaxis, (20, 50, 100, 200, 500, 1000)),
                            (axes.yaxis, (0.25, 0.5, 1, 2, 4, 8, 16))):  # fmt: skip
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set_ylim(bottom=0.25)
        figures.label_axis(axes.xaxis, "sentence pairs")
        figures.label_axis(axes.yaxis, "peak memory", "GB")
    figures.save(figure, FIGURE.parent, FIGURE.name)


def table(result: dict) -> str:
    """The result as markdown."""
    rows = [
        [
            way,
            f"{run['pairs']:,}",
            f"{run['seconds']:.1f}",
            f"{run['cpu_seconds']:.1f}",
            f"{run['peak_mb']:,.0f}",
        ]
        for way, runs in result["runs"].items()
        for run in runs
    ]
    pairs = result["sizes"]["pairs"]
    ours = next(run for run in result["runs"]["langsae"] if run["pairs"] == pairs)
    told = (
        f"At the published size langsae takes {ours['peak_mb']:,.0f} MB (target: {MEGABYTES}), of "
        f"which {ours['before_mb']:,.0f} are Python and its packages, and {ours['seconds']:.1f} s "
        f"(target: {SECONDS}), {ours['cpu_seconds']:.1f} s of processor time; dense arrays would "
        f"take about {extrapolated(result, pairs) / 1024:.0f} GB. Both ways give the same scores."
        f"\n\n![Peak memory against the number of pairs]({FIGURE.name}.png)"
    )
    header = ["way", "pairs", "seconds", "processor seconds", "peak MB"]
    return "\n".join([markdown(header, rows), "", told])


if __name__ == "__main__":
    main()
