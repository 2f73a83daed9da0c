"""A model's training history: its checkpoints, each a model folder (the `histories` section).

Stage prepare_history writes `artifacts/histories/NAME/`: `history.json` {"steps", "spec"}, and for
each step a folder `step_%07d` as langsae.models.source.prepare publishes it; where the model is
trained here also `loss.csv` (step, loss in nats, lr, tokens).
"""

import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import digest, publish, write_json
from langsae.models.language_model import pick_device
from langsae.models.source import prepare, read_config
from langsae.models.spec import FolderModel, HubModel
from langsae.params import Spec
from langsae.paths import at_step
from langsae.pretrain.run import pretrain, step_folder
from langsae.pretrain.spec import LlamaShape, Pretraining, TokenizerSpec

# What makes two checkpoints the same model at two times.
_SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


class PretrainedHistory(Spec):
    """Trained here on all texts of a corpus.

    checkpoints: steps that are kept besides 0 (the random network) and the last.
    """

    source: Literal["pretrain"]
    corpus: str
    tokenizer: TokenizerSpec = TokenizerSpec()
    model: LlamaShape = LlamaShape()
    training: Pretraining
    checkpoints: tuple[NonNegativeInt, ...] = ()

    @model_validator(mode="after")
    def _checkpoints_exist(self) -> "PretrainedHistory":
        beyond = [step for step in self.checkpoints if step > self.training.steps]
        if beyond:
            raise ValueError(f"checkpoint {beyond[0]} is beyond the last step")
        return self


class CheckpointGroup(Spec):
    """Checkpoints that are found in one way: `{step}` or `{step:07d}` in repo, path or revision."""

    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    model: Annotated[HubModel | FolderModel, Field(discriminator="source")]

    @model_validator(mode="after")
    def _distinguished(self) -> "CheckpointGroup":
        if len(self.steps) > 1 and self.of(self.steps[0]) == self.of(self.steps[1]):
            raise ValueError("several steps need {step} in the model's repo, path or revision")
        return self

    def of(self, step: int) -> HubModel | FolderModel:
        """The model at `step`."""
        places = self.model.model_dump(include={"repo", "path", "revision"})
        filled = {name: at_step(place, step) for name, place in places.items()}
        return self.model.model_copy(update=filled)


class StoredHistory(Spec):
    """Checkpoints that others trained, on the hub or in local folders.

    corpus: not read; named so that every history hangs on some corpus in the pipeline.
    """

    source: Literal["checkpoints"]
    corpus: str
    groups: Annotated[tuple[CheckpointGroup, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _steps_once(self) -> "StoredHistory":
        steps = [step for group in self.groups for step in group.steps]
        if len(set(steps)) < len(steps):
            raise ValueError("a step is listed twice")
        return self


class NoHistory(Spec):
    """No checkpoint: for runs that only read what a study published. corpus: not read."""

    source: Literal["none"]
    corpus: str


HistorySpec = Annotated[
    PretrainedHistory | StoredHistory | NoHistory, Field(discriminator="source")
]


def prepare_history(
    spec: HistorySpec, compute: Compute, corpora: Path, scratch: Path, out: Path
) -> None:
    """Train or fetch the checkpoints of `spec` and publish them at `out` as a whole.

    Raises InputError for checkpoints that cannot be had, or that are not one model.
    """
    with publish(out) as folder:
        folder.mkdir()
        unfinished = None
        if isinstance(spec, PretrainedHistory):
            corpus = ParallelCorpus.load(corpora / f"{spec.corpus}.jsonl")
            key = [spec.model_dump(mode="json"), compute.model_dump(), corpus.digest()]
            unfinished = scratch / digest(key)
            steps = _pretrain(spec, compute, corpus, unfinished, folder)
        else:
            steps = _fetch(spec, folder) if isinstance(spec, StoredHistory) else []
        record = {"steps": steps, "spec": spec.model_dump(mode="json")}
        write_json(folder / "history.json", record)
    if unfinished is not None:
        shutil.rmtree(unfinished)


def _pretrain(
    spec: PretrainedHistory, compute: Compute, corpus: ParallelCorpus, scratch: Path, folder: Path
) -> list[int]:
    return pretrain(
        [text for texts in corpus.texts.values() for text in texts],
        spec.tokenizer,
        spec.model,
        spec.training,
        spec.checkpoints,
        scratch,
        folder,
        pick_device(compute.device),
        compute.checkpoint_seconds,
    )


def _fetch(spec: StoredHistory, folder: Path) -> list[int]:
    models = {step: group.of(step) for group in spec.groups for step in group.steps}
    shapes = {}
    for step in sorted(models):
        prepare(models[step], folder / step_folder(step))
        config = read_config(folder / step_folder(step))
        shapes[step] = {name: config.get(name) for name in _SHAPE}
    last = max(shapes)
    for step, shape in shapes.items():
        for name, value in shape.items():
            if value != shapes[last][name]:
                raise InputError(
                    f"checkpoint {step}: {name} is {value}, but {shapes[last][name]} at step "
                    f"{last}; give checkpoints of one model"
                )
    return sorted(models)
