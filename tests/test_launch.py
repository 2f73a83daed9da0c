"""Running the parts of a stage: who is tried, what is said, and shards against one pass."""

import io
import pickle
from functools import partial
from typing import ClassVar

import pytest
import torch

import ray_tasks
from langsae import launch, launch_ray, sharded, stream
from langsae.cells import Cells
from langsae.errors import InputError
from langsae.launch import each, settings
from langsae.launching import LOCAL, Launch, Ray
from langsae.models.source import prepare
from langsae.models.spec import TinyModel

RAY = Launch(launch="ray", ray=Ray(shards=4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pass")
    prepare(TinyModel(source="tiny", d_model=ray_tasks.D), folder / "model")
    return folder


@pytest.fixture
def here(monkeypatch):
    """Ray's part without Ray: tasks are pickled as for a worker, then run in this process."""
    order = []

    def run(work, tasks, how, bar):
        torch.set_num_threads(1)
        content = {name: pickle.dumps((work, task)) for name, task in tasks.items()}
        loaded = {name: pickle.loads(part) for name, part in reversed(content.items())}
        order.extend(loaded)
        faults = {name: launch.attempt(*pair) for name, pair in loaded.items()}
        return {name: fault[0] for name, fault in faults.items() if fault}

    monkeypatch.setattr(launch_ray, "on_ray", run)
    return order


# --- each


def test_all_are_tried_and_those_that_failed_are_named(tmp_path, capsys):
    faults = {"b": InputError("no such layer;\ntake another"), "c": ZeroDivisionError("by 0")}
    tasks = {
        name: ray_tasks.Task(tmp_path, name, fault=faults.get(name))
        for name in ("a", "b", "c", "d")
    }
    with pytest.raises(InputError) as raised:
        each(ray_tasks.work, tasks, LOCAL, "cells")
    assert str(raised.value).startswith("cells: 2 of 4 failed")
    assert str(raised.value).endswith("b: no such layer; take another; c: ZeroDivisionError: by 0")
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.json", "d.json"]
    errors = capsys.readouterr().err
    assert "in work" in errors, "a fault of the program keeps its traceback"
    assert "InputError" not in errors


def test_an_interrupt_is_no_failed_task(tmp_path):
    tasks = {"a": ray_tasks.Task(tmp_path, "a", fault=KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt):
        each(ray_tasks.work, tasks, LOCAL, "cells")


def test_settings_are_local_where_params_say_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text("seed: 0\n")
    assert settings() == LOCAL
    params.write_text("launch: ray\nray: {address: 'head:6379', gpus: 0.5}\n")
    assert settings() == Launch(launch="ray", ray=Ray(address="head:6379", gpus=0.5))


@pytest.mark.parametrize(
    "bad", ["launch: slurm", "ray: {gpu: 1}", "ray: {address: 'ray://head:10001'}",
            "ray: {shards: 0}", "ray: {retries: -1}"],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(bad + "\n")
    with pytest.raises(InputError, match=r"params\.yaml"):
        settings()


# --- what a worker is given


def test_secrets_stay_here(monkeypatch):
    for name in ("HF_HOME", "HF_TOKEN", "LANGSAE_REFERENCE", "LANGSAE_API_KEY", "AWS_PROFILE"):
        monkeypatch.setenv(name, "x")
    passed = launch_ray._Place.here().environ
    assert {"HF_HOME", "LANGSAE_REFERENCE"} <= set(passed)
    assert not {"HF_TOKEN", "LANGSAE_API_KEY", "AWS_PROFILE"} & set(passed)


def test_what_the_driver_defined_in_main_is_found_in_its_module():
    """A stage is run by `python -m`, so its own classes are pickled as __main__'s."""
    content = pickle.dumps(ray_tasks.texts, protocol=0).replace(b"ray_tasks", b"__main__")
    assert launch_ray._Unpickler(content, "ray_tasks").load() is ray_tasks.texts
    with pytest.raises(AttributeError):
        pickle.Unpickler(io.BytesIO(content)).load()


def test_a_node_without_the_folder_says_so(tmp_path):
    place = launch_ray._Place(str(tmp_path / "gone"), (), {}, None)
    reason, _ = launch_ray._remote(place, pickle.dumps((print, "x")))
    assert "does not see" in reason
    assert str(tmp_path / "gone") in reason


# --- shards


def saved(reducers, folder):
    folder.mkdir()
    stream.save_all(reducers, folder, {})
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def collected(folder, tmp_path, how, again=None):
    opened = ray_tasks.open_pass(folder)
    again = again or partial(ray_tasks.open_pass, folder)
    return sharded.collect(opened, again, ray_tasks.compute(), tmp_path / "scratch", how)


def test_shards_give_the_bytes_of_one_pass(folder, tmp_path, here):
    torch.set_num_threads(1)
    whole = saved(collected(folder, tmp_path, LOCAL), tmp_path / "whole")
    assert here == []
    assert len(whole) == 3
    for count in (1, 3, 50):  # more shards than batches, too
        how = Launch(launch="ray", ray=Ray(shards=count))
        assert saved(collected(folder, tmp_path, how), tmp_path / f"{count}") == whole
    assert len(here) == 54
    assert not list((tmp_path / "scratch").iterdir()), "the scratch folder goes when it is done"


def test_finished_shards_are_collected_once(folder, tmp_path, here):
    """One shard fails; the next run collects it alone, and the whole is what it should be."""
    expected = saved(collected(folder, tmp_path, LOCAL), tmp_path / "whole")
    with pytest.raises(InputError, match=r"collecting: 1 of 4 failed.*shard 3 of 4: .*lost"):
        collected(folder, tmp_path, RAY, partial(_fails_at_third, folder, tmp_path / "mark"))
    assert here == [f"shard {n} of 4" for n in (4, 3, 2, 1)]
    here.clear()
    assert saved(collected(folder, tmp_path, RAY), tmp_path / "again") == expected
    assert here == ["shard 3 of 4"]


def _fails_at_third(folder, mark):
    """The second pass opened (shards are run from the last) cannot be."""
    mark.mkdir(exist_ok=True)
    (mark / f"{len(list(mark.iterdir()))}").touch()
    if len(list(mark.iterdir())) == 2:
        raise RuntimeError("the model was lost")
    return ray_tasks.open_pass(folder)


class Filled:
    """Squares of 0 to 9, kept in cells; counts what this process computed."""

    computed: ClassVar[list[int]] = []

    def __init__(self, folder):
        self.cells = Cells(folder)

    def fill(self, shard=(0, 1)):
        numbers = range(10)[shard[0] :: shard[1]]
        return [self.cells.json(f"{n}", partial(self._square, n)) for n in numbers]

    def _square(self, n):
        self.computed.append(n)
        return n * n


def test_cells_are_filled_once_whoever_fills_them(tmp_path, here):
    again = partial(Filled, tmp_path / "cells")
    sharded.fill(again, ray_tasks.compute(), LOCAL, "squares")
    assert Filled.computed == [], "locally the caller computes all"
    sharded.fill(again, ray_tasks.compute(), RAY, "squares")
    assert sorted(Filled.computed) == list(range(10))
    assert again().fill() == [n * n for n in range(10)]
    assert len(Filled.computed) == 10
