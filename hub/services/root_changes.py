"""Changing a root and retiring it: never its data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import groups, nodes, people, roles
from hub.db import roots as rows
from hub.db import workspaces as workspace_rows
from hub.db.database import Database
from hub.db.roles import Role
from hub.db.roots import RootRow
from hub.services.audit import Audit
from hub.services.changes import Changes, Touched, touching
from hub.services.grantsets import EVERYONE, At, GrantSets
from hub.services.levels import RANK, lowered
from hub.services.ports import Actor, Agents, Chance, Clock
from hub.services.roots import DEADLINE_S, Roots, check_pace, config_of
from hub.services.workspace_changes import end_workspace
from protocol.api import Root, RootChange, RootRetired
from protocol.errors import BadInput, NodeOffline, NotAllowed, UnknownGroup, UnknownRoot, UnknownUser, WioError
from protocol.grants import Subject, SubjectKind
from protocol.hours import check_hours
from protocol.messages import CheckRoot, IndexLevel
from protocol.names import NodeId, shown

_LOG: Final = logging.getLogger("wio.hub.roots")
_MOST: Final = 200
"""Names in one role."""


class RootChanges:
    """Changes roots."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        sets: GrantSets,
        roots: Roots,
        noted: Callable[[], None] = lambda: None,
    ) -> None:
        """Call ``noted`` when more is known of a root than its level allows (``services.levels``)."""
        self._database = database
        self._noted = noted
        self._agents = agents
        self._clock = clock
        self._audit = audit
        self._roots = roots
        self._changes = Changes(database=database, clock=clock, chance=chance, sets=sets)

    async def change(self, actor: Actor, node: str, root: str, change: RootChange) -> Root:
        """Change a root; its agent is told at once, or when it is back.

        Managers may change everything but who manages. Raises UnknownRoot, NotAllowed, BadInput, UnknownUser, UnknownGroup,
        OverCeiling, and what else the agent says.
        """
        row = await self._roots.find(actor, node, root)
        await self._check_may(actor, row, managers=change.managers is not msgspec.UNSET)
        columns = _paced(row, change)
        if change.level is not msgspec.UNSET and change.level is not row.level:
            columns |= {"level": str(change.level)} | ({"scan": None} if RANK[change.level] == 0 else {})
            await self._ask_level(row, change)
        wanted = {Role.CREATE: change.creators, Role.MANAGE: change.managers}
        named = {role: names for role, names in wanted.items() if names is not msgspec.UNSET}
        async with self._database.write() as connection:
            given = {role: await _subjects(connection, role, names) for role, names in named.items()}
            if columns:
                await nodes.next_revision(connection, row.node_id)
            if not await rows.lock(connection, row.id):
                raise UnknownRoot(f"{node}/{root} is gone.")
            if columns:
                await rows.change(connection, row.id, **columns)
            if "level" in columns:
                await lowered(connection, row.id)  # also where it is raised: a note from before is begun anew
            for role, subjects in given.items():
                await roles.replace(connection, row.id, role, subjects)
            told: dict[str, Any] = {str(role): " ".join(names)[:2000] for role, names in named.items()}
            told |= {name: value for name, value in columns.items() if name != "scan"}
            target = f"{row.node}/{row.name}"
            await self._audit.record(connection, actor, "root.change", target, node=row.node_id, **told)
        if columns:
            self._noted()
            await self._configure(row)
        return await self._roots.show(actor, node, root)

    async def _check_may(self, actor: Actor, row: RootRow, *, managers: bool) -> None:
        if actor.admin or actor.id == row.owner_id:
            return
        called = f"{row.node}/{row.name}"
        async with self._database.read() as connection:
            mine = await roles.of_person(connection, actor.id)
        if (row.id, Role.MANAGE) not in mine:
            raise NotAllowed(f"Only {row.owner}, whose node that is, and the managers of {called} may change it.")
        if managers:
            raise NotAllowed(f"Only {row.owner}, whose node that is, may say who manages {called}.")

    async def _ask_level(self, row: RootRow, change: RootChange) -> None:
        """Ask the agent whether its owner allows that level; where it is away, it decides when it is back.

        Where contents were not to be read and now are, the agent must be there: it may have missed that they were not, and
        what this hub has dropped since then it only says again when it hears of both. Raises NodeOffline.
        """
        if change.level is msgspec.UNSET:
            return
        if not self._agents.online(NodeId(row.node_id)):
            if RANK[change.level] > RANK[IndexLevel.NAMES] >= RANK[row.level]:
                raise NodeOffline(
                    f"{row.node} is not connected, and its agent has to begin to read files now.",
                    todo="Try again when it is back; lowering a level works at any time.",
                )
            return
        config = msgspec.structs.replace(config_of(row), level=change.level)
        await self._agents.ask(
            NodeId(row.node_id), lambda request, deadline: CheckRoot(request, deadline, config), deadline_s=DEADLINE_S
        )

    async def _configure(self, row: RootRow) -> None:
        try:
            await self._roots.configure(NodeId(row.node_id))
        except WioError as error:
            if not error.retry:
                raise
            _LOG.warning("%s hears of its changed roots when it is back: %s", row.node, error.message)

    # -------------------------------------------------------------------------------------------------- retiring

    async def retire(self, actor: Actor, node: str, root: str) -> RootRetired:
        """Take a root and its workspaces out of wio; every file stays where it lies. Raises UnknownRoot, NotAllowed."""
        row = await self._roots.find(actor, node, root)
        if not (actor.admin or row.owner_id == actor.id):
            raise NotAllowed(f"Only {row.owner}, whose node that is, may retire {row.node}/{row.name}.")
        at = At(NodeId(row.node_id), row.node)

        async def touches(connection: AsyncConnection) -> Sequence[Touched]:
            found = [Touched(at, EVERYONE)] if row.kind.public else []
            for one in await workspace_rows.of_root(connection, row.id):
                owner = await people.by_id(connection, one.owner_id)
                subject = Subject(SubjectKind.PERSON, one.owner_id, f"#{one.owner_id}" if owner is None else owner.username)
                found += await touching(connection, at, one.id, subject, public_root=False)
            return found

        async def change(connection: AsyncConnection) -> int:
            await nodes.next_revision(connection, row.node_id)
            if not await rows.lock(connection, row.id):
                raise UnknownRoot(f"{node}/{root} is gone.")
            there = await workspace_rows.of_root(connection, row.id)
            now = self._clock.now()
            for one in there:
                await end_workspace(connection, one, at=now)
            await rows.retire(connection, row.id, now)
            await lowered(connection, row.id)
            target, place = f"{row.node}/{row.name}", f"{row.bucket}/{row.prefix}"
            await self._audit.record(
                connection, actor, "root.retire", target, node=row.node_id, workspaces=len(there), place=place
            )
            return len(there)

        async with self._changes.making(touches, change) as made:
            pass
        self._noted()
        await self._configure(row)
        return RootRetired(f"{row.node}/{row.name}", made.result, made.receipts)


def _paced(row: RootRow, change: RootChange) -> dict[str, Any]:
    """Return what changes about when and how fast a root is scanned. Raises BadInput."""
    columns: dict[str, Any] = {}
    if change.pace is not msgspec.UNSET and check_pace(change.pace) != row.pace:
        columns["pace"] = change.pace
    if change.quiet is not msgspec.UNSET and check_hours(change.quiet) != row.quiet:
        columns["quiet"] = change.quiet
    return columns


async def _subjects(connection: AsyncConnection, role: Role, names: Sequence[str]) -> list[Subject]:
    """Read user names, ``@group`` and, for creators, ``public``."""
    if len(names) > _MOST:
        raise BadInput(f"{len(names)} names are too many; {_MOST} are allowed.", todo="Make a group of them.")
    found = []
    for name in names:
        if name == "public":
            if role is Role.MANAGE:
                raise BadInput("A root cannot be managed by everyone.", todo="Name people or groups.")
            found.append(EVERYONE)
        elif name.startswith("@"):
            group = await groups.by_name(connection, name[1:])
            if group is None:
                raise UnknownGroup(f"There is no group {shown(name)}.", todo="wio group ls shows them.")
            found.append(group.subject)
        else:
            user = await people.by_name(connection, name)
            if user is None or user.disabled_at is not None:
                raise UnknownUser(f"There is nobody called {shown(name)}.", todo="User names are lower case.")
            found.append(Subject(SubjectKind.PERSON, user.id, user.username))
    return found
