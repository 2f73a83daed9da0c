"""A stage's costly pass in shards: the same bytes from one process or from tasks on many nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from langsae import stream
from langsae.cells import discard
from langsae.compute import Compute
from langsae.files import digest, publish
from langsae.launch import each
from langsae.launching import Launch
from langsae.models.language_model import LanguageModel
from langsae.models.tokens import TokenisedCorpus
from langsae.reducers.base import Reducer


@dataclass(frozen=True)
class Pass:
    """Texts, what they pass through, and a function that makes the empty reducers.

    The header of the first reducer tells this pass from any other: where the reducers are for
    chosen features, or the texts a choice of a corpus, it says which.
    """

    model: LanguageModel
    bank: stream.Bank
    tokens: TokenisedCorpus
    reducers: Callable[[], list[Reducer]]


def collect(
    opened: Pass, again: Callable[[], Pass], compute: Compute, scratch: Path, launch: Launch
) -> list[Reducer]:
    """The filled reducers of `opened`, in the order in which it makes them.

    again: opens the same pass in another process; picklable (a function of a module, or a
    functools.partial of one). Locally the pass runs here, as `stream.collect` does it. On Ray each
    of `ray.shards` is a task that keeps its reducers under `scratch`, in a folder named by a digest
    of the header; they are merged here.
    """
    whole = opened.reducers()
    if launch.launch == "local":
        stream.collect(opened.model, opened.bank, opened.tokens, whole, compute, scratch)
        return whole
    names = [reducer.name for reducer in whole]
    folder = scratch / digest([whole[0].header, compute.batch_tokens, names])
    count = launch.ray.shards
    shards = [_Shard(again, compute, folder, (number, count)) for number in range(count)]
    missing = {shard.name: shard for shard in shards if not shard.out.is_dir()}
    each(_collect, missing, launch, "collecting")
    list(folder.iterdir())  # NFS may still hold that shards it was asked for are not there
    for reducer in whole:
        reducer.restore(shards[0].out / f"{reducer.name}.safetensors")
    for shard in shards[1:]:
        for reducer, part in zip(whole, opened.reducers(), strict=True):
            part.restore(shard.out / f"{part.name}.safetensors")
            reducer.merge(part)
    discard(folder)
    return whole


class Fillable(Protocol):
    """A long computation of many parts, which any process keeps where all find them."""

    def fill(self, shard: tuple[int, int] = (0, 1)) -> None:
        """Compute what is not there yet of shard (i, of n)."""
        ...


def fill(again: Callable[[], Fillable], compute: Compute, launch: Launch, what: str) -> None:
    """On Ray, fill `ray.shards` shards as tasks; locally do nothing: the caller computes all.

    again: opens the computation in another process; picklable. what: see `langsae.launch.each`.
    """
    if launch.launch == "local":
        return
    count = launch.ray.shards
    tasks = {f"shard {i + 1} of {count}": (again, compute, (i, count)) for i in range(count)}
    each(_fill, tasks, launch, what)


def _fill(task: tuple[Callable[[], Fillable], Compute, tuple[int, int]]) -> None:
    again, compute, shard = task
    compute.apply()
    again().fill(shard)


@dataclass(frozen=True)
class _Shard:
    """Part `shard` (i, of n) of a pass."""

    again: Callable[[], Pass]
    compute: Compute
    folder: Path
    shard: tuple[int, int]

    @property
    def name(self) -> str:
        return f"shard {self.shard[0] + 1} of {self.shard[1]}"

    @property
    def out(self) -> Path:
        return self.folder / f"shard-{self.shard[0]}-of-{self.shard[1]}"


def _collect(task: _Shard) -> None:
    if task.out.is_dir():  # its worker was lost after it had published
        return
    task.compute.apply()
    opened = task.again()
    reducers = opened.reducers()
    stream.collect(opened.model, opened.bank, opened.tokens, reducers, task.compute, task.folder,
                   task.shard)  # fmt: skip
    with publish(task.out) as part:
        part.mkdir()
        stream.save_all(reducers, part, {})
