"""A local folder with one file per language and one sentence per line (FLORES-200's layout)."""

from pathlib import Path

from langsae.corpora.lines import read_lines
from langsae.corpora.raw import Raw
from langsae.corpora.spec import FloresFolderSpec
from langsae.errors import InputError
from langsae.files import sha256
from langsae.languages import fill, find
from langsae.paths import expand


def read(spec: FloresFolderSpec) -> Raw:
    """Line i of each file means the same; InputError for a missing, empty or misaligned file."""
    folder = expand(spec.folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (from '{spec.folder}'); is its variable set?")
    paths = {code: folder / fill(spec.pattern, find(code)) for code in spec.languages}
    texts = {code: _sentences(path) for code, path in paths.items()}
    lengths = {paths[code].name: len(lines) for code, lines in texts.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{folder}: files differ in number of lines: {counts}")
    return Raw(texts, {code: sha256(path) for code, path in paths.items()})


def _sentences(path: Path) -> list[str]:
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}:{number}: empty line; every language needs a text there")
    if not lines:
        raise InputError(f"{path}: has no lines")
    return lines
