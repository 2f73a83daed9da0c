"""Work for test_ray.py and test_launch.py, in a module of its own: other processes import it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from langsae import sharded, stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import write_json
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.tokens import TokenPolicy, tokenise
from langsae.reducers.counts import FeatureCounts
from langsae.reducers.reconstruction import Reconstruction
from langsae.reducers.traces import FeatureTraces
from langsae.saes.threshold import ThresholdSAE

D, F = 32, 40
HOOKS = (HookPoint("resid_post", 0), HookPoint("resid_pre", 2))
WORDS = ["the", "of", "in", "que", "des", "und", "наш", "мир", "世界", "です", "नमस्ते", "مرحبا"]


@dataclass(frozen=True)
class Task:
    """dies: how many runs of it lose their worker; fault: what it raises then."""

    folder: Path
    name: str
    seconds: float = 0
    dies: int = 0
    fault: Exception | None = None


def work(task: Task) -> None:
    """Note the run beside the output, then do as `task` says and write where it was done."""
    run = _note(task.folder / task.name)
    if run < task.dies:
        os._exit(1)
    if task.fault is not None:
        raise task.fault
    time.sleep(task.seconds)
    seen = {name: os.environ.get(name) for name in ("LANGSAE_TEST", "HF_TOKEN", "HOME_OF_TEST")}
    facts = {"node": node(), "cwd": str(Path.cwd()), "environ": seen, "pid": os.getpid()}
    write_json(task.folder / f"{task.name}.json", facts)


def _note(path: Path) -> int:
    """Count this run; the number of those before it."""
    for number in range(100):
        try:
            with path.with_name(f"{path.name}.run{number}").open("x") as file:
                file.write(node())
        except FileExistsError:
            continue
        return number
    raise AssertionError("run without end")


def node() -> str:
    """The Ray node of this process; "" outside Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def texts() -> ParallelCorpus:
    rng = np.random.default_rng(0)
    columns = {
        code: tuple(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(12))
        for code in ("en", "hi", "ar")
    }
    return ParallelCorpus("c", columns, aligned=False)


def compute() -> Compute:
    return Compute(device="cpu", threads=1, batch_tokens=60)


def open_pass(folder: Path, dying: bool = False) -> sharded.Pass:
    """A pass over `texts()` through the model in `folder`.

    dying: the first process to see its third batch is lost there, once for `folder`.
    """
    model = load(folder / "model", "cpu")
    corpus = texts()
    tokens = tokenise(model.tokenizer, corpus, TokenPolicy())
    bank = {hook: _sae(seed) for seed, hook in enumerate(HOOKS)}
    header = stream.header(model, bank, tokens, corpus.digest())
    shape = (len(HOOKS), len(corpus.languages))

    def reducers():
        counts = _Dying if dying else FeatureCounts
        made = [
            counts(header, *shape, F),
            Reconstruction(header, *shape, D),
            FeatureTraces(header, {0: [1, 5], 1: [7]}),
        ]
        made[0].folder = folder
        return made

    return sharded.Pass(model, bank, tokens, reducers)


class _Dying(FeatureCounts):
    folder: Path
    seen = 0

    def update(self, batch) -> None:
        self.seen += 1
        if self.seen == 5 and _note(self.folder / "dying") == 0:  # two hooks a batch
            os._exit(1)
        super().update(batch)


def _sae(seed: int) -> ThresholdSAE:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return ThresholdSAE(draw(D, F), draw(F), draw(F, D), draw(D), input_bias=draw(D))


def refuse(task: Task) -> None:
    raise InputError(f"{task.name}: the hub has no such file")
