import pytest

from langsae.errors import InputError
from langsae.languages import LANGUAGES, by_name, fill, find, identifiers

UDHR = "en de ru is es pt fr zh ja ko hi ar it tr th vi bg"
# The order sae_lape prints its 15 languages in.
SAE_LAPE = [
    "Bulgarian",
    "Chinese",
    "English",
    "French",
    "German",
    "Hindi",
    "Italian",
    "Japanese",
    "Korean",
    "Portuguese",
    "Russian",
    "Spanish",
    "Thai",
    "Turkish",
    "Vietnamese",
]


def test_every_study_has_its_languages():
    assert sorted(LANGUAGES) == sorted(UDHR.split())
    for name in SAE_LAPE:
        assert find(name).name == name


@pytest.mark.parametrize("identifier", ["zh", "zho", "zho_Hans", "Chinese"])
def test_find_by_any_identifier(identifier):
    assert find(identifier).code == "zh"


def test_no_identifier_means_two_languages():
    names = [name for language in LANGUAGES.values() for name in identifiers(language)]
    assert len(set(names)) == 4 * len(LANGUAGES)


def test_unknown_language_says_how_to_add_one():
    with pytest.raises(InputError, match=r"unknown language 'tlh'.*languages\.py"):
        find("tlh")


def test_order_by_english_name():
    assert [find(code).name for code in by_name(find(n).code for n in SAE_LAPE[::-1])] == SAE_LAPE


def test_fill():
    assert fill("dev/{flores}.{code}.{script}", find("ja")) == "dev/jpn_Jpan.ja.Jpan"
    for wrong in ("{lang}", "{", "{0}", "{code.x}"):
        with pytest.raises(InputError, match="use only"):
            fill(wrong, find("ja"))
