"""How commands end: status and the one line."""

import errno

import pytest
import torch

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


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command.one_line(lambda: 1 / 0)
    assert command.fault_of_machine(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
