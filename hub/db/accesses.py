"""Attributed accesses: who read or wrote what, by the minute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, bindparam, case, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.catalogue import after_folder
from hub.db.rows import storable
from hub.db.tables import accesses, users
from protocol.messages import Access

MINUTE: Final = 60_000_000
_PAGE: Final = 5000
"""Rows pruned in one transaction: some 20 ms."""


class Listed(msgspec.Struct, frozen=True):
    """One row as it is listed. ``username`` is None for somebody unknown. ``key`` is in the root's own space."""

    id: int
    username: str | None
    key: str
    operation: str
    first_at: int
    last_at: int
    count: int
    refused: int


_NAMES: Final = ("first_at", "last_at", "count", "refused")
_MERGE: Final = (
    update(accesses)
    .where(accesses.c.id == bindparam("row"))
    .values(
        first_at=case((accesses.c.first_at > bindparam("new_first"), bindparam("new_first")), else_=accesses.c.first_at),
        last_at=case((accesses.c.last_at < bindparam("new_last"), bindparam("new_last")), else_=accesses.c.last_at),
        count=accesses.c.count + bindparam("more", type_=BigInteger),
        refused=accesses.c.refused + bindparam("more_refused", type_=BigInteger),
    )
)


def _slot(root: int, key: str, actor: int, operation: str, at: int) -> tuple[int, str, int, str, int]:
    return root, key, actor, operation, at // MINUTE


async def add(connection: AsyncConnection, rows: Sequence[tuple[Access, int]]) -> None:
    """Add accesses, each with its workspace's id; of one minute, key, person and operation there is one row.

    One caller at a time: the minute is looked up before it is added to.
    """
    if not rows:
        return
    there = await _there(connection, [one for one, _ in rows])
    new: dict[tuple[int, str, int, str, int], dict[str, Any]] = {}
    merged = []
    for one, workspace in rows:
        slot = _slot(one.root, one.key, one.actor, one.operation, one.first_at)
        if slot in there:
            more = {"new_first": one.first_at, "new_last": one.last_at, "more": one.count, "more_refused": one.refused}
            merged.append({"row": there[slot]} | more)
        elif slot in new:
            row = new[slot]
            row |= {"first_at": min(row["first_at"], one.first_at), "last_at": max(row["last_at"], one.last_at)}
            row |= {"count": row["count"] + one.count, "refused": row["refused"] + one.refused}
        else:
            values = {"root_id": one.root, "workspace_id": workspace, "key": one.key, "actor_id": one.actor}
            values |= {"operation": one.operation} | {name: getattr(one, name) for name in _NAMES}
            new[slot] = values
    for each in merged:
        await connection.execute(_MERGE, each)
    if new:
        await connection.execute(insert(accesses), list(new.values()))


async def _there(connection: AsyncConnection, rows: Sequence[Access]) -> dict[tuple[int, str, int, str, int], int]:
    first = min(one.first_at for one in rows) // MINUTE * MINUTE
    last = (max(one.last_at for one in rows) // MINUTE + 1) * MINUTE
    query = select(
        accesses.c.id, *(accesses.c[name] for name in ("root_id", "key", "actor_id", "operation", "first_at"))
    ).where(
        accesses.c.root_id.in_({one.root for one in rows}),
        accesses.c.key.in_({one.key for one in rows}),
        accesses.c.last_at >= first,
        accesses.c.last_at < last,
    )
    return {_slot(*row[1:]): row[0] for row in await connection.execute(query)}


async def newest(
    connection: AsyncConnection,
    workspace: int,
    below: str,
    *,
    exact: str | None,
    username: str | None,
    limit: int,
    before: int | None,
) -> list[Listed]:
    """Return accesses in a workspace, newest first: those below a prefix of the root's own space, or of one key as well."""
    if not storable(below + (username or "")):
        return []
    inside = (accesses.c.key >= below) & (accesses.c.key < after_folder(below))
    query = (
        select(accesses.c.id, users.c.username, *(accesses.c[name] for name in ("key", "operation", *_NAMES)))
        .outerjoin(users, users.c.id == accesses.c.actor_id)
        .where(accesses.c.workspace_id == workspace, inside if exact is None else inside | (accesses.c.key == exact))
        .order_by(accesses.c.id.desc())
        .limit(limit)
    )
    if username is not None:
        query = query.where(users.c.username == username)
    if before is not None:
        query = query.where(accesses.c.id < before)
    return [Listed(*row) for row in await connection.execute(query)]


async def prune(connection: AsyncConnection, before: int) -> int:
    """Forget some of what ended before Unix microsecond ``before``, oldest first; return how many rows, 0: nothing is left.

    Rows come in about the order of their times, so only the oldest are looked at.
    """
    oldest = await connection.execute(select(accesses.c.id, accesses.c.last_at).order_by(accesses.c.id).limit(_PAGE))
    gone = [row.id for row in oldest if row.last_at < before]
    if gone:
        await connection.execute(delete(accesses).where(accesses.c.id.in_(gone)))
    return len(gone)


def keys(rows: Iterable[Access]) -> list[tuple[int, str]]:
    """Return the addresses that accesses are about."""
    return list({(one.root, one.key) for one in rows})
