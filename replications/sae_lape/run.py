"""One run of the study: names from params.yaml, and where each stage leaves its results."""

from pathlib import Path

from langsae.models.tokens import TokenPolicy
from langsae.params import Spec
from langsae.saes.spec import Hooks

STUDY = "sae_lape"


class Run(Spec):
    """What the stages of one run load.

    hooks: which of the bank's SAEs; None is all. corpus: texts to find language-specific features
    on (one text = one example); test: labelled texts whose language is to be told; impact: aligned
    texts for perplexities under intervention; similarity: texts on which the features of one
    language are compared.
    published: a folder with the study's own artefacts, to be read instead of running a model.
    """

    model: str
    saes: str
    hooks: Hooks | None = None
    corpus: str
    test: str
    impact: str
    similarity: str
    policy: TokenPolicy = TokenPolicy(count_bos=True)
    published: str | None = None


def folder(profile: str, run: str, stage: str) -> Path:
    """Where `stage` (collected, identified, classified, …) of a run publishes its results."""
    return Path("artifacts") / STUDY / profile / run / stage
