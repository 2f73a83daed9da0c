"""Profiles: conf/common.yaml under conf/NAME.yaml, composed into params.yaml and checked."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from langsae.compute import Compute
from langsae.errors import InputError
from langsae.files import publish
from langsae.params import load_yaml, parse

PROFILES = ("smoke", "demo", "paper", "reference")
# What a profile adds to the sections of common.yaml, where every study has one.
_OWN_SECTIONS = {"profile", "corpora", "models", "saes", "histories"}


def compose(name: str, conf: Path = Path("conf")) -> str:
    """The YAML of profile `name`; InputError for an unknown profile or broken file."""
    if name not in PROFILES:
        raise InputError(f"'{name}' is not a profile; choose one of {', '.join(PROFILES)}")
    common, own = (load_yaml(conf / f"{file}.yaml", resolve=False) for file in ("common", name))
    where = f"{conf / name}.yaml"
    try:
        merged = OmegaConf.merge(common, own)
        params = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error
    _check(params, name, {*common, *_OWN_SECTIONS}, where)
    head = f"# Written by `langsae profile {name}` from conf/; edit there.\n"
    return head + OmegaConf.to_yaml(merged, resolve=True, sort_keys=True)


def _check(params: dict[str, Any], name: str, sections: set[str], where: str) -> None:
    """What can be told without loading torch; each stage checks the sections it reads."""
    if params.get("profile") != name:
        raise InputError(
            f"{where}: profile is '{params.get('profile')}'; it must be the file's name"
        )
    unknown = sorted(set(params) - sections)
    if unknown:
        raise InputError(f"{where}: no section is called '{unknown[0]}'; see conf/common.yaml")
    parse(Compute, params.get("compute"), f"{where}: compute")


def write(name: str, root: Path = Path()) -> None:
    """Write `params.yaml` under `root` for profile `name`."""
    text = compose(name, root / "conf")
    with publish(root / "params.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")
