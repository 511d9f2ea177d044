"""The audit trail: append-only."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import audit, nodes, users, workspaces


class AuditRow(msgspec.Struct, frozen=True):
    """One line of it, with the actor's name; None for the hub itself or somebody who is gone."""

    id: int
    at: int
    actor: str | None
    action: str
    target: str
    detail: str


_ADD: Final = insert(audit).inline()


async def add(
    connection: AsyncConnection,
    *,
    at: int,
    actor: int,
    action: str,
    target: str,
    detail: str,
    node: int | None,
    workspace: int | None,
) -> None:
    """Add a line."""
    values = {"at": at, "actor_id": actor, "action": action, "target": target, "detail": detail}
    await connection.execute(_ADD, values | {"node_id": node, "workspace_id": workspace})


async def entries(connection: AsyncConnection, *, viewer: int | None, limit: int, before: int | None) -> list[AuditRow]:
    """Return lines, newest first: all, or what ``viewer`` did or what concerns their workspaces and nodes."""
    query = (
        select(audit.c.id, audit.c.at, users.c.username, audit.c.action, audit.c.target, audit.c.detail)
        .outerjoin(users, users.c.id == audit.c.actor_id)
        .order_by(audit.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(audit.c.id < before)
    if viewer is not None:
        query = query.where(
            or_(
                audit.c.actor_id == viewer,
                audit.c.workspace_id.in_(select(workspaces.c.id).where(workspaces.c.owner_id == viewer)),
                audit.c.node_id.in_(select(nodes.c.id).where(nodes.c.owner_id == viewer)),
            )
        )
    return [AuditRow(*row) for row in await connection.execute(query)]
