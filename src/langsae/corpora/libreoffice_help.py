"""Paragraphs of LibreOffice's help, aligned by their ids.

tools/build_libreoffice_help.py makes the file and says which rows each language has.
"""

from langsae.corpora.raw import Raw
from langsae.corpora.shipped import read_shipped
from langsae.corpora.spec import LibreOfficeHelpSpec


def read(spec: LibreOfficeHelpSpec) -> Raw:
    """The paragraphs all requested languages have; ids are "page#paragraph"."""
    return read_shipped("libreoffice_help.jsonl.xz", spec.languages)
