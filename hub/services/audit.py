"""Who did what to what, when. Append-only and chained; a line is written in the transaction that does what it tells of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import audit as rows
from hub.db import facts, standings
from hub.db.audit import AuditRow, Line, Seen
from hub.db.database import Database
from hub.domain.access import Denied, decide
from hub.services.ports import Actor, Clock
from hub.services.reach import held
from protocol.api import AuditCheck, AuditEntry
from protocol.errors import BadInput, NotAllowed
from protocol.grants import Permission
from protocol.names import UserId

HUB: Final = Actor(UserId(0), "hub", admin=False)
MOST: Final = 1000
"""Lines in one answer."""
PAGE: Final = 500
"""Lines read at once where all are: some 5 ms, so that nobody else waits for longer."""


class Exported(msgspec.Struct, frozen=True):
    """A line as it is exported: with everything that its chain is made of. ``chain`` in hexadecimal, empty for old lines."""

    id: int
    at: int
    actor: str
    actor_id: int
    action: str
    target: str
    detail: str
    node_id: int | None
    workspace_id: int | None
    chain: str


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
        text = msgspec.json.encode(told).decode()
        rows.add(connection, Line(self._clock.now(), actor.id, action, target, text, node, workspace))

    # -------------------------------------------------------------------------------------------------- reading

    async def entries(
        self, actor: Actor, limit: int = 100, before: int | None = None, workspace: str | None = None
    ) -> list[AuditEntry]:
        """Return lines, newest first, ``before`` an id; ``workspace``, ``owner/name``: only those about it.

        An admin sees all; others see what they did and what concerns their workspaces and nodes; who manages a workspace
        sees all about it. Raises BadInput.
        """
        if not 1 <= limit <= MOST:
            raise BadInput(f"{limit} lines of the audit trail cannot be asked for; 1 to {MOST} can.")
        async with self._database.read() as connection:
            seen = await self._seen(connection, actor, workspace)
            found = await rows.newest(connection, seen, limit=limit, before=before)
        return [
            AuditEntry(one.id, one.line.at, one.actor or "hub", one.line.action, one.line.target, one.line.detail)
            for one in found
        ]

    async def export(self, actor: Actor, workspace: str | None = None) -> AsyncIterator[bytes]:
        """Return what this person may see as JSON, one line each, oldest first. Raises before it begins."""
        async with self._database.read() as connection:
            seen = await self._seen(connection, actor, workspace)
        return self._pages(seen)

    async def _pages(self, seen: Seen) -> AsyncIterator[bytes]:
        encoder = msgspec.json.Encoder()
        after = 0
        while found := await self._page(seen, after):
            after = found[-1].id
            yield b"".join(encoder.encode(_exported(one)) + b"\n" for one in found)

    async def _page(self, seen: Seen, after: int) -> list[AuditRow]:
        return await self._database.run_read(lambda connection: rows.oldest(connection, seen, after=after, limit=PAGE))

    async def _seen(self, connection: AsyncConnection, actor: Actor, workspace: str | None) -> Seen:
        mine = Seen(None if actor.admin else actor.id)
        if workspace is None:
            return mine
        owner, _, name = workspace.rstrip("/").rpartition("/")
        owner = actor.username if owner in {"", "me"} else owner
        found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        standing = found.get((owner, name))
        named = msgspec.structs.replace(mine, target=f"{owner}/{name}")
        if standing is None:
            return named  # it may be gone, or lie on a node that is: its lines are still there
        holds = held(actor, standing)
        about = msgspec.structs.replace(mine, workspace=standing.id)
        if not isinstance(decide(holds, Permission.MANAGE), Denied) or actor.admin:
            return Seen(workspace=standing.id)
        if holds.strongest is None and await facts.node_owner(connection, standing.node_id) != actor.id:
            return named  # whoever may not know of it hears the same whether or not it is there
        return about

    # -------------------------------------------------------------------------------------------------- the chain

    async def check(self, actor: Actor) -> AuditCheck:
        """Say whether every line is as it was written and none is missing. Raises NotAllowed unless an admin asks."""
        if not actor.admin:
            raise NotAllowed("Only an admin of this hub may check the audit trail.")
        counted, newest = await self._database.run_read(rows.extent)
        chain, after, lines, unchained = b"", 0, 0, 0
        while after < newest and (found := await self._page(Seen(), after)):
            for one in found:
                if one.id > newest:
                    break  # written since this began
                if not lines and not one.chain:
                    unchained += 1
                    continue
                if lines == counted or one.chain != rows.chained(chain, one.line):
                    return AuditCheck(whole=False, lines=lines, broken_at=one.id, unchained=unchained)
                chain = one.chain
                lines += 1
            after = found[-1].id
            await asyncio.sleep(0)
        whole = lines == counted
        return AuditCheck(whole, lines, None if whole else newest + 1, unchained, chain.hex())


def _exported(one: AuditRow) -> Exported:
    line = one.line
    return Exported(
        one.id,
        line.at,
        one.actor or "hub",
        line.actor_id,
        line.action,
        line.target,
        line.detail,
        line.node_id,
        line.workspace_id,
        one.chain.hex(),
    )
