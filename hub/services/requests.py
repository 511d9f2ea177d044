"""Asking for access to somebody's workspace, and answering. Who may be asked for is what one may know of."""

from __future__ import annotations

import builtins
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grants, standings
from hub.db import requests as rows
from hub.db.database import Database
from hub.db.requests import RequestRow
from hub.db.rows import storable
from hub.domain.access import Denied, covers, decide
from hub.services.audit import Audit
from hub.services.changes import Work
from hub.services.ports import Actor, Chance, Clock
from hub.services.reach import held, require
from hub.services.sharing import Sharing
from protocol.api import AccessRequest, NewAnswer, NewRequest, NewShare
from protocol.errors import BadInput, Conflict, NotFound, OverCeiling, TooMany, UnknownWorkspace
from protocol.grants import Permission, ReceiptState, SubjectKind
from protocol.names import shown

_LONGEST_MESSAGE: Final = 1000
_OPEN: Final = 100
"""Requests of one person that nobody has answered."""
_LISTED: Final = 500


class Requests:
    """All requests for access."""

    def __init__(self, *, database: Database, clock: Clock, chance: Chance, audit: Audit, sharing: Sharing) -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._sharing = sharing

    async def create(self, actor: Actor, new: NewRequest) -> AccessRequest:
        """Ask for access. Raises BadInput, UnknownWorkspace, Conflict (asked already), TooMany."""
        if len(new.message) > _LONGEST_MESSAGE or not storable(new.message):
            raise BadInput(f"A message has at most {_LONGEST_MESSAGE} characters, without NUL or half a character.")
        if new.permission is Permission.TIDY:
            raise BadInput("tidy cannot be asked for.", todo="Ask for read, drop, write or manage.")
        owner, _, name = new.workspace.rstrip("/").partition("/")
        owner = actor.username if owner == "me" else owner
        request, now = self._chance.new_id(), self._clock.now()
        async with self._database.write() as connection:
            found = await standings.named(connection, actor.id, [(owner, name)], now)
            standing = found.get((owner, name))
            if standing is None or not (held(actor, standing).known or standing.description):
                raise UnknownWorkspace(
                    f"There is no workspace {shown(new.workspace)}, or none that you may know of.",
                    todo="wio w ls --public shows those that describe themselves.",
                )
            called = f"{owner}/{name}"
            if not isinstance(decide(held(actor, standing), new.permission), Denied):
                raise BadInput(f"You may {new.permission} {called} already.")
            if await rows.count_open(connection, actor.id, standing.id):
                raise Conflict(f"You have asked for access to {called}, and nobody has answered yet.", todo="Wait for that.")
            if await rows.count_open(connection, actor.id) >= _OPEN:
                raise TooMany(f"{_OPEN} of your requests are open.", todo="Wait until some are answered.")
            await rows.add(
                connection,
                request=request,
                workspace=standing.id,
                user=actor.id,
                permission=new.permission,
                message=new.message,
                now=now,
            )
            await self._audit.record(
                connection,
                actor,
                "request",
                called,
                node=standing.node_id,
                workspace=standing.id,
                permission=str(new.permission),
            )
            made = await rows.by_id(connection, request)
        return _shown(_there(made))

    async def list(self, actor: Actor) -> builtins.list[AccessRequest]:
        """List what this person asked for and what they may answer: open ones first, then the newest; at most 500."""
        async with self._database.read() as connection:
            found = await rows.concerning(connection, actor.id, now=self._clock.now(), most=_LISTED)
        return [_shown(one) for one in found]

    async def answer(self, actor: Actor, request: int, new: NewAnswer) -> AccessRequest:
        """Answer a request; yes shares the workspace, and the request stays open where the node does not allow that.

        Raises NotFound, Conflict (answered already), OverCeiling, and what sharing raises.
        """

        async def look(connection: AsyncConnection) -> tuple[RequestRow, bool]:
            row = await self._mine(connection, actor, request)
            there = await grants.find(connection, row.workspace_id, SubjectKind.PERSON, row.user_id)
            if there is None or (there.expires_at is not None and there.expires_at <= self._clock.now()):
                return row, False
            return row, covers(Permission(there.permission), Permission(row.permission))

        row, enough = await self._database.run_read(look)

        async def answered(connection: AsyncConnection) -> None:
            await self._mine(connection, actor, request)
            if not await rows.answer(connection, request, granted=new.yes, by=actor.id, at=self._clock.now()):
                raise Conflict("Somebody else has just answered that request.")
            await self._audit.record(
                connection,
                actor,
                "request.yes" if new.yes else "request.no",
                f"{row.owner}/{row.name}",
                workspace=row.workspace_id,
                who=row.username,
                permission=row.permission,
            )

        if not new.yes or enough:
            await self._database.run_write(answered)
        else:
            await self._share(actor, row, new, answered)
        async with self._database.read() as connection:
            return _shown(_there(await rows.by_id(connection, request)))

    async def _share(self, actor: Actor, row: RequestRow, new: NewAnswer, answered: Work[None]) -> None:
        share = NewShare(Permission(row.permission), new.until)
        change = await self._sharing.share(actor, row.owner, row.name, row.username, share, also=answered)
        if all(receipt.state is ReceiptState.REFUSED for receipt in change.receipts):
            async with self._database.write() as connection:
                await rows.reopen(connection, row.id)
            raise OverCeiling(change.receipts[0].reason, todo="The request stays open.")

    async def _mine(self, connection: AsyncConnection, actor: Actor, request: int) -> RequestRow:
        """Return a request that this person may answer and nobody has. Raises NotFound, Conflict."""
        row = await rows.by_id(connection, request)
        if row is None:
            raise _unknown(request)
        key = (row.owner, row.name)
        standing = (await standings.named(connection, actor.id, [key], self._clock.now())).get(key)
        if standing is None or isinstance(decide(held(actor, standing), Permission.MANAGE), Denied):
            if row.user_id != actor.id:
                raise _unknown(request)
            require(actor, standing, Permission.MANAGE, "/".join(key))
            raise _unknown(request)
        if row.answered_at is not None:
            raise Conflict(f"{row.answered_by or 'Somebody'} has answered that request already.")
        return row


def _there(row: RequestRow | None) -> RequestRow:
    if row is None:
        raise NotFound("That request is gone: its workspace was removed.")
    return row


def _unknown(request: int) -> NotFound:
    return NotFound(f"There is no request {request}, or none that you may answer.", todo="wio request ls shows them.")


def _shown(row: RequestRow) -> AccessRequest:
    return AccessRequest(
        id=row.id,
        workspace=f"{row.owner}/{row.name}",
        who=row.username,
        permission=Permission(row.permission),
        message=row.message,
        created_at=row.created_at,
        answered_at=row.answered_at,
        granted=row.granted,
        answered_by=row.answered_by,
    )
