"""Reading a corpus that ships inside the package, and choosing its languages."""

from importlib.resources import as_file, files
from typing import Any

from langsae.corpora.lines import read_jsonl
from langsae.corpora.raw import Raw
from langsae.errors import InputError
from langsae.files import sha256


def read_shipped(file: str, languages: tuple[str, ...]) -> Raw:
    """Rows of `langsae/data/<file>` present in all `languages`, in file order.

    The file is JSONL: a header with `languages` and `from`, then {"_id", code: text, ...}.
    """
    with as_file(files("langsae") / "data" / file) as path:
        header, *rows = (row for _, row in read_jsonl(path))
        origin: dict[str, Any] = {"file": file, "sha256": sha256(path), "from": header["from"]}
    absent = [code for code in languages if code not in header["languages"]]
    if absent:
        raise InputError(
            f"{file} has no {', '.join(absent)}; it has {', '.join(header['languages'])}"
        )
    rows = [row for row in rows if all(code in row for code in languages)]
    if not rows:
        raise InputError(f"{file}: no row is in all of {', '.join(languages)}; ask for fewer")
    texts = {code: [row[code] for row in rows] for code in languages}
    return Raw(texts, origin, ids=[row["_id"] for row in rows])
