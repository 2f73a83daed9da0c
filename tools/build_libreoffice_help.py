"""Make src/langsae/data/libreoffice_help.jsonl.xz from Debian's libreoffice-help packages.

Usage: python tools/build_libreoffice_help.py [folder with the .deb files]

Without a folder the packages are fetched by `apt-get download` (run `apt-get update` first).

The packages hold the same HTML pages in every language, and a paragraph has the same id on the
same page in each, so texts align exactly. Kept are paragraphs and headings of more than 40
English characters that are translated into Japanese, once for each English text:
- in English, Japanese and Spanish all of them that are translated;
- in the other languages, to keep the file small, those with a Hindi translation and every
  fourth of those that all languages but Hindi have.
Markup is gone, white space collapsed, Unicode in NFC.
"""

import re
import subprocess
import sys
import tempfile
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

from langsae.corpora.lines import write_jsonl
from langsae.files import sha256

VERSION = "4:7.4.7-1+deb12u14"
DATA = Path(__file__).parents[1] / "src/langsae/data"
# Debian's suffix of each language and the folder of its help.
PACKAGES = {
    "en": ("en-us", "en-US"),
    "ja": ("ja", "ja"),
    "es": ("es", "es"),
    "de": ("de", "de"),
    "fr": ("fr", "fr"),
    "it": ("it", "it"),
    "pt": ("pt", "pt"),
    "ru": ("ru", "ru"),
    "ko": ("ko", "ko"),
    "zh": ("zh-cn", "zh-CN"),
    "tr": ("tr", "tr"),
    "vi": ("vi", "vi"),
    "hi": ("hi", "hi"),
}
FULL = ("en", "ja", "es")
LATIN = ("es", "de", "fr", "it", "pt", "tr", "vi")
MORE_THAN = 40  # characters of the English text
NOTICE = """\
The texts in libreoffice_help.jsonl.xz are paragraphs of the help of LibreOffice
(Debian source package libreoffice, version {version}; helpcontent2 and translations).
Copyright 2000, 2010 Oracle and/or its affiliates.
Copyright (c) 2000, 2010 LibreOffice contributors and/or their affiliates.
They are subject to the terms of the Mozilla Public License, v. 2.0, which follows.
tools/build_libreoffice_help.py made the file; the source code form is in Debian's source
package (`apt-get source libreoffice`).

"""


class Paragraphs(HTMLParser):
    """Collects `texts`: paragraph id -> its text as a reader on Linux sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self._id: str | None = None
        self._hidden: list[bool] = []  # one entry for each open <span>

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        identifier = found.get("id") or ""
        if re.fullmatch(r"p|h\d", tag):
            self._id = identifier if re.match("(par|hd)_id", identifier) else None
            self._hidden = []
            # An embedded section may repeat in one file; its first copy is enough.
            if self._id in self.texts:
                self._id = None
            elif self._id:
                self.texts[self._id] = ""
        elif tag == "span":
            # Variants by system or module are all hidden until a script shows one: the default.
            self._hidden.append("hidden" in found and not identifier.startswith("default"))
        elif tag == "br" and self._id:
            self.texts[self._id] += " "

    def handle_data(self, data: str) -> None:
        if self._id and not any(self._hidden):
            self.texts[self._id] += data

    def handle_endtag(self, tag: str) -> None:
        if re.fullmatch(r"p|h\d", tag):
            self._id = None
        elif tag == "span" and self._hidden:
            self._hidden.pop()


def paragraphs(help_folder: Path) -> dict[str, str]:
    """Every paragraph and heading of one language, by "page#id", in page order."""
    texts = {}
    for page in sorted(help_folder.glob("text/**/*.html")):
        parser = Paragraphs()
        parser.feed(page.read_text(encoding="utf-8"))
        name = page.relative_to(help_folder / "text").with_suffix("").as_posix()
        for identifier, text in parser.texts.items():
            texts[f"{name}#{identifier}"] = unicodedata.normalize("NFC", " ".join(text.split()))
    return texts


def fetch(folder: Path) -> None:
    """Download the packages into `folder`."""
    names = [f"libreoffice-help-{suffix}={VERSION}" for suffix, _ in PACKAGES.values()]
    subprocess.run(["apt-get", "download", *names], cwd=folder, check=True)


def read_package(debs: Path, code: str) -> tuple[dict[str, str], dict[str, str]]:
    """The paragraphs of one language, and which package they came from."""
    suffix, help_folder = PACKAGES[code]
    (deb,) = debs.glob(f"libreoffice-help-{suffix}_{VERSION.replace(':', '%3a')}_*.deb")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
        texts = paragraphs(Path(folder) / "usr/share/libreoffice/help" / help_folder)
    package = f"libreoffice-help-{suffix}"
    return texts, {"package": package, "version": VERSION, "sha256": sha256(deb)}


def translated(code: str, text: str, english: str) -> bool:
    """Whether `text` is a translation: other letters, in its own script, no link left broken."""
    own_script = code in LATIN or any(c.isalpha() and c > "\u024f" for c in text)
    return own_script and ".xhp" not in text and letters(text) != letters(english)


def letters(text: str) -> str:
    """Letters and digits only: white space and punctuation make no translation."""
    return re.sub(r"[\W_]+", "", text)


def select(texts: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """The rows to ship, in page order."""
    others = [code for code in texts if code not in FULL]
    rows, seen, common = [], set(), 0
    for identifier, english in texts["en"].items():
        row = {"_id": identifier, "en": english}
        for code in list(texts)[1:]:
            if translated(code, texts[code].get(identifier, ""), english):
                row[code] = texts[code][identifier]
        if len(english) <= MORE_THAN or "ja" not in row or english in seen:
            continue
        seen.add(english)
        in_all = all(code in row for code in texts if code != "hi")
        common += in_all
        if "hi" not in row and not (in_all and common % 4 == 0):
            row = {key: text for key, text in row.items() if key not in others}
        rows.append(row)
    return rows


def main() -> None:
    """Write the data file and its licence."""
    with tempfile.TemporaryDirectory() as folder:
        debs = Path(sys.argv[1] if len(sys.argv) > 1 else folder)
        if debs == Path(folder):
            fetch(debs)
        read = {code: read_package(debs, code) for code in PACKAGES}
    rows = select({code: texts for code, (texts, _) in read.items()})
    packages = {code: package for code, (_, package) in read.items()}
    header = {"languages": list(PACKAGES), "from": packages}
    write_jsonl(DATA / "libreoffice_help.jsonl.xz", [header, *rows])
    licence = Path("/usr/share/common-licenses/MPL-2.0").read_text(encoding="utf-8")
    notice = NOTICE.format(version=VERSION) + licence
    (DATA / "libreoffice_help.LICENSE").write_text(notice, encoding="utf-8")
    for code in PACKAGES:
        print(code, sum(code in row for row in rows))


if __name__ == "__main__":
    main()
