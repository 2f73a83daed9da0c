"""The lines of `langsae doctor`'s screen, and what they never show."""

import os
import re
from typing import NamedTuple

from huggingface_hub import get_token

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|(^|_)KEY($|_)|CREDENTIAL", re.IGNORECASE)
_LEAST_SECRET = 6  # characters; shorter values would black out ordinary words


class Line(NamedTuple):
    """state: ok, note or FAIL; mend: what to do about a failure."""

    state: str
    name: str
    text: str
    mend: str = ""


def failing(name: str, text: str, mend: str) -> Line:
    """A failure whose text may hold its own mending, after the last semicolon."""
    what, semicolon, how = text.rpartition("; ")
    return Line("FAIL", name, what, how) if semicolon else Line("FAIL", name, text, mend)


def redacted(text: str) -> str:
    """`text` without passwords in URLs and without any secret of the environment or the hub."""
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted({*secrets, get_token() or ""}, key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "***")
    return text
