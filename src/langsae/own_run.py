"""A study's measures on your own model, SAEs and corpus, without editing files.

  --model   smollm2-135m | path/to/folder | owner/name@revision | tiny
  --sae     train | path/with/{layer} | release:NAME:ID-with-{layer}
            | owner/name@revision:path/with/{layer}
  --corpus  udhr | libreoffice_help | texts.csv | texts.jsonl | path/to/flores/folder

The stages are those of the pipeline; they run one after the other inside --out, where they leave
params.yaml, artifacts/, results/ and paper_figures/. Run the same command again to resume.
"""

import argparse
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from langsae.errors import InputError
from langsae.files import publish
from langsae.params import load_yaml

# replications/ and conf/ lie beside src/ in a checkout.
ROOT = Path(__file__).resolve().parents[2]
_RUN = {"model": "own", "corpus": "own", "saes": "own"}
_FIELD = re.compile(r"\$\{item\.(\w+)")
_ABSENT = "\0absent"  # no YAML value: a key that is there may well be null


def run(arguments: argparse.Namespace) -> int:
    """Run the stages of `arguments.study`; the exit status of the first that fails, or 0."""
    _check_study(arguments.study)
    params = _params(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with publish(arguments.out / "params.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(params)), encoding="utf-8")
    for module, *names in _stages(arguments.study, params):
        status = subprocess.run(
            [sys.executable, "-m", module, *names],
            cwd=arguments.out,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=False,
        ).returncode
        if status:
            return status
    print(f"done: see {arguments.out}/results and {arguments.out}/paper_figures")
    return 0


def _check_study(study: str) -> None:
    """InputError for no study, and for one whose runs load more than this command makes."""
    folders = (ROOT / "replications").glob("*/collect.py")
    wanted = {path.parent.name: _loaded_by_runs(path.parent.name) - {*_RUN} for path in folders}
    if study not in wanted:
        raise InputError(f"no study '{study}' in {ROOT / 'replications'}")
    if wanted[study]:
        able = ", ".join(sorted(name for name, more in wanted.items() if not more))
        raise InputError(
            f"{study}: its runs load {', '.join(sorted(wanted[study]))} too, which this command "
            f"does not make; write a profile in conf/, or run one of {able}"
        )


def _loaded_by_runs(study: str) -> set[str]:
    """The fields of a run by which the study's stages in dvc.yaml find what they load."""
    return {field for stage in _pipeline(study) for field in _FIELD.findall(str(stage))}


def _stages(study: str, params: dict[str, Any]) -> list[tuple[str, ...]]:
    shared = [
        *(("langsae.stages.corpus", name) for name in params["corpora"]),
        ("langsae.stages.model", "own"),
        ("langsae.stages.saes", "own"),
    ]
    return [*shared, *_of_study(study)]


def _of_study(study: str) -> list[tuple[str, ...]]:
    """The study's stages as dvc.yaml has them, in its order; each `foreach` is the one run."""
    names = {"${key}": "own", "${profile}": "own"}
    commands = (stage["cmd"].split()[2:] for stage in _pipeline(study))
    return [tuple(names.get(argument, argument) for argument in command) for command in commands]


def _pipeline(study: str) -> list[dict[str, Any]]:
    """The study's stages in dvc.yaml."""
    stages = (stage.get("do", stage) for stage in _dvc_yaml()["stages"].values())
    return [stage for stage in stages if f" replications.{study}." in stage["cmd"]]


@lru_cache
def _dvc_yaml() -> dict[str, Any]:
    return load_yaml(ROOT / "dvc.yaml", resolve=False)


def _params(arguments: argparse.Namespace) -> dict[str, Any]:
    common = load_yaml(ROOT / "conf" / "common.yaml")
    policy = {"bos": "prepend", "count_bos": arguments.count_bos}
    training = arguments.sae == "train"
    corpora = {"own": corpus_of(arguments, arguments.rows)}
    if training:
        corpora["train"] = corpus_of(arguments, arguments.train_rows or arguments.rows)
    bank = _bank(arguments) | {
        "model": "own",
        "corpus": "train" if training else "own",
        "policy": policy,
        "hooks": arguments.hooks.split(","),
    }
    run_ = {**_RUN, "policy": policy}
    params = {
        "profile": "own",
        "seed": common["seed"],
        "compute": common["compute"],
        "corpora": corpora,
        "models": {"own": _pinned(model_of(arguments))},
        "saes": {"own": _pinned(bank)},
        arguments.study: {**common[arguments.study], "runs": {"own": run_}},
    }
    # what the study adds to a run of anybody's, and then what the user asks for
    added = {arguments.study: {"runs": {"own": common[arguments.study].get("own_run", {})}}}
    return _with_settings(OmegaConf.merge(params, added), arguments.set)


def _with_settings(params: Any, settings: list[str]) -> dict[str, Any]:
    """`params` with each KEY=VALUE of `settings`; InputError for a key that is not there."""
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or OmegaConf.select(params, key, default=_ABSENT) is _ABSENT:
            raise InputError(f"--set {setting}: write KEY=VALUE with a key of params.yaml, such as "
                             "compute.threads=4")  # fmt: skip
        OmegaConf.update(params, key, OmegaConf.create(f"value: {value}")["value"], merge=False)
    return OmegaConf.to_container(params, resolve=True)


def model_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The model section of params.yaml that `--model` stands for."""
    name = arguments.model
    weights = "transformer_lens" if arguments.transformer_lens_weights else "as published"
    if name == "tiny":
        return {"source": "tiny"}
    if name in ("smollm2-135m", "gemma-3-270m"):
        # listed, so that --set models.own.accept_terms=true can be said by who accepts them
        return {"source": "embedded", "name": name, "accept_terms": False}
    if Path(name).is_dir():
        return {"source": "folder", "path": str(Path(name).resolve()), "weights": weights}
    repo, revision = _repo(name)
    return {"source": "hub", "repo": repo, "revision": revision, "weights": weights}


def _pinned(place: dict[str, Any]) -> dict[str, Any]:
    """A hub's model or SAEs at a commit: what is not there is said before anything is written."""
    if place["source"] != "hub" or "{" in place["repo"]:
        return place
    from langsae import hub  # its client is slow to import

    return place | {"revision": hub.commit(place["repo"], place["revision"], waits=(1,))}


def _bank(arguments: argparse.Namespace) -> dict[str, Any]:
    text = arguments.sae
    if text == "train":
        training = {
            "n_latents": arguments.latents,
            "k": arguments.k,
            "batch_tokens": arguments.batch_tokens,
            "warmup_steps": 50,
            "epochs": 10,
            "input_norm": "l2",
        }
        return {"source": "train", "training": training}
    if text.startswith("release:"):
        _, release, identifier = _three(text)
        return {"source": "sae_lens", "release": release, "id": identifier}
    if ":" in text:
        place, path = text.split(":", 1)
        repo, revision = _repo(place)
        return {"source": "hub", "repo": repo, "revision": revision, "path": path}
    return {"source": "folder", "path": str(Path(text).resolve())}


def corpus_of(arguments: argparse.Namespace, rows: str | None) -> dict[str, Any]:
    """The corpus section of params.yaml that `--corpus` and `--languages` stand for."""
    name, path = arguments.corpus, Path(arguments.corpus).resolve()
    common = {"languages": arguments.languages.split(","), "normalise": "NFC", "rows": rows}
    if name in ("udhr", "libreoffice_help"):
        return {"source": name, **common}
    if path.is_dir():
        return {"source": "flores_folder", "folder": str(path), **common}
    if path.is_file():
        return {"source": "local", "path": str(path), **common}
    raise InputError(f"--corpus {name}: neither udhr, libreoffice_help, a file nor a folder")


def _repo(text: str) -> tuple[str, str]:
    repo, _, revision = text.partition("@")
    if not repo or repo.startswith((".", "/")):
        raise InputError(f"'{text}': no such folder, and not a hub id like owner/name@revision")
    return repo, revision or "main"


def _three(text: str) -> list[str]:
    parts = text.split(":", 2)
    if len(parts) != 3:
        raise InputError(f"--sae {text}: write release:NAME:ID, with {{layer}} in the id")
    return parts
