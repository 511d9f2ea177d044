"""Workspaces as rows; ``standings`` shows them as somebody sees them."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, inserting
from hub.db.tables import access_requests, grants, left_places, quotas, workspaces


class WorkspaceRow(msgspec.Struct, frozen=True):
    """A workspace as it is stored. ``prefix`` in its root's own space; times in Unix microseconds."""

    id: int
    root_id: int
    owner_id: int
    name: str
    prefix: str
    archived_at: int | None


async def add(
    connection: AsyncConnection,
    *,
    workspace: int,
    root: int,
    owner: int,
    name: str,
    prefix: str,
    description: str,
    now: int,
) -> None:
    """Add a workspace; raises IntegrityError where its owner has one of that name or something lies there."""
    await connection.execute(
        insert(workspaces).values(
            id=workspace, root_id=root, owner_id=owner, name=name, prefix=prefix, description=description, created_at=now
        )
    )


async def remove(connection: AsyncConnection, workspace: int) -> None:
    """Remove a workspace, what was given on it, asked for on it, and its quota."""
    await connection.execute(delete(grants).where(grants.c.workspace_id == workspace))
    await connection.execute(delete(access_requests).where(access_requests.c.workspace_id == workspace))
    await connection.execute(delete(quotas).where(quotas.c.workspace_id == workspace))
    await connection.execute(delete(workspaces).where(workspaces.c.id == workspace))


async def change(connection: AsyncConnection, workspace: int, **values: Any) -> None:
    """Change columns of a workspace; raises IntegrityError where its owner has one of that name."""
    await connection.execute(update(workspaces).where(workspaces.c.id == workspace).values(**values))


async def lock(connection: AsyncConnection, workspace: int) -> WorkspaceRow | None:
    """Hold a workspace until the end of the transaction; None where it is gone."""
    query = select(*columns(workspaces, WorkspaceRow)).where(workspaces.c.id == workspace).with_for_update()
    row = (await connection.execute(query)).first()
    return None if row is None else WorkspaceRow(*row)


async def of_root(connection: AsyncConnection, root: int) -> list[WorkspaceRow]:
    """Return a root's workspaces."""
    query = select(*columns(workspaces, WorkspaceRow)).where(workspaces.c.root_id == root).order_by(workspaces.c.id)
    return [WorkspaceRow(*row) for row in await connection.execute(query)]


# ------------------------------------------------------------------------------------------------------ left places


async def leave(connection: AsyncConnection, root: int, prefix: str, owner: int, *, at: int) -> None:
    """Remember whose files lie where a workspace was."""
    values = {"root_id": root, "prefix": prefix, "owner_id": owner, "left_at": at}
    await connection.execute(
        inserting(connection, left_places)
        .values(values)
        .on_conflict_do_update(index_elements=["root_id", "prefix"], set_={"owner_id": owner, "left_at": at})
    )


async def left(connection: AsyncConnection, root: int) -> list[tuple[str, int]]:
    """Return prefix and last owner of the places in a root where workspaces lay that are no more."""
    query = select(left_places.c.prefix, left_places.c.owner_id).where(left_places.c.root_id == root)
    return [(row[0], row[1]) for row in await connection.execute(query)]


async def take_up(connection: AsyncConnection, root: int, prefix: str) -> None:
    """Forget a left place: a workspace lies there again."""
    await connection.execute(delete(left_places).where(left_places.c.root_id == root, left_places.c.prefix == prefix))


async def taken(connection: AsyncConnection, owner: int, name: str) -> bool:
    """Say whether somebody has a workspace of this name."""
    found = await connection.execute(select(workspaces.c.id).where(workspaces.c.owner_id == owner, workspaces.c.name == name))
    return found.first() is not None


async def prefixes(connection: AsyncConnection, root: int) -> list[str]:
    """Return where a root's workspaces lie, in the root's own space."""
    return list(await connection.scalars(select(workspaces.c.prefix).where(workspaces.c.root_id == root)))
