"""Who did what to what, when. Append-only; a line is written in the transaction that does what it tells of."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import audit as rows
from hub.db.database import Database
from hub.services.ports import Actor, Clock
from protocol.api import AuditEntry
from protocol.errors import BadInput
from protocol.names import UserId

HUB: Final = Actor(UserId(0), "hub", admin=False)
MOST: Final = 1000
"""Lines in one answer."""


class Audit:
    """The audit trail."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(
        self,
        connection: AsyncConnection,
        actor: Actor,
        action: str,
        target: str,
        *,
        node: int | None = None,
        workspace: int | None = None,
        **detail: str | int | bool | None,
    ) -> None:
        """Write a line in somebody's transaction. ``action`` is ``thing.verb``, 40 characters at most; no secrets."""
        told = {name: value for name, value in detail.items() if value is not None}
        if actor.address:
            told["from"] = actor.address
        await rows.add(
            connection,
            at=self._clock.now(),
            actor=actor.id,
            action=action,
            target=target,
            detail=msgspec.json.encode(told).decode(),
            node=node,
            workspace=workspace,
        )

    async def entries(self, actor: Actor, limit: int = 100, before: int | None = None) -> list[AuditEntry]:
        """Return lines, newest first, ``before`` an id.

        An admin sees all; others see what they did and what concerns their workspaces and nodes. Raises BadInput.
        """
        if not 1 <= limit <= MOST:
            raise BadInput(f"{limit} lines of the audit trail cannot be asked for; 1 to {MOST} can.")
        async with self._database.read() as connection:
            found = await rows.entries(connection, viewer=None if actor.admin else actor.id, limit=limit, before=before)
        return [AuditEntry(one.id, one.at, one.actor or "hub", one.action, one.target, one.detail) for one in found]
