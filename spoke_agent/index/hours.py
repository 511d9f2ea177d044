"""Quiet hours and pace: when a root may be scanned, and how fast. Pure: time and the node's zone are passed in.

What the hub asks for and what the owner of the machine allows count together: the slower pace, the hours of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import msgspec

from protocol.errors import BadInput
from protocol.hours import minutes

MICRO: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TURNS: Final = 16
"""Ends of hours looked through for one that is not in other hours: more than a week of them is never."""


class Limits(msgspec.Struct, frozen=True):
    """How a root may be scanned: objects per second (0: no limit), and the hours in which no scan of it runs."""

    pace: int = 0
    quiet: tuple[str, ...] = ()


def together(*limits: Limits) -> Limits:
    """Return what is left where all of these hold: the slowest pace, the hours of all."""
    paces = [one.pace for one in limits if one.pace]
    return Limits(min(paces, default=0), tuple(dict.fromkeys(hours for one in limits for hours in one.quiet if hours)))


def quiet_until(hours: Iterable[str], at: int, zone: tzinfo | None = None) -> int | None:
    """Return when the quiet hours end that hold at Unix microsecond ``at``: ``at`` itself where none do, None for never.

    The clock on the wall decides: an hour that is skipped in spring is quiet for nobody, and one that comes twice in autumn
    is quiet twice. ``zone`` is the node's; None is what this machine has.
    """
    spans = list(_spans(hours))
    for _ in range(_TURNS):
        local = (_EPOCH + timedelta(microseconds=at)).astimezone(zone)
        now = local.hour * 60 + local.minute
        ends = [last for first, last in spans if _within(first, last, now)]
        if not ends:
            return at
        at = min(_next(local, last, zone) for last in ends)
    return None


def _spans(hours: Iterable[str]) -> Iterable[tuple[int, int]]:
    for one in hours:
        try:
            yield minutes(one)
        except BadInput:  # a peer's, that are no hours: they hold nobody up
            continue


def _within(first: int, last: int, now: int) -> bool:
    return first <= now < last if first < last else now >= first or now < last


def _next(local: datetime, minute: int, zone: tzinfo | None) -> int:
    """Return the next moment at which the wall shows this minute of the day, in Unix microseconds."""
    naive = local.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0, tzinfo=None)
    return min(
        moment
        for days in (0, 1)
        for fold in (0, 1)  # in autumn it comes twice: the first of them that is not over
        if (moment := _moment(naive + timedelta(days=days), fold, zone)) > _moment_of(local)
    )


def _moment(naive: datetime, fold: int, zone: tzinfo | None) -> int:
    marked = naive.replace(fold=fold)
    return _moment_of(marked.astimezone(UTC) if zone is None else marked.replace(tzinfo=zone))


def _moment_of(aware: datetime) -> int:
    # Through UTC: a difference within one zone is counted on the wall, not in time.
    return (aware.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def said(quiet: Sequence[str]) -> str:
    """Say hours in words: ``08:00-18:00 and 22:00-23:00``."""
    return " and ".join(quiet)
