"""Paths in configurations: `$NAME`, `~` and `{step}`."""

import os
import re
import string
from pathlib import Path

from langsae.errors import InputError

# Where data that cannot be shipped lies, unless the environment says otherwise.
_DEFAULTS = {"LANGSAE_REFERENCE": "../shared"}
_STEP = re.compile(r"\{step(?::0(\d+)d)?\}")


def at_step(place: str, step: int) -> str:
    """`place` (a path, repository or revision) with `{step}` or `{step:07d}` filled in."""
    return _STEP.sub(lambda found: f"{step:0{found[1] or 1}d}", place)


def expand(path: str) -> Path:
    """`path` with `$NAME` replaced from the environment and a leading `~` by the home folder."""
    try:
        filled = string.Template(path).substitute(_DEFAULTS | dict(os.environ))
    except KeyError as error:
        raise InputError(f"{path}: set the environment variable {error.args[0]}") from None
    except ValueError:
        raise InputError(f"{path}: write $NAME for a variable and $$ for a dollar sign") from None
    return Path(filled).expanduser()
