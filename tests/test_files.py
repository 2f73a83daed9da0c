"""Atomic publishing: the old or the new, never a part, and nothing left behind."""

import json
import math
import os
import subprocess
import sys

import pytest

from langsae.errors import InputError
from langsae.files import publish, read_json, write_json


def test_a_failure_leaves_the_old_content(tmp_path):
    target = tmp_path / "t"
    with publish(target) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), publish(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["t"]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with publish(tmp_path / "f") as folder:
            folder.mkdir()
            (folder / content).write_text(content)
    assert os.listdir(tmp_path) == ["f"]
    assert os.listdir(tmp_path / "f") == ["two"]


def test_what_a_killed_process_left_is_removed_but_not_a_living_ones(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    abandoned = tmp_path / f".t.{ended.pid}.tmp"
    living = tmp_path / f".t.{os.getppid()}.tmp"
    other = tmp_path / f".tt.{ended.pid}.tmp"
    for path in (abandoned, living, other):
        path.mkdir()
    write_json(tmp_path / "t", [1])
    assert not abandoned.exists()
    assert living.exists()
    assert other.exists()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_named_and_not_written(tmp_path, bad):
    with pytest.raises(InputError, match=r"\$\.a\[1\]"):
        write_json(tmp_path / "t", {"a": [1.0, bad]})
    assert os.listdir(tmp_path) == []


def test_broken_json_is_named(tmp_path):
    (tmp_path / "t").write_text('{"a": ')
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "t")
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "absent")
    (tmp_path / "t").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "t") == {"a": 1}
