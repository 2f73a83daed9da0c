"""The image's files: what they pin, what reaches the build, and what the entry point runs.

That the image builds and works is tried by `.ci/image`, which takes minutes and root.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from dvc.config import Config

ROOT = Path(__file__).resolve().parents[1]
FILES = ("Dockerfile", ".dockerignore", "compose.yaml", "compose.gpu.yaml", "apptainer.def",
         "container/entry", "container/debian.lock", ".ci/image", "docs/image.md")  # fmt: skip


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(name, rest) of each instruction of the Dockerfile, continued lines joined."""
    lines = [line for line in text("Dockerfile").splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole if line)]


def locked(name: str, between: str = "==") -> dict[str, str]:
    """{package: version} of a lock file, which says every package once."""
    rows = [line for line in text(name).splitlines() if line and not line.startswith("#")]
    pairs = [row.split(between) for row in rows]
    assert all(len(pair) == 2 and all(pair) for pair in pairs), name
    assert len({package for package, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_the_base_is_pinned_and_every_stage_comes_from_it():
    stages, base = {"${BASE}"}, dict(pair.split("=", 1) for n, pair in instructions() if n == "ARG")
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base["BASE"])
    for name, rest in instructions():
        if name == "FROM":
            source, *named = rest.split()
            assert source in stages
            stages |= set(named[1:])


def test_the_image_runs_as_a_user_under_tini_and_asks_the_doctor():
    last = dict(instructions())  # of instructions that come twice, the one that holds
    assert last["USER"] == "1000:1000"
    assert last["ENTRYPOINT"] == '["/usr/bin/tini", "--", "/usr/local/bin/langsae-entry"]'
    assert last["HEALTHCHECK"].endswith('CMD ["langsae", "doctor"]')
    assert last["VOLUME"] == '["/cache"]'
    assert "HF_HOME=/cache/huggingface" in text("Dockerfile")
    assert "dir = /cache/dvc" in text("Dockerfile")
    assert "safe.directory /langsae" in text("Dockerfile")


def test_debian_packages_are_pinned_with_all_they_need():
    packages = locked("container/debian.lock", "=")
    assert list(packages) == sorted(packages)
    asked = re.search(r"Asked for are:\n(.*?)\n# The rest", text("container/debian.lock"), re.S)
    names = asked.group(1).replace("#", "").split()
    assert {"tini", "gcc", "libpython3.11-dev", "fonts-noto-core", "fonts-noto-cjk"} <= set(names)
    assert set(names) < set(packages)


def test_the_cuda_lock_adds_to_the_lock_and_is_of_its_torch():
    lock, cuda = locked("requirements.lock"), locked("requirements-cuda.lock")
    assert not set(lock) & set(cuda)
    assert {"triton", "nvidia-cublas", "nvidia-nccl-cu13"} <= set(cuda)
    assert f"torch {lock['torch']}'s CUDA build" in text("requirements-cuda.lock")
    assert {"uv", "setuptools"} <= set(lock)  # the build itself is pinned by it too


def allowed(path: str) -> bool:
    """Whether .dockerignore, which names what is let in, lets `path` into the build."""
    rules = [line for line in text(".dockerignore").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    names = [rule[1:] for rule in rules if rule[0] == "!"]
    assert not any(set("*?[") & set(name) for name in names)
    return any(path == name or path.startswith(f"{name}/") for name in names)


def test_the_build_gets_what_the_pipeline_depends_on():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.split("\0")  # fmt: skip
    stages = yaml.safe_load(text("dvc.yaml"))["stages"].values()
    deps = {dep for stage in stages for dep in stage.get("do", stage).get("deps", [])}
    wanted = [dep for dep in deps if dep in tracked]
    assert len(wanted) > 100
    wanted += ["pyproject.toml", "README.md", "LICENSE", "conf/common.yaml", "dvc.lock",
               ".dvc/config", "params.yaml", "results/verification.json"]  # fmt: skip
    assert [path for path in wanted if not allowed(path)] == []


@pytest.mark.parametrize("path", [".env", ".dvc/config.local", ".dvc/cache/files", ".git/config",
                                  ".venv/bin/python", "artifacts/models", "scratch/x"])  # fmt: skip
def test_the_build_gets_nothing_secret_or_computed(path):
    assert not allowed(path)


def run_entry(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """container/entry in `folder`, where langsae and dvc only say how they were called."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    for name in ("langsae", "dvc"):
        (bin_ / name).write_text(f'#!/bin/sh\necho "{name}:" "$@"\nexit "${{STATUS:-0}}"\n')
        (bin_ / name).chmod(0o755)
    shutil.copy(ROOT / "container" / "entry", bin_ / "entry")
    environ = {"PATH": f"{bin_}:{os.environ['PATH']}", "LANGSAE_CACHE": str(folder)}
    return subprocess.run([bin_ / "entry", *arguments], cwd=folder, env=environ | options.pop(
        "environ", {}), capture_output=True, text=True, check=False, **options)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (("dvc", "repro", "--pull", "a b"), "langsae: repro --pull a b"),
        (("langsae", "repro", "-s", "x"), "langsae: repro -s x"),
        (("dvc", "push", "--run-cache"), "dvc: push --run-cache"),
        (("dvc",), "dvc:"),
        (("langsae", "doctor"), "langsae: doctor"),
        (("echo", "dvc", "repro"), "dvc repro"),
    ],
)
def test_the_entry_point_has_one_runner(tmp_path, arguments, called):
    done = run_entry(tmp_path, *arguments, environ={"STATUS": "0"})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, called, "")


def test_exit_statuses_pass_through(tmp_path):
    for arguments in (("dvc", "repro"), ("dvc", "status"), ("langsae", "verify")):
        assert run_entry(tmp_path, *arguments, environ={"STATUS": "7"}).returncode == 7
    assert run_entry(tmp_path, "no-such-command").returncode == 127


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_without_arguments_it_says_what_it_can_do(tmp_path, arguments):
    done = run_entry(tmp_path, *arguments)
    assert done.returncode == 0
    assert done.stdout.endswith("langsae: --help\n")
    assert "IMAGE dvc repro" in done.stdout


def test_a_folder_of_another_user_is_refused_with_the_remedy():
    if os.getuid() != 0:
        pytest.skip("needs root, to run as another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        run_entry(folder, "true")  # makes the commands, as root
        done = run_entry(folder, "dvc", "repro", user=65534)
        assert done.returncode == 2
        assert done.stdout == ""
        assert f"{folder} belongs to user 0, and this is user 65534" in done.stderr
        assert '--user "$(id -u):$(id -g)"' in done.stderr
        assert run_entry(folder, "dvc", "status", user=65534).stdout == "dvc: status\n"


def test_compose_pins_its_store_keeps_secrets_out_and_configures_dvc(tmp_path):
    compose = yaml.safe_load(text("compose.yaml"))
    store = compose["services"]["store"]
    assert re.search(r":[\d.]+@sha256:[0-9a-f]{64}$", store["image"])
    for service in compose["services"].values():
        secret = service["environment"]["AWS_SECRET_ACCESS_KEY"]
        assert secret.startswith("${AWS_SECRET_ACCESS_KEY:?")
    (tmp_path / "config").write_text(text(".dvc/config"))
    (tmp_path / "config.local").write_text(compose["configs"]["dvc"]["content"])
    config = Config(str(tmp_path))
    remote = config["remote"][config["core"]["remote"]]
    assert config["core"]["no_scm"]
    assert remote["url"] == f"s3://{store['environment']['S3_BUCKET']}"
    assert remote["endpointurl"] == "http://store:8333"
    assert remote["verify"] is True
    gpu = yaml.safe_load(text("compose.gpu.yaml"))
    assert set(gpu["services"]) < set(compose["services"])


def apptainer_sections() -> dict[str, str]:
    parts = re.split(r"^%(\w+)\n", text("apptainer.def"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_shell_scripts_parse():
    for name in ("environment", "runscript", "test"):
        subprocess.run(["sh", "-n"], input=apptainer_sections()[name], text=True, check=True)
    subprocess.run(["sh", "-n", ROOT / "container" / "entry"], check=True)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "image"], check=True)


def test_on_a_cluster_caches_are_the_users(tmp_path):
    script = apptainer_sections()["environment"] + '\necho "$HF_HOME $LANGSAE_CACHE"'
    image = {"HF_HOME": "/cache/huggingface", "HOME": str(tmp_path)}
    cases = (({}, "{0}/.cache/langsae/huggingface {0}/.cache/langsae"),
             ({"LANGSAE_CACHE": "/scratch/me"}, "/scratch/me/huggingface /scratch/me"),
             ({"HF_HOME": "/shared/hf"}, "/shared/hf {0}/.cache/langsae"))  # fmt: skip
    for host, wanted in cases:
        done = subprocess.run(["sh", "-c", script], env=image | host, capture_output=True,
                              text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == wanted.format(tmp_path)


def test_what_is_said_to_run_is_there():
    listing = subprocess.run([sys.executable, "-m", "langsae.cli", "--help"],
                             capture_output=True, text=True, check=True)  # fmt: skip
    commands = set(re.findall(r"^ {4}(\w+) ", listing.stdout, re.M))
    for name in FILES:
        said = set(re.findall(r"(?:IMAGE|langsae\.sif|run --rm langsae) langsae (\w+)", text(name)))
        assert said <= commands, name


def test_no_registry_is_named():
    """Where packages and images come from is the user's own configuration."""
    hosts = re.compile(r"docker\.io|ghcr\.io|quay\.io|pypi\.|pythonhosted|debian\.org|nvcr\.io")
    assert [name for name in (*FILES, "requirements-cuda.lock") if hosts.search(text(name))] == []
