"""flores_exploration: published.yaml against the published series, and the findings on them."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from langsae.claims import family, load_published
from langsae.languages import find
from replications.flores_exploration.findings import PREDICATES, Series, evaluate

ROOT = Path(__file__).parents[1]
SERIES = ROOT.parent / "shared" / "published" / "flores_exploration"
PUBLISHED = load_published(ROOT / "replications" / "flores_exploration" / "published.yaml")
MODELS = {"gpt2": 24_576, "pythia": 32_768}  # width of the dictionaries

needs_series = pytest.mark.skipif(not SERIES.exists(), reason="../shared not present")


def read(name: str) -> pd.DataFrame:
    return pd.concat(pd.read_csv(SERIES / f"{name}-{m}.csv").assign(model=m) for m in MODELS)


def values(kind: str, variant: str | None = None) -> dict[str, object]:
    """The published values of one kind by id, in one reading (all readings share them)."""
    return {
        claim.id: claim.value
        for claim in PUBLISHED.claims
        if claim.id.startswith(f"{kind}/") and variant in (None, claim.variant)
    }


@pytest.fixture(scope="module")
def series() -> Series:
    """The post's own numbers as the tidy frames that a run of ours writes."""
    groups = pd.read_csv(SERIES / "language-groups-top5.csv")
    groups["languages"] = [
        ";".join(find(name).code for name in names.split(";")) for names in groups["languages"]
    ]
    tokens, monolingual = read("lang-token-count"), read("mono-feat-langs")
    for frame in (tokens, monolingual):
        frame["language"] = [find(name).code for name in frame["lang"]]
    return Series(
        tokens.drop(columns="n_tokens").rename(columns={"n_tokens_div_d_sae": "n_tokens"}),
        monolingual,
        read("feat-count-var").rename(columns={"latent_count_var": "value"}),
        groups,
    )


def test_every_published_number_is_a_claim():
    kinds = Counter(claim_id.split("/")[0] for claim_id in {c.id for c in PUBLISHED.claims})
    assert kinds == {"tokens": 24, "monolingual": 216, "variance": 18, "groups": 90}
    rows = Counter(claim.id.split("/")[0] for claim in PUBLISHED.claims)
    assert rows["tokens"] == 48  # as published and corrected
    assert Counter(family(claim_id) for claim_id in values("monolingual")) == {
        "monolingual/gpt2": 12 * 12,
        "monolingual/pythia": 12 * 6,
    }


def test_corrected_token_counts_are_the_published_ones_without_the_dictionary():
    corrected = values("tokens", "corrected")
    for name, value in values("tokens", "as published").items():
        assert value == corrected[name] * MODELS[name.split("/")[1]]


def test_findings_name_predicates_and_models():
    assert len(PUBLISHED.findings) >= 8
    assert {finding.predicate for finding in PUBLISHED.findings} == set(PREDICATES)
    for finding in PUBLISHED.findings:
        assert set(finding.subjects) <= set(MODELS)


@needs_series
def test_token_counts_equal_the_series():
    rows = read("lang-token-count").itertuples()
    expected = {f"tokens/{row.model}/{find(row.lang).code}": row.n_tokens for row in rows}
    assert values("tokens", "as published") == expected


@needs_series
def test_monolingual_counts_equal_the_series(series):
    expected = {
        f"monolingual/{row.model}/{row.language}/L{row.layer}": row.count_
        for row in series.monolingual.rename(columns={"count": "count_"}).itertuples()
    }
    assert values("monolingual") == expected


@needs_series
def test_variances_equal_the_series(series):
    rows = series.variance.itertuples()
    assert values("variance") == {f"variance/{row.model}/L{row.layer}": row.value for row in rows}


@needs_series
def test_groups_equal_the_series(series):
    expected = {
        f"groups/{row.model}/L{row.layer}/rank{row.rank}": sorted(row.languages.split(";"))
        for row in series.groups.itertuples()
    }
    assert values("groups") == expected


@needs_series
@pytest.mark.parametrize("model", MODELS)
def test_findings_hold_on_the_published_series(series, model):
    answers = evaluate(series, model)
    for finding in PUBLISHED.findings:
        if model in finding.subjects:
            answer = answers[finding.predicate]
            assert answer.holds is True, f"{finding.statement}: {answer.detail}"


def test_findings_can_fail_and_take_three_layers():
    series = three_layers()
    holding = {name for name, answer in evaluate(series, "toy").items() if answer.holds}
    assert "english_grows" in holding
    assert "middle_dip" not in holding
    flipped = series.monolingual.assign(layer=2 - series.monolingual["layer"])
    turned = Series(series.tokens, flipped, series.variance, series.groups)
    answers = evaluate(turned, "toy")
    assert not answers["english_grows"].holds
    assert not answers["variance_follows_monolingual"].holds


def test_findings_refuse_models_without_numbers():
    with pytest.raises(ValueError, match="no numbers of model 'other'"):
        evaluate(three_layers(), "other")
    short = three_layers().monolingual.query("layer < 2")
    with pytest.raises(ValueError, match="2 layers are too few"):
        PREDICATES["middle_dip"](Series(None, short, None, None), "toy")


def three_layers() -> Series:
    languages = ["en", "de", "ja", "ko", "hi"]
    counts = [
        ("toy", language, layer, 100 * (layer + 1) + (50 * layer if language == "en" else 0))
        for language in languages
        for layer in range(3)
    ]
    groups = [("toy", layer, 1, "en" if layer else "ja;ko") for layer in range(3)]
    groups += [("toy", layer, 2, "de;en") for layer in range(3)]
    tokens = [("toy", language, 10 + i) for i, language in enumerate(languages)]
    variance = [("toy", layer, 0.1 * layer) for layer in range(3)]
    return Series(
        pd.DataFrame(tokens, columns=["model", "language", "n_tokens"]),
        pd.DataFrame(counts, columns=["model", "language", "layer", "count"]),
        pd.DataFrame(variance, columns=["model", "layer", "value"]),
        pd.DataFrame(groups, columns=["model", "layer", "rank", "languages"]),
    )
