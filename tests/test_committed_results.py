"""The committed evidence, verdicts and README say the same."""

from pathlib import Path

from langsae.files import read_json
from langsae.readme_table import readme_is_current
from langsae.verify import VERIFICATION, all_rows, stored, studies_of

ROOT = Path(__file__).resolve().parent.parent


def test_verification_follows_from_published_values_and_evidence():
    rows = all_rows(studies_of(ROOT), ROOT)
    assert sum(row["verdict"] == "reproduced" for row in rows) >= 48
    assert [stored(row) for row in rows] == read_json(ROOT / VERIFICATION)


def test_readme_shows_the_committed_verdicts():
    rows = all_rows(studies_of(ROOT), ROOT)
    assert readme_is_current(ROOT / "README.md", rows)
    flipped = [row | {"verdict": "differs"} for row in rows]
    assert not readme_is_current(ROOT / "README.md", flipped)
