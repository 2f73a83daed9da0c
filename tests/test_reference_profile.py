"""Profile `reference`: the published token counts again, from the texts and tokenizers themselves.

Needs FLORES-200 and the two tokenizers, which are not ours to ship: $LANGSAE_REFERENCE or
../shared. Without them the tests are skipped, by name.
"""

import csv
import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from langsae import profiles
from langsae.languages import find
from langsae.verify import verify

ROOT = Path(__file__).resolve().parents[1]
STUDY = "flores_exploration"
WIDTH = {"gpt2": 24_576, "pythia": 32_768}
STAGES = [
    ("langsae.stages.corpus", "flores"),
    *(("langsae.stages.model", model) for model in WIDTH),
    *(("langsae.stages.saes", f"{model}_none") for model in WIDTH),
    *((f"replications.{STUDY}.collect", model) for model in WIDTH),
    (f"replications.{STUDY}.measure",),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory, shared) -> Path:
    """A folder in which every stage of the profile has run, by the stages' own main functions."""
    if not (shared / "reference" / "flores200_dev").is_dir():
        pytest.skip("../shared not present")
    root = tmp_path_factory.mktemp("reference")
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / "replications" / STUDY).mkdir(parents=True)
    published = f"replications/{STUDY}/published.yaml"
    shutil.copy(ROOT / published, root / published)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LANGSAE_REFERENCE", str(shared))
        profiles.write("reference", root)
        for module, *arguments in STAGES:
            patch.setattr(sys, "argv", [module, *arguments])
            importlib.import_module(module).main()
    (root / "README.md").write_text("<!-- verdicts -->\n<!-- /verdicts -->\n", encoding="utf-8")
    assert verify(root=root, acknowledge=True) == 0
    return root


def published_series(shared: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """(model, language) → the charts' figure, and that divided by the dictionary's size."""
    series = {}
    for model, width in WIDTH.items():
        path = shared / "published" / STUDY / f"lang-token-count-{model}.csv"
        for row in csv.DictReader(path.open(encoding="utf-8")):
            figure = int(row["n_tokens"])
            assert figure % width == 0
            series[model, find(row["lang"]).code] = (figure, figure // width)
    return series


def rows_of(root: Path) -> dict[tuple[str, str], dict]:
    path = root / "results" / "verification.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {(row["id"], row["variant"]): row for row in rows}


def test_all_token_counts_are_the_published_ones(project, shared):
    path = project / "results" / STUDY / "reference.json"
    evidence = json.loads(path.read_text(encoding="utf-8"))
    series = published_series(shared)
    assert len(series) == 24
    expected = {
        f"tokens/{model}/{code}": {"as published": figure, "corrected": tokens}
        for (model, code), (figure, tokens) in series.items()
    }
    measured = {
        name: {variant: one["value"] for variant, one in variants.items()}
        for name, variants in evidence["measured"].items()
    }
    assert measured == expected


def test_they_are_reproduced_and_the_rest_is_not_attempted(project):
    rows = rows_of(project)
    tokens = [row for (name, _), row in rows.items() if name.startswith("tokens/")]
    assert len(tokens) == 48
    assert {(row["verdict"], row["basis"], row["profile"]) for row in tokens} == {
        ("reproduced", "rerun", "reference")
    }
    others = [
        row for (name, _), row in rows.items() if not name.startswith(("tokens/", "finding/"))
    ]
    assert len(others) == 804 - 48
    assert {row["verdict"] for row in others} == {"not attempted"}
    decided = {
        name.split("/")[1]: row["verdict"]
        for (name, _), row in rows.items()
        if name.startswith("finding/") and row["verdict"] != "not attempted"
    }
    assert decided == {"english-fewest-tokens": "reproduced", "latin-fewer-tokens": "reproduced"}


@pytest.mark.parametrize(
    ("right", "wrong", "key"),
    [
        (" 25741,", " 25742,", ("tokens/gpt2/en", "corrected")),
        ("2572025856]", "2572025855]", ("tokens/pythia/ar", "as published")),
    ],
)
def test_a_corrupted_published_value_flips_its_verdict(project, tmp_path, right, wrong, key):
    shutil.copytree(project / "results", tmp_path / "results")
    shutil.copytree(project / "replications", tmp_path / "replications")
    shutil.copy(project / "README.md", tmp_path)
    published = tmp_path / "replications" / STUDY / "published.yaml"
    text = published.read_text(encoding="utf-8")
    assert text.count(right) == 1
    published.write_text(text.replace(right, wrong), encoding="utf-8")
    assert verify(root=tmp_path) == 1
    assert verify(root=tmp_path, acknowledge=True) == 0
    before, after = rows_of(project), rows_of(tmp_path)
    flipped = {name for name in before if before[name]["verdict"] != after[name]["verdict"]}
    assert flipped == {key}
    assert after[key]["verdict"] == "differs"


def test_without_the_reference_the_stage_says_what_is_missing(project, monkeypatch, tmp_path):
    from langsae.corpora.spec import CorpusSpec
    from langsae.errors import InputError
    from langsae.params import section

    corpus = importlib.import_module("langsae.stages.corpus")
    monkeypatch.chdir(project)
    monkeypatch.setenv("LANGSAE_REFERENCE", str(tmp_path / "nowhere"))
    spec = section("corpora.flores", CorpusSpec)
    with pytest.raises(InputError, match=r"nowhere.*no such folder"):
        corpus.build(spec, "flores")
