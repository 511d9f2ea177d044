"""Quotas: when one is exceeded, what writing becomes meanwhile, and what the count does not see. Values in, values out."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.grants import Permission
from protocol.messages import IndexLevel

MIB: Final = 1 << 20
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP: Final = 1024


class Strain(enum.IntEnum):
    """How a workspace stands with every quota that counts it. The numbers are those of ``Standing.strain``."""

    FREE = 0
    WARNED = 1
    OVER = 2


class Trait(msgspec.Struct, frozen=True):
    """A root as a quota counts it. ``called`` is ``node/root``; ``directory``: a plain directory that others write to."""

    called: str
    level: IndexLevel
    versioned: bool
    directory: bool


def limit(permission: Permission) -> Permission | None:
    """Return what a permission becomes while a quota is exceeded: nobody adds, everybody may still read and delete."""
    if permission.writes:
        return Permission.TIDY
    return None if permission is Permission.DROP else permission


def exceeded(used: int, most: int | None, *, before: bool) -> bool:
    """Say whether a limit of ``most`` bytes is exceeded, given whether it was ``before``.

    It is from the moment on that nothing fits any more, until a margin is free: 1 % of it and at least 1 MiB, but of a
    small limit half, or it could never be reached again. So one file more or less does not turn keys off and on.
    """
    if most is None:
        return False
    if not before:
        return used >= most
    return used >= most - min(max(most // 100, MIB), most // 2)


def strained(workspace: str, strain: Strain) -> str:
    """Say how a workspace stands with its quotas; empty where there is nothing to say."""
    if strain is Strain.OVER:
        return f"{workspace} is over its quota: nothing can be added to it; reading and deleting go on."
    return f"{workspace} is near its quota." if strain is Strain.WARNED else ""


def caveats(roots: Iterable[Trait]) -> tuple[str, ...]:
    """Say in sentences what a quota over these roots does not count, or cannot hold up."""
    said: list[str] = []
    for root in roots:
        if root.level in {IndexLevel.NONE, IndexLevel.LOCAL}:
            said.append(f"{root.called} is not counted: what lies in it is not in this hub's catalogue (level {root.level}).")
        if root.versioned:
            said.append(
                f"{root.called}: only the newest version of a file is counted; its server keeps old ones in some buckets."
            )
        if root.directory:
            said.append(f"{root.called}: what people write there without wio is counted, but cannot be held up.")
    return tuple(dict.fromkeys(said))


def size(number: int) -> str:
    """Return a number of bytes as people write it: 1.5 MiB."""
    value = float(number)
    for unit in _UNITS:
        if abs(value) < _STEP or unit == _UNITS[-1]:
            return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= _STEP
    raise AssertionError  # pragma: no cover - the last unit has returned
