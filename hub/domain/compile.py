"""From what is given to what a node has to enforce: the grants of one subject on one node. Values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from protocol.errors import BadInput
from protocol.grants import Grant, Permission
from protocol.names import Layout, Place, check_prefix, locate

MOST: Final = 600
"""Grants of one subject on one node that storage servers carry without slowing down (4-storage, measured)."""

_MICROSECOND: Final = 1_000_000
_COVERS: Final = {
    Permission.READ: frozenset({Permission.READ}),
    Permission.TIDY: frozenset({Permission.READ, Permission.TIDY}),
    Permission.DROP: frozenset({Permission.DROP}),
    Permission.WRITE: frozenset({Permission.READ, Permission.TIDY, Permission.DROP, Permission.WRITE}),
    Permission.MANAGE: frozenset(Permission),
}


class Opening(msgspec.Struct, frozen=True):
    """One workspace opened to the subject, and where it lies. ``expires_at`` in Unix microseconds."""

    workspace: int
    layout: Layout
    bucket: str
    root_prefix: str
    prefix: str
    permission: Permission
    expires_at: int | None = None


class OpenRoot(msgspec.Struct, frozen=True):
    """A public root with the prefix layout: everyone may read all of it."""

    bucket: str
    prefix: str


def entrance(place: Place, permission: Permission, dropper: str | None) -> Place:
    """Return where somebody with this permission gets into a workspace that lies at ``place``.

    Who may only drop gets a folder of their own below the workspace, because writing a key that is there overwrites it
    (4-storage): droppers never touch what others dropped.
    """
    if permission is Permission.DROP and dropper is not None:
        return Place(place.bucket, check_prefix(f"{place.key}{dropper}/"))
    return place


def compile_grants(
    openings: Iterable[Opening], *, roots: Iterable[OpenRoot] = (), dropper: str | None, now: int
) -> tuple[Grant, ...]:
    """Return the grants at Unix microsecond ``now``, in a fixed order, without those that have run out.

    ``dropper`` is the person's name, None for a shared subject. A workspace that a root opens anyway for the same is
    left out, and so is what another grant opens anyway, as where somebody has it from two groups. Raises BadInput where
    there are more than a server carries.
    """
    whole = [Grant(0, root.bucket, root.prefix, Permission.READ) for root in roots]
    grants = list(whole)
    for opening in openings:
        if opening.expires_at is not None and opening.expires_at <= now:
            continue
        whole_of_it = locate(opening.layout, opening.bucket, opening.root_prefix, opening.prefix)
        place = entrance(whole_of_it, opening.permission, dropper)
        expires = None if opening.expires_at is None else opening.expires_at // _MICROSECOND
        grant = Grant(opening.workspace, place.bucket, place.key, opening.permission, expires)
        if not any(_covers(root, grant) for root in whole):
            grants.append(grant)
    grants = _needed(grants)
    if len(grants) > MOST:
        raise BadInput(
            f"That would be {len(grants)} grants of one subject on one node; a storage server carries {MOST}.",
            todo="Share fewer, larger workspaces, or use another node.",
        )
    return tuple(sorted(grants, key=lambda grant: (grant.bucket, grant.prefix, grant.workspace)))


def _needed(grants: Sequence[Grant]) -> list[Grant]:
    """Leave out each grant that another covers, of the same place or of one above it; of equal ones the first stays."""
    by_place: dict[tuple[str, str], list[Grant]] = {}
    for grant in grants:
        there = by_place.setdefault((grant.bucket, grant.prefix), [])
        if not any(_covers(other, grant) for other in there):
            there[:] = [other for other in there if not _covers(grant, other)] + [grant]
    return [
        grant
        for (bucket, prefix), there in by_place.items()
        for grant in there
        if not any(_covers(other, grant) for above in _above(prefix) for other in by_place.get((bucket, above), ()))
    ]


def _above(prefix: str) -> Iterator[str]:
    """Yield the prefixes of the folders that hold this one, the whole bucket's last."""
    while prefix:
        prefix = prefix[: prefix.rfind("/", 0, -1) + 1]
        yield prefix


def takes_away(before: Sequence[Grant], after: Sequence[Grant]) -> bool:
    """Say whether something that ``before`` allowed is not allowed by ``after``."""
    return any(not any(_covers(new, old) for new in after) for old in before)


def _covers(wide: Grant, narrow: Grant) -> bool:
    return (
        wide.bucket == narrow.bucket
        and narrow.prefix.startswith(wide.prefix)
        and narrow.permission in _COVERS[wide.permission]
        and (wide.expires is None or (narrow.expires is not None and narrow.expires <= wide.expires))
    )
