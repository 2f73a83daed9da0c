"""published.yaml, evidence and verdicts: each check is shown to fail when it should."""

import json
import math
from pathlib import Path

import pytest

from langsae.claims import load_published
from langsae.errors import InputError
from langsae.evidence import Recorder, read_evidence
from langsae.readme_table import BEGIN, END, readme_is_current, readme_table, update_readme
from langsae.verdict_table import groups, report
from langsae.verdicts import judge
from langsae.verify import VERIFICATION, all_rows, verify

PUBLISHED = """
study: toy
sources: {paper: "A. Author, A paper, 2025"}
tolerances:
  near: {absolute: 3, relative: 0.02, why: float noise}
  exact: {absolute: 0, why: counted}
claims:
  - {id: token/top, value: the, unit: token, source: "paper: p. 3"}
  - {id: score/human, value: 0.5, unit: score, source: "paper: p. 4", tolerance: near,
     not_available: needs annotators}
tables:
  - id: count/{column}/{row}
    unit: features
    source: "paper: table {column}"
    tolerance: near
    variants: [share, rate]
    columns: [m, n]
    rows: {en: [1000, 10], de: [50, 5]}
  - {id: "best/L{row}", unit: languages, source: "paper: p. 5", cells: set, rows: {0: en de, 1: ja}}
findings:
  - {id: grows, statement: counts grow, source: "paper: p. 6", predicate: grows, subjects: [m]}
"""
COLUMNS = ["study", "id", "variant", "published", "measured", "unit", "tolerance", "verdict"]
COLUMNS += ["basis", "reason", "source", "profile"]
HASH = {"corpus": "0" * 64}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "replications" / "toy"
    folder.mkdir(parents=True)
    (folder / "published.yaml").write_text(PUBLISHED)
    (tmp_path / "README.md").write_text(f"# toy\n{BEGIN}\n{END}\nend\n")
    return tmp_path


def edit(root: Path, old: str, new: str) -> None:
    path = root / "replications" / "toy" / "published.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def record(root: Path, profile="paper", counts=(1000, 10, 50, 5), basis="rerun") -> None:
    recorder = Recorder("toy", profile, seed=0, inputs=HASH)
    names = ("count/m/en", "count/n/en", "count/m/de", "count/n/de")
    for name, count in zip(names, counts, strict=True):
        recorder.measure(name, "share", count, basis)
        recorder.measure(name, "rate", count * 2, basis)
    recorder.write(root)


def verdicts(root: Path) -> dict[str, str]:
    return {f"{row['id']} {row['variant']}": row["verdict"] for row in all_rows(["toy"], root)}


def test_tables_expand_into_claims(root):
    published = load_published(root / "replications/toy/published.yaml")
    claims = {(claim.id, claim.variant): claim for claim in published.claims}
    assert len(claims) == 2 + 4 * 2 + 2
    assert claims["count/n/de", "rate"].value == 5
    assert claims["count/n/de", "rate"].source == "paper: table n"
    assert claims["best/L0", "as published"].value == ["de", "en"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unit: token,", "unit: token, colour: red,", "colour"),
        ("id: score/human", "id: token/top", "named twice"),
        ("[share, rate]", "[share, share]", "named twice"),
        ("study: toy", "study: other", "in the folder"),
        ("tolerance: near\n", "tolerance: wide\n", "no tolerance is named 'wide'"),
        ("    tolerance: near\n", "", "a number needs a tolerance"),
        ("[1000, 10]", "[1000]", "expected 2 cells"),
        ("[1000, 10]", "[1000, null]", "missing"),
        ("[1000, 10]", "[1000, .nan]", "not a finite number"),
        ("[1000, 10]", "[1000, true]", "count/n/en"),
        ("absolute: 3, relative: 0.02, ", "", "give `absolute`"),
        ("absolute: 3", "absolute: -3", "absolute"),
        (", why: counted", "", "why"),
        ("en de, 1", "en en, 1", "twice"),
        ('"paper: p. 3"', '"blog: p. 3"', "starts with no key"),
        ("study: toy", "study: toy\nstudy: toy", "not valid YAML"),
    ],
)
def test_faulty_published_yaml_is_refused(root, old, new, message):
    edit(root, old, new)
    with pytest.raises(InputError, match=message) as error:
        load_published(root / "replications/toy/published.yaml")
    assert "toy/published.yaml: " in str(error.value)


def test_nothing_measured_is_not_attempted_and_says_why(root):
    rows = {row["id"]: row for row in all_rows(["toy"], root)}
    assert {row["verdict"] for row in rows.values()} == {"not attempted"}
    assert {row["basis"] for row in rows.values()} == {None}
    assert {row["measured"] for row in rows.values()} == {None}
    assert rows["score/human"]["reason"] == "needs annotators"
    assert "results/toy/paper.json" in rows["token/top"]["reason"]
    assert sorted(rows["token/top"]) == sorted(COLUMNS)


def test_corrupting_a_published_value_flips_its_verdict_alone(root):
    record(root)
    before = verdicts(root)
    edit(root, "[1000, 10]", "[1100, 10]")
    after = verdicts(root)
    assert before["count/m/en share"] == "reproduced"
    assert {key for key in before if before[key] != after[key]} == {"count/m/en share"}


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [(1020, "reproduced"), (980, "reproduced"), (1021, "differs"), (979, "differs"), (0, "differs"),
     (-1000, "differs")],
)  # fmt: skip
def test_tolerance_has_two_sides(root, measured, verdict):
    record(root, counts=(measured, 10, 50, 5))
    assert verdicts(root)["count/m/en share"] == verdict


def test_sets_and_text(root):
    recorder = Recorder("toy", "paper", 0, HASH)
    recorder.measure("best/L0", "as published", {"en", "de"})
    recorder.measure("best/L1", "as published", ["ja", "zh"])
    recorder.measure("token/top", "as published", "eht")
    recorder.write(root)
    found = verdicts(root)
    assert found["best/L0 as published"] == "reproduced"
    assert found["best/L1 as published"] == "differs"
    assert found["token/top as published"] == "differs"


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_missing_or_nan_is_never_written(root, value):
    recorder = Recorder("toy", "paper", 0, HASH)
    with pytest.raises(InputError, match=r"count/m/en \(share\)"):
        recorder.measure("count/m/en", "share", value)


@pytest.mark.parametrize("value", [math.nan, None])
def test_missing_or_nan_in_a_file_is_an_error(root, value):
    record(root)
    path = root / "results/toy/paper.json"
    content = json.loads(path.read_text())
    content["measured"]["count/m/en"]["share"]["value"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"paper.json: measured.count/m/en.share.value"):
        verify(["toy"], root)


def test_values_missing_from_a_family_or_unknown_are_errors(root):
    recorder = Recorder("toy", "paper", 0, HASH)
    recorder.measure("count/m/en", "share", 1000)
    recorder.write(root)
    with pytest.raises(InputError, match=r"missing: count/m/de \(share\)"):
        all_rows(["toy"], root)
    recorder.measure("count/m/de", "share", 50)
    recorder.measure("count/m/xx", "share", 50)
    recorder.write(root)
    with pytest.raises(InputError, match=r"not in published.yaml: count/m/xx"):
        all_rows(["toy"], root)


def test_demo_decides_no_number_and_paper_beats_reference(root):
    record(root, "demo")
    assert verdicts(root)["count/m/en share"] == "not attempted"
    record(root, "reference", counts=(1, 1, 1, 1), basis="published artefact")
    assert verdicts(root)["count/m/en share"] == "differs"
    record(root, "paper")
    row = next(row for row in all_rows(["toy"], root) if row["id"] == "count/m/en")
    assert (row["verdict"], row["profile"], row["basis"]) == ("reproduced", "paper", "rerun")


def test_findings_on_the_published_and_on_another_model(root):
    for profile in ("demo", "smoke"):
        recorder = Recorder("toy", profile, 0, HASH)
        recorder.find("grows", "m", True, "said of m, but demo does not run m")
        recorder.find("grows", f"{profile}-model", False, "3 → 2", interval=(-0.4, -0.1))
        recorder.write(root)
    rows = [row for row in all_rows(["toy"], root) if row["id"].startswith("finding/")]
    assert [row["id"] for row in rows] == ["finding/grows/m", "finding/grows/demo-model"]
    assert rows[0]["verdict"] == "not attempted"
    assert (rows[1]["verdict"], rows[1]["profile"], rows[1]["measured"]) == (
        "differs",
        "demo",
        False,
    )
    assert rows[1]["variant"] == "on another model"
    assert "-0.4" in rows[1]["reason"]


def test_what_the_demo_says_of_another_model_fails_nothing(root, capsys):
    for holds in (True, False):
        recorder = Recorder("toy", "demo", 0, HASH)
        recorder.find("grows", "demo-model", holds, "numbers")
        recorder.write(root)
        assert verify(root=root, acknowledge=holds) == 0
    assert "Answered otherwise" in capsys.readouterr().out
    rows = json.loads((root / VERIFICATION).read_text())
    assert [row["measured"] for row in rows if row["profile"] == "demo"] == [False]


def test_a_finding_of_the_authors_data_gives_way_to_a_rerun(root):
    for profile, basis, holds in (
        ("reference", "published artefact", True),
        ("paper", "rerun", False),
    ):
        recorder = Recorder("toy", profile, 0, HASH)
        recorder.find("grows", "m", holds, "numbers", basis)
        recorder.write(root)
        row = all_rows(["toy"], root)[-1]
        assert (row["measured"], row["basis"], row["profile"]) == (holds, basis, profile)
        assert row["reason"] == "numbers"


def test_bases_are_never_counted_together(root):
    recorder = Recorder("toy", "reference", 0, HASH)
    for name, basis in (("m", "rerun"), ("n", "published artefact")):
        recorder.measure(f"count/{name}/en", "share", 1000 if name == "m" else 10, basis)
        recorder.measure(f"count/{name}/de", "share", 50, basis if name == "m" else "rerun")
    recorder.write(root)
    rows = all_rows(["toy"], root)
    for group in groups(rows):
        assert {row["basis"] for row in group.rows} == {group.basis}
    counted = [group for group in groups(rows) if group.family == "count/n"]
    assert {group.basis for group in counted} == {"rerun", "published artefact", None}


def test_the_reading_that_fits_is_named(root):
    record(root)
    best = {group.variant for group in groups(all_rows(["toy"], root)) if group.fits_best}
    assert best == {"share"}
    assert "share ← fits best" in report(all_rows(["toy"], root))
    (root / "results/toy/paper.json").unlink()
    recorder = Recorder("toy", "paper", 0, HASH)
    for variant in ("share", "rate"):  # equally good
        recorder.measure("count/m/en", variant, 1000)
        recorder.measure("count/m/de", variant, 50)
    recorder.write(root)
    assert not any(group.fits_best for group in groups(all_rows(["toy"], root)))
    record(root, counts=(900, 100, 900, 100))
    assert not any(group.fits_best for group in groups(all_rows(["toy"], root)))


def test_a_changed_verdict_must_be_acknowledged(root, capsys):
    assert verify(root=root, acknowledge=True) == 0
    assert verify(root=root) == 0
    record(root)
    before = (root / VERIFICATION).read_bytes()
    assert verify(root=root) == 1
    captured = capsys.readouterr()
    assert "count/m/en (share): not attempted → reproduced (rerun)" in captured.err
    assert "langsae verify --acknowledge" in captured.err
    assert (root / VERIFICATION).read_bytes() == before
    assert verify(root=root, acknowledge=True) == 0
    assert verify(root=root) == 0
    (root / "results/toy/paper.json").unlink()
    assert verify(root=root) == 1


def test_other_digits_do_not_change_verdicts_or_readme(root):
    record(root)
    verify(root=root, acknowledge=True)
    readme = (root / "README.md").read_bytes()
    record(root, counts=(1001, 10, 50, 5))
    assert verify(root=root) == 0
    rows = json.loads((root / VERIFICATION).read_text())
    assert any(row["measured"] == 1001 for row in rows)
    assert (root / "README.md").read_bytes() == readme
    assert all("source" not in row for row in rows)  # published.yaml has it
    assert readme_is_current(root / "README.md", all_rows(["toy"], root))


def test_readme_table(root):
    record(root)
    rows = all_rows(["toy"], root)
    update_readme(root / "README.md", rows)
    text = (root / "README.md").read_text()
    assert text.startswith("# toy\n")
    assert text.endswith("\nend\n")
    assert "| count/m | share (fits best of 2 readings) | 2 |" in text
    assert "| counts grow | – |" in readme_table(rows)
    assert "<b>toy</b>: 4 reproduced, 0 differs, 5 not attempted" in text  # sums of the table
    assert readme_is_current(root / "README.md", rows)
    rows[2]["verdict"] = "differs"
    assert not readme_is_current(root / "README.md", rows)
    (root / "README.md").write_text("no markers")
    with pytest.raises(InputError, match="no line"):
        update_readme(root / "README.md", rows)


def test_evidence_is_the_same_bytes_for_the_same_inputs(root, monkeypatch):
    monkeypatch.delenv("LANGSAE_REVISION", raising=False)
    record(root)
    path = root / "results/toy/paper.json"
    first = path.read_bytes()
    record(root)
    assert path.read_bytes() == first
    manifest = json.loads(path.with_suffix(".manifest.json").read_text())
    assert manifest["commit"] == "unknown"
    assert manifest["packages"]["numpy"]
    assert read_evidence(root, "toy")["paper"].inputs == HASH
    monkeypatch.setenv("LANGSAE_REVISION", "e83c5163")  # what the image sets
    record(root)
    assert path.read_bytes() == first
    assert json.loads(path.with_suffix(".manifest.json").read_text())["commit"] == "e83c5163"


def test_measured_twice_and_foreign_types(root):
    recorder = Recorder("toy", "paper", 0, HASH)
    recorder.measure("token/top", "as published", 7)
    with pytest.raises(InputError, match="measured twice"):
        recorder.measure("token/top", "as published", 8)
    recorder.write(root)
    published = load_published(root / "replications/toy/published.yaml")
    with pytest.raises(InputError, match="token/top: measured 7"):
        judge(published, read_evidence(root, "toy"))
