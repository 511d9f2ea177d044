"""Workspaces as rows; ``standings`` shows them as somebody sees them."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import grants, workspaces


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
    """Take back a workspace and what was given on it."""
    await connection.execute(delete(grants).where(grants.c.workspace_id == workspace))
    await connection.execute(delete(workspaces).where(workspaces.c.id == workspace))


async def taken(connection: AsyncConnection, owner: int, name: str) -> bool:
    """Say whether somebody has a workspace of this name."""
    found = await connection.execute(select(workspaces.c.id).where(workspaces.c.owner_id == owner, workspaces.c.name == name))
    return found.first() is not None


async def prefixes(connection: AsyncConnection, root: int) -> list[str]:
    """Return where a root's workspaces lie, in the root's own space."""
    return list(await connection.scalars(select(workspaces.c.prefix).where(workspaces.c.root_id == root)))
