"""The languages langsae knows: one row each, keyed everywhere by ISO 639-1 code."""

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass

from langsae.errors import InputError


@dataclass(frozen=True)
class Language:
    """How the world's data sets write one language; `script` is an ISO 15924 code."""

    code: str
    iso639_3: str
    flores: str
    script: str
    name: str


_ROWS = (
    Language("ar", "ara", "arb_Arab", "Arab", "Arabic"),
    Language("bg", "bul", "bul_Cyrl", "Cyrl", "Bulgarian"),
    Language("zh", "zho", "zho_Hans", "Hans", "Chinese"),
    Language("en", "eng", "eng_Latn", "Latn", "English"),
    Language("fr", "fra", "fra_Latn", "Latn", "French"),
    Language("de", "deu", "deu_Latn", "Latn", "German"),
    Language("hi", "hin", "hin_Deva", "Deva", "Hindi"),
    Language("is", "isl", "isl_Latn", "Latn", "Icelandic"),
    Language("it", "ita", "ita_Latn", "Latn", "Italian"),
    Language("ja", "jpn", "jpn_Jpan", "Jpan", "Japanese"),
    Language("ko", "kor", "kor_Hang", "Hang", "Korean"),
    Language("pt", "por", "por_Latn", "Latn", "Portuguese"),
    Language("ru", "rus", "rus_Cyrl", "Cyrl", "Russian"),
    Language("es", "spa", "spa_Latn", "Latn", "Spanish"),
    Language("th", "tha", "tha_Thai", "Thai", "Thai"),
    Language("tr", "tur", "tur_Latn", "Latn", "Turkish"),
    Language("vi", "vie", "vie_Latn", "Latn", "Vietnamese"),
)

LANGUAGES: dict[str, Language] = {row.code: row for row in _ROWS}


def identifiers(language: Language) -> tuple[str, str, str, str]:
    """The names that mean exactly this language (its script alone does not)."""
    code, iso639_3, flores, _, name = astuple(language)
    return code, iso639_3, flores, name


_BY_IDENTIFIER = {key: row for row in _ROWS for key in identifiers(row)}


def find(identifier: str) -> Language:
    """The language with this ISO 639-1, ISO 639-3 or FLORES code, or English name.

    Raises InputError for an unknown one.
    """
    try:
        return _BY_IDENTIFIER[identifier]
    except KeyError:
        raise InputError(
            f"unknown language '{identifier}' (known: {', '.join(LANGUAGES)}); "
            "to add one, give it a row in src/langsae/languages.py"
        ) from None


def by_name(codes: Iterable[str]) -> list[str]:
    """The same codes in the alphabetical order of the English names."""
    return sorted(codes, key=lambda code: find(code).name)


def fill(pattern: str, language: Language) -> str:
    """`pattern` with {code}, {iso639_3}, {flores}, {script} and {name} of the language.

    Raises InputError for any other field.
    """
    names = asdict(language)
    try:
        return pattern.format(**names)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        known = ", ".join(f"{{{name}}}" for name in names)
        raise InputError(f"'{pattern}': use only {known}") from error
