"""`langsae doctor`: one screen on whether this machine has what a profile needs.

A line is `ok`, `note` (worth knowing, stops nothing) or `FAIL`, which says how to mend it and makes
the exit status 1. The network is asked only where the profile names repositories of the hub, or
where the default DVC remote lies on the network.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from langsae import hub_access, machine_checks, profiles, repro, rwlock
from langsae.errors import InputError
from langsae.machine_checks import NEEDS
from langsae.params import load_yaml
from langsae.remote_access import remote_state
from langsae.report_lines import Line, failing, redacted


def run(profile: str | None) -> int:
    """Print the screen for `profile` (default: that of params.yaml); 1 if a line fails, else 0."""
    lines = [Line(*map(redacted, line)) for line in examine(profile)]
    width = max(len(line.name) for line in lines)
    for line in lines:
        print(f"{line.state:4}  {line.name:{width}}  {line.text}")
        if line.state == "FAIL":
            print(f"{'':4}  {'':{width}}  → {line.mend}")
    failed = sum(line.state == "FAIL" for line in lines)
    print(f"{failed} of {len(lines)} lines fail" if failed else "nothing fails")
    return int(failed > 0)


def examine(profile: str | None, root: Path = Path()) -> list[Line]:
    """Every line, for the project at `root`; a check that itself breaks is a failing line."""
    lines: list[Line] = []
    params: dict[str, Any] = {}
    try:
        params = _params(profile, root)
        lines.append(Line("ok", "profile", f"{params['profile']}"))
    except InputError as error:
        lines.append(failing("profile", str(error), "run this in the project's folder"))
    checks: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("python", machine_checks.python),
        ("torch", lambda: machine_checks.torch_and_gpu(params)),
        ("disk", lambda: machine_checks.disk(params, root)),
        ("hub", lambda: hub_access.lines(params)),
        ("keys", lambda: _keys(params)),
        ("remote", lambda: _remote(root)),
        ("fonts", lambda: machine_checks.fonts(params)),
        ("lock", lambda: _lock(root)),
    ]
    for name, check in checks:
        try:
            lines.extend(check())
        except InputError as error:
            lines.append(failing(name, str(error), "see the message"))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            lines.append(failing(name, f"could not be looked at: {type(error).__name__}: {reason}",
                                  "mend what the message names, then run this again"))  # fmt: skip
    return lines


def _params(profile: str | None, root: Path) -> dict[str, Any]:
    if profile is None:
        params = load_yaml(root / "params.yaml")
    else:
        params = yaml.safe_load(profiles.compose(profile, root / "conf"))
    if params.get("profile") not in NEEDS:
        raise InputError(f"profile '{params.get('profile')}' is none of {', '.join(NEEDS)}; run "
                         "`langsae profile demo`")  # fmt: skip
    return params


def _keys(params: dict[str, Any]) -> Iterator[Line]:
    """Only whether keys are set, never what they are."""
    explainer = params.get("sae_lape", {}).get("interpret", {}).get("explainer", {})
    name = explainer.get("api_key_env")
    if name is None:
        return
    if os.environ.get(name):
        yield Line("ok", "key", f"{name} is set")
    elif explainer.get("without_key") == "skip":
        yield Line("note", "key", f"{name} is not set: features are not explained")
    else:
        yield Line("FAIL", "key", f"{name} is not set", f"export {name}=…")


def _remote(root: Path) -> Iterator[Line]:
    state, text, mend = remote_state(root)
    yield Line(state, "remote", text, mend)


def _lock(root: Path) -> Iterator[Line]:
    who = repro.holder(root)
    if who:
        yield Line("ok", "lock", f"`langsae repro` runs {who}")
        return
    left = rwlock.stale(root / ".dvc" / "tmp")
    text = "free" if not left else f"free; `langsae repro` will clear {'; '.join(left)}"
    yield Line("note" if left else "ok", "lock", text)
