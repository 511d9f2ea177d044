"""What sets of grants open, and how two of them differ. Pure.

Places are positions on the storage server; one place holds another where its prefix begins the other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from protocol.grants import Grant, Permission
from protocol.names import Place

_CAN: Final = {
    Permission.READ: frozenset({"read"}),
    Permission.TIDY: frozenset({"read", "change"}),
    Permission.DROP: frozenset({"put"}),
    Permission.WRITE: frozenset({"read", "put", "change"}),
    Permission.MANAGE: frozenset({"read", "put", "change", "manage"}),
}
"""What each permission lets one do. Managing is the hub's business: on storage it is writing."""
_SHOWS: Final = (("read", Permission.READ), ("put", Permission.DROP), ("change", Permission.TIDY))
"""By trying which permission a difference shows, most telling first."""


class Differs(msgspec.Struct, frozen=True):
    """Something that one set of grants allows and another does not."""

    permission: Permission
    place: Place


def narrower(one: Permission, other: Permission) -> Permission | None:
    """Return what both permissions allow; None where that is nothing."""
    both = _CAN[one] & _CAN[other]
    return next((permission for permission, can in _CAN.items() if can == both), None)


def intersect(one: Sequence[Grant], other: Sequence[Grant]) -> tuple[Grant, ...]:
    """Return grants that open what both open, and for no longer than either."""
    found: dict[Grant, None] = {}
    there, here = _by_place(other), _by_place(one)
    for grant in one:
        for wider in _above(there, grant):
            _add(found, grant, wider)
    for grant in other:
        for wider in _above(here, grant):
            _add(found, grant, wider)
    return tuple(found)


def missing(wanted: Iterable[Grant], there: Sequence[Grant]) -> list[Differs]:
    """Return what ``wanted`` opens and ``there`` does not, one line for each place."""
    have = _by_place(there)
    found: dict[Differs, None] = {}
    for grant in wanted:
        can: set[str] = set()
        for wider in _above(have, grant):
            can |= _CAN[wider.permission]
        for ability, permission in _SHOWS:
            if ability in _CAN[grant.permission] - can:
                found[Differs(permission, Place(grant.bucket, grant.prefix))] = None
                break
    return list(found)


def touches(grants: Sequence[Grant], bucket: str, prefix: str) -> bool:
    """Say whether grants open anything in a place."""
    return any(
        grant.bucket == bucket and (grant.prefix.startswith(prefix) or prefix.startswith(grant.prefix)) for grant in grants
    )


def living(grants: Iterable[Grant], now: int) -> tuple[Grant, ...]:
    """Return the grants that have not expired at Unix second ``now``."""
    return tuple(grant for grant in grants if grant.expires is None or grant.expires > now)


def _add(found: dict[Grant, None], grant: Grant, wider: Grant) -> None:
    permission = narrower(grant.permission, wider.permission)
    if permission is None:
        return
    ends = [end for end in (grant.expires, wider.expires) if end is not None]
    found[msgspec.structs.replace(grant, permission=permission, expires=min(ends, default=None))] = None


def _by_place(grants: Iterable[Grant]) -> dict[tuple[str, str], list[Grant]]:
    places: dict[tuple[str, str], list[Grant]] = {}
    for grant in grants:
        places.setdefault((grant.bucket, grant.prefix), []).append(grant)
    return places


def _above(places: dict[tuple[str, str], list[Grant]], grant: Grant) -> Iterator[Grant]:
    """Yield the grants whose place holds this one's."""
    prefix = grant.prefix
    while True:
        yield from places.get((grant.bucket, prefix), ())
        if not prefix:
            return
        prefix = prefix[: prefix.rfind("/", 0, len(prefix) - 1) + 1]
