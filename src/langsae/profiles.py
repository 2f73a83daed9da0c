"""Profiles: conf/common.yaml under conf/NAME.yaml, composed into params.yaml and checked."""

from pathlib import Path

from omegaconf import OmegaConf

from langsae.errors import InputError
from langsae.files import publish
from langsae.params import load_yaml

PROFILES = ("smoke", "demo", "paper", "reference")


def compose(name: str, conf: Path = Path("conf")) -> str:
    """The YAML of profile `name`; InputError for an unknown profile or broken file."""
    if name not in PROFILES:
        raise InputError(f"'{name}' is not a profile; choose one of {', '.join(PROFILES)}")
    parts = [load_yaml(conf / file, resolve=False) for file in ("common.yaml", f"{name}.yaml")]
    merged = OmegaConf.merge(*parts)
    head = f"# Written by `langsae profile {name}` from conf/; edit there.\n"
    return head + OmegaConf.to_yaml(merged, resolve=True, sort_keys=True)


def write(name: str, root: Path = Path()) -> None:
    """Write `params.yaml` under `root` for profile `name`."""
    text = compose(name, root / "conf")
    with publish(root / "params.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")
