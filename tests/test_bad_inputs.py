"""Every bad input of `bad_inputs.CASES`: one line, a non-zero exit, nothing half-written."""

from collections import Counter

import pytest

import bad_inputs


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "prepared"
    bad_inputs.prepare(folder)
    return folder


@pytest.mark.parametrize("case", bad_inputs.CASES, ids=lambda case: case.name)
def test_it_ends_in_one_line(case, prepared, tmp_path):
    done = bad_inputs.attempt(case, tmp_path / "here", prepared)
    assert done.status > 0, done.errors
    assert len(done.lines) == 1, done.errors
    assert done.lines[0].startswith("langsae: error: ")
    assert len(done.lines[0]) < 700
    assert case.words
    assert case.words in done.lines[0]
    assert done.changed == ()
    assert done.sound(case.words)


def test_there_are_enough_and_none_twice():
    assert len(bad_inputs.CASES) >= 100
    assert max(Counter(case.name for case in bad_inputs.CASES).values()) == 1
