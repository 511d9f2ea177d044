"""Roots."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import storable
from hub.db.tables import left_places, nodes, quotas, root_roles, roots, users
from protocol.api import RootKind
from protocol.messages import IndexLevel
from protocol.names import Layout


class RootRow(msgspec.Struct, frozen=True):
    """A root, its node and that node's owner. ``scan`` and ``report`` are msgpack, ``size`` is in bytes."""

    id: int
    node_id: int
    node: str
    owner_id: int
    owner: str
    name: str
    kind: RootKind
    bucket: str
    prefix: str
    layout: Layout
    level: IndexLevel
    pace: int
    quiet: str
    drifted_at: int | None
    created_at: int
    objects: int
    size: int
    digest: int
    scan: bytes | None
    report: bytes | None


_ELSEWHERE = {
    "node": nodes.c.name,
    "owner_id": nodes.c.owner_id,
    "owner": users.c.username,
    "report": nodes.c.report,
    "size": roots.c.bytes,
}
_FIELDS = [_ELSEWHERE[name] if name in _ELSEWHERE else roots.c[name] for name in RootRow.__struct_fields__]


def _select(*where: ColumnElement[bool]) -> Select[Any]:
    return (
        select(*_FIELDS)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .join(users, users.c.id == nodes.c.owner_id)
        .where(roots.c.retired_at.is_(None), nodes.c.evicted_at.is_(None), *where)
        .order_by(nodes.c.name, roots.c.name)
    )


def _read(row: Any) -> RootRow:
    values = dict(zip(RootRow.__struct_fields__, row, strict=True))
    values |= {"kind": RootKind(row.kind), "layout": Layout(row.layout), "level": IndexLevel(row.level)}
    return RootRow(**values)


async def of_node(connection: AsyncConnection, node: int) -> list[RootRow]:
    """Return a node's roots."""
    return [_read(row) for row in await connection.execute(_select(roots.c.node_id == node))]


async def everything(connection: AsyncConnection) -> list[RootRow]:
    """Return all roots."""
    return [_read(row) for row in await connection.execute(_select())]


async def called(connection: AsyncConnection, name: str, node: str | None = None) -> list[RootRow]:
    """Return the roots of this name, on any node or on one."""
    if not storable(name + (node or "")):
        return []
    here = [roots.c.name == name] if node is None else [roots.c.name == name, nodes.c.name == node]
    return [_read(row) for row in await connection.execute(_select(*here))]


async def add(
    connection: AsyncConnection,
    *,
    root: int,
    node: int,
    name: str,
    kind: RootKind,
    bucket: str,
    prefix: str,
    layout: Layout,
    level: IndexLevel,
    pace: int = 0,
    quiet: str = "",
    now: int,
) -> None:
    """Add a root; raises IntegrityError where the node has one of that name."""
    await connection.execute(
        insert(roots).values(
            id=root,
            node_id=node,
            name=name,
            kind=str(kind),
            bucket=bucket,
            prefix=prefix,
            layout=str(layout),
            level=str(level),
            pace=pace,
            quiet=quiet,
            created_at=now,
        )
    )


async def remove(connection: AsyncConnection, root: int) -> None:
    """Take back a root in which nothing was made yet."""
    await connection.execute(delete(root_roles).where(root_roles.c.root_id == root))
    await connection.execute(delete(roots).where(roots.c.id == root))


async def change(connection: AsyncConnection, root: int, **values: Any) -> None:
    """Change columns of a root."""
    await connection.execute(update(roots).where(roots.c.id == root).values(**values))


async def retire(connection: AsyncConnection, root: int, now: int) -> None:
    """End a root; its name is free again, and so is its place."""
    await connection.execute(delete(root_roles).where(root_roles.c.root_id == root))
    await connection.execute(delete(left_places).where(left_places.c.root_id == root))
    await connection.execute(delete(quotas).where(quotas.c.root_id == root))
    await change(connection, root, retired_at=now, name=f"~{root:x}")


async def lock(connection: AsyncConnection, root: int) -> bool:
    """Hold a root until the end of the transaction; False where it is gone."""
    held = await connection.execute(select(roots.c.id).where(roots.c.id == root).with_for_update())
    return held.first() is not None
