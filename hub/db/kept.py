"""Small things that services keep from one start to the next, by name, in table ``settings``."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import inserting
from hub.db.tables import settings


async def get(connection: AsyncConnection, name: str) -> bytes | None:
    """Return what is kept under this name."""
    found: bytes | None = await connection.scalar(select(settings.c.value).where(settings.c.name == name))
    return found


async def starting(connection: AsyncConnection, prefix: str) -> dict[str, bytes]:
    """Return everything whose name begins like this."""
    found = await connection.execute(
        select(settings.c.name, settings.c.value).where(settings.c.name.startswith(prefix, autoescape=True))
    )
    return {row.name: row.value for row in found}


async def put(connection: AsyncConnection, values: Mapping[str, bytes]) -> None:
    """Keep these, in the place of what was kept under their names."""
    if not values:
        return
    statement = inserting(connection, settings)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": statement.excluded.value})
    await connection.execute(statement, [{"name": name, "value": value} for name, value in values.items()])
