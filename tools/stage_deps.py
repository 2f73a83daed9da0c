"""Write into dvc.yaml, for every stage, exactly the modules its command imports.

`python tools/stage_deps.py` rewrites the file; tests/test_pipeline.py holds it true.
"""

import ast
import re
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"langsae": ROOT / "src", "replications": ROOT}
_MODULE = re.compile(r"python -m ([\w.]+)")


def module_file(module: str) -> Path | None:
    """The file of one of our modules; None for anything else, and for packages."""
    base = PACKAGES.get(module.split(".")[0])
    path = base.joinpath(*module.split(".")).with_suffix(".py") if base else None
    return path if path and path.is_file() else None


def imported(path: Path) -> set[str]:
    """Every module name that an import anywhere in the file could mean."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def closure(module: str) -> list[str]:
    """Our files that running `module` imports, itself included, relative to the root."""
    seen: set[Path] = set()
    todo = [module]
    while todo:
        path = module_file(todo.pop())
        if path and path not in seen:
            seen.add(path)
            todo += imported(path)
    return sorted(path.relative_to(ROOT).as_posix() for path in seen)


def stage_body(stage: dict) -> dict:
    """The part with cmd and deps, also of a foreach stage."""
    return stage.get("do", stage)


def wanted_deps(stage: dict) -> list[str]:
    """The stage's dependencies: its data as written, and its module's import closure."""
    body = stage_body(stage)
    data = [dep for dep in body.get("deps", []) if not dep.endswith(".py")]
    match = _MODULE.search(body["cmd"])
    return data + (closure(match[1]) if match else [])


def main() -> None:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 100
    path = ROOT / "dvc.yaml"
    document = yaml.load(path)
    for stage in document["stages"].values():
        stage_body(stage)["deps"] = wanted_deps(stage)
    yaml.dump(document, path)


if __name__ == "__main__":
    main()
