"""`langsae train` and `langsae tokenise`: from texts to SAEs in EleutherAI's format."""

import argparse
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from langsae import own_run
from langsae.corpora.build import build
from langsae.corpora.spec import CorpusSpec
from langsae.errors import InputError
from langsae.files import digest, publish, read_json, write_json
from langsae.locks import held_if_possible
from langsae.models.hooks import HookPoint
from langsae.models.language_model import LanguageModel, blocks, load, site_module
from langsae.models.source import load_source, prepare
from langsae.models.spec import ModelSpec
from langsae.params import parse
from langsae.parquet_files import ParquetFiles
from langsae.saes.load import load_sae
from langsae.saes.probe import probe
from langsae.saes.sparsify_format import write_sparsify
from langsae.saes.topk import CONFIG, WEIGHTS, TopKSAE
from langsae.saes.train import TrainSpec
from langsae.saes.train_bank import LOG, train_bank
from langsae.sequence_activations import SequenceActivations
from langsae.token_sequences import COLUMN, TokenSequences, write_sequences

PROBE_TOKENS = 4096
CHECKPOINT_SECONDS = 60
_DEFAULT_NORM = {"langsae": "standard", "sparsify": "none"}
# what does not change the result
_NOT_OPTIONS = {"action", "out", "threads", "device", "corpus"}


def run(arguments: argparse.Namespace) -> int:
    """`langsae train`."""
    torch.set_num_threads(arguments.threads)
    with _held(arguments) as scratch:
        names = _train(arguments, scratch)
    print(f"done: {len(names)} SAEs in {arguments.out}")
    return 0


def _train(arguments: argparse.Namespace, scratch: Path) -> list[str]:
    """Train and publish; the names of the hooks."""
    model = _model(arguments, scratch / "model")
    files, origin = _pretokenised(arguments, model, scratch)
    sequences = TokenSequences(files, arguments.shuffle_seed, arguments.max_sequences)
    hooks = named_hooks(arguments.hooks.split(","), model)
    chunks = SequenceActivations(
        model, hooks, sequences, arguments.chunk_tokens, arguments.per_pass,
        arguments.skip, arguments.exclude_tokens,
    )  # fmt: skip
    train = _by_sparsify if arguments.backend == "sparsify" else _by_langsae
    trained = train(arguments, chunks, scratch)
    _publish(arguments, chunks, trained, origin)
    shutil.rmtree(scratch)
    return [str(hook) for hook in hooks]


def tokenise(arguments: argparse.Namespace) -> int:
    """`langsae tokenise`: texts as sequences of one length in a Parquet file."""
    with _held(arguments) as scratch:
        prepare(parse(ModelSpec, own_run.model_of(arguments), "--model"), scratch)
        _write(arguments, load_source(scratch).tokenizer, arguments.out)
        shutil.rmtree(scratch)
    return 0


@contextmanager
def _held(arguments: argparse.Namespace) -> Iterator[Path]:
    """A folder beside --out that belongs to these options; nobody else makes --out meanwhile."""
    beside = arguments.out.with_name(f".{arguments.out.name}.scratch")
    with held_if_possible(beside / "lock", f"making {arguments.out}"):
        yield beside / digest(_given(arguments))[:16]


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that decide the result."""
    return {key: value for key, value in vars(arguments).items() if key not in _NOT_OPTIONS}


def _model(arguments: argparse.Namespace, folder: Path) -> LanguageModel:
    if not (folder / "model.json").is_file():
        prepare(parse(ModelSpec, own_run.model_of(arguments), "--model"), folder)
    return load(folder, arguments.device)


def _pretokenised(
    arguments: argparse.Namespace, model: LanguageModel, scratch: Path
) -> tuple[ParquetFiles, dict[str, Any]]:
    """The files with token ids, and where they come from; texts are tokenised into `scratch`."""
    if not _is_corpus(arguments.data):
        files = ParquetFiles(arguments.data)
        if COLUMN in files.columns:
            return files, files.origin()
    path = scratch / "tokens.parquet"
    if not (scratch / "origin.json").is_file():
        write_json(scratch / "origin.json", _write(arguments, model.tokenizer, path))
    return ParquetFiles(str(path)), read_json(scratch / "origin.json")


def _write(arguments: argparse.Namespace, tokenizer, out: Path) -> dict[str, Any]:
    """Tokenise --data into the file `out`; where the texts come from."""
    texts, origin = _texts(arguments)
    length, limit = arguments.ctx_len, arguments.max_sequences
    count = write_sequences(tokenizer, texts, length, arguments.bos, out, limit)
    print(f"{count} sequences of {length} tokens")
    return origin


def _is_corpus(data: str) -> bool:
    path = Path(data)
    flores = path.is_dir() and not any(path.glob("*.parquet"))
    return data in ("udhr", "libreoffice_help") or flores or path.suffix in (".csv", ".jsonl")


def _texts(arguments: argparse.Namespace) -> tuple[Iterable[str], dict[str, Any]]:
    """The texts of --data, those of a corpus row by row through its languages; their origin."""
    if not _is_corpus(arguments.data):
        files = ParquetFiles(arguments.data)
        return files.texts(arguments.text_column), files.origin()
    if not arguments.languages:
        raise InputError(f"--data {arguments.data}: say which --languages of it")
    arguments.corpus = arguments.data
    spec = parse(CorpusSpec, own_run.corpus_of(arguments, arguments.rows), "--data")
    corpus = build(spec, Path(arguments.data).name)
    columns = corpus.texts.values()
    rows = (column[row] for row in range(len(corpus)) for column in columns if row < len(column))
    return rows, corpus.provenance


def named_hooks(texts: Iterable[str], model: LanguageModel) -> dict[str, HookPoint]:
    """Hook points by the name of their module in the network, which is sparsify's spelling.

    texts: any spelling of a hook point; a * stands for every layer. Raises InputError for a layer
    that the model does not have, and for resid_pre, which no module puts out.
    """
    every = range(model.n_layers)
    spelled = [
        text.replace("*", str(layer)) for text in texts for layer in (every if "*" in text else [0])
    ]
    names = {module: name for name, module in model.network.base_model.named_modules()}
    hooks = {}
    points = set(map(HookPoint.parse, spelled))
    model.check(points)
    for hook in sorted(points, key=lambda hook: hook.order):
        if hook.site == "resid_pre":
            raise InputError(f"{hook}: sparsify's SAEs read what a module puts out; "
                             "take resid_post of the layer before")  # fmt: skip
        block = blocks(model.network, model.n_layers)[hook.layer]
        hooks[names[site_module(block, hook.site)]] = hook
    return hooks


def _by_langsae(
    arguments: argparse.Namespace, chunks: SequenceActivations, scratch: Path
) -> dict[str, Path]:
    """Train with our trainer; the folder of each SAE in sparsify's layout."""
    specs = _specs(arguments, chunks)
    train_bank(
        chunks, specs, scratch / "state", scratch / "bank",
        chunks.model.device, CHECKPOINT_SECONDS,
    )  # fmt: skip
    folders = {}
    for name in specs:
        folders[name] = scratch / "sparsify" / name
        write_sparsify(TopKSAE.load(scratch / "bank" / name), folders[name])
        shutil.copy(scratch / "bank" / name / LOG, folders[name])
    return folders


def _by_sparsify(
    arguments: argparse.Namespace, chunks: SequenceActivations, scratch: Path
) -> dict[str, Path]:
    """Train with sparsify's trainer; the folder of each SAE."""
    from langsae.train_sparsify import train_sparsify

    if arguments.skip or arguments.epochs > 1 or arguments.input_norm == "standard":
        raise InputError("sparsify's trainer knows neither --skip, --epochs nor --input-norm")
    folder = scratch / "sparsify"
    specs = _specs(arguments, chunks)
    network = chunks.model.network
    train_sparsify(network, chunks.sequences, specs, folder, arguments.exclude_tokens)
    return {name: folder / name for name in specs}


def _specs(arguments: argparse.Namespace, chunks: SequenceActivations) -> dict[str, TrainSpec]:
    """How the SAE at each hook point is trained."""
    specs = {}
    for name, width in chunks.widths().items():
        n_latents = arguments.latents or arguments.expansion_factor * width
        values = {
            "n_latents": n_latents,
            "k": arguments.k,
            # sparsify's rule for Adam
            "lr": arguments.lr or 2e-4 / (n_latents / 2**14) ** 0.5,
            "warmup_steps": arguments.lr_warmup_steps,
            "batch_tokens": arguments.batch_tokens,
            "epochs": arguments.epochs,
            "seed": arguments.seed,
            "input_norm": arguments.input_norm or _DEFAULT_NORM[arguments.backend],
            "dead_tokens": arguments.dead_feature_threshold,
        }
        specs[name] = parse(TrainSpec, values, f"training at {name}")
    return specs


def _publish(
    arguments: argparse.Namespace,
    chunks: SequenceActivations,
    trained: dict[str, Path],
    origin: dict[str, Any],
) -> None:
    """Put the trained SAEs into --out, with a look at how much each explains."""
    sample = chunks.sample(PROBE_TOKENS)
    with publish(arguments.out) as out:
        out.mkdir(parents=True)
        probes = {}
        for name, folder in trained.items():
            (out / name).mkdir(parents=True)
            for file in (CONFIG, WEIGHTS, LOG):
                if (folder / file).is_file():
                    shutil.copy(folder / file, out / name)
            sae = load_sae(out / name, chunks.hooks[name])
            probes[name] = probe(sae, sample[name])
            print(f"{name}: FVU {probes[name]['fvu']:.4f} on {probes[name]['tokens']} tokens of "
                  f"the training text, L0 {probes[name]['l0']:.1f}")  # fmt: skip
        data = {"origin": origin, "length": chunks.sequences.length}
        data["sequences"] = len(chunks.sequences)
        record = {"model": chunks.model.description, "data": data, "probe": probes}
        write_json(out / "config.json", record | {"options": _given(arguments)})
