"""What was: who could reach a workspace at a moment, and who read or wrote in it, as its storage server reported."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import accesses as access_rows
from hub.db import audit as audit_rows
from hub.db import facts, standings
from hub.db.accesses import Listed
from hub.db.database import Database
from hub.db.facts import GrantFacts, WorkspaceFacts
from hub.domain.access import Denied, decide
from hub.domain.paths import Reading, readings
from hub.domain.reachers import OWNER, Given, In, Reach, Span, ownership, reachers
from hub.services.ports import Actor, Clock
from hub.services.reach import held
from protocol.api import AccessEntry, Reacher
from protocol.errors import BadInput, NotAllowed, UnknownWorkspace
from protocol.grants import Permission, SubjectKind
from protocol.names import shown

MOST: Final = 1000
"""Lines in one answer."""
PRUNE_EVERY_S: Final = 3600.0
_DAY: Final = 86_400_000_000
_PUBLIC: Final = "public"


class History:
    """What people who manage a workspace, its node's owner and admins may ask."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # -------------------------------------------------------------------------------------------------- who could

    async def access(self, actor: Actor, path: str, at: int | None = None) -> list[Reacher]:
        """Return who can reach a workspace, or could at Unix microsecond ``at``. Raises UnknownWorkspace, NotAllowed.

        Of a workspace that is no more, admins may ask.
        """
        moment = self._clock.now() if at is None else at
        async with self._database.read() as connection:
            found = await self._find(connection, actor, path)
            if found is None:
                return await self._gone(connection, actor, path, moment)
            there, _ = found
            given = await facts.given(connection, there.id)
            held_then = ownership(there.owner_id, there.created_at, [_given(one) for one in given if one.permission == OWNER])
            held_then += [_given(one) for one in given if one.permission != OWNER]
            if there.kind.public:
                held_then.append(Given(str(SubjectKind.EVERYONE), 0, str(Permission.READ), Span(there.created_at, None)))
            archived = there.archived_at is not None and there.archived_at <= moment
            return await self._told(connection, there.id, held_then, moment, archived=archived)

    async def _gone(self, connection: AsyncConnection, actor: Actor, path: str, at: int) -> list[Reacher]:
        """Tell of a workspace that is no more what its grants and its past owners still tell."""
        read = readings(path, actor.username)[-1]
        number = await audit_rows.workspace_called(connection, f"{read.owner}/{read.name}") if actor.admin else None
        if number is None:
            raise _unknown(path)
        given = [_given(one) for one in await facts.given(connection, number)]
        return await self._told(connection, number, given, at, archived=False)

    @staticmethod
    async def _told(
        connection: AsyncConnection, workspace: int, given: list[Given], at: int, *, archived: bool
    ) -> list[Reacher]:
        groups = {one.subject for one in given if one.kind == SubjectKind.GROUP}
        members = [
            In(one.group_id, one.user_id, Span(one.since, one.ended_at)) for one in await facts.members(connection, groups)
        ]
        found = reachers(given, members, at)
        names = await facts.people(connection, {one.user for one in found})
        called = await facts.group_names(connection, groups)
        if groups - called.keys():
            gone = await audit_rows.groups_gone(connection, workspace)
            called |= {group: f"{gone[group]} (deleted)" for group in groups - called.keys() if group in gone}
        told = []
        for one in found:
            username, disabled_at = names.get(one.user, (f"#{one.user}", None))
            if one.user and disabled_at is not None and disabled_at <= at:
                continue
            permission = one.permission
            if archived and permission != OWNER:
                if permission == Permission.DROP:
                    continue
                permission = str(Permission.READ)
            who = username if one.user else _PUBLIC
            told.append(Reacher(who, permission, _through(one, called), one.span.since, one.span.until))
        return told

    # -------------------------------------------------------------------------------------------------- who did

    async def accesses(
        self, actor: Actor, path: str, who: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[AccessEntry]:
        """Return who read or wrote below a path, newest first; ``before`` an id.

        Raises BadInput, UnknownWorkspace, NotAllowed.
        """
        if not 1 <= limit <= MOST:
            raise BadInput(f"{limit} accesses cannot be asked for; 1 to {MOST} can.")
        async with self._database.read() as connection:
            found = await self._find(connection, actor, path)
            if found is None:
                raise _unknown(path)
            there, rest = found
            below = there.prefix + (rest if not rest or rest.endswith("/") else f"{rest}/")
            exact = there.prefix + rest if rest and not rest.endswith("/") else None
            listed = await access_rows.newest(
                connection, there.id, below, exact=exact, username=who, limit=limit, before=before
            )
        return [_entry(there, one) for one in listed]

    # -------------------------------------------------------------------------------------------------- may they ask

    async def _find(self, connection: AsyncConnection, actor: Actor, path: str) -> tuple[WorkspaceFacts, str] | None:
        """Return the workspace of a path and what is below it, None where there is none.

        Raises UnknownWorkspace where there is one that this person may not know of, NotAllowed where it is not theirs to ask.
        """
        for read in readings(path, actor.username):
            there = await facts.workspace(connection, read.owner, read.name)
            if there is not None:
                await self._check(connection, actor, there, read, path)
                return there, read.rest
        return None

    async def _check(self, connection: AsyncConnection, actor: Actor, there: WorkspaceFacts, read: Reading, path: str) -> None:
        if actor.admin or actor.id in {there.owner_id, there.node_owner_id}:
            return
        standing = (await standings.named(connection, actor.id, [(read.owner, read.name)], self._clock.now())).get(
            (read.owner, read.name)
        )
        if standing is None or held(actor, standing).strongest is None:
            raise _unknown(path)
        if isinstance(decide(held(actor, standing), Permission.MANAGE), Denied):
            raise NotAllowed(
                f"Only those who manage {there.owner}/{there.name}, {there.node}'s owner and admins may ask that.",
                todo=f"Ask {there.owner}.",
            )


class Pruning:
    """Forgets accesses after a time. ``days``: how long they are kept."""

    def __init__(self, *, database: Database, clock: Clock, days: int) -> None:
        self._database = database
        self._clock = clock
        self._days = days

    async def step(self) -> int:
        """Forget what is too old, some at a time, so that nobody waits for it; return how many rows."""
        before = self._clock.now() - self._days * _DAY
        total = 0
        while gone := await self._database.run_write(lambda connection: access_rows.prune(connection, before)):
            total += gone
            await asyncio.sleep(0)
        return total

    async def run(self) -> None:
        """Do so every hour."""
        while True:
            await self.step()
            await asyncio.sleep(PRUNE_EVERY_S)


def _given(one: GrantFacts) -> Given:
    return Given(one.subject_kind, one.subject_id, one.permission, Span(one.created_at, one.until))


def _through(one: Reach, called: dict[int, str]) -> str:
    if one.permission == OWNER:
        return OWNER
    if one.group is not None:
        return f"@{called.get(one.group, f'#{one.group}')}"
    return "" if one.user else _PUBLIC


def _entry(there: WorkspaceFacts, one: Listed) -> AccessEntry:
    return AccessEntry(
        id=one.id,
        who=one.username or "?",
        path=f"{there.owner}/{there.name}/{one.key[len(there.prefix) :]}",
        operation=one.operation,
        first_at=one.first_at,
        last_at=one.last_at,
        count=one.count,
        refused=one.refused,
    )


def _unknown(path: str) -> UnknownWorkspace:
    return UnknownWorkspace(f"There is no workspace {shown(path)}, or none that you may use.", todo="wio w ls shows yours.")
