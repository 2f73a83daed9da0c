"""Explanations of language-specific features by a language model, and how well they predict.

Andrylie et al. (2025) had gpt-4.1 explain their 540 features and score the explanations, with
EleutherAI's delphi: detection (is the feature active in an excerpt?) and fuzzing (are the right
tokens marked?). Here the model is any OpenAI-compatible endpoint, or one of `models` on this
machine. `--estimate` says what an endpoint would be asked, and asks nothing.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, PositiveInt

from langsae import sharded
from langsae.command import run
from langsae.compute import Compute
from langsae.errors import InputError
from langsae.files import digest, publish
from langsae.interpret.answers import Answerer, AnswerStore
from langsae.interpret.contexts import Sampling
from langsae.interpret.cost import Estimate, check_budget, estimate
from langsae.interpret.endpoint import Endpoint, EndpointSpec
from langsae.interpret.judge import Judge
from langsae.interpret.local import LocalModel, LocalSpec
from langsae.interpret.score import Asking
from langsae.launch import settings as launch_settings
from langsae.launching import LOCAL, Launch
from langsae.models.language_model import pick_device
from langsae.models.source import load_source
from langsae.params import Spec, section
from langsae.paths import expand
from replications.sae_lape import artefacts, identified
from replications.sae_lape.explanations import write
from replications.sae_lape.run import STUDY, Run, folder
from replications.sae_lape.windows import sample_windows

# Assumed of an explanation that is not there yet, when the cost of scoring is estimated: the
# published ones have 479 characters on average.
_UNKNOWN = "x" * 480


class NoExplainer(Spec):
    """Nothing is explained; the tables have no rows."""

    source: Literal["none"]


Explainer = Annotated[NoExplainer | LocalSpec | EndpointSpec, Field(discriminator="source")]


class Interpret(Spec):
    """Who explains which features, and how; defaults as published.

    selection: of selections.csv; languages: of these alone (None: all); per_language: only so many
    of each, those of lowest entropy; seed: of the windows that are drawn.
    """

    explainer: Explainer
    selection: str = identified.ALL
    languages: tuple[str, ...] | None = None
    per_language: PositiveInt | None = None
    contexts: Sampling = Sampling()
    asking: Asking = Asking()
    seed: int = 42


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    parser.add_argument("--estimate", action="store_true", help="print the cost; ask nothing")
    arguments = parser.parse_args()
    name, profile = arguments.run, section("profile", str)
    compute = section("compute", Compute)
    compute.apply()
    settings = section(f"{STUDY}.interpret", Interpret)
    chosen = section(f"{STUDY}.runs.{name}", Run)
    found = folder(profile, name, "identified")
    out = None if arguments.estimate else folder(profile, name, "interpreted")
    scratch = Path("scratch") / STUDY / "interpret"
    interpret(chosen, settings, compute, found, out, scratch, launch_settings())


def interpret(
    run: Run,
    settings: Interpret,
    compute: Compute,
    found: Path,
    out: Path | None,
    scratch: Path,
    how: Launch = LOCAL,
) -> None:
    """Explain and score the features in `found` (identified/) and publish the tables at `out`.

    Without `out` an endpoint's estimate is printed and nothing asked. Answers are kept under
    `scratch` and never asked for twice, also where windows or the selection change. An endpoint is
    asked from this process alone, whatever `how`: it keeps the key and the budget.
    """
    explainer = settings.explainer
    why = _why_not(explainer, out is None) if run.published is None else None
    if run.published is not None or why is not None:
        _leave_out(run.published, why, settings, out)
        return
    answers = _Answers(run, settings, compute, found, scratch)
    rows, judge = answers.judge(how)
    if out is None:
        _announce(judge, explainer, scratch)
        return
    answerer = _answerer(explainer, compute)
    store = _store(answerer.describe(), scratch)
    if isinstance(explainer, EndpointSpec):
        check_budget(_announce(judge, explainer, scratch), explainer)
    else:
        sharded.fill(partial(_same, answers), compute, how, "answers")
        for part in sorted(store.path.parent.glob(f"{store.path.stem}-*-of-*.jsonl")):
            store.absorb(part)
    judged, questions = judge.run(answerer, store)
    facts = {"answerer": answerer.describe(), "settings": settings.model_dump(mode="json")}
    with publish(out) as part:
        part.mkdir(parents=True)
        write(part, rows, judged, explainer.model, facts)
        store.export(questions, part / "questions.jsonl")


@dataclass(frozen=True)
class _Answers:
    """Answers about the selected features; shards of them are files beside the store's own."""

    run: Run
    settings: Interpret
    compute: Compute
    found: Path
    scratch: Path

    def judge(
        self, how: Launch = LOCAL, shard: tuple[int, int] = (0, 1)
    ) -> tuple[pd.DataFrame, Judge]:
        """All selected features, and the questions about those of shard (i, of n)."""
        asked, part = self.settings, slice(shard[0], None, shard[1])
        rows = _selected(identified.load(self.found), asked)
        samples, seeds, pieces = sample_windows(
            self.run, asked.contexts, asked.seed, self.compute, rows, self.scratch, how
        )
        cached, longest = lru_cache(1 << 16)(pieces), asked.explainer.max_tokens
        return rows, Judge(samples[part], seeds[part], cached, asked.asking, longest)

    def fill(self, shard: tuple[int, int] = (0, 1)) -> None:
        """Ask what is not answered yet of shard (i, of n) of the features."""
        answerer = _answerer(self.settings.explainer, self.compute)
        main = _store(answerer.describe(), self.scratch).path
        path = main.with_name(f"{main.stem}-{shard[0]}-of-{shard[1]}.jsonl")
        _, judge = self.judge(shard=shard)
        judge.run(answerer, AnswerStore(path, answerer.describe(), known=main))


def _same(answers: _Answers) -> _Answers:
    return answers  # holds no model: what opens it in another process is what is sent there


def _store(described: dict[str, Any], scratch: Path) -> AnswerStore:
    return AnswerStore(scratch / f"answers-{digest(described)[:16]}.jsonl", described)


def _announce(judge: Judge, explainer: EndpointSpec | LocalSpec, scratch: Path) -> Estimate:
    """Print and return what is going to be asked; a local model's answers cost nothing."""
    if isinstance(explainer, LocalSpec):
        raise InputError(f"{explainer.model} runs on this machine: there is no cost to estimate")
    store = _store(explainer.describe(), scratch)
    expected = estimate(judge.expected(store, _UNKNOWN), store, explainer)
    print(f"{explainer.model}: {expected}", flush=True)
    return expected


def _leave_out(published: str | None, why: str | None, settings: Interpret, out: Path | None):
    """Publish the authors' own results, or tables without rows."""
    print(f"interpretation left out: {why}" if why else f"interpretation read from {published}")
    if out is None:
        return
    if published is not None:
        artefacts.interpret(expand(published), out)
        return
    facts = {"left_out": why, "settings": settings.model_dump(mode="json")}
    with publish(out) as part:
        part.mkdir(parents=True)
        write(part, pd.DataFrame(), [], "", facts)


def _why_not(explainer: Explainer, only_estimate: bool) -> str | None:
    """Why nothing will be explained, if so; InputError for a key that is missing and needed."""
    if isinstance(explainer, NoExplainer):
        return "no explainer is named"
    if not isinstance(explainer, EndpointSpec) or only_estimate or explainer.key() is not None:
        return None
    if explainer.without_key == "fail":
        raise InputError(explainer.no_key())
    again = f"dvc repro --force --single-item interpret_{STUDY}@RUN"
    return f"{explainer.no_key()}; then run `{again}`"


def _answerer(explainer: Explainer, compute: Compute) -> Answerer:
    if isinstance(explainer, EndpointSpec):
        return Endpoint(explainer)
    loaded = load_source(Path("artifacts/models") / explainer.model)
    return LocalModel(loaded, pick_device(compute.device))


def _selected(found: identified.Identified, settings: Interpret) -> pd.DataFrame:
    rows = found.selected(settings.selection)
    if settings.languages is not None:
        unknown = sorted(set(settings.languages) - set(found.languages))
        if unknown:
            raise InputError(f"interpret.languages: {unknown[0]} was not identified; it has "
                             f"{', '.join(found.languages)}")  # fmt: skip
        rows = rows[rows["language"].isin(settings.languages)]
    if settings.per_language is not None:
        ordered = rows.sort_values(["entropy", "layer", "feature"], kind="stable")
        rows = rows.loc[sorted(ordered.groupby("language").head(settings.per_language).index)]
    return rows.reset_index(drop=True)


if __name__ == "__main__":
    run(main)
