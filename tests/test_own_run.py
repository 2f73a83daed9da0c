"""`langsae run`: a study on one's own model, SAEs and corpus, and what it refuses."""

import csv
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from langsae import own_run
from langsae.errors import InputError

TEXTS = {
    "en": ["Hello there, how are you?", "The sea is calm.", "One more sentence for counting."],
    "ja": ["こんにちは、お元気ですか。", "海は静かです。", "もう一つの文です。"],
    "ru": ["Привет, как дела?", "Море спокойно.", "Ещё одно предложение."],
}


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "texts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(TEXTS)
        rows.writerows(zip(*TEXTS.values(), strict=True))
    return path


def langsae_run(out, texts, study="flores_exploration", more=(), **changes):
    options = {
        "model": "tiny",
        "sae": "train",
        "corpus": str(texts),
        "hooks": "resid_post.0,resid_post.1",
        "languages": "en,ja,ru",
        "latents": "64",
        "k": "4",
        "batch-tokens": "64",
        "out": str(out),
    } | changes
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-m", "langsae.cli", "run", study, *flags, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def table(out, name):
    with (out / f"results/flores_exploration/plots/own/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_own_model_saes_and_corpus(tmp_path, corpus):
    done = langsae_run(tmp_path / "out", corpus)
    assert done.returncode == 0, done.stderr[-2000:]
    # the tiny model's tokenizer has a token a byte: UTF-8 lengths are an oracle
    counted = {row["language"]: int(row["n_tokens"]) for row in table(tmp_path / "out", "tokens")}
    assert counted == {code: sum(len(t.encode()) for t in texts) for code, texts in TEXTS.items()}
    monolingual = table(tmp_path / "out", "monolingual")
    assert {row["layer"] for row in monolingual} == {"0", "1"}
    assert {row["language"] for row in monolingual} == set(TEXTS)
    assert (tmp_path / "out/paper_figures/flores_exploration/own/tokens.png").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hooks": "resid_post.9"}, "choose one"),
        ({"languages": "en,xx"}, "xx"),
        ({"corpus": "nowhere.csv"}, "neither"),
        ({"sae": "release:gpt2"}, "release:NAME:ID"),
        ({"batch-tokens": "9999"}, "lower training.batch_tokens"),
    ],
)
def test_bad_choices_end_in_one_line(tmp_path, corpus, changes, message):
    done = langsae_run(tmp_path / "out", corpus, **changes)
    errors = [line for line in done.stderr.splitlines() if line.startswith("langsae: error:")]
    assert done.returncode == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out/artifacts/saes/own").exists()


@pytest.mark.parametrize("place", [{"model": "nowhere"}, {"sae": "some/where:saes/{layer}"}])
def test_a_hub_that_has_it_not_leaves_nothing(tmp_path, corpus, monkeypatch, place):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = langsae_run(tmp_path / "out", corpus, **place)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be resolved to a commit" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_another_studys_stages_and_settings(tmp_path):
    """Two passes of the model, its own fields in the run, and --set; ends in a page to look at."""
    settings = (
        "--set",
        "bilingual_score.score.k=10",
        "--set",
        "bilingual_score.trace.candidates=2",
    )
    done = langsae_run(
        tmp_path, "libreoffice_help", "bilingual_score", settings,
        hooks="resid_post.1", languages="en,es,ru", rows="300:310",
        **{"train-rows": "0:30", "latents": "256", "batch-tokens": "256"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    page = tmp_path / "paper_figures/bilingual_score/own/contexts.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("Russian</h3>") == text.count("English</h3>") > 2
    ranking = tmp_path / "artifacts/bilingual_score/own/own/ranked/ranking.csv"
    with ranking.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["reading"] for row in rows} >= {"as published", "corrected"}
    assert max(int(row["texts:ru"]) for row in rows) <= 10


def test_stages_are_those_of_the_pipeline_in_its_order():
    stages = own_run._of_study("bilingual_score")
    base = "replications.bilingual_score"
    assert stages == [
        (f"{base}.collect", "own"),
        (f"{base}.rank", "own"),
        (f"{base}.trace", "own"),
        (f"{base}.measure",),
        (f"{base}.figures", "own"),
    ]


def test_settings_replace_what_is_there_and_nothing_else():
    params = OmegaConf.create({"compute": {"threads": 2}, "study": {"readings": ["a", "b"]}})
    changed = own_run._with_settings(params, ["compute.threads=4", "study.readings=[c]"])
    assert changed == {"compute": {"threads": 4}, "study": {"readings": ["c"]}}
    empty = OmegaConf.create({"study": {"threshold": None}})  # null is a value like others
    changed = own_run._with_settings(empty, ["study.threshold=2.5"])
    assert changed == {"study": {"threshold": 2.5}}
    for wrong in ("compute.thread=4", "compute.threads"):
        with pytest.raises(InputError, match="KEY=VALUE"):
            own_run._with_settings(params, [wrong])
