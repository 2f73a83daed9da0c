"""`langsae doctor`: what it says of a sound machine and of each fault, and what it never says."""

import fcntl
import json
import shutil
import socket
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from langsae import doctor, figures, hub_access, machine_checks, profiles
from langsae.report_lines import Line
from standin_hub import TOKEN, StandinHub, run_with_hub

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
# Printed by a process that knows only the stand-in hub: the hub's lines for ./params.yaml.
HUB_LINES = """
import json
from langsae import hub_access, params
print(json.dumps(list(hub_access.lines(params.load_yaml({file!r})))))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout's conf/ and .dvc/config, with the remote's folder in place; the current folder."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / ".dvc" / "tmp").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    (tmp_path / "langsae-remote").mkdir()
    monkeypatch.chdir(root)
    return root


def one(lines, name: str) -> Line:
    found = [Line(*line) for line in lines if line[1] == name]
    assert len(found) == 1, lines
    return found[0]


@pytest.mark.parametrize("profile", ["smoke", "demo", "reference"])
def test_a_sound_machine_is_one_screen_and_no_network(project, monkeypatch, capsys, profile):
    calls = []
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda *call: calls.append(call))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *call, **_: calls.append(call))
    profiles.write(profile)
    assert doctor.run(None) == 0
    printed = capsys.readouterr().out.splitlines()
    assert calls == []
    assert len(printed) <= 24
    assert max(map(len, printed)) <= 120
    names = [line.split()[1] for line in printed[:-1]]
    assert names == ["profile", "python", "torch", *(["gpu"] * torch.cuda.is_available()), "disk",
                     "hub", "remote", "fonts", "lock"]  # fmt: skip
    assert "FAIL" not in "".join(printed)


def test_the_repositories_of_the_published_models():
    """By hand from the studies' pages; sae-lens' registry knows where its releases lie."""
    found = hub_access.repositories(doctor._params("paper", ROOT))
    gated = {"google/gemma-2-2b", "meta-llama/Llama-3.2-1B", "openlanguagedata/flores_plus"}
    models = {"gpt2", "EleutherAI/pythia-70m-deduped", "EleutherAI/sae-Llama-3.2-1B-131k",
              "google/gemma-scope-2b-pt-res"}  # fmt: skip
    models |= {f"llm-jp/llm-jp-3-{size}" for size in ("150m", "440m", "980m", "1.8b", "3.7b")}
    models |= {f"llm-jp/llm-jp-3-1.8b-sae-l12-k32-16x-c{step}"
               for step in (10, 100, 1000, 10000, 100000, 988240)}  # fmt: skip
    texts = {"facebook/flores", "facebook/xnli", "google-research-datasets/paws-x",
             "MartinThoma/wili_2018", "Helsinki-NLP/opus_books", "wikimedia/wikipedia",
             "diegomezp/gemmascope_bilingual_activations"}  # fmt: skip
    assert {item.repo for item in found} >= gated | models | texts
    kinds = {item.repo: item.kind for item in found}
    assert {kinds[name] for name in models} == {"model"}
    assert {kinds[name] for name in texts | {"openlanguagedata/flores_plus"}} == {"dataset"}
    assert len(found) == len(set(found)) == 27


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with StandinHub(tmp_path_factory.mktemp("hub")) as hub:
        commit = hub.add_repo("some/open", {"config.json": b"{}"})
        hub.add_repo("some/gated", {"data.csv": b"a"}, repo_type="dataset", gated=True)
        root = hub.folder / "project"
        root.mkdir()
        params = {
            "profile": "paper",
            "models": {"a": {"repo": "some/open", "revision": commit}},
            "corpora": {"b": {"parts": [{"repo": "some/gated", "revision": "main"}]}},
        }
        (root / "params.yaml").write_text(json.dumps(params))  # fmt: skip
        hub.lines = lambda **environ: json.loads(
            run_with_hub(hub, HUB_LINES.format(file=str(root / "params.yaml")), **environ)
        )
        yield hub


def test_a_licence_that_is_missing_is_named(hub):
    lines = hub.lines()
    assert one(lines, "hub")[:3] == ("note", "hub", "1 of 2 repositories open, without a token")
    licence = one(lines, "licence")
    assert licence.state == "FAIL"
    assert "some/gated is gated" in licence.text + licence.mend
    assert f"{hub.url}/datasets/some/gated" in licence.text + licence.mend
    assert one(hub.lines(HF_TOKEN=TOKEN), "hub")[:3] == (
        "ok", "hub", "2 of 2 repositories open, with a token"
    )  # fmt: skip
    stranger = json.dumps(hub.lines(HF_TOKEN="hf_someone-elses"))
    assert "is gated" in stranger
    assert "someone-elses" not in stranger


def test_a_hub_that_is_out_of_reach(hub):
    offline = one(hub.lines(HF_HUB_OFFLINE="1"), "hub")
    assert offline.state == "FAIL"
    assert "2 of 2 repositories not cached" in offline.text
    assert "some/gated, some/open" in offline.mend
    dead = one(hub.lines(HF_ENDPOINT="http://127.0.0.1:9"), "hub")
    assert dead.state == "FAIL"
    assert "http://127.0.0.1:9 does not answer" in dead.text
    assert "HF_ENDPOINT" in dead.mend
    hub.fault(".gitattributes", "unavailable", method="HEAD")
    down = one(hub.lines(), "hub")
    assert down.state == "FAIL"
    assert "does not answer (status 503)" in down.text
    run_with_hub(
        hub,
        "from huggingface_hub import snapshot_download as get; get('some/open');"
        "get('some/gated', repo_type='dataset')",
        HF_TOKEN=TOKEN,
    )
    assert one(hub.lines(HF_HUB_OFFLINE="1"), "hub").state == "ok"


def test_python_and_its_packages(project, monkeypatch):
    assert one(machine_checks.python(), "python").state == "ok"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 10, 1))
        assert one(machine_checks.python(), "python").state == "FAIL"
    asked = ["torch==1.0", "no-such-package", "numpy", "black; extra == 'dev'"]
    monkeypatch.setattr(machine_checks.metadata, "requires", lambda _: asked)
    line = one(machine_checks.python(), "python")
    assert line.state == "FAIL"
    assert line.text.endswith("torch==1.0, no-such-package")
    assert "make setup" in line.mend


@pytest.mark.parametrize(
    ("total", "free", "device", "state"),
    [(80, 70, "auto", "ok"), (80, 10, "auto", "note"), (40, 39, "auto", "FAIL"),
     (40, 39, "cpu", "ok")],
)  # fmt: skip
def test_gpu_memory_against_the_need(monkeypatch, total, free, device, state):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * GIB, total * GIB))
    params = {"profile": "paper", "compute": {"device": device}}
    line = one(machine_checks.torch_and_gpu(params), "gpu")
    assert line.state == state
    assert f"{free} of {total} GiB free" in line.text
    assert bool(line.mend) == (state == "FAIL")


@pytest.mark.parametrize(
    ("profile", "device", "state"),
    [("paper", "auto", "FAIL"), ("paper", "cpu", "ok"), ("demo", "auto", "ok"),
     ("demo", "cuda", "FAIL")],
)  # fmt: skip
def test_no_gpu(monkeypatch, profile, device, state):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = {"profile": profile, "compute": {"device": device}}
    line = one(machine_checks.torch_and_gpu(params), "torch")
    assert line.state == state
    assert bool(line.mend) == (state == "FAIL")


def test_a_full_disk(project, monkeypatch):
    usage = namedtuple("usage", "total used free")
    params = {"profile": "demo"}
    for free, state in ((1.9, "FAIL"), (2.1, "ok")):
        monkeypatch.setattr(
            machine_checks.shutil, "disk_usage", lambda _, f=free: usage(0, 0, int(f * GIB))
        )
        assert one(machine_checks.disk(params, project), "disk").state == state
    monkeypatch.setattr(machine_checks, "_size", lambda folder: GIB)  # three folders of 1 GiB each
    assert "0.0 more needed" in one(machine_checks.disk(params, project), "disk").text


def test_scripts_without_a_font(monkeypatch):
    params = {"profile": "demo", "corpora": {"a": {"languages": ["en", "ar", "ja", "th", "ru"]}}}
    assert one(machine_checks.fonts(params), "fonts").text.startswith("all 5 scripts")
    monkeypatch.setattr(figures, "fonts", lambda: ("DejaVu Sans",))
    line = one(machine_checks.fonts(params), "fonts")
    assert line.state == "FAIL"
    assert line.text.endswith("Jpan, Thai")
    assert "fonts-noto" in line.mend


def test_the_remote(project):
    config = project / ".dvc" / "config"
    assert one(doctor._remote(project), "remote").state == "ok"
    (project.parent / "langsae-remote").rmdir()
    assert one(doctor._remote(project), "remote").state == "note"
    config.write_text(config.read_text().replace("verify = true", "verify = false"))
    line = one(doctor._remote(project), "remote")
    assert line.state == "FAIL"
    assert line.mend == "`dvc remote modify folder verify true`"
    config.write_text("[core]\n    remote = gone\n")
    assert one(doctor._remote(project), "remote").state == "FAIL"
    config.write_text("")
    assert one(doctor._remote(project), "remote").state == "note"


def test_an_object_store(project, monkeypatch, capsys):
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (("ACCESS_KEY_ID", "reader"), ("SECRET_ACCESS_KEY", "not-to-be-shown")):
            monkeypatch.setenv(f"AWS_{name}", value)
        store = pytest.importorskip("boto3").client("s3", endpoint_url=url, region_name="us-east-1")
        store.create_bucket(Bucket="mine")
        states = {}
        for bucket, place in (("mine", url), ("absent", url), ("mine", "http://127.0.0.1:9")):
            (project / ".dvc" / "config").write_text(
                f"[core]\n    remote = s\n    no_scm = true\n['remote \"s\"']\n"
                f"    url = s3://{bucket}/langsae\n    endpointurl = {place}\n    verify = true\n"
            )
            states[bucket, place == url] = one(doctor._remote(project), "remote")
    finally:
        server.stop()
    assert {key: line.state for key, line in states.items()} == {
        ("mine", True): "ok", ("absent", True): "FAIL", ("mine", False): "FAIL"
    }  # fmt: skip
    assert "no such bucket" in states["absent", True].text
    assert "network" in states["mine", False].mend
    assert "not-to-be-shown" not in str(states) + capsys.readouterr().out


def test_the_lock(project):
    assert one(doctor._lock(project), "lock")[:3] == ("ok", "lock", "free")
    (project / ".dvc" / "tmp" / "rwlock").write_text("")
    assert one(doctor._lock(project), "lock").state == "note"
    with open(project / ".dvc" / "tmp" / "langsae-repro.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        who = {"host": "elsewhere", "process": 7, "started": "2026-01-01 00:00:00+00:00"}
        file.write(json.dumps(who))
        file.flush()
        line = one(doctor._lock(project), "lock")
    assert line.state == "ok"  # a run that goes on is no fault
    assert "elsewhere, process 7, since 2026-01-01" in line.text


def test_a_folder_that_is_no_project_and_a_check_that_breaks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert doctor.run(None) == 1
    assert "run `langsae profile demo`" in capsys.readouterr().out
    (tmp_path / "params.yaml").write_text("profile: own")
    assert doctor.run(None) == 1
    capsys.readouterr()

    def breaks(_):
        raise RuntimeError("cannot open https://me:hunter22@host/ with hf_secret-value")

    monkeypatch.setenv("SOME_API_KEY", "hf_secret-value")
    monkeypatch.setattr(doctor, "_remote", breaks)
    assert doctor.run("demo") == 1  # no conf/ here either
    printed = capsys.readouterr().out
    assert "RuntimeError: cannot open https://***@host/ with ***" in printed
    assert "hunter22" not in printed


def test_keys_are_counted_and_never_shown(monkeypatch):
    explainer = {"source": "endpoint", "api_key_env": "THE_KEY", "without_key": "fail"}
    params = {"sae_lape": {"interpret": {"explainer": explainer}}}
    monkeypatch.delenv("THE_KEY", raising=False)
    assert one(doctor._keys(params), "key").state == "FAIL"
    explainer["without_key"] = "skip"
    assert one(doctor._keys(params), "key").state == "note"
    monkeypatch.setenv("THE_KEY", "sk-abcdef")
    assert one(doctor._keys(params), "key")[:3] == ("ok", "key", "THE_KEY is set")
    assert list(doctor._keys({})) == []
