"""Named tasks on Ray Core: one remote task each, retried when its worker or node is lost.

Ray only says where a task runs. What tasks read and write are files that all nodes share, so
nothing large passes through Ray, and a task that is run again finds what it had published.
"""

import io
import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from langsae.errors import InputError
from langsae.launching import Launch, Ray, attempt

T = TypeVar("T")
# Of the environment, what tasks need; never a secret, since Ray keeps what it is given.
PASSED = ("HF_", "LANGSAE_", "OMP_", "SPARSIFY_", "TOKENIZERS_")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")
_OBJECTS = 128 << 20  # bytes of Ray's object store on this machine: tasks pass a few lines
_KNOCK = 10.0  # seconds that the head of a cluster may take to answer
_PATIENCE = 30.0  # seconds without a finished task before we look whether any node could run one


@dataclass(frozen=True)
class _Place:
    """What makes a worker see what the driver sees."""

    folder: str
    paths: tuple[str, ...]
    environ: dict[str, str]
    main: str | None  # the name of the module that runs as __main__

    @classmethod
    def here(cls) -> "_Place":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        environ = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(PASSED) and not any(part in name for part in SECRET)
        }
        paths = tuple(str(Path(path).absolute()) for path in sys.path)
        return cls(str(Path.cwd()), paths, environ, spec.name if spec else None)

    def enter(self) -> None:
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise InputError(f"node {socket.gethostname()} does not see {self.folder}; all nodes "
                             "need the project's folder under this path") from error  # fmt: skip
        os.environ.update(self.environ)
        sys.path += [path for path in self.paths if path not in sys.path]


class _Unpickler(pickle.Unpickler):
    """Finds under its own name what was defined in the module that the driver runs."""

    def __init__(self, content: bytes, main: str | None) -> None:
        super().__init__(io.BytesIO(content))
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(self._main or module if module == "__main__" else module, name)


def _remote(place: _Place, content: bytes) -> tuple[str, str] | None:
    """In a worker: enter `place`, then attempt the pickled (work, task)."""

    def work(content: bytes) -> None:
        place.enter()
        function, task = _Unpickler(content, place.main).load()
        function(task)

    return attempt(work, content)


def on_ray(
    work: Callable[[T], None], tasks: Mapping[str, T], launch: Launch, bar: tqdm
) -> dict[str, str]:
    """Why tasks failed, by name; see `langsae.launch.each`."""
    faults, place, told = {}, _Place.here(), None
    with _connected(launch.ray) as ray:
        remote = ray.remote(_remote).options(
            num_cpus=launch.ray.cpus,
            num_gpus=launch.ray.gpus,
            max_retries=launch.ray.retries,
            scheduling_strategy="SPREAD",
        )
        pending = {
            remote.remote(place, pickle.dumps((work, task))): name for name, task in tasks.items()
        }
        while pending:
            done, _ = ray.wait(list(pending), timeout=_PATIENCE)
            if not done and (lack := _lack(ray, launch.ray)) != told:
                told = lack
                tqdm.write(f"langsae: {'waiting: ' + lack if lack else 'going on'}", sys.stderr)
            for reference in done:
                name = pending.pop(reference)
                if (fault := _outcome(ray, reference)) is not None:
                    faults[name], trace = fault
                    sys.stderr.write(trace)
                bar.update()
    return faults


def _outcome(ray: Any, reference: Any) -> tuple[str, str] | None:
    """What `attempt` said in the worker, or what Ray says of a task that was lost for good."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split("\n")[0]
        return f"lost ({type(error).__name__}: {reason})", f"{error}\n"


@contextmanager
def _connected(request: Ray) -> Iterator[Any]:
    """The ray package, joined to the cluster that `request` names."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # asked before the package is imported
    try:
        import ray
    except ImportError as error:
        raise InputError("launch: ray, but the package ray is not installed; install it, or set "
                         "launch: local") from error  # fmt: skip
    if ray.is_initialized():
        yield ray
        return
    _knock(request.address)
    # otherwise the workers' progress bars are written over ours; Ray's own logs have them
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if request.address is None:
        options |= {"include_dashboard": False, "object_store_memory": _OBJECTS}
    try:
        ray.init(address=request.address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unreachable(request.address, error) from error
    try:
        lack = _lack(ray, request)
        if lack and request.address is None:
            raise InputError(f"{lack}; ask for less in `ray`, or join a cluster")
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Refuse an address where nothing listens at once; Ray itself tries for minutes."""
    if address in (None, "auto"):
        return
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"ray.address {address}: {reason}; start Ray there, or set launch: local")


def _lack(ray: Any, request: Ray) -> str | None:
    """Why no node could run a task even if it were idle."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": request.cpus, "GPU": request.gpus}
    if any(all(node.get(name, 0) >= value for name, value in wanted.items()) for node in nodes):
        return None
    return f"no node of Ray has {request.cpus:g} CPUs and {request.gpus:g} GPUs, as a task asks for"
