"""What a doctor says: one finding for each thing it looked at, in one form for people's machines and for nodes. Pure."""

from __future__ import annotations

import enum
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

LATE_S: Final = 15.0
"""From here on a clock is worth a remark: keys and shares seem to end sooner or later than they do."""
WRONG_S: Final = 600.0
"""From here on it is wrong: S3 refuses requests whose time is 15 minutes off, and clocks drift on."""


class Verdict(enum.StrEnum):
    """How something is."""

    GOOD = "good"
    REMARK = "remark"
    """Works, but worth knowing."""
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at. ``part``: what it belongs to (``hub``, ``node lab3``, ``tools``). ``todo``: what to do next."""

    part: str
    what: str
    verdict: Verdict
    says: str
    todo: str = ""


class Checkup(msgspec.Struct, frozen=True):
    """All findings. ``wrong``: how many of them are wrong."""

    findings: tuple[Finding, ...]
    wrong: int


def checkup(findings: list[Finding]) -> Checkup:
    """Count."""
    return Checkup(tuple(findings), sum(one.verdict is Verdict.WRONG for one in findings))


def clock(part: str, date: str | None, now: float) -> Finding:
    """Compare a server's ``Date`` header, which knows whole seconds, with this machine's time (Unix seconds)."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp() + 0.5
    except (ValueError, TypeError):
        return Finding(part, "clock", Verdict.REMARK, "It does not say what time it is.")
    off = now - theirs
    if abs(off) <= 1.5:  # noqa: PLR2004  - what whole seconds and the way explain
        return Finding(part, "clock", Verdict.GOOD, "The same time here and there, to the second.")
    says = f"This machine's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} its clock."
    if abs(off) < LATE_S:
        return Finding(part, "clock", Verdict.GOOD, says)
    todo = "Set this machine's clock by a time server (or theirs, if it is theirs that is wrong)."
    return Finding(part, "clock", Verdict.WRONG if abs(off) >= WRONG_S else Verdict.REMARK, says, todo)
