"""From a specification to a corpus: read the source, then clean, shuffle and select rows."""

import unicodedata
from collections.abc import Callable
from functools import partial

import numpy as np

from langsae.corpora import flores_folder, hub, libreoffice_help, local, udhr
from langsae.corpora.parallel import ParallelCorpus
from langsae.corpora.raw import Raw
from langsae.corpora.spec import SourceSpec, UnionSpec
from langsae.errors import InputError

SOURCES: dict[str, Callable[..., Raw]] = {
    "udhr": udhr.read,
    "libreoffice_help": libreoffice_help.read,
    "flores_folder": flores_folder.read,
    "local": local.read,
    "hub": hub.read,
}


def build(spec: SourceSpec | UnionSpec, name: str) -> ParallelCorpus:
    """The corpus `spec` (any member of CorpusSpec) asks for; InputError if it cannot be had."""
    if isinstance(spec, UnionSpec):
        return _union([build(part, name) for part in spec.parts], name)
    raw = SOURCES[spec.source](spec)
    texts = {code: [clean(text, spec) for text in raw.texts[code]] for code in spec.languages}
    texts, ids = _long_enough(texts, raw, spec.min_characters)
    if spec.min_characters and not all(texts.values()):
        raise InputError(f"{name}: no text has {spec.min_characters} characters; lower the limit")
    corpus = ParallelCorpus(
        name,
        {code: tuple(column) for code, column in texts.items()},
        None if ids is None else tuple(ids),
        raw.aligned,
        {"spec": spec.model_dump(mode="json"), "origin": raw.origin},
    )
    if spec.shuffle_seed is not None:
        corpus = corpus.permuted(partial(permutation, spec.shuffle_seed))
    return corpus if spec.rows is None else corpus.rows(spec.rows)


def _union(parts: list[ParallelCorpus], name: str) -> ParallelCorpus:
    """The texts of all parts, in order, in each language that has any."""
    codes = dict.fromkeys(code for part in parts for code in part.languages)
    texts = {code: sum((part.texts.get(code, ()) for part in parts), ()) for code in codes}
    provenance = {"parts": [part.provenance for part in parts]}
    return ParallelCorpus(name, texts, aligned=False, provenance=provenance)


def permutation(seed: int, rows: int) -> np.ndarray:
    """The order of `rows` rows under NumPy's default generator (PCG64)."""
    return np.random.default_rng(seed).permutation(rows)


def clean(text: str, spec: SourceSpec) -> str:
    """Unicode normalisation, white space off both ends, a cut, as far as `spec` asks."""
    if spec.normalise != "none":
        text = unicodedata.normalize(spec.normalise, text)
    return (text.strip() if spec.strip else text)[: spec.max_characters]


def _long_enough(
    texts: dict[str, list[str]], raw: Raw, least: int
) -> tuple[dict[str, list[str]], list[str] | None]:
    """Texts and ids without the rows shorter than `least` code points in any language."""
    if not raw.aligned:
        return {
            code: [text for text in column if len(text) >= least] for code, column in texts.items()
        }, None
    # Columns of unequal length stay as they are: ParallelCorpus names the fault.
    if least == 0 or len({len(column) for column in texts.values()}) > 1:
        return texts, raw.ids
    rows = zip(*texts.values(), strict=True)
    kept = [i for i, row in enumerate(rows) if min(map(len, row)) >= least]
    ids = None if raw.ids is None else [raw.ids[i] for i in kept]
    return {code: [column[i] for i in kept] for code, column in texts.items()}, ids
