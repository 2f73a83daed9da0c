"""Semantic entropy of one layer's features at the size of the study's largest model.

99,584 tokens of 3,072 dimensions (LLM-jp-3 3.7B), 32,768 features, 1 to 500 activating tokens each.
Tokens belong to 2,000 meanings: two of one meaning have a cosine near 0.25, others near 0, so
nearly all pairs have to be looked at. A feature's tokens are drawn as its label says: a token
feature from 1 to 4 kinds, a synonym feature from one meaning, a semantic feature from ten, an
uninterpretable one from the whole vocabulary by Zipf's law. Labels are as frequent as the authors
found them (project page, 100 features a checkpoint). The worst case, 500 kinds a feature drawn
evenly from the vocabulary, needs nearly every pair of the vocabulary: minutes, hence only if asked
for by --only "every token another".

Both groupings and their entropies are timed. The plain way computes each feature's cosines as one
product and labels them with SciPy; it is timed on some features, on which both must agree. Run:
    python -m bench.semantics [--features 32768 --d 3072]
"""

import argparse
import time

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bench.common import RESULTS, machine, markdown
from langsae.compute import Compute
from langsae.files import write_json
from langsae.metrics.semantics import TokenCounts, semantic_entropy
from langsae.metrics.token_groups import Similarity

SECONDS = 60  # what we promise
VOCABULARY, MEANINGS, MOST, COSINE = 99_584, 2000, 500, 0.1
KINDS = ("uninterpretable", "semantic", "synonym", "token")
# of 100 features
WORST = "every token another"
LABELS = {"988,240 steps": (3, 24, 22, 51), "10 steps": (63, 5, 0, 32), WORST: None}
PLAIN = 48  # features that the plain way is timed on


def embeddings(d: int) -> Tensor:
    """Float32 [V, d]; token t has the meaning t mod MEANINGS."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(MEANINGS, d, generator=draw)
    out = torch.randn(VOCABULARY, d, generator=draw).mul_(3**0.5)
    for start in range(0, VOCABULARY, MEANINGS):
        out[start : start + MEANINGS] += centres[: VOCABULARY - start]
    return out


def draw_counts(labels: tuple[int, ...] | None, features: int) -> TokenCounts:
    """Activating tokens of `features` features."""
    rng = np.random.default_rng(1)
    zipf = 1 / np.arange(1, VOCABULARY + 1)
    zipf = np.cumsum(zipf / zipf.sum())
    rows = []
    for kind in rng.choice(4, features, p=np.array(labels or (100, 0, 0, 0)) / 100):
        if labels is None:
            rows.append(rng.choice(VOCABULARY, MOST, replace=False))
            continue
        size = int(rng.integers(1, MOST + 1))
        by_frequency = np.minimum(np.searchsorted(zipf, rng.random(size)), VOCABULARY - 1)
        if KINDS[kind] == "token":
            rows.append(rng.choice(rng.integers(VOCABULARY, size=rng.integers(1, 5)), size))
        elif KINDS[kind] == "uninterpretable":
            rows.append(by_frequency)
        else:
            meanings = rng.integers(MEANINGS, size=10 if KINDS[kind] == "semantic" else 1)
            rank = by_frequency % (VOCABULARY // MEANINGS)
            rows.append(rank * MEANINGS + rng.choice(meanings, size))
    feature = np.repeat(np.arange(features), [len(row) for row in rows])
    return TokenCounts.of(feature, np.concatenate(rows).astype(np.int64), features)


def ours(counts: TokenCounts, table: Tensor) -> dict[str, np.ndarray]:
    """Both semantic entropies of every feature."""
    groups = Similarity(table, COSINE).groups(counts)
    return {name: semantic_entropy(counts, group) for name, group in groups.items()}


def plain(counts: TokenCounts, table: Tensor, features: np.ndarray) -> np.ndarray:
    """Semantic entropy of these features by connected components, one product a feature."""
    out = []
    for feature in features:
        part = slice(counts.starts[feature], counts.starts[feature + 1])
        rows = torch.nn.functional.normalize(table[torch.from_numpy(counts.token[part])], dim=1)
        near = ((rows @ rows.T) > COSINE).numpy()
        labels = connected_components(csr_array(near), directed=False)[1]
        share = np.bincount(labels, weights=counts.count[part])
        share /= share.sum()
        out.append(-(share * np.log(share)).sum())
    return np.array(out)


def measure(name: str, features: int, table: Tensor) -> dict:
    """Seconds of both ways on one mixture of features."""
    counts = draw_counts(LABELS[name], features)
    some = np.arange(0, features, max(1, features // PLAIN))
    start, cpu = time.perf_counter(), time.process_time()
    found = ours(counts, table)
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    start, cpu = time.perf_counter(), time.process_time()
    theirs = plain(counts, table, some)
    by_plain = features / len(some) * (time.process_time() - cpu)
    if not np.allclose(found["connected"][some], theirs, rtol=0, atol=1e-9):
        raise SystemExit(f"{name}: the two ways give other entropies")
    return took | {
        "labels": name,
        "entries": len(counts.token),
        "most": int(np.diff(counts.starts).max()),
        "used": len(np.unique(counts.token)),
        "plain_cpu_seconds": by_plain,
    }


def table(result: dict) -> str:
    """The result as markdown."""
    rows = [
        [run["labels"], f"{run['entries']:,}", run["most"], f"{run['used']:,}",
         f"{run['seconds']:.0f}", f"{run['cpu_seconds']:.0f}", f"{run['plain_cpu_seconds']:.0f}"]
        for run in result["runs"]
    ]  # fmt: skip
    told = (
        f"Both groupings and both entropies of {result['sizes']['features']:,} features (target: "
        f"{SECONDS} seconds on two cores). The plain way does one grouping; it is measured on "
        f"{PLAIN} features, with the same entropies."
    )
    header = ["features labelled as at", "kinds of all features", "most of one", "different tokens",
              "seconds", "processor seconds", "plain way, processor seconds"]  # fmt: skip
    return "\n".join([markdown(header, rows), "", told])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=32_768)
    parser.add_argument("--d", type=int, default=3072)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=LABELS, help="one mixture; nothing is written")
    given = parser.parse_args(arguments)
    Compute(device="cpu", threads=given.threads).apply()
    vectors = embeddings(given.d)
    ours(draw_counts(LABELS["10 steps"], 64), vectors)  # compiled, outside the clock
    names = [given.only] if given.only else [name for name in LABELS if name != WORST]
    runs = [measure(name, given.features, vectors) for name in names]
    sizes = {"d": given.d, "features": given.features, "tokens": VOCABULARY, "most": MOST,
             "threads": given.threads}  # fmt: skip
    result = {"machine": machine(), "runs": runs, "sizes": sizes}
    if not given.only:
        write_json(RESULTS / "semantics.json", result)
    print(table(result))


if __name__ == "__main__":
    main()
