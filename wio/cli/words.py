"""How values are written for people and read from them: sizes, times, lives, names that others chose. Pure."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from protocol.api import NodeState, NodeView, RootView
from protocol.errors import BadInput, BadLifetime, BadName, BadQuery
from protocol.grants import Permission
from protocol.messages import RootActivity
from protocol.names import shown

MICROSECONDS: Final = 1_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LIFE = re.compile(r"([0-9]{1,9})([smhdw]?)\Z")
_SIZES: Final = ("K", "M", "G", "T", "P", "E")
_FRESH_S: Final = 5.0
_TODAY_S: Final = 20 * 3600.0
"""Younger than this, a time of day says which day is meant."""
_NAMED: Final = 3


def safe(text: str) -> str:
    """Return text that others chose, fit for a terminal: control, bidi and invisible characters are written out."""
    return shown(text, limit=sys.maxsize)[1:-1]


def size(count: int) -> str:
    """Return bytes as ``ls -h`` writes them, in powers of 1,024: ``2.4G``, ``17K``, ``312``."""
    value = float(count)
    if value < 1024:  # noqa: PLR2004  - bytes
        return str(count)
    for unit in _SIZES:
        value /= 1024
        if value < 1023.5 or unit == _SIZES[-1]:  # noqa: PLR2004  - what would round to 1024
            break
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"  # noqa: PLR2004  - what would round to 10.0


def amount(text: str) -> int:
    """Read ``10M``, ``1.5GiB``, ``1T`` as bytes, as a search does: K, M, G, T are thousands, KiB, MiB … 1,024.

    Raises BadInput for anything else, for a range and for nothing at all.
    """
    from search.quantities import sizes  # noqa: PLC0415  - only quotas read sizes

    try:
        found = sizes(text, "<=", 1, 0).high
    except BadQuery as error:
        todo = "Write bytes, or a number with K, M, G, T, P (thousands) or KiB, MiB, GiB … (1,024): 10M, 1.5GiB"
        raise BadInput(f"{shown(text)} is not a size.", todo=todo) from error
    return found or 0


def exact(bytes_: int) -> str:
    """Return bytes as ``amount`` reads them, in the largest unit that says them exactly: ``1T``, ``1.5GiB``, ``312``."""
    for base, tail in ((1000, ""), (1024, "iB")):
        for power in range(len(_SIZES) - 1, 0, -1):  # a search knows no E
            unit = base**power
            tenths, rest = divmod(bytes_ * 10, unit)
            if tenths >= 10 and not rest:  # noqa: PLR2004  - at least 1.0
                return f"{tenths // 10}{f'.{tenths % 10}' if tenths % 10 else ''}{_SIZES[power - 1]}{tail}"
    return str(bytes_)


def may(permission: Permission | None) -> str:
    """Say what somebody may do in a workspace; empty for nothing."""
    if permission is None:
        return ""
    return "read and delete: over quota" if permission is Permission.TIDY else permission.value


def root_address(text: str) -> tuple[str, str]:
    """Read ``NODE/ROOT``; raise BadName for anything else."""
    node, slash, name = text.partition("/")
    if not slash or not node or not name or "/" in name:
        raise BadName(f"{shown(text)} is not a root.", todo="Write NODE/ROOT.")
    return node, name


def count(number: int, what: str) -> str:
    """Return ``1 file`` or ``1,204 files``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def life(text: str) -> int:
    """Read a length of time, ``900``, ``15m``, ``1h``, ``7d``, as seconds; raise BadLifetime for anything else."""
    match = _LIFE.match(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise BadLifetime(f"{shown(text)} is not a length of time.", todo="Write it like 900, 15m, 1h or 7d.")
    return int(match[1]) * _UNITS[match[2] or "s"]


def span(seconds: float) -> str:
    """Return a length of time in at most two units: ``41 ms``, ``4 s``, ``37 min``, ``23 h 59 min``, ``6 d 1 h``."""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004  - seconds in a minute
        return f"{whole} s"
    for large, small, big_word, small_word in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {big_word}" + (f" {rest} {small_word}" if rest else "")
    return f"{whole // 60} min"


def moment(microseconds: int, zone: tzinfo | None = None) -> str:
    """Return a time in this machine's zone, to the minute: ``2024-03-02 14:05``."""
    return _at(microseconds, zone).strftime("%Y-%m-%d %H:%M")


def day(microseconds: int, zone: tzinfo | None = None) -> str:
    """Return a date: ``2024-03-02``."""
    return _at(microseconds, zone).strftime("%Y-%m-%d")


def clock_time(microseconds: int, zone: tzinfo | None = None) -> str:
    """Return the time of day to the millisecond: ``10:42:07.318``."""
    return _at(microseconds, zone).strftime("%H:%M:%S.%f")[:-3]


def until(text: str, now: int, zone: tzinfo | None = None) -> int:
    """Read ``2027-01-01``, ``2027-01-01T14:00`` or a length of time from now; return Unix microseconds after ``now``.

    A date is the beginning of that day in this machine's zone. Raises BadLifetime for what cannot be read or is over.
    """
    try:
        end = when(text, zone)
    except BadLifetime as error:
        try:
            return now + life(text) * MICROSECONDS
        except BadLifetime:
            raise BadLifetime(error.message, todo="Write it like 2027-01-01, 2027-01-01T14:00 or 7d.") from error
    if end <= now:
        raise BadLifetime(f"{shown(text)} is over already.", todo="Give a time to come.")
    return end


def when(text: str, zone: tzinfo | None = None) -> int:
    """Read ``2026-03-01`` or ``2026-03-01T14:00`` as Unix microseconds; raise BadLifetime for what is no such time.

    A date is the beginning of that day in this machine's zone.
    """
    try:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone) if zone else at.astimezone()
    except (ValueError, OverflowError) as error:  # OverflowError: a year that no zone of this machine knows
        raise BadLifetime(f"{shown(text)} is not a time.", todo="Write it like 2026-03-01 or 2026-03-01T14:00.") from error
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def view(node: NodeView, zone: tzinfo | None = None) -> str:
    """Say how old an answer's view of one node is.

    ``lab3: 2 s behind``; ``nas: offline since 10:42, showing what was known then``.
    """
    name = safe(node.node)
    if node.state is not NodeState.ONLINE:
        if node.seen_at is None:
            return f"{name}: {node.state.value}, showing what is known"
        recent = node.age_s is not None and node.age_s < _TODAY_S
        since = _at(node.seen_at, zone).strftime("%H:%M") if recent else moment(node.seen_at, zone)
        return f"{name}: {node.state.value} since {since}, showing what was known then"
    parts = []
    if node.scanning:
        parts.append("scanning")
    if node.pending_rows:
        parts.append(f"{count(node.pending_rows, 'change')} to come")
    if node.behind:
        more = f" and {len(node.behind) - _NAMED} more" if len(node.behind) > _NAMED else ""
        parts.append(f"not up to date: {', '.join(safe(one) for one in node.behind[:_NAMED])}{more}")
    age = "not up to date yet" if node.age_s is None else f"{span(max(node.age_s, 0.0))} behind"
    return f"{name}: {age}" + (f" ({'; '.join(parts)})" if parts else "")


def root_view(one: RootView) -> str:
    """Say how fresh a root is: ``2 s behind``, ``scanning, 12 places to look at``, ``missing: …``."""
    parts = [] if one.activity is None or one.activity is RootActivity.IDLE else [one.activity.value]
    parts.append("not up to date yet" if one.age_s is None else f"{span(max(one.age_s, 0.0))} behind")
    if one.dirty:
        parts.append(f"{count(one.dirty, 'place')} to look at")
    if one.unread:
        parts.append(f"{count(one.unread, 'file')} to read")
    if one.unreadable:
        parts.append(f"{count(one.unreadable, 'file')} unreadable")
    if one.drifted:
        parts.append("not what its node knows")
    return ", ".join(parts) + (f": {safe(one.problem)}" if one.problem else "")


def stale(node: NodeView) -> bool:
    """Say whether a view is worth a remark: the node is away, behind, or being scanned."""
    away = node.state is not NodeState.ONLINE
    return away or node.scanning or bool(node.behind) or node.age_s is None or node.age_s > _FRESH_S


def _at(microseconds: int, zone: tzinfo | None) -> datetime:
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
        return at.astimezone(zone)
    except (OverflowError, ValueError):  # a time no calendar has
        return datetime.max.replace(tzinfo=UTC)
