"""How a command ends: its result, or one line of error."""

import os
import sys
from collections.abc import Callable

from langsae.errors import InputError


def run(function: Callable[[], object]) -> None:
    """Call `function`; an InputError becomes one line on stderr and exit status 2.

    Set LANGSAE_DEBUG=1 to see the traceback.
    """
    try:
        function()
    except InputError as error:
        if os.environ.get("LANGSAE_DEBUG"):
            raise
        print(f"langsae: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("langsae: interrupted; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
