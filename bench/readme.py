"""bench/README.md: its tables, between markers, are made from bench/results/*.json."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import bilingual, collect, grid, lape, memory, semantics
from bench.common import RESULTS, markdown
from langsae.files import publish, read_json

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results -->", "<!-- /results -->"

# How many times faster a training step should be than each of these, on a CPU.
STEP_TARGETS = {"eai-sparsify + Adam": 1.5, "sae-lens trainer": 6, "dense PyTorch": 6}


def train_step(result: dict[str, Any]) -> str:
    """Medians, and how much longer than ours each other step takes."""
    ours = next(iter(result["time_ratios"].values()))
    rows = []
    for name, times in result["seconds"].items():
        median = statistics.median(times)
        ratios = result["time_ratios"].get(name, {})
        target = STEP_TARGETS.get(name, "") if result["machine"]["gpu"] is None else ""
        rows.append([name, f"{median:.3g}", f"{result['sizes']['tokens'] / median:,.0f}"]
                    + [ratios.get(mine, "") for mine in ours] + [target])  # fmt: skip
    header = ["step", "seconds", "tokens/s", *(f"time / {mine}" for mine in ours), "target"]
    return markdown(header, rows)


# Title and table of each kind of result; a file is named KIND.json or KIND_MACHINE.json.
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "train_step": ("A TopK training step", train_step),
    "collect": ("Collecting 12 hook points", collect.table),
    "memory": ("Peak memory of collecting", memory.table),
    "lape": ("sae_lape at its published size", lape.table),
    "grid": ("llmjp_tracing: SAEs of all layers from one pass", grid.table),
    "semantics": ("llmjp_tracing: semantic entropy of one layer's features", semantics.table),
    "bilingual": ("Bilingual score, from stream to ranked list", bilingual.table),
}


def machine_line(machine: dict[str, Any]) -> str:
    """One line on where a result was measured."""
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    return (
        f"{where}; {machine['threads']} threads ({machine['capability']}), "
        f"PyTorch {machine['torch']}; load average at the end {machine['load_average']}."
    )


def tables() -> str:
    """All results that there are, as markdown."""
    sections = []
    for kind, (title, table) in TABLES.items():
        for path in sorted(RESULTS.glob(f"{kind}*.json")):
            result = read_json(path)
            sizes = ", ".join(f"{key} {value}" for key, value in result["sizes"].items())
            sections += [f"### {title}", machine_line(result["machine"]), sizes, table(result)]
    return "\n\n".join(sections)


def write() -> None:
    """Replace what stands between the markers."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with publish(README) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}", encoding="utf-8")
