"""How far each node's journal is in the catalogue, and the totals of roots that move with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import journals, roots
from protocol.digest import EMPTY_RUN
from protocol.messages import Cursor, IndexLevel

NOTHING = Cursor(0, 0, EMPTY_RUN)
"""Where the journal of a node stands that the hub has nothing of: below every generation."""


class RootTotals(msgspec.Struct):
    """What a root holds in the catalogue; changed while a batch goes in. ``generation``: see ``tables.roots``."""

    id: int
    node_id: int
    level: IndexLevel
    retired: bool
    objects: int
    bytes: int
    digest: int
    generation: int


async def cursors(connection: AsyncConnection, nodes: Iterable[int]) -> dict[int, Cursor]:
    """Return the cursors of these nodes and hold them until the end of the transaction; none for a new node."""
    found = await connection.execute(
        select(journals).where(journals.c.node_id.in_(list(nodes))).with_for_update(key_share=True)
    )
    return {row.node_id: Cursor(row.generation, row.sequence, row.running) for row in found}


async def cursor(connection: AsyncConnection, node: int) -> Cursor:
    """Return one node's cursor."""
    row = (await connection.execute(select(journals).where(journals.c.node_id == node))).first()
    return NOTHING if row is None else Cursor(row.generation, row.sequence, row.running)


async def move(connection: AsyncConnection, moved: dict[int, Cursor], known: Iterable[int]) -> None:
    """Move cursors; ``known`` are the nodes that have one already."""
    rows = [
        {"node": node, "generation": to.generation, "sequence": to.sequence, "running": to.running}
        for node, to in moved.items()
    ]
    there = set(known)
    old = [row for row in rows if row["node"] in there]
    new = [row for row in rows if row["node"] not in there]
    values: dict[str, Any] = {name: bindparam(name) for name in ("generation", "sequence", "running")}
    if old:
        await connection.execute(update(journals).where(journals.c.node_id == bindparam("node")).values(values), old)
    if new:
        await connection.execute(insert(journals).values(node_id=bindparam("node"), **values), new)


async def root_totals(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, RootTotals]:
    """Return the totals of these roots, retired ones too, and hold them until the end of the transaction.

    Whoever makes a workspace holds its root first as well, so that the two never wait for each other.
    """
    names = [column for column in RootTotals.__struct_fields__ if column != "retired"]
    query = select(*(roots.c[name] for name in names), roots.c.retired_at).where(roots.c.id.in_(list(ids)))
    found = await connection.execute(query.order_by(roots.c.id).with_for_update(key_share=True))
    return {
        row.id: RootTotals(
            row.id,
            row.node_id,
            IndexLevel(row.level),
            row.retired_at is not None,
            row.objects,
            row.bytes,
            row.digest,
            row.generation,
        )
        for row in found
    }


async def nodes_of(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, int]:
    """Return whose node these roots are on, retired ones too, by root."""
    found = await connection.execute(select(roots.c.id, roots.c.node_id).where(roots.c.id.in_(list(ids))))
    return {row[0]: row[1] for row in found}


async def set_root_totals(connection: AsyncConnection, changed: Sequence[RootTotals]) -> None:
    """Write totals back."""
    if not changed:
        return
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("objects", "bytes", "digest", "generation")}
    rows = [
        {"root": one.id, "new_objects": one.objects, "new_bytes": one.bytes, "new_digest": one.digest}
        | {"new_generation": one.generation}
        for one in changed
    ]
    await connection.execute(update(roots).where(roots.c.id == bindparam("root")).values(values), rows)


async def set_scans(connection: AsyncConnection, scans: dict[int, bytes]) -> None:
    """Keep how far the scans of these roots are: Progress, msgpack."""
    if scans:
        rows = [{"root": root, "new_scan": scan} for root, scan in scans.items()]
        await connection.execute(update(roots).where(roots.c.id == bindparam("root")).values(scan=bindparam("new_scan")), rows)
