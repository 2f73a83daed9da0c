"""`langsae run`: a study on one's own model, SAEs and corpus, and what it refuses."""

import csv
import subprocess
import sys

import pytest

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


def langsae_run(out, texts, **changes):
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
    command = [sys.executable, "-m", "langsae.cli", "run", "flores_exploration", *flags]
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
