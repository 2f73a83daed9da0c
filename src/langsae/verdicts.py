"""Published beside measured: one row a claim, judged on the strongest evidence there is.

A number published about a model is decided only by a run on that very model (profile `paper`) or
by the authors' own data and texts (`reference`). A demo runs another model: it decides no number,
but each finding gets a row that says whether it holds there too. A smoke run decides nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from langsae.claims import AS_PUBLISHED, FINDING, Claim, Finding, Published, family
from langsae.errors import InputError
from langsae.evidence import Evidence, Measured, Outcome, Profile

REPRODUCED, DIFFERS, NOT_ATTEMPTED = "reproduced", "differs", "not attempted"
DECIDING: tuple[Profile, ...] = ("paper", "reference")  # strongest first
OTHER_MODEL = "on another model"

Row = dict[str, Any]


def judge(published: Published, evidence: dict[Profile, Evidence]) -> list[Row]:
    """The verdict rows of one study; evidence that contradicts published.yaml is an error."""
    for profile in DECIDING:
        if profile in evidence:
            _check_complete(published, evidence[profile])
    _check_findings(published, evidence)
    rows = [_claim_row(published.study, claim, evidence) for claim in published.claims]
    for finding in published.findings:
        rows += _finding_rows(published.study, finding, evidence)
    return rows


def _check_complete(published: Published, evidence: Evidence) -> None:
    """Names that published.yaml lacks, and families measured only in part, are faults, not gaps."""
    where = f"results/{evidence.study}/{evidence.profile}.json"
    measured = {(id, variant) for id, variants in evidence.measured.items() for variant in variants}
    unknown = sorted(measured - {(claim.id, claim.variant) for claim in published.claims})
    if unknown:
        raise InputError(f"{where}: not in published.yaml: {_names(unknown)}")
    started = {(family(id), variant) for id, variant in measured}
    missing = [
        (claim.id, claim.variant)
        for claim in published.claims
        if (family(claim.id), claim.variant) in started
        and (claim.id, claim.variant) not in measured
    ]
    if missing:
        raise InputError(f"{where}: values are missing: {_names(missing)}")


def _check_findings(published: Published, evidence: dict[Profile, Evidence]) -> None:
    known = {finding.id for finding in published.findings}
    for profile, found in evidence.items():
        unknown = sorted(set(found.findings) - known)
        if unknown:
            where = f"results/{published.study}/{profile}.json"
            raise InputError(f"{where}: no such finding in published.yaml: {', '.join(unknown)}")


def _names(keys: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(f"{id} ({variant})" for id, variant in keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"


def _claim_row(study: str, claim: Claim, evidence: dict[Profile, Evidence]) -> Row:
    row: Row = {
        "study": study,
        "id": claim.id,
        "variant": claim.variant,
        "published": claim.value,
        "unit": claim.unit,
        "tolerance": claim.tolerance
        and {"absolute": claim.tolerance.absolute, "relative": claim.tolerance.relative},
        "source": claim.source,
    }
    for profile in DECIDING:
        measured = _measured(claim, evidence.get(profile))
        if measured and claim.not_available:
            raise InputError(f"{claim.id}: measured, though published.yaml says not_available")
        if measured:
            return row | _decided(claim, measured) | {"profile": profile}
    return row | _not_attempted(study, claim.not_available)


def _measured(claim: Claim, evidence: Evidence | None) -> Measured | None:
    return evidence.measured.get(claim.id, {}).get(claim.variant) if evidence else None


def _decided(claim: Claim, measured: Measured) -> Row:
    holds, reason = compare(claim, measured.value)
    return {
        "measured": measured.value,
        "verdict": REPRODUCED if holds else DIFFERS,
        "basis": measured.basis,
        "reason": f"{reason}; {measured.detail}" if measured.detail else reason,
    }


def _not_attempted(study: str, reason: str | None) -> Row:
    nobody_ran = f"no {' or '.join(f'results/{study}/{profile}.json' for profile in DECIDING)}"
    return {
        "measured": None,
        "verdict": NOT_ATTEMPTED,
        "basis": None,
        "reason": reason or f"{nobody_ran} measures it",
        "profile": None,
    }


def compare(claim: Claim, measured: Any) -> tuple[bool, str]:
    """Whether `measured` reproduces the claim, and the reason in words."""
    published = claim.value
    if claim.tolerance is None:
        if type(measured) is not type(published):
            raise InputError(f"{claim.id}: measured {measured!r}, published {published!r}")
        if isinstance(measured, list):
            return sorted(measured) == sorted(published), "compared as a set"
        return measured == published, "compared as text"
    if isinstance(measured, bool) or not isinstance(measured, int | float):
        raise InputError(f"{claim.id}: measured {measured!r} where a number was published")
    away, allowed = abs(measured - published), claim.tolerance.allowed(published)
    if away == 0:
        return True, "equal"
    return away <= allowed, f"{away:.3g} away, {allowed:.3g} allowed"


def _finding_rows(study: str, finding: Finding, evidence: dict[Profile, Evidence]) -> Iterator[Row]:
    row: Row = {
        "study": study,
        "published": finding.statement,
        "unit": "holds",
        "tolerance": None,
        "source": finding.source,
    }
    found = {profile: one.findings.get(finding.id, {}) for profile, one in evidence.items()}
    for model in finding.subjects:
        key = {"id": f"{FINDING}/{finding.id}/{model}", "variant": AS_PUBLISHED}
        yield row | key | _outcome(study, model, found, DECIDING)
    for model in sorted(set(found.get("demo", {})) - set(finding.subjects)):
        key = {"id": f"{FINDING}/{finding.id}/{model}", "variant": OTHER_MODEL}
        yield row | key | _outcome(study, model, found, ("demo",))


def _outcome(
    study: str,
    model: str,
    found: dict[Profile, dict[str, Outcome]],
    profiles: Sequence[Profile],
) -> Row:
    for profile in profiles:
        outcome = found.get(profile, {}).get(model)
        if outcome:
            return {
                "measured": outcome.holds,
                "verdict": REPRODUCED if outcome.holds else DIFFERS,
                "basis": outcome.basis,
                "reason": outcome.detail + _low_high(outcome.interval),
                "profile": profile,
            }
    return _not_attempted(study, None)


def _low_high(interval: tuple[float, float] | None) -> str:
    return f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""
