"""What proves that the catalogue is right: entries in key order, what is kept of a root, which roots have drifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import nodes, roots
from protocol.digest import combine
from protocol.messages import IndexLevel, Sum

_OPEN: Final = (str(IndexLevel.NAMES), str(IndexLevel.METADATA), str(IndexLevel.CONTENT))


class Content(NamedTuple):
    """A live entry, as far as it counts in a digest."""

    key: str
    size: int
    mtime: int
    etag: str


class Drifted(msgspec.Struct, frozen=True):
    """A root whose catalogue did not equal what its node has; ``since`` in Unix microseconds."""

    root: int
    node: int
    node_name: str
    name: str
    since: int


class Open(msgspec.Struct, frozen=True):
    """A root of which the hub keeps a catalogue; ``since`` when it was made, in Unix microseconds."""

    root: int
    node: int
    since: int


async def stretch(connection: AsyncConnection, root: int, low: str, high: str | None, limit: int) -> list[Content]:
    """Return the first live entries of a root behind ``low``, up to and with ``high`` (None: to the end), in key order."""
    upper = "" if high is None else "AND key <= $4 "
    sql = (
        f"SELECT key, size, mtime, etag FROM entries WHERE root_id = $1 AND key > $2 {upper}AND NOT gone ORDER BY key LIMIT $3"  # noqa: S608 - one of two texts, both written here
    )
    if connection.dialect.name == "sqlite":
        sql = sql.replace("$", "?")
    arguments: tuple[Any, ...] = (root, low, limit) if high is None else (root, low, limit, high)
    found: list[Any] = list(await connection.exec_driver_sql(sql, arguments))
    return [Content(*row) for row in found]


async def kept(connection: AsyncConnection, root: int) -> Sum:
    """Return what is kept of a root from change to change."""
    row = (await connection.execute(select(roots.c.objects, roots.c.bytes, roots.c.digest).where(roots.c.id == root))).one()
    return Sum(row.objects, row.bytes, row.digest)


async def mend(connection: AsyncConnection, root: int, was: Sum, counted: Sum) -> None:
    """Put totals right that were kept as ``was`` where ``counted`` was true, whatever has come and gone since then."""
    held = select(roots.c.objects, roots.c.bytes, roots.c.digest).where(roots.c.id == root).with_for_update()
    row = (await connection.execute(held)).one()
    digest = combine(row.digest, added=(counted.digest,), removed=(was.digest,))
    news = {
        "objects": max(row.objects + counted.objects - was.objects, 0),
        "bytes": max(row.bytes + counted.bytes - was.bytes, 0),
        "digest": digest,
    }
    await connection.execute(update(roots).where(roots.c.id == root).values(news))


async def note_drift(connection: AsyncConnection, found: Mapping[int, int | None]) -> None:
    """Note since when roots differ (the first time counts), or that they agree (None)."""
    for root, at in found.items():
        if at is None:
            changed = update(roots).where(roots.c.id == root, roots.c.drifted_at.is_not(None)).values(drifted_at=None)
        else:
            changed = update(roots).where(roots.c.id == root, roots.c.drifted_at.is_(None)).values(drifted_at=at)
        await connection.execute(changed)


async def drifted(connection: AsyncConnection) -> list[Drifted]:
    """Return the roots that differ from what their nodes have."""
    found = await connection.execute(
        select(roots.c.id, nodes.c.id, nodes.c.name, roots.c.name, roots.c.drifted_at)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .where(
            roots.c.drifted_at.is_not(None),
            roots.c.retired_at.is_(None),
            roots.c.level.in_(_OPEN),
            nodes.c.evicted_at.is_(None),
        )
        .order_by(roots.c.drifted_at)
    )
    return [Drifted(*row) for row in found]


async def open_roots(connection: AsyncConnection) -> list[Open]:
    """Return the roots that have a catalogue."""
    found = await connection.execute(
        select(roots.c.id, roots.c.node_id, roots.c.created_at)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .where(roots.c.retired_at.is_(None), roots.c.level.in_(_OPEN), nodes.c.evicted_at.is_(None))
        .order_by(roots.c.id)
    )
    return [Open(*row) for row in found]
