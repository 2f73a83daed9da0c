"""dvc.yaml against the imports it stands for, and the smoke profile through DVC, end to end."""

import ast
import copy as copying
import json
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from langsae import verify
from tools import stage_deps
from working_copy import ROOT, Done, WorkingCopy

# A fixture runs the whole smoke profile: minutes, and many times that on a busy machine.
pytestmark = pytest.mark.timeout(2400)

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STUDIES = verify.studies_of(ROOT)
SOURCES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("src/langsae", "replications")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# What a stage does with the code it names, in a process that forgets our modules in between.
LOADED = """
import importlib, json, sys
found = {}
for module in sys.argv[1:]:
    for name in [n for n in sys.modules if n.split(".")[0] in ("langsae", "replications")]:
        del sys.modules[name]
    importlib.import_module(module)
    found[module] = [
        m.__file__ for n, m in sys.modules.items()
        if n.split(".")[0] in ("langsae", "replications") and getattr(m, "__file__", None)
    ]
print(json.dumps(found))
"""


def code_deps(stage: dict) -> set[str]:
    """The modules that dvc.yaml says the stage depends on."""
    return {dep for dep in stage_deps.stage_body(stage)["deps"] if dep.endswith(".py")}


def module_of(stage: dict) -> str:
    return stage_deps.stage_body(stage)["cmd"].split()[2]


# --- the code: what imports what


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_modules_it_imports(name):
    stage = STAGES[name]
    assert stage_deps.stage_body(stage)["deps"] == stage_deps.wanted_deps(stage), (
        "run `python tools/stage_deps.py`"
    )
    broken = copying.deepcopy(stage)
    stage_deps.stage_body(broken)["deps"].remove(sorted(code_deps(stage))[0])
    assert stage_deps.stage_body(broken)["deps"] != stage_deps.wanted_deps(broken)


def test_the_modules_python_loads_are_among_the_dependencies():
    """The oracle is the interpreter: what an import of the stage's module loads."""
    modules = {module_of(stage): code_deps(stage) for stage in STAGES.values()}
    answer = subprocess.run(
        [sys.executable, "-c", LOADED, *modules],
        cwd=ROOT, env=WorkingCopy(ROOT).environ, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for module, files in json.loads(answer).items():
        loaded = {Path(file).relative_to(ROOT).as_posix() for file in files}
        loaded = {name for name in loaded if not name.endswith("__init__.py")}
        assert len(loaded) > 3
        assert loaded <= modules[module], f"{module}: {sorted(loaded - modules[module])}"


def test_package_files_import_nothing():
    packages = [path for path in SOURCES.values() if path.name == "__init__.py"]
    assert len(packages) > 5
    assert {path: stage_deps.imported(path) for path in packages} == {
        path: set() for path in packages
    }


def test_the_engine_imports_no_replication():
    for name, path in SOURCES.items():
        imports = {module.split(".")[0] for module in stage_deps.imported(path)}
        assert not name.startswith("src/") or "replications" not in imports, name


def test_imports_point_one_way():
    """No cycle among our modules, and none among the packages they lie in."""
    modules = import_graph(SOURCES.values())
    assert len(modules) > 50
    list(TopologicalSorter(modules).static_order())
    packages: dict[str, set[str]] = {}
    for module, needed in modules.items():
        own = package_of(module)
        packages.setdefault(own, set()).update({package_of(other) for other in needed} - {own})
    list(TopologicalSorter(packages).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter(packages | {"errors": {"stages"}}).static_order())


def import_graph(paths) -> dict[str, set[str]]:
    """Each of our modules with those of ours that an import anywhere in it means."""
    files = {path.resolve() for path in paths}
    graph = {}
    for path in files:
        found = {stage_deps.module_file(name) for name in stage_deps.imported(path)}
        graph[dotted(path)] = {dotted(other) for other in found if other in files}
    return graph


def dotted(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return ".".join(relative.with_suffix("").parts).removeprefix("src.langsae.")


def package_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "replications" else parts[0]


def test_no_module_hides_an_import_from_the_closure():
    """`importlib` and `__import__` would escape stage_deps, so the engine uses neither."""
    for name, path in SOURCES.items():
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"__import__", "import_module", "importlib.import_module"}, name


# --- the pipeline: profile smoke


class Smoke(NamedTuple):
    copy: WorkingCopy
    log: Done
    committed: bytes  # results/verification.json before the run


class Clone(NamedTuple):
    copy: WorkingCopy
    pulled: Done
    verdicts: bytes


def results(copy: WorkingCopy) -> dict[str, bytes]:
    """All that a run publishes, without the manifests: those say when and where it ran."""
    files = copy.tree("results", "paper_figures")
    return {name: data for name, data in files.items() if not name.endswith(".manifest.json")}


def prepared(root: Path) -> WorkingCopy:
    """A copy with profile smoke written; verdicts nobody acknowledged yet are taken as they are."""
    copy = WorkingCopy.make(root)
    if not (root / verify.VERIFICATION).exists():
        assert verify.verify(root=root, acknowledge=True) == 0
    copy.run("langsae", "profile", "smoke")
    return copy


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Smoke:
    copy = prepared(tmp_path_factory.mktemp("pipeline") / "one")
    committed = (copy.root / verify.VERIFICATION).read_bytes()
    return Smoke(copy, copy.run("dvc", "repro"), committed)


@pytest.fixture(scope="module")
def clone(smoke) -> Clone:
    """Another checkout beside the first, filled from the remote that .dvc/config names."""
    smoke.copy.commit()
    smoke.copy.run("dvc", "push", "--run-cache")
    copy = smoke.copy.clone(smoke.copy.root.with_name("two"))
    assert not (copy.root / "artifacts").exists()
    pulled = copy.run("dvc", "repro", "--pull")
    return Clone(copy, pulled, (copy.root / verify.VERIFICATION).read_bytes())


def expected_stages(copy: WorkingCopy) -> set[str]:
    """One stage per entry of a foreach, by DVC's name for it."""
    params = yaml.safe_load((copy.root / "params.yaml").read_text(encoding="utf-8"))
    names = set()
    for name, stage in STAGES.items():
        node = params
        for key in stage.get("foreach", "").removeprefix("${").removesuffix("}").split("."):
            node = node[key] if key else None
        names |= {f"{name}@{key}" for key in node} if node else {name}
    return names


def test_every_stage_runs_and_leaves_its_results(smoke):
    assert len(smoke.log.stages) == len(set(smoke.log.stages)) >= 8
    assert set(smoke.log.stages) == expected_stages(smoke.copy)
    for study in STUDIES:
        evidence = json.loads((smoke.copy.root / f"results/{study}/smoke.json").read_text())
        assert evidence["profile"] == "smoke"
        assert any((smoke.copy.root / f"results/{study}/plots/smoke").glob("*.csv"))
        assert any((smoke.copy.root / f"paper_figures/{study}/smoke").glob("*.svg"))
    left = [path for path in smoke.copy.root.rglob("*.tmp") if ".dvc" not in path.parts]
    assert left == []


def test_a_smoke_run_decides_nothing(smoke):
    assert (smoke.copy.root / verify.VERIFICATION).read_bytes() == smoke.committed


def test_an_unchanged_project_runs_nothing_and_says_so_quickly(smoke, capsys):
    again = smoke.copy.run("dvc", "repro")
    with capsys.disabled():
        print(f"\n  dvc repro, nothing changed: {again.seconds:.1f} s")
    assert again.stages == []
    for name in expected_stages(smoke.copy):
        assert f"Stage '{name}' didn't change, skipping" in again.output
    assert again.seconds < 60  # 7 on an idle machine


def test_two_runs_in_two_places_are_equal_to_the_byte(smoke, tmp_path):
    """The second in one process, without DVC: the driver leaves no trace in a result."""
    twin = prepared(tmp_path / "elsewhere")
    commands = [
        line.removeprefix("> python -m ").split()
        for line in smoke.log.output.splitlines()
        if line.startswith("> python -m ")
    ]
    assert len(commands) == len(smoke.log.stages)
    twin.modules(*((".", *command) for command in commands))
    first, second = results(smoke.copy), results(twin)
    assert sum("/smoke" in name for name in first) > 15
    assert [name for name in first | second if first.get(name) != second.get(name)] == []
    assert smoke.copy.tree("artifacts") == twin.tree("artifacts")


def numbers(evidence: dict) -> dict[tuple[str, str], float]:
    """The measured numbers; DVC shows no lists."""
    return {
        (name, variant): measured["value"]
        for name, variants in evidence["measured"].items()
        for variant, measured in variants.items()
        if isinstance(measured.get("value"), int | float)
    }


def test_metrics_and_plots_are_shown(smoke):
    shown = json.loads(smoke.copy.run("dvc", "metrics", "show", "--json").output)
    for study in STUDIES:
        path = f"results/{study}/smoke.json"
        written = numbers(json.loads((smoke.copy.root / path).read_text(encoding="utf-8")))
        assert len(written) > 20
        assert numbers(shown[""]["data"][path]["data"]) == written
    page = smoke.copy.run("dvc", "plots", "show", "--out", "shown")
    assert "index.html" in page.output
    html = (smoke.copy.root / "shown" / "index.html").read_text(encoding="utf-8")
    for study in STUDIES:
        assert f"results/{study}/plots/smoke" in html
    shutil.rmtree(smoke.copy.root / "shown")


def test_a_fresh_clone_pulls_everything_and_recomputes_nothing(smoke, clone):
    assert clone.pulled.stages == []
    assert clone.copy.tree("artifacts") == smoke.copy.tree("artifacts")
    assert results(clone.copy) == results(smoke.copy)
    assert clone.verdicts == smoke.committed


def test_the_remote_is_verified(clone, tmp_path):
    """A corrupted object of the remote is refused, not handed out as good."""
    remote = clone.copy.root.with_name("langsae-remote") / "files" / "md5"
    largest = max((p for p in remote.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    good = largest.read_bytes()
    largest.chmod(0o644)
    largest.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        other = clone.copy.clone(clone.copy.root.with_name("three"))
        pulled = other.run("dvc", "pull", check=False)
    finally:
        largest.write_bytes(good)
    assert pulled.status != 0
    assert good[:-1] + bytes([good[-1] ^ 1]) not in other.tree("artifacts").values()


def test_a_changed_threshold_reruns_no_model(clone):
    params = clone.copy.root / "params.yaml"
    before = results(clone.copy)
    text = params.read_text(encoding="utf-8")
    assert "monolingual_threshold: 0.5" in text
    params.write_text(text.replace("monolingual_threshold: 0.5", "monolingual_threshold: 0.3"))
    ran = clone.copy.run("dvc", "repro").stages
    assert ran[0] == "measure_flores_exploration"
    assert {name.split("_")[0] for name in ran} <= {"measure", "figures", "verify"}
    plots = "results/flores_exploration/plots/smoke/monolingual.csv"
    assert results(clone.copy)[plots] != before[plots]
