"""What was read out of objects, beside the catalogue's entries: it belongs to one content of an object and goes with it.

Whoever writes here has taken revisions first, as for entries (``catalogue``).
"""

# ruff: noqa: S608 - every name in this SQL is written in this file or in ``catalogue``; values are always parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue
from hub.db.catalogue import Address
from hub.db.tables import entries, fields


class FieldsRow(msgspec.Struct, frozen=True):
    """One row. ``body`` is ``protocol.fields``, packed; ``mtime`` in Unix nanoseconds."""

    root_id: int
    key: str
    size: int
    mtime: int
    etag: str
    body: bytes
    problem: bool

    @property
    def content(self) -> tuple[int, int, str]:
        """The content of the object it was read out of."""
        return self.size, self.mtime, self.etag


async def stored(connection: AsyncConnection, addresses: Sequence[Address]) -> dict[Address, FieldsRow]:
    """Return what is there at these addresses; a few hundred of them at a time, as each may have 64 kB."""
    if not addresses:
        return {}
    found: Iterable[Any] = await connection.exec_driver_sql(
        "SELECT f.root_id, f.key, f.size, f.mtime, f.etag, f.body, f.problem "
        f"FROM {catalogue.table(connection, 'a', 'bigint', 'text')} {catalogue.cross(connection)} fields f "
        "ON f.root_id = a.c0 AND f.key = a.c1",
        catalogue.lists(connection, addresses, 2),
    )
    return {(row[0], row[1]): FieldsRow(row[0], row[1], row[2], row[3], row[4], bytes(row[5]), bool(row[6])) for row in found}


async def store(connection: AsyncConnection, rows: Iterable[FieldsRow]) -> None:
    """Write rows over what is there; at most one per address."""
    values = [msgspec.structs.asdict(row) for row in rows]
    if not values:
        return
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    insert = make(fields)
    news = {name: insert.excluded[name] for name in ("size", "mtime", "etag", "body", "problem")}
    await connection.execute(insert.on_conflict_do_update(index_elements=["root_id", "key"], set_=news), values)


async def remove(connection: AsyncConnection, addresses: Sequence[Address]) -> None:
    """Forget what was read out of these objects; fine where nothing was."""
    if addresses:
        await connection.exec_driver_sql(
            "DELETE FROM fields WHERE (root_id, key) IN "
            f"(SELECT a.c0, a.c1 FROM {catalogue.table(connection, 'a', 'bigint', 'text')})",
            catalogue.lists(connection, addresses, 2),
        )


async def of_root(connection: AsyncConnection, root: int, after: str, limit: int) -> list[FieldsRow]:
    """Return rows of a root in key order, those behind ``after``."""
    found = await connection.execute(
        select(fields).where(fields.c.root_id == root, fields.c.key > after).order_by(fields.c.key).limit(limit)
    )
    return [FieldsRow(*row) for row in found]


async def keys_of_root(connection: AsyncConnection, root: int, limit: int) -> list[str]:
    """Return the first keys of a root of which there is anything."""
    found = await connection.execute(select(fields.c.key).where(fields.c.root_id == root).order_by(fields.c.key).limit(limit))
    return [row[0] for row in found]


async def unreadable(connection: AsyncConnection, root: int, after: str, limit: int) -> list[FieldsRow]:
    """Return the rows of a root with a problem, in key order, those behind ``after``."""
    found = await connection.execute(
        select(fields)
        .where(fields.c.root_id == root, fields.c.problem, fields.c.key > after)
        .order_by(fields.c.key)
        .limit(limit)
    )
    return [FieldsRow(*row) for row in found]


async def any_there(connection: AsyncConnection) -> bool:
    """Say whether anything was read out of any object: mostly not, and then nobody need look further."""
    return bool(await connection.scalar(select(exists().select_from(fields))))


async def touch(connection: AsyncConnection, revisions: Mapping[Address, int]) -> None:
    """Give live entries new revisions, so that the search index looks at them again."""
    rows = [(*address, revision) for address, revision in revisions.items()]
    if rows:
        await connection.exec_driver_sql(
            f"UPDATE {entries.name} SET revision = a.c2 FROM {catalogue.table(connection, 'a', 'bigint', 'text', 'bigint')} "
            "WHERE entries.root_id = a.c0 AND entries.key = a.c1 AND NOT entries.gone",
            catalogue.lists(connection, rows, 3),
        )
