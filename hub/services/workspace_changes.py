"""Describing, renaming, archiving, handing over and removing a workspace: its label and its rights, never its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue, grants, past, people, quotas, requests, standings
from hub.db import workspaces as rows
from hub.db.database import Database
from hub.db.grants import GrantRow
from hub.db.people import UserRow
from hub.db.standings import Standing
from hub.db.workspaces import WorkspaceRow
from hub.services.audit import Audit
from hub.services.changes import Changes, Touched, touching
from hub.services.grantsets import At, GrantSets
from hub.services.ports import Actor, Chance, Clock
from hub.services.reach import require
from hub.services.workspaces import as_seen, check_description
from protocol.api import Handover, Workspace, WorkspaceChange, WorkspaceEnded
from protocol.errors import BadInput, NameTaken, NotAllowed, UnknownUser, UnknownWorkspace
from protocol.grants import Permission, Receipt, Subject, SubjectKind
from protocol.names import Layout, NodeId, RootId, WorkspaceId, check_name, locate, shown

_HALF: Final = "was changed by somebody else meanwhile"


class WorkspaceChanges:
    """Changes workspaces."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        sets: GrantSets,
        charged: Callable[[], None] = lambda: None,
    ) -> None:
        """``charged`` is called when what quotas count has moved from one person to another, or is nobody's any more."""
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._charged = charged
        self._changes = Changes(database=database, clock=clock, chance=chance, sets=sets)

    # -------------------------------------------------------------------------------------------------- changing

    async def change(self, actor: Actor, owner: str, name: str, change: WorkspaceChange) -> Workspace:
        """Change description, label, or whether it is archived; the receipts say what that did to keys that are out.

        Who manages it may describe and archive; only its owner may rename it. Raises UnknownWorkspace, NoGrant, NotAllowed,
        BadName, BadInput, NameTaken.
        """
        standing = await self._managed(actor, owner, name)
        called = f"{owner}/{name}"
        values: dict[str, Any] = {}
        if change.description is not msgspec.UNSET:
            values["description"] = check_description(change.description)
        if change.name is not msgspec.UNSET and change.name != name:
            if standing.owner_id != actor.id:
                raise NotAllowed(f"Only {owner}, who owns {called}, may rename it.")
            values["name"] = check_name(change.name, "workspace")
        archived = standing.archived_at is not None
        moves = change.archived is not msgspec.UNSET and change.archived is not archived
        if moves:
            values["archived_at"] = None if archived else self._clock.now()

        async def work(connection: AsyncConnection) -> None:
            await self._still(connection, standing)
            await self._manages(connection, actor, owner, name)  # looked at again: it may have been taken back meanwhile
            label = values.get("name")
            if label is not None and await rows.taken(connection, standing.owner_id, label):
                raise _taken(owner, label)
            if values:
                await rows.change(connection, standing.id, **values)
                told = {"renamed": label, "archived": None if not moves else not archived}
                described = True if "description" in values else None
                await self._record(connection, actor, "workspace.change", standing, described=described, **told)

        async def touches(connection: AsyncConnection) -> Sequence[Touched]:
            return await touching(connection, _at(standing), standing.id, _owner(standing), public_root=False) if moves else ()

        try:
            async with self._changes.making(touches, work) as made:
                pass
        except IntegrityError as error:
            raise _taken(owner, str(values.get("name"))) from error
        return await self._seen(actor, owner, values.get("name", name), made.receipts)

    async def hand_over(self, actor: Actor, owner: str, name: str, handover: Handover) -> Workspace:
        """Give a workspace to somebody else; what its former owner does not keep ends at once.

        Only its owner may, and an admin where the owner's account was ended. Raises UnknownWorkspace, NoGrant, NotAllowed,
        UnknownUser, BadInput, NameTaken.
        """
        standing = await self._owned(actor, owner, name, "hand it over")
        if handover.keep is Permission.TIDY:
            raise BadInput("tidy cannot be kept.", todo="Keep read, drop, write or manage.")
        async with self._database.read() as connection:
            to = await people.by_name(connection, handover.to)
        if to is None or to.disabled_at is not None:
            raise UnknownUser(f"There is nobody called {shown(handover.to)}.", todo="User names are lower case.")
        if to.id == standing.owner_id:
            raise BadInput(f"{to.username} owns {owner}/{name} already.")

        async def work(connection: AsyncConnection) -> None:
            await self._still(connection, standing)
            if await rows.taken(connection, to.id, name):
                raise _taken(to.username, name)
            await self._move(connection, actor, standing, to, handover.keep)

        async def touches(connection: AsyncConnection) -> Sequence[Touched]:
            at = _at(standing)
            new = Touched(at, Subject(SubjectKind.PERSON, to.id, to.username), standing.id)
            if await quotas.persons_over(connection, [standing.owner_id, to.id]):
                # Another person is charged from now on: everybody who may add here gains or loses that with it.
                return [*await touching(connection, at, standing.id, _owner(standing), public_root=False), new]
            return [Touched(at, _owner(standing), standing.id), new]

        try:
            async with self._changes.making(touches, work) as made:
                pass
        except IntegrityError as error:
            raise _taken(to.username, name) from error
        self._charged()
        return await self._seen(actor, to.username, name, made.receipts)

    async def _move(
        self, connection: AsyncConnection, actor: Actor, standing: Standing, to: UserRow, keep: Permission | None
    ) -> None:
        now, person = self._clock.now(), SubjectKind.PERSON
        await past.end_ownership(connection, standing.id, at=now)
        await past.end_grant(connection, standing.id, person, to.id, at=now)
        await grants.remove(connection, standing.id, person, to.id)
        await requests.close_own(connection, standing.id, to.id, by=actor.id, at=now)
        await rows.change(connection, standing.id, owner_id=to.id)
        if keep is not None:
            kept = GrantRow(self._chance.new_id(), standing.id, str(person), standing.owner_id, str(keep), None, actor.id, now)
            await grants.put(connection, kept)
        told = None if keep is None else str(keep)
        await self._record(connection, actor, "workspace.handover", standing, to=to.username, keep=told)

    async def delete(self, actor: Actor, owner: str, name: str) -> WorkspaceEnded:
        """Take a workspace out of wio; its files stay where they lie, and nobody but its last owner gets them again with it.

        Only its owner may, and an admin where the owner's account was ended. Raises UnknownWorkspace, NoGrant, NotAllowed.
        """
        standing = await self._owned(actor, owner, name, "delete it")

        async def work(connection: AsyncConnection) -> None:
            row = await self._still(connection, standing)
            now = self._clock.now()
            await end_workspace(connection, row, at=now)
            await rows.leave(connection, row.root_id, row.prefix, row.owner_id, at=now)
            await self._record(connection, actor, "workspace.delete", standing)

        async def touches(connection: AsyncConnection) -> Sequence[Touched]:
            one_each = standing.kind.public and standing.layout is Layout.BUCKET
            return await touching(connection, _at(standing), standing.id, _owner(standing), public_root=one_each)

        async with self._changes.making(touches, work) as made:
            pass
        self._charged()
        place = locate(standing.layout, standing.bucket, standing.root_prefix, standing.prefix)
        return WorkspaceEnded(f"{owner}/{name}", place.bucket, place.key, made.receipts)

    # -------------------------------------------------------------------------------------------------- within

    async def _managed(self, actor: Actor, owner: str, name: str) -> Standing:
        async with self._database.read() as connection:
            return await self._manages(connection, actor, owner, name)

    async def _manages(self, connection: AsyncConnection, actor: Actor, owner: str, name: str) -> Standing:
        found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        return require(actor, found.get((owner, name)), Permission.MANAGE, f"{owner}/{name}")[0]

    async def _owned(self, actor: Actor, owner: str, name: str, what: str) -> Standing:
        async with self._database.read() as connection:
            found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
            standing = found.get((owner, name))
            user = None if standing is None else await people.by_id(connection, standing.owner_id)
        if standing is not None and actor.admin and (user is None or user.disabled_at is not None):
            return standing
        standing, _ = require(actor, standing, Permission.MANAGE, f"{owner}/{name}")
        if standing.owner_id != actor.id:
            raise NotAllowed(f"Only {owner}, who owns {owner}/{name}, may {what}.")
        return standing

    @staticmethod
    async def _still(connection: AsyncConnection, standing: Standing) -> WorkspaceRow:
        """Hold the workspace to the end of the transaction; raise where it is not what was looked at any more."""
        row = await rows.lock(connection, standing.id)
        if row is None or (row.owner_id, row.name) != (standing.owner_id, standing.name):
            raise UnknownWorkspace(f"{standing.owner}/{standing.name} {_HALF}.", todo="Look again, and try again.")
        return row

    async def _seen(self, actor: Actor, owner: str, name: str, receipts: tuple[Receipt, ...]) -> Workspace:
        async with self._database.read() as connection:
            found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        standing = found.get((owner, name))
        if standing is None:
            raise UnknownWorkspace(f"{owner}/{name} {_HALF}.")
        return msgspec.structs.replace(as_seen(actor, standing), receipts=receipts)

    async def _record(
        self, connection: AsyncConnection, actor: Actor, action: str, standing: Standing, **detail: str | bool | None
    ) -> None:
        target = f"{standing.owner}/{standing.name}"
        await self._audit.record(connection, actor, action, target, node=standing.node_id, workspace=standing.id, **detail)


async def end_workspace(connection: AsyncConnection, row: WorkspaceRow, *, at: int) -> None:
    """Remove a workspace that the transaction holds; what was given on it and who owned it is kept as past."""
    await past.end_grants_on(connection, row.id, at=at)
    await past.end_ownership(connection, row.id, at=at)
    await catalogue.assign(connection, RootId(row.root_id), row.prefix, WorkspaceId(0))
    await rows.remove(connection, row.id)


def _at(standing: Standing) -> At:
    return At(NodeId(standing.node_id), standing.node)


def _owner(standing: Standing) -> Subject:
    return Subject(SubjectKind.PERSON, standing.owner_id, standing.owner)


def _taken(owner: str, name: str) -> NameTaken:
    return NameTaken(f"{owner} has a workspace called {name}.", todo="Choose another name.")
