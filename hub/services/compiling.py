"""What one subject may do on one node, from everything that the database knows: read in the transaction that signs it."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grants, groups, links, nodes, people, quotas
from hub.db.grants import Given
from hub.domain.access import left_of
from hub.domain.compile import Opening, OpenRoot, compile_grants
from hub.domain.quota import limit
from protocol.grants import Grant, Permission, Subject, SubjectKind

_MICROSECOND: Final = 1_000_000
_LONGEST_LINK_S: Final = 604_800


class Compiled(msgspec.Struct, frozen=True):
    """The content of a grant set: what is open, and which groups' shared sets count too."""

    grants: tuple[Grant, ...] = ()
    groups: tuple[int, ...] = ()
    under: int = 0
    """Of a link: who made it."""
    ends: int | None = None
    """Of a link: when it ends by itself, Unix seconds."""


async def compile_set(
    connection: AsyncConnection,
    node: int,
    subject: Subject,
    now: int,
    *,
    without: frozenset[int] = frozenset(),
    reading: frozenset[int] = frozenset(),
    unconfirmed: bool = False,
) -> Compiled:
    """Return what a subject may do on a node at Unix microsecond ``now``.

    What a group was given stands in its members' own sets until it has a shared set on the node; dropping always does.
    ``without``: leave these workspaces out. ``reading``: open these for reading at most. ``unconfirmed``: also what a node's
    owner has yet to confirm. Raises BadInput where there would be too many grants.
    """
    since = 0 if unconfirmed else await nodes.unconfirmed_since(connection, node) or 0
    given = await grants.given_to(connection, node, subject.kind, subject.id)
    roots: list[tuple[str, str, int]] = []
    counting: tuple[int, ...] = ()
    dropper = None
    if subject.kind is SubjectKind.LINK:
        return await _compile_link(connection, node, subject, now, since=since, without=without)
    if subject.kind is SubjectKind.EVERYONE:
        given += await grants.in_public_bucket_roots(connection, node)
        roots = await grants.public_prefix_roots(connection, node)
    elif subject.kind is SubjectKind.GROUP:
        given = [one for one in given if one.permission is not Permission.DROP]
    else:
        user = await people.by_id(connection, subject.id)
        if user is None or user.disabled_at is not None:
            return Compiled()
        dropper = user.username
        given += await grants.owned_by(connection, node, subject.id)
        given += await grants.through_groups(connection, node, subject.id)
        counting = await groups.counting_for(connection, node, subject.id, since=since)
    full = await quotas.over_among(connection, {one.workspace for one in given})
    openings = [
        Opening(one.workspace, one.layout, one.bucket, one.root_prefix, one.prefix, permission, one.expires_at)
        for one in given
        if one.workspace not in without
        and one.since >= since
        and (permission := _worth(one, full=one.workspace in full, reading=one.workspace in reading)) is not None
    ]
    whole = [OpenRoot(bucket, prefix) for bucket, prefix, made in roots if made >= since]
    return Compiled(compile_grants(openings, roots=whole, dropper=dropper, now=now), counting)


async def _compile_link(
    connection: AsyncConnection, node: int, subject: Subject, now: int, *, since: int, without: frozenset[int]
) -> Compiled:
    """Return the one grant of a link. What its maker may do bounds it on the node, at every moment."""
    span = await links.span(connection, subject.id)
    if span is None:
        return Compiled(ends=now // _MICROSECOND + _LONGEST_LINK_S)
    by, ends = span
    found = await links.leaning(connection, node, subject.id)
    grants: tuple[Grant, ...] = ()
    if found is not None and not found.ended and found.created_at >= since and found.workspace not in without:
        permission = left_of(Permission.DROP if found.put else Permission.READ, archived=found.archived)
        if permission is not None:
            place = (found.workspace, found.layout, found.bucket, found.root_prefix, found.prefix)
            grants = compile_grants([Opening(*place, permission, found.expires_at)], dropper=None, now=now)
    return Compiled(grants, under=by, ends=ends // _MICROSECOND)


def _worth(given: Given, *, full: bool, reading: bool) -> Permission | None:
    left = left_of(given.permission, archived=given.archived or reading)
    return limit(left) if full and left is not None else left
