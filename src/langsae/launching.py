"""What the two ways to run the parts of a stage share: settings, and how one part is tried."""

import os
import traceback
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from langsae.errors import InputError
from langsae.params import Spec

T = TypeVar("T")


class Ray(Spec):
    """Section `ray` of params.yaml.

    address: null starts Ray on this machine; "auto" or "host:port" joins a cluster of which this
    machine is a node. cpus, gpus: what one task asks for (a share of a GPU, too). retries: of a
    task whose worker or node was lost. shards: parts into which a collection or a matrix of cells
    is divided; it does not depend on the cluster's size, so finished ones fit when that changes.
    """

    address: Annotated[str, Field(pattern=r"^(auto|[\w.\-]+:\d+)$")] | None = None
    cpus: NonNegativeFloat = 2
    gpus: NonNegativeFloat = 0
    retries: NonNegativeInt = 3
    shards: PositiveInt = 8


class Launch(Spec):
    """How parts are run: keys `launch` and `ray` of params.yaml."""

    launch: Literal["local", "ray"] = "local"
    ray: Ray = Ray()


LOCAL = Launch()


def attempt(work: Callable[[T], None], task: T) -> tuple[str, str] | None:
    """None if `work(task)` succeeds, else why it failed in one line, and a traceback.

    The traceback is "" for an InputError, which says enough, unless LANGSAE_DEBUG is set.
    """
    try:
        work(task)
    except Exception as error:
        text = " ".join(str(error).split())
        if not isinstance(error, InputError):
            return f"{type(error).__name__}: {text}", traceback.format_exc()
        return text, traceback.format_exc() if os.environ.get("LANGSAE_DEBUG") else ""
    return None
