"""How good the translations are that stage inject made: chrF, and COMET-22."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from langsae import translate
from langsae.cells import Cells
from langsae.comet.client import Comet, Triple
from langsae.files import digest
from replications.llmjp_tracing.inject_cells import Job, absent, answers_name

_COMET_TEXTS = 4096  # translations of one question to COMET; each answer is kept


@dataclass(frozen=True)
class Answer:
    """One translation: under the setting of this number, of text `row` (after the examples)."""

    setting: int
    direction: str
    row: int
    source: str
    reference: str
    text: str

    @property
    def triple(self) -> Triple:
        """What COMET is asked."""
        return self.source, self.text, self.reference


def answers(cells: Cells, job: Job, place: Sequence[int]) -> list[Answer]:
    """All translations, by direction, setting and text; place: the variant of each setting."""
    texts, shots = job.parallel().texts, job.inject.shots
    out = []
    for direction in job.directions:
        source, target = (texts[code][shots:] for code in direction)
        columns = [
            [
                text
                for chunk in range(len(job.chunks))
                for text in cells.json(answers_name(direction, chunk, row), absent)
            ]
            for row in range(len(source))
        ]
        out += [
            Answer(number, "-".join(direction), row, *pair, columns[row][variant])
            for number, variant in enumerate(place)
            for row, pair in enumerate(zip(source, target, strict=True))
        ]
    return out


def scores(
    cells: Cells, job: Job, every: Sequence[Answer]
) -> tuple[list[tuple[int, str, str, float]], dict[str, Any]]:
    """(setting, direction, metric, score 0..100) of all, and how each metric was computed."""
    groups = [
        (key, list(group))
        for key, group in groupby(every, lambda one: (one.setting, one.direction))
    ]
    rows, facts = [], {}
    if "chrf" in job.inject.metrics:
        facts["chrf"] = translate.chrf_signature()
        for (setting, direction), group in groups:
            score = translate.chrf([one.text for one in group], [one.reference for one in group])
            rows.append((setting, direction, "chrf", score))
    if "comet" in job.inject.metrics:
        found, facts["comet"] = _comet(cells, every)
        for (setting, direction), group in groups:
            score = 100 * float(np.mean([found[one.triple] for one in group]))
            rows.append((setting, direction, "comet", score))
    return rows, facts


def _comet(cells: Cells, every: Sequence[Answer]) -> tuple[dict[Triple, float], dict[str, Any]]:
    """COMET of every distinct translation, and what COMET was."""
    asked, found = list(dict.fromkeys(one.triple for one in every)), []
    with Comet() as comet:
        for start in range(0, len(asked), _COMET_TEXTS):
            part = asked[start : start + _COMET_TEXTS]
            found += cells.json(f"comet-{digest(part)}", lambda part=part: comet.score(part))
        return dict(zip(asked, found, strict=True)), comet.description
