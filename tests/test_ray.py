"""Tasks on a Ray cluster of two nodes on this machine, which loses workers and a node."""

import threading
import time
from functools import partial
from pathlib import Path

import pytest

import ray_tasks
from langsae import launch_ray, sharded, stream
from langsae.errors import InputError
from langsae.files import read_json
from langsae.launch import each
from langsae.launching import LOCAL, Launch, Ray
from langsae.models.source import prepare
from langsae.models.spec import TinyModel

pytestmark = pytest.mark.timeout(600)  # on a busy machine a worker takes a minute to start
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args=NODE)
        found.add_node(**NODE)
        yield found
        found.shutdown()


@pytest.fixture
def on_cluster(cluster):
    return Launch(launch="ray", ray=Ray(address=cluster.address, cpus=1, retries=1, shards=3))


def runs(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name}.run*")))


def nodes(folder: Path) -> set[str]:
    return {read_json(path)["node"] for path in folder.glob("*.json")}


def test_lost_workers_are_replaced_and_what_fails_for_good_is_named(
    on_cluster, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANGSAE_TEST", "seen")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    tasks = {name: ray_tasks.Task(tmp_path, name, seconds=1) for name in "abcd"}
    tasks |= {
        "once": ray_tasks.Task(tmp_path, "once", dies=1),
        "always": ray_tasks.Task(tmp_path, "always", dies=9),
        "refused": ray_tasks.Task(tmp_path, "refused", fault=InputError("no such layer")),
    }
    with pytest.raises(InputError) as raised:
        each(ray_tasks.work, tasks, on_cluster, "cells")
    message = str(raised.value)
    assert message.startswith("cells: 2 of 7 failed")
    assert "always: lost (WorkerCrashedError" in message
    assert message.endswith("refused: no such layer")
    assert "\n" not in message
    done = {name: runs(tmp_path, name) for name in tasks}
    # one retry of what was lost, none of what failed
    assert done == dict.fromkeys("abcd", 1) | {"once": 2, "always": 2, "refused": 1}
    kept = {path.stem: read_json(path) for path in tmp_path.glob("*.json")}
    assert sorted(kept) == ["a", "b", "c", "d", "once"]
    assert len(nodes(tmp_path)) == 2, "both nodes had a part"
    for facts in kept.values():
        assert facts["cwd"] == str(tmp_path)
        assert facts["environ"] == {"LANGSAE_TEST": "seen", "HF_TOKEN": None, "HOME_OF_TEST": None}


def test_shards_survive_a_lost_worker_and_give_the_bytes_of_one_pass(on_cluster, tmp_path):
    prepare(TinyModel(source="tiny", d_model=ray_tasks.D), tmp_path / "model")
    ray_tasks.compute().apply()
    opened, files = ray_tasks.open_pass(tmp_path), {}
    for name, how in (("local", LOCAL), ("ray", on_cluster)):
        again = partial(ray_tasks.open_pass, tmp_path, dying=True)
        scratch = tmp_path / "scratch"
        reducers = sharded.collect(opened, again, ray_tasks.compute(), scratch, how)
        (tmp_path / name).mkdir()
        stream.save_all(reducers, tmp_path / name, {})
        files[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert not list(scratch.glob("*"))
    assert runs(tmp_path, "dying") == 4, "each shard came to its third batch, one of them twice"
    assert len(files["local"]) == 3
    assert files["ray"] == files["local"]


@pytest.mark.slow
def test_a_node_removed_on_the_way_costs_only_what_it_was_doing(cluster, on_cluster, tmp_path):
    lost = cluster.add_node(**NODE)
    tasks = {f"{n}": ray_tasks.Task(tmp_path, f"{n}", seconds=2) for n in range(9)}
    running = []

    def remove() -> None:
        """Once the third node has finished a task and is at another."""
        while time.monotonic() < deadline:
            begun = {path.name.split(".")[0] for path in tmp_path.glob("*.run*")
                     if path.read_text() == lost.node_id}  # fmt: skip
            running[:] = [name for name in begun if not (tmp_path / f"{name}.json").is_file()]
            if len(begun) > len(running) > 0:
                cluster.remove_node(lost, allow_graceful=False)
                return
            time.sleep(0.05)

    deadline = time.monotonic() + 300
    thread = threading.Thread(target=remove)
    thread.start()
    each(ray_tasks.work, tasks, on_cluster, "cells")
    thread.join()
    assert len(running) == 1, "the node was removed with a task running"
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == sorted(tasks)
    again = {name for name in tasks if runs(tmp_path, name) == 2}
    assert again <= set(running)
    assert lost.node_id in nodes(tmp_path), "what it had finished is kept"
    assert all(runs(tmp_path, name) == 1 for name in set(tasks) - again)


def test_a_task_that_no_node_could_run_is_told(cluster):
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        assert launch_ray._lack(ray, Ray(cpus=1)) is None
        assert "2 CPUs and 0 GPUs" in launch_ray._lack(ray, Ray(cpus=2))
        assert "1 CPUs and 0.5 GPUs" in launch_ray._lack(ray, Ray(cpus=1, gpus=0.5))
    finally:
        ray.shutdown()


@pytest.mark.timeout(60)  # left to itself Ray tries for minutes
def test_a_cluster_that_is_not_there_is_named(tmp_path):
    how = Launch(launch="ray", ray=Ray(address="127.0.0.1:9"))
    with pytest.raises(InputError, match=r"ray\.address 127\.0\.0\.1:9.*or set launch: local"):
        each(ray_tasks.work, {"a": ray_tasks.Task(tmp_path, "a")}, how, "cells")
