"""Presigned links as rows. What they open is a grant set of their own (``grant_sets``); their address is nowhere here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import grant_sets, links, nodes, roots, users, workspaces
from protocol.grants import SubjectKind
from protocol.names import Layout


class LinkRow(msgspec.Struct, frozen=True):
    """A link, with the names of its node, its workspace (None where that is gone) and its maker. Times in microseconds."""

    id: int
    node_id: int
    node: str
    workspace_id: int
    owner: str | None
    name: str | None
    by_id: int
    by: str
    by_disabled_at: int | None
    key: str
    put: bool
    created_at: int
    expires_at: int
    revoked_at: int | None


class Leaning(msgspec.Struct, frozen=True):
    """What a link's grant set is made of: where its workspace lies, and whose access it leans on."""

    workspace: int
    layout: Layout
    bucket: str
    root_prefix: str
    prefix: str
    archived: bool
    put: bool
    by_id: int
    created_at: int
    expires_at: int
    ended: bool
    """Whether it was revoked, or its maker's account was ended."""


_owner, _maker = users.alias("owner"), users.alias("maker")
_ELSEWHERE: Final = {
    "node": nodes.c.name,
    "owner": _owner.c.username,
    "name": workspaces.c.name,
    "by": _maker.c.username,
    "by_disabled_at": _maker.c.disabled_at,
}
_FIELDS: Final = [_ELSEWHERE[name] if name in _ELSEWHERE else links.c[name] for name in LinkRow.__struct_fields__]


def _select(*where: ColumnElement[bool]) -> Select[Any]:
    return (
        select(*_FIELDS)
        .join(nodes, nodes.c.id == links.c.node_id)
        .join(_maker, _maker.c.id == links.c.by_id)
        .outerjoin(workspaces, workspaces.c.id == links.c.workspace_id)
        .outerjoin(_owner, _owner.c.id == workspaces.c.owner_id)
        .where(nodes.c.evicted_at.is_(None), *where)
        .order_by(links.c.created_at, links.c.id)
    )


_LIVING: Final = (links.c.revoked_at.is_(None), links.c.expires_at > bindparam("now", type_=BigInteger))
_LEANING: Final = (
    select(
        workspaces.c.id,
        roots.c.layout,
        roots.c.bucket,
        roots.c.prefix,
        workspaces.c.prefix,
        workspaces.c.archived_at.is_not(None),
        links.c.put,
        links.c.by_id,
        links.c.created_at,
        links.c.expires_at,
        links.c.revoked_at.is_not(None) | users.c.disabled_at.is_not(None) | roots.c.retired_at.is_not(None),
    )
    .join(users, users.c.id == links.c.by_id)
    .join(workspaces, workspaces.c.id == links.c.workspace_id)
    .join(roots, and_(roots.c.id == workspaces.c.root_id, roots.c.node_id == links.c.node_id))
    .where(links.c.id == bindparam("link", type_=BigInteger), links.c.node_id == bindparam("node", type_=BigInteger))
)


async def add(connection: AsyncConnection, **values: Any) -> None:
    """Add a link: ``id``, ``node_id``, ``workspace_id``, ``by_id``, ``key``, ``put``, ``created_at``, ``expires_at``."""
    await connection.execute(insert(links).values(**values))


async def by_id(connection: AsyncConnection, link: int) -> LinkRow | None:
    """Return a link, also one that has ended."""
    row = (await connection.execute(_select(links.c.id == link))).first()
    return None if row is None else LinkRow(*row)


async def living(
    connection: AsyncConnection, now: int, *, workspace: int | None = None, by: int | None = None, most: int | None = None
) -> list[LinkRow]:
    """Return the links that have not ended: all, those on one workspace, those of one person; the oldest first."""
    mine = [] if workspace is None else [links.c.workspace_id == workspace]
    mine += [] if by is None else [links.c.by_id == by]
    query = _select(*_LIVING, *mine).limit(most)
    return [LinkRow(*row) for row in await connection.execute(query, {"now": now})]


async def count(connection: AsyncConnection, by: int, now: int) -> int:
    """Count somebody's links that have not ended."""
    query = select(func.count()).select_from(links).where(links.c.by_id == by, *_LIVING)
    return int(await connection.scalar(query, {"now": now}) or 0)


async def revoke(connection: AsyncConnection, which: Sequence[int], *, at: int) -> None:
    """Note that links are revoked; those that were before stay as they are."""
    for link in which:
        await connection.execute(update(links).where(links.c.id == link, links.c.revoked_at.is_(None)).values(revoked_at=at))


async def leaning(connection: AsyncConnection, node: int, link: int) -> Leaning | None:
    """Return what a link's grant set is made of; None where the link or its workspace is gone."""
    row = (await connection.execute(_LEANING, {"node": node, "link": link})).first()
    if row is None:
        return None
    workspace, layout, bucket, root_prefix, prefix, archived, put, by, created, expires, ended = row
    place = (workspace, Layout(layout), bucket, root_prefix, prefix)
    return Leaning(*place, bool(archived), bool(put), by, created, expires, bool(ended))


async def span(connection: AsyncConnection, link: int) -> tuple[int, int] | None:
    """Return who made a link and when it ends, whatever has become of it; None for one that is not known."""
    row = (await connection.execute(select(links.c.by_id, links.c.expires_at).where(links.c.id == link))).first()
    return None if row is None else (row[0], row[1])


async def forget(connection: AsyncConnection, before: int) -> int:
    """Remove the links that ended before then, with their sets; return how many."""
    old = select(links.c.id).where(links.c.expires_at < before)
    sets = delete(grant_sets).where(grant_sets.c.subject_kind == str(SubjectKind.LINK), grant_sets.c.subject_id.in_(old))
    await connection.execute(sets)
    return (await connection.execute(delete(links).where(links.c.expires_at < before))).rowcount
