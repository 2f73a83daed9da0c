"""The Universal Declaration of Human Rights: 50 paragraphs that align in 17 languages.

tools/build_udhr.py makes the file; it is in NFC and has no preamble.
"""

from langsae.corpora.raw import Raw
from langsae.corpora.shipped import read_shipped
from langsae.corpora.spec import UdhrSpec


def read(spec: UdhrSpec) -> Raw:
    """The paragraphs of the articles; ids are "article.paragraph", both from 1."""
    return read_shipped("udhr.jsonl.gz", spec.languages)
