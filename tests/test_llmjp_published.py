"""llmjp_tracing: published values, and what the project page's data decides of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from langsae.claims import family, load_published
from langsae.evidence import Recorder, read_evidence
from langsae.profiles import compose
from langsae.verdicts import REPRODUCED, judge
from replications.llmjp_tracing import artefacts, describe, measure
from replications.llmjp_tracing.findings import PREDICATES, larger_more_bilingual
from replications.llmjp_tracing.run import Run

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "replications/llmjp_tracing/published.yaml"
RUN = "llmjp_1_8b"


@pytest.fixture(scope="module")
def published():
    return load_published(PUBLISHED)


@pytest.fixture(scope="module")
def values(published):
    return {claim.id: claim.value for claim in published.claims}


@pytest.fixture(scope="module")
def measured(shared, tmp_path_factory):
    """The page's data through the pipeline's own functions, and its evidence."""
    root = tmp_path_factory.mktemp("page")
    path = shared / "reference/llmjp_demo_features.csv"
    chosen = Run(history="none", training="t", evaluation="e", impact="i", parallel="p",
                 embeddings="none", saes={"source": "none"}, published=str(path))  # fmt: skip
    describe.describe_page(path, describe.Describing(), root / "described")
    places = {name: root / name for name in measure.RESULTS}
    settings = measure.Measuring(draws=50)
    one = measure.gather(RUN, chosen, places, root / "none", settings, 0)
    recorder = Recorder("llmjp_tracing", "reference", 0, {})
    measure.enter(recorder, one, settings)
    measure.find(recorder, [one])
    recorder.write(root)
    return root, one


def test_every_finding_has_its_predicate(published):
    asked = {*PREDICATES, larger_more_bilingual.__name__}
    assert {finding.predicate for finding in published.findings} == asked
    assert all(finding.id == finding.predicate.replace("_", "-") for finding in published.findings)


def test_lost_values_are_not_available(published):
    lost = [claim for claim in published.claims if "Table 4" in claim.source]
    assert len(lost) == 3
    assert all("value not available" in claim.not_available for claim in lost)


def test_ratios_follow_from_table_1(values):
    for add in ("en", "ja", "bi"):
        for code in ("en", "ja", "all"):
            plain = values[f"injection/perplexity/none/{code}"]
            ratio = values[f"injection/perplexity/{add}/{code}"] / plain
            assert values[f"injection/ratio/{add}/{code}"] == pytest.approx(ratio, abs=5e-5)


def test_counts_follow_from_the_features(values):
    found = Counter()
    for id, value in values.items():
        if id.startswith("page/class/"):
            found[f"page/classes/{id.split('/')[2]}/{value}"] += 1
    counts = {id: value for id, value in values.items() if id.startswith("page/classes/")}
    assert {id: found[id] for id in counts} == counts


def test_page_is_reproduced(published, measured):
    rows = judge(published, read_evidence(measured[0], "llmjp_tracing"))
    own = [row for row in rows if row["id"].startswith("page/")]
    by_rule = [row for row in own if row["variant"] == "as published"]
    assert Counter(family(row["id"]) for row in by_rule) == {
        "page/class": 398, "page/windows": 796, "page/entropy": 298, "page/classes": 12,
        "page/labels": 16,
    }  # fmt: skip
    assert {row["verdict"] for row in by_rule} == {REPRODUCED}
    other = [row for row in own if row["id"].startswith("page/classes/10000/")
             and row["variant"] == "by document"]  # fmt: skip
    assert [row["measured"] for row in other] == [45, 39, 16]  # the published 53, 41, 6
    assert REPRODUCED not in {row["verdict"] for row in other}


def test_corrupted_value_differs(published, measured, tmp_path):
    folder = tmp_path / "llmjp_tracing"
    folder.mkdir()
    text = PUBLISHED.read_text(encoding="utf-8")
    assert "0: 0, 1: 0.098039" in text
    assert "988240: [40, 35, 25]" in text
    text = text.replace("0: 0, 1: 0.098039", "0: 0, 1: 0.098045")
    text = text.replace("988240: [40, 35, 25]", "988240: [40, 36, 25]")
    (folder / "published.yaml").write_text(text, encoding="utf-8")
    rows = judge(load_published(folder / "published.yaml"),
                 read_evidence(measured[0], "llmjp_tracing"))  # fmt: skip
    flipped = {row["id"] for row in rows
               if row["variant"] == "as published" and row["verdict"] == "differs"}  # fmt: skip
    assert flipped == {"page/entropy/988240/1", "page/classes/988240/Japanese"}


def test_mixed_share_of_the_page_falls_then_rises(published, measured):
    rows = judge(published, read_evidence(measured[0], "llmjp_tracing"))
    row = next(r for r in rows if r["id"] == f"finding/mixed-falls-then-rises/{RUN}")
    assert (row["verdict"], row["basis"]) == (REPRODUCED, "published artefact")
    assert "67.0% at 10, 6.0% at 10,000, 25.0% at 988,240" in row["reason"]


def test_page_has_no_semantic_entropy(measured):
    one = measured[1]
    assert one.described.groupings == ()
    assert one.series.monosemanticity == {}
    assert one.frames["monosemanticity"].empty
    assert len(one.frames["classes"]) == 4 * 2 * 3


def test_unknown_label_is_refused(shared, tmp_path):
    page = artefacts._read(shared / "reference/llmjp_demo_features.csv")
    page.loc[3, "granularity_label"] = "phrase"
    page.to_csv(tmp_path / "page.csv", index=False)
    with pytest.raises(Exception, match="'phrase' is no label of the page"):
        artefacts.labels(tmp_path / "page.csv")


def test_paper_profile_takes_the_published_settings(values):
    """What published.yaml calls a setting is what conf/paper.yaml sets."""
    study = yaml.safe_load(compose("paper", ROOT / "conf")).get("llmjp_tracing")
    if not study or "runs" not in study:
        pytest.skip("conf/paper.yaml has no runs of llmjp_tracing")

    def setting(name):
        return values[f"setting/study/{name}"]

    measures = measure.Measuring(**study["measure"])
    assert describe.Describing(**study["describe"]).threshold == setting("class-threshold")
    assert describe.Describing(**study["describe"]).cosine == setting("cosine")
    assert study["collect"].get("bar", 0.7) == setting("activation-bar")
    assert measures.alpha == setting("alpha")
    runs = {name: Run(**run) for name, run in study["runs"].items()}
    rates = {float(rate) for rate in values["setting/lists/learning-rates"]}
    for run in runs.values():
        assert run.policy.max_tokens == setting("tokens-of-a-text")
        if run.saes.source == "train":
            training = run.saes.training
            assert (training.n_latents, training.k) == (setting("latents"), setting("k"))
            assert training.batch_tokens == setting("batch")
            assert training.warmup_steps == setting("warmup-steps")
            assert run.saes.rates is None or set(run.saes.rates) == rates
    inject = runs["llmjp_3_7b"].inject
    assert (inject.layer, inject.mid) == (setting("injected-layer"), setting("injected-step"))
    assert inject.draws == setting("draws")
    assert setting("alpha") in inject.alphas
    assert {str(n) for n in inject.features} == set(values["setting/lists/features-added"])


def test_entropies_do_not_come_from_the_page(measured, shared):
    """The described entropies differ from the printed ones in digits that the page lacks."""
    one = measured[1]
    labelled = artefacts.with_entropy(shared / "reference/llmjp_demo_features.csv")
    assert {step: len(features) for step, features in labelled.items()} == {
        1000: 98, 10000: 100, 988240: 100,
    }  # fmt: skip
    at = one.described.steps.index(988240)
    entropy = one.described.arrays["token_entropy"][at, 0, labelled[988240]]
    assert np.any(np.abs(entropy - np.round(entropy, 6)) > 1e-7)
