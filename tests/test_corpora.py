"""Corpora against hand-written files, counts taken from the sources, and every refusal."""

import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langsae.corpora import hub as hub_source
from langsae.corpora.build import build
from langsae.corpora.parallel import ParallelCorpus
from langsae.corpora.spec import CorpusSpec
from langsae.errors import InputError
from langsae.params import parse
from standin_hub import run_with_hub

FLORES_DEV = ["en", "de", "ru", "is", "es", "pt", "fr", "zh", "ja", "ko", "hi", "ar"]
UDHR = [*FLORES_DEV, "it", "tr", "th", "vi", "bg"]
REFERENCE = Path(__file__).resolve().parents[2] / "shared/reference"


def make(name="c", **spec):
    return build(parse(CorpusSpec, spec, "params.yaml: corpora.c"), name)


def small(**changes):
    fields = {"name": "c", "texts": {"en": ("a", "b", "c", "d", "e"), "ja": tuple("あいうえお")}}
    return ParallelCorpus(**fields | {"ids": tuple("12345")} | changes)


def refused(match, **spec):
    with pytest.raises(InputError, match=match) as caught:
        make(**spec)
    assert "\n" not in str(caught.value)


# --- ParallelCorpus


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("0:2", "ab"),
        (":3", "abc"),
        ("0::2", "ace"),
        ("1::2", "bd"),
        ("-2:", "de"),
        ("0:99", "abcde"),
    ],
)
def test_rows(selection, expected):
    part = small().rows(selection)
    assert "".join(part.texts["en"]) == expected
    positions = ["abcde".index(letter) for letter in expected]
    assert "".join(part.texts["ja"]) == "".join("あいうえお"[i] for i in positions)
    assert part.ids == tuple("12345"[i] for i in positions)


@pytest.mark.parametrize("selection", ["5", "a:b", "0:2:0", "1:2:3:4", "", "5:5"])
def test_rows_refused(selection):
    with pytest.raises(InputError):
        small().rows(selection)


def test_select_languages():
    assert small().select(["ja", "en"]).languages == ("ja", "en")
    with pytest.raises(InputError, match="'de' is absent; it has en, ja"):
        small().select(["de"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"texts": {}}, "at least one language"),
        ({"texts": {"en": ()}, "ids": None}, "no rows in 'en'"),
        ({"texts": {"xx": ("a",)}, "ids": None}, "unknown language 'xx'"),
        ({"texts": {"en": ("a", " \t")}, "ids": None}, "row 1 is empty in 'en'"),
        ({"texts": {"en": ("a",), "ja": ("あ", "い")}, "ids": None}, "en 1, ja 2"),
        ({"ids": tuple("1234")}, "4 ids for 5 rows"),
        ({"ids": tuple("12324")}, "id '2' occurs 2 times"),
        ({"aligned": False}, "aligned corpora only"),
    ],
)
def test_invalid_corpus(changes, match):
    with pytest.raises(InputError, match=match):
        small(**changes)


UNALIGNED = {"texts": {"en": ("a",), "ja": ("あ", "い")}, "aligned": False, "ids": None}


@pytest.mark.parametrize("changes", [{}, {"ids": None}, UNALIGNED])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.xz"])
def test_save_and_load(tmp_path, changes, suffix):
    corpus = small(provenance={"from": "here"}, **changes)
    paths = [tmp_path / f"{folder}/c{suffix}" for folder in "ab"]
    for path in paths:
        corpus.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert ParallelCorpus.load(paths[0]) == corpus


def test_load_refuses_a_changed_or_foreign_file(tmp_path):
    path = tmp_path / "c.jsonl"
    small().save(path)
    path.write_text(path.read_text("utf-8").replace('"あ"', '"ア"'), "utf-8")
    with pytest.raises(InputError, match="do not match its digest"):
        ParallelCorpus.load(path)
    for content in ("", '{"a": 1}\n'):
        path.write_text(content)
        with pytest.raises(InputError, match="not a langsae corpus"):
            ParallelCorpus.load(path)
    path.write_text("{\n")
    with pytest.raises(InputError, match=r"c\.jsonl:1: not JSON"):
        ParallelCorpus.load(path)
    with pytest.raises(InputError, match="no such file"):
        ParallelCorpus.load(tmp_path / "absent.jsonl")


def test_digest_is_of_the_content_only():
    assert small().digest() == small(name="d", provenance={"x": 1}).digest()
    others = [
        small(ids=None),
        small().select(["ja", "en"]),
        small().rows("0:4"),
        small().rows("::-1"),
    ]
    assert len({corpus.digest() for corpus in [small(), *others]}) == 5


# --- Shipped texts


def test_udhr_has_50_paragraphs_in_17_languages():
    corpus = make(source="udhr", languages=UDHR)
    assert corpus.languages == tuple(UDHR)
    assert {len(texts) for texts in corpus.texts.values()} == {50}
    assert corpus.ids[:4] == ("1.1", "2.1", "2.2", "3.1")
    assert corpus.ids[-1] == "30.1"
    assert {id.split(".")[0] for id in corpus.ids} == {str(article) for article in range(1, 31)}
    for texts in corpus.texts.values():
        assert all(unicodedata.is_normalized("NFC", text) for text in texts)


# "15.1 Everyone has the right to a nationality", and "20.2 ... to belong to an association".
@pytest.mark.parametrize(
    ("identifier", "word"),
    [
        (
            "15.1",
            {"en": "nationality", "ja": "国籍", "ko": "국적", "hi": "राष्ट्र", "vi": "quốc tịch"},
        ),
        (
            "15.1",
            {"de": "Staatsangehörigkeit", "ru": "гражданство", "zh": "国籍", "is": "ríkisfang"},
        ),
        (
            "20.2",
            {"en": "association", "ar": "جمعية", "th": "สมาคม", "tr": "derneğe", "ja": "結社"},
        ),
        (
            "20.2",
            {"es": "asociación", "pt": "associação", "fr": "association", "it": "associazione"},
        ),
        ("26.3", {"en": "Parents", "ja": "親", "bg": "Родители", "zh": "父母", "hi": "माता-पिता"}),
    ],
)
def test_udhr_rows_align(identifier, word):
    corpus = make(source="udhr", languages=UDHR)
    row = corpus.ids.index(identifier)
    for code, expected in word.items():
        rows = [i for i, text in enumerate(corpus.texts[code]) if expected in text]
        assert row in rows, code


# The rows the tool counted when it made the file.
@pytest.mark.parametrize(
    ("languages", "rows"),
    [("en ja", 10368), ("en es", 10337), ("en de fr es it pt ru ja ko zh tr vi", 3210)],
)
def test_libreoffice_help_rows(languages, rows):
    corpus = make(source="libreoffice_help", languages=languages.split())
    assert len(corpus) == rows
    assert len(set(corpus.texts["en"])) == rows
    for english, *others in zip(*corpus.texts.values(), strict=True):
        assert len(english) > 40
        assert english not in others


def test_libreoffice_help_hindi():
    corpus = make(source="libreoffice_help", languages=["en", "hi", "vi"])
    assert len(corpus) >= 1200
    assert all(any("\u0900" <= c <= "\u097f" for c in text) for text in corpus.texts["hi"])
    row = corpus.ids.index("sbasic/guide/insert_control#par_id3153360")
    assert corpus.texts["en"][row] == "On the dialog, drag the button to the size you want."
    assert corpus.texts["hi"][row] == "संवाद में, बटन को वांछित आकार तक खींचें."


@pytest.mark.parametrize("source", ["udhr", "libreoffice_help"])
def test_shipped_files_are_small_reproducible_and_clean(source):
    folder = Path(hub_source.__file__).parents[1] / "data"
    (path,) = folder.glob(f"{source}.jsonl.*")
    assert path.stat().st_size < {"udhr": 400_000, "libreoffice_help": 3_000_000}[source]
    if path.suffix == ".gz":
        assert path.read_bytes()[4:8] == bytes(4)  # no time stamp
    assert (folder / f"{source}.LICENSE").stat().st_size > 1000
    corpus = make(source=source, languages=["en", "ja"])
    for texts in corpus.texts.values():
        assert all(text == " ".join(text.split()) for text in texts)
        # The help writes about HTML, so tags as such are text.
        assert not any(mark in text for text in texts for mark in ("<span", "&amp;", ".xhp"))
    assert len(corpus.provenance["origin"]["sha256"]) == 64


def test_libreoffice_help_lacks_thai():
    refused("has no th", source="libreoffice_help", languages=["en", "th"])


# --- Specifications


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"source": "udhr", "languages": []}, "languages"),
        ({"source": "udhr", "languages": ["en", "xx"]}, r"unknown language 'xx'"),
        ({"source": "udhr", "languages": ["en", "eng"]}, "listed twice"),
        ({"source": "udhr", "languages": ["en"], "rows": "5"}, "not a slice"),
        ({"source": "udhr", "languages": ["en"], "rows": "50:"}, "selects none of 50 rows"),
        ({"source": "udhr", "languages": ["en"], "colour": 1}, "colour"),
        ({"source": "udhr", "languages": ["en"], "normalise": "NFD"}, "normalise"),
        ({"source": "nowhere", "languages": ["en"]}, "nowhere"),
        ({"source": "udhr", "languages": ["en"], "min_characters": 9999}, "lower the limit"),
    ],
)
def test_spec_refused(spec, match):
    refused(match, **spec)


def test_languages_by_any_identifier():
    assert make(source="udhr", languages=["eng_Latn", "Japanese"]).languages == ("en", "ja")


def test_cleaning_in_order(tmp_path):
    path = tmp_path / "c.jsonl"
    # "ế" in two spellings, white space to strip, a short row.
    rows = [{"en": "one two ", "vi": "e\u0302\u0301 \u1ebf"}, {"en": "x", "vi": "yyyyyy"}]
    rows += [{"en": "three!", "vi": "\uff11 ba ba"}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    spec = {"source": "local", "languages": ["vi", "en"], "path": str(path)}
    assert make(**spec).texts["vi"] == ("e\u0302\u0301 \u1ebf", "yyyyyy", "\uff11 ba ba")
    assert make(**spec).texts["en"][0] == "one two"
    assert make(**spec, strip=False).texts["en"][0] == "one two "
    nfc = make(**spec, normalise="NFC", min_characters=3)
    assert nfc.texts == {"vi": ("\u1ebf \u1ebf", "\uff11 ba ba"), "en": ("one two", "three!")}
    assert make(**spec, normalise="NFKC").texts["vi"][2] == "1 ba ba"
    assert make(**spec, min_characters=2, rows="1:").texts["en"] == ("three!",)
    assert make(**spec, min_characters=2, max_characters=3).texts["en"] == ("one", "thr")


def test_shuffle_is_numpys_default_generator():
    # The bilingual study prints 60296 as the first of its 500 rows of 93,470.
    corpus = ParallelCorpus("c", {"en": tuple(str(i) for i in range(93_470))})
    order = corpus.permuted(lambda rows: np.random.default_rng(42).permutation(rows))
    assert order.rows(":500").texts["en"][0] == "60296"
    shuffled = make(source="udhr", languages=["en", "ja"], shuffle_seed=7, rows=":5")
    plain = make(source="udhr", languages=["en", "ja"])
    for i, row in enumerate(np.random.default_rng(7).permutation(50)[:5]):
        for code in ("en", "ja"):
            assert shuffled.texts[code][i] == plain.texts[code][row]
        assert shuffled.ids[i] == plain.ids[row]


def test_alternate_rows_share_nothing():
    halves = [make(source="udhr", languages=["en"], rows=rows) for rows in ("0::2", "1::2")]
    assert set(halves[0].ids) | set(halves[1].ids) == set(make(source="udhr", languages=["en"]).ids)
    assert not set(halves[0].ids) & set(halves[1].ids)


# --- flores_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGSAE_REFERENCE", str(tmp_path))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/eng_Latn.dev").write_bytes(b"One.\r\nTwo\xe2\x80\xa8lines? \n")
    (tmp_path / "dev/jpn_Jpan.dev").write_bytes("一。\n二。\n".encode())
    return tmp_path / "dev"


FLORES = {
    "source": "flores_folder",
    "languages": ["en", "ja"],
    "folder": "$LANGSAE_REFERENCE",
    "pattern": "dev/{flores}.dev",
}


def test_flores_folder(folder):
    corpus = make(**FLORES)
    # U+2028 is text, not the end of a line; CRLF is one end.
    assert corpus.texts == {"en": ("One.", "Two\u2028lines?"), "ja": ("一。", "二。")}
    assert corpus.aligned
    assert str(folder) not in json.dumps(corpus.provenance)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("一。\n".encode(), r"differ in number of lines: eng_Latn.dev 2, jpn_Jpan.dev 1"),
        ("一。\n \n".encode(), r"jpn_Jpan.dev:2: empty line"),
        ("一。\n\n".encode(), r"jpn_Jpan.dev:2: empty line"),
        ("一。\n二。\n".encode("shift-jis"), r"jpn_Jpan.dev:1: not UTF-8"),
        ("一。\n".encode() + "é\n".encode("latin-1"), r"jpn_Jpan.dev:2: not UTF-8"),
        (b"", r"jpn_Jpan.dev: has no lines"),
        (None, r"jpn_Jpan.dev: no such file"),
    ],
)
def test_flores_folder_refused(folder, content, match):
    if content is None:
        (folder / "jpn_Jpan.dev").unlink()
    else:
        (folder / "jpn_Jpan.dev").write_bytes(content)
    refused(match, **FLORES)


def test_flores_folder_paths(folder, monkeypatch):
    monkeypatch.delenv("LANGSAE_NOWHERE", raising=False)
    refused(
        "set the environment variable LANGSAE_NOWHERE", **FLORES | {"folder": "$LANGSAE_NOWHERE"}
    )
    refused(r"write \$NAME", **FLORES | {"folder": "$ x"})
    refused("no such folder", **FLORES | {"folder": "$LANGSAE_REFERENCE/absent"})
    refused("use only", **FLORES | {"pattern": "{lang}.txt"})


def test_flores_reference(monkeypatch):
    if not REFERENCE.is_dir():
        pytest.skip("../shared not present")
    monkeypatch.setenv("LANGSAE_REFERENCE", str(REFERENCE))
    spec = {"source": "flores_folder", "folder": "$LANGSAE_REFERENCE/flores200_dev"}
    corpus = make(**spec, languages=FLORES_DEV)
    assert {len(texts) for texts in corpus.texts.values()} == {997}
    first = (REFERENCE / "flores200_dev/isl_Latn.txt").open(encoding="utf-8").readline().strip()
    assert corpus.texts["is"][0] == first


# --- local


def local(path, content, **spec):
    path.write_text(content, encoding="utf-8")
    return {"source": "local", "languages": ["en", "es"], "path": str(path), **spec}


def test_local_wide_csv(tmp_path):
    content = '\ufeffid,en,Spanish\na,"Hello,\nyou",Hola\nb,Two,Dos\n'
    columns = {"columns": {"es": "Spanish"}, "id_column": "id"}
    corpus = make(**local(tmp_path / "c.csv", content, **columns))
    assert corpus.texts == {"en": ("Hello,\nyou", "Two"), "es": ("Hola", "Dos")}
    assert corpus.ids == ("a", "b")


LONG = (
    '{"language": "eng", "text": "One", "id": 1}\n'
    '{"language": "es", "text": "Dos", "id": 2}\n'
    '{"language": "en", "text": "Two", "id": 2}\n'
    '{"language": "Spanish", "text": "Uno", "id": 1}\n'
    '{"language": "tlh", "text": "cha", "id": 2}\n'
)


def test_local_long_jsonl(tmp_path):
    spec = local(tmp_path / "c.jsonl", LONG, layout="long")
    joined = make(**spec, id_column="id")
    assert joined.texts == {"en": ("One", "Two"), "es": ("Uno", "Dos")}
    assert joined.ids == ("1", "2")
    loose = make(**spec)
    assert not loose.aligned
    assert loose.texts["es"] == ("Dos", "Uno")


@pytest.mark.parametrize(
    ("name", "content", "spec", "match"),
    [
        ("c.csv", "en,es\nOne,Uno\nTwo,\n", {}, r"c.csv:3: 'es' is empty"),
        ("c.csv", "en,es\nOne,Uno,x\n", {}, r"c.csv:2: not as many cells"),
        ("c.csv", "en,es\nOne\n", {}, r"c.csv:2: not as many cells"),
        ("c.csv", "en,fr\nOne,Un\n", {}, r"c.csv:2: unknown column 'es'; it has en, fr"),
        ("c.csv", 'en,es\n"One,Uno\n', {}, r"c.csv:2: not CSV"),
        ("c.csv", "en,es\n", {}, "no rows"),
        ("c.csv", "id,en,es\n1,a,b\n1,c,d\n", {"id_column": "id"}, r"csv:3: id '1' is .* line 2"),
        ("c.csv", "", {"path": "absent.csv"}, "absent.csv: no such file"),
        ("c.txt", "", {}, "expected a .csv or .jsonl"),
        ("c.jsonl", '{"en": 1.5, "es": "x"}\n', {}, r"c.jsonl:1: 'en' is not a text"),
        ("c.jsonl", '{"en": "a", "es": "x"}\n[1]\n', {}, r"c.jsonl:2: expected a JSON object"),
        ("c.jsonl", LONG, {"layout": "long", "languages": ["en", "ja"]}, "'ja' is absent"),
        ("c.jsonl", LONG, {"layout": "long", "text_column": "t"}, r":1: unknown column 't'"),
    ],
)
def test_local_refused(tmp_path, name, content, spec, match):
    refused(match, **local(tmp_path / name, content) | spec)


def test_local_long_ids_refused(tmp_path):
    long = {"layout": "long", "id_column": "id"}
    lines = LONG.splitlines(keepends=True)
    spec = local(tmp_path / "c.jsonl", "".join(lines[:3]), **long)
    refused(r"c.jsonl:1: id '1' has no text in 'es'", **spec)
    spec = local(tmp_path / "c.jsonl", LONG + lines[0], **long)
    refused(r"c.jsonl:6: id '1' is already on line 1", **spec)


# --- hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A folder that stands for the hub's repository: put Parquet files there by `repo(...)`."""

    def put(filename, **columns):
        path = tmp_path / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return path

    monkeypatch.setattr(hub_source, "resolve", lambda *_: COMMIT)
    monkeypatch.setattr(hub_source, "fetch", lambda _repo, _commit, name, *_: tmp_path / name)
    return put


HUB = {"source": "hub", "repo": "facebook/flores", "revision": "refs/convert/parquet"}


def test_hub_file_per_language(repo):
    repo("eng_Latn/dev/0.parquet", sentence=["One ", "Two"], id=[1, 2])
    path = repo("cmn_Hans/dev/0.parquet", sentence=["一", "二"], id=[1, 2])
    corpus = make(
        **HUB,
        languages=["en", "zh"],
        files=["{flores}/dev/0.parquet"],
        text="{sentence}",
        spelling={"zh": {"flores": "cmn_Hans"}},
    )
    assert corpus.texts == {"en": ("One", "Two"), "zh": ("一", "二")}
    origin = corpus.provenance["origin"]
    assert origin["commit"] == COMMIT
    assert set(origin["files"]) == {"eng_Latn/dev/0.parquet", "cmn_Hans/dev/0.parquet"}
    assert path.exists()


def test_hub_filters_and_ids(repo):
    rows = [("eng", 1, "One"), ("spa", 2, "Dos"), ("eng", 2, "Two"), ("spa", 3, "Tres")]
    language, ids, texts = (list(column) for column in zip(*rows, strict=True))
    repo("dev.parquet", iso_639_3=language, id=ids, text=texts)
    spec = HUB | {"languages": ["en", "es"], "files": ["dev.parquet"], "text": "{text}"}
    spec |= {"filters": {"iso_639_3": "{iso639_3}"}, "id_column": "id"}
    corpus = make(**spec)
    assert corpus.texts == {"en": ("Two",), "es": ("Dos",)}
    assert corpus.ids == ("2",)
    refused("'ja' is absent", **spec | {"languages": ["en", "ja"]})
    refused("aligned: true", **spec | {"aligned": False})


def test_hub_filters_by_the_names_of_classes(repo):
    """The datasets library stores labels as numbers, and their names in the schema."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["spa", "jpn", "eng"])})
    rows = {"text": ["Uno", "One", "Dos", "一"], "label": [0, 2, 0, 1]}
    path = repo("test.parquet", text=["to be replaced"])
    Dataset.from_dict(rows, features).to_parquet(path)
    spec = HUB | {"files": ["test.parquet"], "text": "{text}", "aligned": False}
    spec |= {"filters": {"label": "{iso639_3}"}}
    corpus = make(**spec, languages=["en", "es", "ja"])
    assert corpus.texts == {"en": ("One",), "es": ("Uno", "Dos"), "ja": ("一",)}
    assert make(**spec, languages=["es"], rows=":1").texts == {"es": ("Uno",)}
    refused("'ru' is absent", **spec, languages=["ru"])


@pytest.mark.parametrize("rows", [":3", "1:3", "::2", "-2:", ":-1", "2::-1", "5:9", ":20000"])
def test_hub_rows_are_those_of_the_whole(repo, rows):
    """However much of the file is read for them; the second file is only where it is needed."""
    texts = [f"Row {i}" for i in range(10_000)]
    repo("a.parquet", text=texts[:9_000])
    repo("b.parquet", text=texts[9_000:])
    spec = HUB | {"languages": ["en"], "files": ["a.parquet", "b.parquet"], "text": "{text}"}
    corpus = make(**spec, rows=rows)
    part = slice(*(int(n) if n else None for n in rows.split(":")))
    assert corpus.texts["en"] == tuple(texts[part])
    seen = set(corpus.provenance["origin"]["files"])
    assert seen == ({"a.parquet"} if rows in (":3", "1:3", "5:9") else {"a.parquet", "b.parquet"})


def test_hub_templates_and_dictionaries(repo):
    repo("en.parquet", premise=["P1", "P2", ""], hypothesis=["H1", "H2", ""])
    repo("fr.parquet", premise=["Q1", ""], hypothesis=["I1", ""])
    spec = HUB | {"languages": ["en", "fr"], "files": ["{code}.parquet"], "aligned": False}
    corpus = make(**spec, text="{premise} {hypothesis}", min_characters=1)
    assert corpus.texts == {"en": ("P1 H1", "P2 H2"), "fr": ("Q1 I1",)}
    refused("row 2 is empty in 'en'; min_characters: 1", **spec, text="{premise} {hypothesis}")
    repo("books.parquet", translation=[{"en": "One", "es": "Uno"}, {"en": "Two", "es": "Dos"}])
    books = HUB | {"files": ["books.parquet"], "text": "{translation}"}
    assert make(**books, languages=["es", "en"]).texts == {
        "es": ("Uno", "Dos"),
        "en": ("One", "Two"),
    }
    refused("holds no text for 'ja'", **books, languages=["en", "ja"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"text": "{sentence}"}, "has no column 'sentence'; it has text"),
        ({"text": "words"}, "name columns as in"),
        ({"text": "{"}, "text '{'"),
        ({"filters": {"script": "Latn"}}, "has no column 'script'"),
        ({"id_column": "id"}, "has no column 'id'"),
        ({"files": ["broken.parquet"]}, "not a Parquet file"),
        ({"files": ["{lang}.parquet"]}, "use only"),
    ],
)
def test_hub_refused(repo, change, match):
    repo("en.parquet", text=["One"]).with_name("broken.parquet").write_bytes(b"<html>")
    spec = HUB | {"languages": ["en"], "files": ["en.parquet"], "text": "{text}"}
    refused(match, **spec | change)


def test_hub_duplicate_ids(repo):
    repo("en.parquet", text=["One", "Two"], id=["7", "7"])
    spec = HUB | {"languages": ["en"], "files": ["en.parquet"], "text": "{text}"}
    refused("'id' is not unique in 'en'", **spec, id_column="id")


OVER_THE_WIRE = """
import json
from langsae.corpora.build import build
from langsae.corpora.spec import HubSpec
from langsae.errors import InputError

common = {"source": "hub", "languages": ["en"], "text": "{text}", "files": ["dev/{flores}.parquet"]}
for repo, revision, files in CASES:
    files = {"files": [files]} if files else {}
    try:
        corpus = build(HubSpec(**common | files, repo=repo, revision=revision), "c")
        print(json.dumps([corpus.texts["en"], corpus.provenance["origin"]]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def test_hub_over_the_wire(hub, tmp_path):
    """Real downloads from a hub on this machine: a ref, a gated repository, what is missing."""
    path = tmp_path / "en.parquet"
    pq.write_table(pa.table({"text": ["One", "Two"]}), path)
    files = {"dev/eng_Latn.parquet": path}
    ref = "refs/convert/parquet"
    commit = hub.add_repo("some/texts", files, "dataset", revision=ref)
    locked = hub.add_repo("open/flores_plus", files, "dataset", gated=True)
    cases = [
        ("some/texts", ref, None),
        ("some/texts", commit, "absent.parquet"),
        ("some/texts", "f" * 40, None),
        ("some/texts", "v9", None),
        ("some/nothing", commit, None),
        ("open/flores_plus", locked, None),
    ]
    printed = run_with_hub(hub, OVER_THE_WIRE.replace("CASES", repr(cases)))
    (texts, origin), absent, no_commit, no_tag, no_repo, gated = map(
        json.loads, printed.splitlines()
    )
    assert texts == ["One", "Two"]
    assert origin["commit"] == commit
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert origin["files"] == {"dev/eng_Latn.parquet": sha256}
    assert "absent.parquet" in absent
    assert "f" * 8 in no_commit
    assert "v9" in no_tag
    assert "some/nothing" in no_repo
    assert "gated" in gated
    assert "open/flores_plus" in gated
    assert "HF_TOKEN" in gated


def test_union_keeps_every_text_of_every_part():
    parts = [
        {"source": "udhr", "languages": ["en", "is"], "rows": ":2"},
        {"source": "libreoffice_help", "languages": ["ja", "en"], "rows": ":3"},
    ]
    union = build(parse(CorpusSpec, {"source": "union", "parts": parts}, "t"), "t")
    single = [build(parse(CorpusSpec, part, "t"), "t") for part in parts]
    assert not union.aligned
    assert union.languages == ("en", "is", "ja")
    assert union.texts["en"] == single[0].texts["en"] + single[1].texts["en"]
    assert (len(union.texts["is"]), len(union.texts["ja"])) == (2, 3)
