"""Histories of checkpoints that others trained: where each is found, and when they are refused."""

import json
import sys

import pytest
from pydantic import ValidationError

import tiny_models
from langsae.compute import Compute
from langsae.errors import InputError
from langsae.files import read_json
from langsae.histories import CheckpointGroup, HistorySpec, StoredHistory, prepare_history
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import ModelSpec
from langsae.params import parse
from standin_hub import run_with_hub

FOLDER = {"source": "folder", "path": "$CHECKPOINTS/iter_{step:07d}"}


def _write(folder, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _history(*groups) -> StoredHistory:
    value = {"source": "checkpoints", "corpus": "texts", "groups": groups}
    return parse(HistorySpec, value, "histories.x")


def _prepare(spec, tmp_path):
    out = tmp_path / "history"
    prepare_history(spec, Compute(device="cpu"), tmp_path, tmp_path / "scratch", out)
    return out


def test_step_is_filled_into_repo_path_and_revision():
    group = CheckpointGroup(steps=(10, 1000), model={**FOLDER, "dtype": "bfloat16"})
    assert group.of(10).path == "$CHECKPOINTS/iter_0000010"
    assert group.of(988_240).path == "$CHECKPOINTS/iter_0988240"
    assert group.of(10).dtype == "bfloat16"
    hub = {"source": "hub", "repo": "a/b-{step}", "revision": "step{step}"}
    filled = CheckpointGroup(steps=(10, 20), model=hub).of(20)
    assert (filled.repo, filled.revision) == ("a/b-20", "step20")


def test_what_cannot_be_a_history_is_refused():
    with pytest.raises(ValidationError, match="several steps need"):
        CheckpointGroup(steps=(1, 2), model={"source": "hub", "repo": "a/b", "revision": "main"})
    last = {"steps": (10,), "model": {"source": "hub", "repo": "a/b", "revision": "main"}}
    with pytest.raises(InputError, match="a step is listed twice"):
        _history({"steps": (1, 10), "model": FOLDER}, last)
    with pytest.raises(InputError, match="checkpoint 30 is beyond the last step"):
        wrong = {
            "source": "pretrain",
            "corpus": "x",
            "training": {"steps": 20},
            "checkpoints": [30],
        }
        parse(HistorySpec, wrong, "histories.x")
    with pytest.raises(InputError, match="source"):
        parse(ModelSpec, {"source": "pretrained", "step": 3}, "models.x")


STAGE = """
import os, sys, yaml
from pathlib import Path
from langsae.models.language_model import load
from langsae.stages.history import main
os.chdir(sys.argv[2])
groups = [
    {"steps": [988240], "model": {"source": "hub", "repo": "a/b", "revision": "main"}},
    {"steps": [100, 10], "model": {"source": "folder", "path": "$CHECKPOINTS/iter_{step:07d}"}},
]
history = {"source": "checkpoints", "corpus": "texts", "groups": groups}
Path("params.yaml").write_text(yaml.safe_dump({"compute": {}, "histories": {"x": history}}))
sys.argv = ["history", "x"]
main()
out = Path("artifacts/histories/x")
print([load(out / f"step_{step:07d}", "cpu").n_layers for step in (10, 100, 988240)])
"""


def test_local_checkpoints_and_the_hub_make_one_history(hub, tmp_path):
    for step in (10, 100):
        _write(tmp_path / f"checkpoints/iter_{step:07d}", tiny_models.llama(3))
    commit = hub.add_repo("a/b", tiny_models.llama(3))
    command = [sys.executable, "-c", STAGE, "-", str(tmp_path)]
    printed = run_with_hub(hub, command, CHECKPOINTS=str(tmp_path / "checkpoints"))
    assert printed.strip() == "[3, 3, 3]"
    out = tmp_path / "artifacts/histories/x"
    assert read_json(out / "history.json")["steps"] == [10, 100, 988_240]
    assert read_json(out / "step_0988240/model.json")["spec"]["revision"] == commit
    assert not (out / "step_0988240/model.safetensors").exists()  # it stays in the hub's cache
    assert read_json(out / "step_0000010/model.json")["spec"]["path"] == "$CHECKPOINTS/iter_0000010"


def test_checkpoints_of_two_models_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path / "checkpoints"))
    _write(tmp_path / "checkpoints/iter_0000010", tiny_models.llama(3))
    _write(tmp_path / "checkpoints/iter_0000100", tiny_models.llama())
    with pytest.raises(InputError, match="checkpoint 10: num_hidden_layers is 3, but 2 at"):
        _prepare(_history({"steps": (10, 100), "model": FOLDER}), tmp_path)
    assert not (tmp_path / "history").exists()


def test_a_missing_checkpoint_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    with pytest.raises(InputError, match=r"iter_0000010: no config\.json there"):
        _prepare(_history({"steps": (10,), "model": FOLDER}), tmp_path)


def test_no_history_is_published_as_none(tmp_path):
    spec = parse(HistorySpec, {"source": "none", "corpus": "texts"}, "histories.x")
    record = read_json(_prepare(spec, tmp_path) / "history.json")
    assert record == {"steps": [], "spec": {"source": "none", "corpus": "texts"}}


def test_a_changed_checkpoint_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    _write(tmp_path / "iter_0000010", tiny_models.llama())
    out = _prepare(_history({"steps": (10,), "model": FOLDER}), tmp_path)
    config = tmp_path / "iter_0000010/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1e-6}))
    with pytest.raises(InputError, match="missing or changed"):
        load(out / "step_0000010", "cpu")


def test_prepare_model_is_as_before(tmp_path):
    prepare(parse(ModelSpec, {"source": "tiny", "layers": 1}, "models.x"), tmp_path / "tiny")
    assert load(tmp_path / "tiny", "cpu").n_layers == 1
