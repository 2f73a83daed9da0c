"""What a configuration may say about a corpus: one class per source."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from langsae.corpora.parallel import parse_slice
from langsae.errors import InputError
from langsae.languages import LANGUAGES, find
from langsae.params import Spec


def _languages(identifiers: tuple[str, ...]) -> tuple[str, ...]:
    try:
        codes = tuple(find(identifier).code for identifier in identifiers)
    except InputError as error:
        raise ValueError(str(error)) from error
    if len(set(codes)) < len(codes):
        raise ValueError(f"a language is listed twice in {', '.join(codes)}")
    return codes


def _slice(selection: str) -> str:
    try:
        parse_slice(selection)
    except InputError as error:
        raise ValueError(str(error)) from error
    return selection


Code = Literal[tuple(LANGUAGES)]
Names = Literal["code", "iso639_3", "flores", "script", "name"]


class SourceSpec(Spec):
    """Fields every source has; cleaning happens in the order of the last six."""

    languages: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_languages)]
    normalise: Literal["NFC", "NFKC", "none"] = "none"
    strip: bool = True
    # In Unicode code points. Longer texts are cut: of articles a policy takes a few lines alone.
    max_characters: PositiveInt | None = None
    # An aligned row goes when it is too short in any language.
    min_characters: NonNegativeInt = 0
    # Rows are put in the order numpy.random.default_rng(shuffle_seed).permutation(rows).
    shuffle_seed: NonNegativeInt | None = None
    rows: Annotated[str, AfterValidator(_slice)] | None = None


class UdhrSpec(SourceSpec):
    """Shipped: the articles of the Universal Declaration of Human Rights."""

    source: Literal["udhr"]


class LibreOfficeHelpSpec(SourceSpec):
    """Shipped: paragraphs of LibreOffice's help."""

    source: Literal["libreoffice_help"]


class FloresFolderSpec(SourceSpec):
    """One file per language and one sentence per line, as FLORES-200 is published."""

    source: Literal["flores_folder"]
    # `$NAME` is read from the environment; $LANGSAE_REFERENCE defaults to ../shared.
    folder: str
    # The official archive has dev/{flores}.dev and devtest/{flores}.devtest.
    pattern: str = "{flores}.txt"


class LocalSpec(SourceSpec):
    """A CSV or JSONL file: a column per language, or a (language, text[, id]) row per text."""

    source: Literal["local"]
    path: str
    layout: Literal["wide", "long"] = "wide"
    # wide: the column of each language, where it is not the language's code.
    columns: dict[Code, str] = Field(default={})
    # long: languages may be written in any way langsae.languages.find understands.
    language_column: str = "language"
    text_column: str = "text"
    # long texts align by id; without one they are not aligned.
    id_column: str | None = None


class HubSpec(SourceSpec):
    """Parquet files of a data set on the Hugging Face hub, at one revision.

    `files` and `filters` may hold {code}, {iso639_3}, {flores}, {script} and {name} of the
    language; `text` holds columns, as in "{premise} {hypothesis}". A column that maps language
    codes to texts (as opus_books has) stands for its entry for the language.
    """

    source: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")]
    # A commit pins the data; a branch or ref (refs/convert/parquet) is resolved when it is read.
    revision: Annotated[str, Field(min_length=1)]
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    text: str
    # Keep the rows where each column equals its value, as in {iso_639_3: "{iso639_3}"}. A column of
    # class numbers whose names the file carries (as WiLI's labels) is compared by name.
    filters: dict[str, str] = Field(default={})
    id_column: str | None = None
    aligned: bool = True
    # Where the repository writes a language in a way of its own, as in {zh: {flores: cmn_Hans}}.
    spelling: dict[Code, dict[Names, str]] = Field(default={})

    @model_validator(mode="after")
    def _ids_align(self) -> "HubSpec":
        if self.id_column and not self.aligned:
            raise ValueError("id_column is for aligned texts; leave it out or set aligned: true")
        return self


SingleSpec = Annotated[
    UdhrSpec | LibreOfficeHelpSpec | FloresFolderSpec | LocalSpec | HubSpec,
    Field(discriminator="source"),
]


class UnionSpec(Spec):
    """The texts of several corpora, language by language; they are not aligned."""

    source: Literal["union"]
    parts: Annotated[tuple[SingleSpec, ...], Field(min_length=1)]


CorpusSpec = Annotated[SingleSpec | UnionSpec, Field(discriminator="source")]
