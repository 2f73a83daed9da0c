"""Adding features of the fully trained model to one in mid-training: perplexity and translation.

Eq. 7 of the paper, see langsae.injection. English, Japanese or bilingual features of the last
checkpoint's SAE are added, and as many of all features as a control.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from langsae.cells import Cells
from langsae.comet import client
from langsae.command import run as command
from langsae.compute import Compute
from langsae.corpora.lines import write_jsonl
from langsae.errors import InputError
from langsae.files import digest, publish, read_json, write_json
from langsae.launch import each
from langsae.launch import settings as launch_settings
from langsae.launching import Launch
from langsae.params import section
from replications.llmjp_tracing import described, draws, inject_cells, inject_scores
from replications.llmjp_tracing.draws import Setting
from replications.llmjp_tracing.inject_cells import Job, Part, absent, batch_name, corpus_of
from replications.llmjp_tracing.inject_scores import Answer
from replications.llmjp_tracing.run import STUDY, Run, checkpoint, folder, history_folder, steps

ADDED = ("add", "alpha", "features", "draw")
PERPLEXITY = (*ADDED, "language", "perplexity")
TRANSLATION = (*ADDED, "direction", "metric", "score")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    profile, compute = section("profile", str), section("compute", Compute)
    compute.apply()
    chosen = section(f"{STUDY}.runs.{name}", Run)
    home = folder(profile, name, "injected").parent
    if chosen.inject is None:
        publish_tables(home / "injected", [], [], [], {})
        return
    inject(chosen, compute, home, home / "injected", launch_settings())


def inject(
    run: Run,
    compute: Compute,
    home: Path,
    out: Path,
    launch: Launch,
    scratch: Path = Path("scratch") / STUDY,
) -> None:
    """Publish perplexity.csv, translation.csv, translations.jsonl and settings.json at `out`.

    home: where the run's other stages published. Perplexity is exp of the mean negative
    log-likelihood of all tokens of a language (`all`: of both); chrF is a corpus' (0..100), COMET
    100 times the mean over texts. What the plain model does has add `none`, alpha, features and
    draw 0. A class without features has no rows: `available` in settings.json says how many each
    has, `drawn` how many were added where fewer than asked.
    """
    if "comet" in run.inject.metrics and run.inject.translations:
        client.python()  # said now, not after hours
    job, settings, facts = plan(run, compute, home, scratch)
    count = launch.ray.shards if launch.launch == "ray" else 1
    cells = Cells(job.cells)
    parts = {f"part {index + 1} of {count}": Part(job, index, count) for index in range(count)}
    left = {name: part for name, part in parts.items() if not part.done}
    each(inject_cells.work, left, launch, "injection")
    place = [job.variants.index((one.alpha, one.chosen)) for one in settings]
    perplexities, tokens = _perplexities(cells, job, settings, place)
    facts |= {"tokens": tokens}
    scores, texts = [], []
    if run.inject.translations:
        answers = inject_scores.answers(cells, job, place)
        found, scored_by = inject_scores.scores(cells, job, answers)
        scores = [(*_fields(settings[index]), *rest) for index, *rest in found]
        texts, facts = _texts(settings, answers), facts | scored_by
    publish_tables(out, perplexities, scores, texts, facts)
    cells.remove()


def publish_tables(
    out: Path,
    perplexities: Sequence[tuple],
    scores: Sequence[tuple],
    texts: Sequence[dict],
    facts: dict[str, Any],
) -> None:
    """Publish the stage's four files; tables without rows have their header."""
    with publish(out) as part:
        part.mkdir(parents=True)
        for name, columns, rows in (
            ("perplexity", PERPLEXITY, perplexities),
            ("translation", TRANSLATION, scores),
        ):
            frame = pd.DataFrame(rows, columns=list(columns))
            frame.to_csv(part / f"{name}.csv", index=False, float_format="%.10g")
        write_jsonl(part / "translations.jsonl", texts)
        write_json(part / "settings.json", facts)


def plan(
    run: Run, compute: Compute, home: Path, scratch: Path
) -> tuple[Job, list[Setting], dict[str, Any]]:
    """The job, the settings it serves, and what settings.json says of them."""
    history, wanted = history_folder(run.history), run.inject
    every = steps(history)
    if wanted.mid not in every[:-1]:
        known = ", ".join(map(str, every[:-1]))
        raise InputError(f"inject: mid {wanted.mid} is no checkpoint before the last; take {known}")
    languages = _languages(run)
    classes = draws.classed(described.load(home / "described"), wanted, languages)
    settings = draws.draw(classes, wanted)
    variants = tuple(dict.fromkeys((one.alpha, one.chosen) for one in settings))
    full, mid = checkpoint(history, every[-1]), checkpoint(history, wanted.mid)
    saes = home / "saes" / f"step_{every[-1]:07d}"
    used = [run.impact, *([run.parallel] if wanted.translations else [])]
    key = digest([
        run.model_dump(mode="json"), compute.model_dump(), variants, languages,
        [read_json(file) for file in (full / "model.json", mid / "model.json", saes / "bank.json")],
        [corpus_of(name).digest() for name in used],
    ])  # fmt: skip
    facts = {
        "inject": wanted.model_dump(mode="json"),
        "full": every[-1],
        "mid": wanted.mid,
        "available": {kind: len(members) for kind, members in classes.items()},
        "drawn": {
            kind: {str(n): min(n, len(members)) for n in wanted.features}
            for kind, members in classes.items()
        },
    }
    job = Job(run, compute, variants, languages, full, mid, saes, scratch / f"inject-{key}")
    return job, settings, facts


def _languages(run: Run) -> tuple[str, str]:
    """English and the other language of the texts."""
    codes = corpus_of(run.impact).languages
    if len(codes) != 2 or "en" not in codes:
        raise InputError(f"corpus {run.impact}: inject needs English and one other language")
    return "en", next(code for code in codes if code != "en")


def _fields(one: Setting) -> tuple:
    return one.add, one.alpha, one.features, one.draw


def _perplexities(
    cells: Cells, job: Job, settings: Sequence[Setting], place: Sequence[int]
) -> tuple[list[tuple], dict[str, int]]:
    """Rows of perplexity.csv, and the tokens that were predicted by language."""
    batches = cells.json("batches", absent)
    sums = np.sum([cells.array(batch_name(n), absent) for n in range(batches)], axis=0)
    sums = np.column_stack([sums, sums.sum(1)])
    found = np.exp(sums[:-1] / sums[-1])
    codes = (*job.languages, "all")
    rows = [
        (*_fields(one), code, value)
        for one, variant in zip(settings, place, strict=True)
        for code, value in zip(codes, found[variant], strict=True)
    ]
    return rows, {code: int(n) for code, n in zip(codes, sums[-1], strict=True)}


def _texts(settings: Sequence[Setting], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Lines of translations.jsonl."""
    return [
        dict(zip(ADDED, _fields(settings[one.setting]), strict=True))
        | {"direction": one.direction, "row": one.row, "source": one.source,
           "reference": one.reference, "text": one.text}
        for one in answers
    ]  # fmt: skip


if __name__ == "__main__":
    command(main)
