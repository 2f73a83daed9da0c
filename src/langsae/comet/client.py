"""COMET-22 (Rei et al. 2022) as a process: it cannot share langsae's environment.

    python -m venv ~/comet && ~/comet/bin/pip install -r src/langsae/comet/requirements.txt
    export LANGSAE_COMET=~/comet/bin/python

The process gets neither keys nor tokens: its environment holds only what finding and loading the
public model needs.
"""

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langsae.comet import score
from langsae.errors import InputError

VARIABLE = "LANGSAE_COMET"
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip

Triple = tuple[str, str, str]


def python() -> Path:
    """The Python that has COMET; InputError where none is named, or there is none."""
    named = os.environ.get(VARIABLE)
    if not named:
        raise InputError(
            f"COMET needs an environment of its own: make one (see {__name__}) and set "
            f"{VARIABLE} to its python, or leave `comet` out of `metrics`"
        )
    path = Path(named).expanduser()
    if not os.access(path, os.X_OK):
        raise InputError(f"{VARIABLE}: {path} is no program; set it to the python of COMET")
    return path


class Comet:
    """The running process; use it in a `with` block. `description` says what it loaded."""

    def __enter__(self) -> "Comet":
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [str(python()), str(Path(score.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            encoding="utf-8",
        )
        try:
            self.description: dict[str, Any] = self._answer("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def score(self, triples: Sequence[Triple]) -> list[float]:
        """The score of each (source, translation, reference), about 0..1; InputError on a fault."""
        if not triples:
            return []
        asked = [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in triples]
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: _answer says why
        scores = self._answer("scores")
        if len(scores) != len(triples) or not all(map(math.isfinite, scores)):
            raise InputError(f"COMET gave {len(scores)} scores of {len(triples)}, or not finite")
        return scores

    def _answer(self, key: str) -> Any:
        line = self._process.stdout.readline()
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            raise InputError(f"COMET stopped without an answer: {self._last_words()}") from None
        if "error" in message:
            raise InputError(f"COMET: {' '.join(str(message['error']).split())}")
        return message[key]

    def _last_words(self) -> str:
        """The last line that the process wrote to stderr."""
        self._process.wait(timeout=10)
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
