"""One more pass for interpretation: where chosen features are active, and windows drawn from it."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from langsae import sharded, stream
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import digest
from langsae.interpret.chunks import chunk
from langsae.interpret.contexts import Sample, Sampling, Windows, draw
from langsae.interpret.score import Pieces
from langsae.languages import by_name
from langsae.launching import LOCAL, Launch
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, load
from langsae.models.pieces import pieces
from langsae.models.tokens import TokenisedCorpus, tokenise
from langsae.reducers.base import Reducer
from langsae.reducers.traces import FeatureTraces
from langsae.saes.bank import load_bank
from replications.sae_lape.run import Run

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def sample_windows(
    run: Run,
    sampling: Sampling,
    seed: int,
    compute: Compute,
    rows: pd.DataFrame,
    scratch: Path,
    how: Launch = LOCAL,
) -> tuple[list[Sample], list[tuple[int, int, int]], Pieces]:
    """Windows of each feature of `rows` (hook, layer, feature), their seeds, and the texts' pieces.

    The texts of `run.corpus` pass through model and SAEs once; what is collected stays under
    `scratch` and is read from there the next time.
    """
    if rows.empty:
        return [], [], list
    again = partial(_open, run, sampling, compute, rows)
    opened = again()
    seeds = [(seed, int(row.layer), int(row.feature)) for row in rows.itertuples()]
    windows = Windows(opened.tokens, sampling.width)
    found = _traces(opened, again, compute, scratch, how)
    samples = [
        draw(windows, activations, sampling, own)
        for activations, own in zip(_columns(found, rows), seeds, strict=True)
    ]
    return samples, seeds, partial(pieces, opened.model.tokenizer)


def _tokens(run: Run, sampling: Sampling, model: LanguageModel) -> TokenisedCorpus:
    corpus = ParallelCorpus.load(Path("artifacts/corpora") / f"{run.corpus}.jsonl")
    corpus = corpus.select(by_name(corpus.languages))
    tokens = tokenise(model.tokenizer, corpus, run.policy)
    if sampling.chunk is None:
        return tokens
    if model.tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end token to join texts; set contexts.chunk: null")
    return chunk(tokens, sampling.chunk, model.tokenizer.eos_token_id, sampling.chunks_per_language)


def _hooks(rows: pd.DataFrame) -> list[str]:
    return sorted(set(rows["hook"]), key=lambda name: HookPoint.parse(name).order)


def _open(run: Run, sampling: Sampling, compute: Compute, rows: pd.DataFrame) -> sharded.Pass:
    """The texts, cut up, through the SAEs of the features of `rows`."""
    model = load(Path("artifacts/models") / run.model, compute.device)
    tokens, names = _tokens(run, sampling, model), _hooks(rows)
    bank = load_bank(Path("artifacts/saes") / run.saes, model.device, names)
    wanted = {
        index: rows.loc[rows["hook"] == name, "feature"].to_numpy()
        for index, name in enumerate(names)
    }
    # what the texts are, after they were cut
    key = digest([tokens.languages, list(tokens.ids), tokens.language, tokens.example])
    chosen = {name: wanted[index].tolist() for index, name in enumerate(names)}
    header = stream.header(model, bank, tokens, key) | {"features": chosen}

    def reducers() -> list[Reducer]:
        return [FeatureTraces(header, wanted)]

    return sharded.Pass(model, bank, tokens, reducers)


def _traces(
    opened: sharded.Pass,
    again: Callable[[], sharded.Pass],
    compute: Compute,
    scratch: Path,
    how: Launch,
) -> FeatureTraces:
    """What `opened` collects; once, since it is kept under `scratch`."""
    [traces] = opened.reducers()
    path = scratch / f"traces-{digest(traces.header)[:16]}.safetensors"
    if path.is_file():
        traces.restore(path)
    else:
        [traces] = sharded.collect(opened, again, compute, scratch, how)
        traces.save(path)
    return traces


def _columns(traces: FeatureTraces, rows: pd.DataFrame) -> Iterator[Columns]:
    """Language, example, position and value of the activations of each feature of `rows`."""
    columns, names = traces.columns(), _hooks(rows)
    order = np.lexsort((columns["feature"], columns["hook"]))  # stable: positions stay in order
    sorted_keys = np.stack([columns["hook"][order], columns["feature"][order]])
    for row in rows.itertuples():
        here = _slice(sorted_keys, names.index(row.hook), int(row.feature))
        found = order[here]
        yield tuple(columns[n][found] for n in ("language", "example", "position", "value"))


def _slice(keys: np.ndarray, hook: int, feature: int) -> slice:
    """Where the columns of the sorted `keys` [2, N] equal (hook, feature)."""
    start, stop = np.searchsorted(keys[0], [hook, hook + 1])
    first, last = np.searchsorted(keys[1, start:stop], [feature, feature + 1])
    return slice(start + first, start + last)
