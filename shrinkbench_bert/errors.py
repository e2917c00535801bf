"""The one error that a user can cause, and how it is worded."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import ValidationError


class UserError(ValueError):
    """Bad input: one line that names what, where, and what would be accepted (exit code 2)."""


def unknown(kind: str, name: object, accepted: Iterable[str]) -> UserError:
    """Word the error for a `name` that is none of `accepted`, with the nearest one if one is near."""
    accepted = sorted(accepted)
    by_lower = {candidate.lower(): candidate for candidate in accepted}
    near = get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}accepted: {', '.join(accepted)}")


def describe(error: ValueError) -> str:
    """Put pydantic's findings on one line: field, value, and what would be accepted."""
    if not isinstance(error, ValidationError):
        return str(error)
    findings = []
    for found in error.errors(include_url=False, include_context=False):
        field = ".".join(map(str, found["loc"])) or "input"
        if found["type"] == "missing":  # its input is what it is missing from
            findings.append(f"{field} is missing")
            continue
        value = repr(found["input"])
        value = value if len(value) <= 60 else value[:57] + "..."
        what = "unknown field" if found["type"] == "extra_forbidden" else found["msg"]
        findings.append(f"{field} = {value}: {what.removeprefix('Value error, ')}")
    return "; ".join(findings)
