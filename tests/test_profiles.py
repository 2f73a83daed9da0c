"""Profiles compose and validate; what is wrong in them is one line that names file and key."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from langsae import cli, profiles
from langsae.compute import Compute
from langsae.corpora.spec import CorpusSpec
from langsae.errors import InputError
from langsae.models.spec import ModelSpec
from langsae.params import load_yaml, parse, section
from langsae.saes.spec import BankSpec
from replications.flores_exploration.collect import Run
from replications.flores_exploration.measure import Measure

ROOT = Path(__file__).resolve().parents[1]
STUDY = "flores_exploration"
# section → what each of its entries must be
ENTRIES = {"corpora": CorpusSpec, "models": ModelSpec, "saes": BankSpec, f"{STUDY}.runs": Run}


def composed(name: str) -> dict:
    """The profile, read by another YAML reader than the one that wrote it."""
    return yaml.safe_load(profiles.compose(name, ROOT / "conf"))


def at(params: dict, path: str):
    for key in path.split("."):
        params = params[key]
    return params


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the configuration and nothing else, as the current folder."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def langsae(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Exit status and stderr of `langsae ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["langsae", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return exit.value.code or 0, capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_section_of_every_profile_is_valid(name):
    params = composed(name)
    assert params["profile"] == name
    for path, kind in ENTRIES.items():
        assert at(params, path)
        for key, entry in at(params, path).items():
            parse(kind, entry, f"{name}: {path}.{key}")
    parse(Compute, params["compute"], name)
    parse(Measure, params[STUDY]["measure"], name)
    assert isinstance(params["seed"], int)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_names_in_a_profile_refer_to_something(name):
    params = composed(name)
    for bank in params["saes"].values():
        assert bank["model"] in params["models"]
        assert bank["corpus"] in params["corpora"]
    for run in params[STUDY]["runs"].values():
        assert run["model"] == params["saes"][run["saes"]]["model"]
        assert run["corpus"] in params["corpora"]


def test_paper_and_reference_count_the_same_texts_in_the_same_way():
    paper, reference = composed("paper"), composed("reference")
    languages = {tuple(p["corpora"]["flores"]["languages"]) for p in (paper, reference)}
    assert len(languages) == 1
    assert len(languages.pop()) == 12
    for model in ("gpt2", "pythia"):
        runs = [p[STUDY]["runs"][model] for p in (paper, reference)]
        assert runs[0] | {"saes": None} == runs[1] | {"saes": None}
    assert paper[STUDY]["runs"]["gpt2"]["policy"] == {"bos": "prepend", "count_bos": False}
    assert paper[STUDY]["runs"]["pythia"]["policy"] == {"bos": "prepend", "count_bos": True}
    banks = [paper["saes"][paper[STUDY]["runs"][model]["saes"]] for model in ("gpt2", "pythia")]
    assert [len(bank["hooks"]) for bank in banks] == [12, 6]


def test_a_profile_lies_over_what_all_share():
    common = yaml.safe_load((ROOT / "conf" / "common.yaml").read_text(encoding="utf-8"))
    smoke = composed("smoke")
    assert smoke["compute"]["device"] == "cpu" != common["compute"]["device"]
    assert smoke["compute"]["batch_tokens"] == common["compute"]["batch_tokens"]
    assert smoke[STUDY]["measure"] == common[STUDY]["measure"]
    (bank,) = (bank for bank in smoke["saes"].values() if bank["source"] == "train")
    assert bank["training"]["seed"] == common["seed"]


def test_the_committed_params_are_the_demo_profile():
    written = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert written == profiles.compose("demo", ROOT / "conf"), "run `langsae profile demo`"


def test_writing_a_profile_writes_only_params(project):
    before = contents(project)
    profiles.write("smoke", project)
    after = contents(project)
    assert set(after) - set(before) == {"params.yaml"}
    assert yaml.safe_load(after["params.yaml"]) == composed("smoke")


@pytest.mark.parametrize(("path", "kind"), ENTRIES.items())
def test_an_unknown_key_is_refused_with_file_and_key(project, path, kind):
    params = composed("smoke")
    name, entry = next(iter(at(params, path).items()))
    entry["surprise"] = 1
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(InputError) as error:
        section(f"{path}.{name}", kind)
    message = str(error.value)
    assert message.startswith(f"params.yaml: {path}.{name}: ")
    assert "surprise" in message
    assert "\n" not in message


@pytest.mark.parametrize(("path", "kind"), [("compute", Compute), (f"{STUDY}.measure", Measure)])
def test_unknown_settings_are_refused(project, path, kind):
    params = composed("smoke")
    at(params, path)["surprise"] = 1
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(InputError, match=r"^params\.yaml: .*surprise: [^\n]*$"):
        section(path, kind)


@pytest.mark.parametrize("key", ["seed: 1\nseed: 2", "compute:\n  threads: 1\n  threads: 2"])
def test_a_duplicate_key_is_refused_with_file_and_key(project, key):
    (project / "params.yaml").write_text(key + "\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_yaml("params.yaml")
    message = str(error.value)
    assert message.startswith("params.yaml: ")
    assert key.rsplit(":", 1)[0].split()[-1] in message
    assert "\n" not in message


def test_a_missing_section_is_named(project):
    profiles.write("smoke", project)
    with pytest.raises(InputError, match=r"params\.yaml: nothing at 'models\.gpt2' \('gpt2' is"):
        section("models.gpt2", ModelSpec)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("profile: smoke\nprofile: smoke\n", "profile"),
        ("profile: [smoke\n", "smoke.yaml"),
        ("profile: smoke\ncomptue: {threads: 1}\n", "comptue"),
        ("profile: smoke\ncompute: {thread: 1}\n", "thread"),
        ("profile: demo\n", "demo"),
        ("profile: smoke\nseed: ${nothing.here}\n", "nothing"),
    ],
)
def test_a_broken_profile_is_refused_and_params_stay(project, monkeypatch, capsys, broken, named):
    (project / "params.yaml").write_text("kept: true\n", encoding="utf-8")
    (project / "conf" / "smoke.yaml").write_text(broken, encoding="utf-8")
    before = contents(project)
    status, errors = langsae(monkeypatch, capsys, "profile", "smoke")
    assert status == 2
    assert errors.count("\n") == 1
    assert "smoke.yaml" in errors
    assert named in errors
    assert contents(project) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["profile", "tiny"], "'tiny' is not a profile; choose one of smoke, demo"),
        (["verify", "--study", "nothing"], "no study 'nothing'"),
        (
            ["run", "nothing", "--model", "tiny", "--sae", "train", "--corpus", "udhr"],
            "no study 'nothing'",
        ),
        (
            ["run", STUDY, "--model", "tiny", "--sae", "train", "--corpus", "no.csv"],
            "--corpus no.csv",
        ),
        (
            ["run", STUDY, "--model", "./nowhere", "--sae", "train", "--corpus", "udhr"],
            "'./nowhere': no such folder",
        ),
    ],
)
def test_a_command_that_cannot_work_says_so_in_one_line(
    project, monkeypatch, capsys, arguments, said
):
    if arguments[0] == "run":
        arguments = [*arguments, "--hooks", "resid_post.0", "--languages", "en", "--out", "out"]
    before = contents(project)
    status, errors = langsae(monkeypatch, capsys, *arguments)
    assert status == 2
    assert errors.startswith("langsae: error: ")
    assert errors.count("\n") == 1
    assert said in errors
    assert contents(project) == before
    assert not (project / "out").exists()
