"""How a path is read: ``workspace/…`` for one's own, ``owner/workspace/…`` for anybody's. Values in, values out."""

from __future__ import annotations

from typing import Final, NamedTuple

from protocol.errors import BadName
from protocol.names import MAX_KEY_BYTES, MAX_NAME, check_key, shown

ME: Final = "me"
"""Stands for one's own name in a path."""
_LONGEST: Final = MAX_KEY_BYTES + 2 * (MAX_NAME + 1)


class Reading(NamedTuple):
    """One way to read a path: a workspace by owner and name, and the path below it."""

    owner: str
    name: str
    rest: str


def readings(path: str, username: str) -> tuple[Reading, ...]:
    """Return the ways to read a path, the first that exists counts; raise BadName for what cannot be one.

    ``a/b/c`` is ``b/c`` in one's own workspace ``a`` if there is one; else it is ``c`` in ``a``'s workspace ``b``. One's
    own comes first, so that nobody else's name can change what one's own paths mean. ``me/a/…`` is always one's own.
    """
    first, slash, rest = path.partition("/")
    if not first or len(path) > _LONGEST:
        raise BadName(f"{shown(path)} is not a path.", todo="A path is workspace/… or owner/workspace/…")
    if rest:
        check_key(rest)
    second, _, below = rest.partition("/")
    if first == ME:
        if not second:
            raise BadName(f"{shown(path)} names no workspace.", todo="A path is workspace/… or owner/workspace/…")
        return (Reading(username, second, below),)
    own = Reading(username, first, rest)
    return (own, Reading(first, second, below)) if slash and second else (own,)
