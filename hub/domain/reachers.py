"""Who could reach a workspace at a moment, from what was given, who was in which group, and whose it was. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

OWNER: Final = "owner"


class Span(msgspec.Struct, frozen=True):
    """A time: from ``since`` up to and without ``until`` (None: it goes on), Unix microseconds."""

    since: int
    until: int | None

    def holds(self, at: int) -> bool:
        """Say whether a moment lies in it."""
        return self.since <= at and (self.until is None or at < self.until)

    def meets(self, other: Span) -> Span | None:
        """Return what lies in both."""
        since = max(self.since, other.since)
        until = min((end for end in (self.until, other.until) if end is not None), default=None)
        return None if until is not None and until <= since else Span(since, until)


class Given(msgspec.Struct, frozen=True):
    """A permission, or ``owner``, that a person, a group or everyone (id 0) had for some time."""

    kind: str
    subject: int
    permission: str
    span: Span


class In(msgspec.Struct, frozen=True):
    """Somebody who was in a group for some time."""

    group: int
    user: int
    span: Span


class Reach(msgspec.Struct, frozen=True):
    """Somebody (0: everyone) who had a permission; ``group`` is the group it came through, None where it was their own."""

    user: int
    permission: str
    group: int | None
    span: Span


def ownership(current: int, created_at: int, past: Iterable[Given]) -> list[Given]:
    """Return whose a workspace was when: each past owner's time, and that of the one who owns it now."""
    owned = sorted((one for one in past if one.permission == OWNER), key=lambda one: one.span.since)
    began = max((one.span.until or 0 for one in owned), default=created_at)
    return [*owned, Given("person", current, OWNER, Span(began, None))]


def reachers(given: Iterable[Given], members: Sequence[In], at: int) -> list[Reach]:
    """Return everybody who held something at Unix microsecond ``at``, those who held it longest first."""
    found: list[Reach] = []
    for one in given:
        if not one.span.holds(at):
            continue
        if one.kind != "group":
            found.append(Reach(one.subject, one.permission, None, one.span))
            continue
        for member in members:
            both = one.span.meets(member.span) if member.group == one.subject else None
            if both is not None and both.holds(at):
                found.append(Reach(member.user, one.permission, one.subject, both))
    return sorted(found, key=lambda one: (one.permission != OWNER, one.span.since, one.user))
