"""How commands end: status and the one line."""

import errno

import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from langsae import command
from langsae.errors import InputError


def ends(error: BaseException, capsys) -> tuple[int, str]:
    def fails():
        raise error

    with pytest.raises(SystemExit) as exit:
        command.one_line(fails)
    return exit.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("no such corpus; add it"), 2, "no such corpus; add it"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.json"), 2, "disk (out/a.json)"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "free some"),
        (OSError(errno.EROFS, "Read-only file system", "results"), 2, "writable"),
        (PermissionError(errno.EACCES, "Permission denied", "results"), 2, "(results)"),
        (MemoryError(), 2, "compute.batch_tokens"),
        (KeyboardInterrupt(), 130, "run the same command again"),
    ],
)
def test_one_line_says_what_to_mend(error, status, words, capsys, monkeypatch):
    monkeypatch.delenv("LANGSAE_DEBUG", raising=False)
    code, said = ends(error, capsys)
    assert code == status
    assert words in said
    assert said.startswith("langsae: ")
    assert said.count("\n") == 1


def test_torchs_own_allocator_counts_as_memory():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 60)
    assert "out of memory" in command.fault_of_machine(found.value)


@pytest.mark.parametrize("kind", ["safetensors", "table", "gone"])
def test_a_damaged_artifact_is_one_line(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LANGSAE_DEBUG", raising=False)
    path = tmp_path / "artifacts" / "x"
    path.parent.mkdir()
    if kind != "gone":
        path.write_bytes(b"" if kind == "table" else b"\x10")
    load = {"safetensors": load_file, "table": pd.read_csv, "gone": open}[kind]
    with pytest.raises(SystemExit):
        command.one_line(lambda: load(path))
    said = capsys.readouterr().err
    assert "an earlier stage made is not whole" in said
    assert said.count("\n") == 1


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command.one_line(lambda: 1 / 0)
    missing = FileNotFoundError(errno.ENOENT, "No such file", "x")
    assert command.fault_of_machine(missing) is command.fault_of_artifact(missing) is None
