"""How a command ends: its result, or one line of error."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from langsae.errors import InputError
from langsae.files import digest
from langsae.locks import held_if_possible

_GOES_ON = "then run the same command again: it goes on where it was"
# by name: not every command loads safetensors and pandas
_NOT_WHOLE = {"SafetensorError", "EmptyDataError", "ParserError"}


def run(function: Callable[[], object]) -> None:
    """Call `function`, a stage's `main`, as `one_line` does, unless the same stage with the same
    arguments runs in this folder already: two would share their scratch folders.

    A file system without locks cannot tell, and does not matter.
    """

    def alone() -> None:
        main = getattr(sys.modules["__main__"], "__spec__", None)
        command = [main.name if main else sys.argv[0], *sys.argv[1:]]
        lock = Path("scratch", f".{digest(command)[:16]}.lock")
        with held_if_possible(lock, f"`{' '.join(command)}`"):
            function()

    one_line(alone)


def one_line(function: Callable[[], object]) -> None:
    """Call `function`; bad input, a full or read-only disk, too little memory and what an earlier
    stage left that is not whole are one line on stderr and exit status 2.

    Set LANGSAE_DEBUG=1 to see the traceback.
    """
    try:
        function()
    except KeyboardInterrupt:
        print("langsae: interrupted; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        message = str(error) if isinstance(error, InputError) else None
        message = message or fault_of_machine(error) or fault_of_artifact(error)
        if message is None or os.environ.get("LANGSAE_DEBUG"):
            raise
        print(f"langsae: error: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def fault_of_machine(error: BaseException) -> str | None:
    """What the machine lacks, and how to mend it; None for an error of another kind.

    Libraries wrap the system's errors (safetensors, Arrow) or have their own (torch's
    allocators), so the text is looked at, too.
    """
    text = " ".join(str(error).split())
    where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
        return f"no space left on the disk{where}; free some, {_GOES_ON}"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) or "Read-only file system" in text:
        return f"not allowed to write{where}: {text}; make the folder writable, {_GOES_ON}"
    if isinstance(error, MemoryError) or any(
        sign in text for sign in ("can't allocate memory", "out of memory", "Cannot allocate")
    ):
        return f"out of memory; lower compute.batch_tokens (or a bank's chunk_tokens), {_GOES_ON}"
    return None


def fault_of_artifact(error: BaseException) -> str | None:
    """That a file which a stage made is gone or damaged; None for an error of another kind."""
    text = " ".join(str(error).split())
    gone = isinstance(error, FileNotFoundError) and "artifacts/" in text
    if gone or type(error).__name__ in _NOT_WHOLE:
        return f"a file that an earlier stage made is not whole ({text}); `langsae repro` mends it"
    return None
