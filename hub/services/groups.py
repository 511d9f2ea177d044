"""Groups: make, list, show, who is in them. A change reaches keys that are out at once, on every node that it concerns.

Owners and managers take people in; owners appoint managers. Admins of the hub may take out and delete, so that they can
clear up, but not take in: that would open other people's workspaces to them.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, nodes, past, people
from hub.db import groups as rows
from hub.db.audit import GROUP_GONE
from hub.db.database import Database
from hub.db.groups import GroupRow, MemberRow
from hub.db.people import UserRow
from hub.db.rows import storable
from hub.services.audit import Audit
from hub.services.changes import Changes, Touched, Work
from hub.services.grantsets import At, GrantSets
from hub.services.ports import Actor, Chance, Clock
from protocol.api import Group, GroupChange, Member, NewGroup, NewMember
from protocol.errors import BadInput, NameTaken, NotAllowed, TooMany, UnknownGroup, UnknownUser
from protocol.grants import Receipt, ReceiptState, Subject, SubjectKind
from protocol.names import NodeId, check_name, shown

_LONGEST_DESCRIPTION: Final = 2000
_OWNED: Final = 200
"""Groups that one person may own."""
_MEMBERS: Final = 5000
"""People in one group."""
_MEMBERSHIPS: Final = 500
"""Groups that one person may be in; a grant set names at most twice as many."""


class Groups:
    """All groups of this hub."""

    def __init__(self, *, database: Database, clock: Clock, chance: Chance, audit: Audit, sets: GrantSets) -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._changes = Changes(database=database, clock=clock, chance=chance, sets=sets)

    # -------------------------------------------------------------------------------------------------- looking

    async def list(self, actor: Actor) -> builtins.list[Group]:
        """List all groups. Who is in one is told to those in it, and to admins."""
        async with self._database.read() as connection:
            found = await rows.everything(connection)
            members: dict[int, builtins.list[MemberRow]] = {}
            for one in await rows.members(connection, of_those_with=None if actor.admin else actor.id):
                members.setdefault(one.group_id, []).append(one)
        return [_shown(actor, one, members.get(one.id, ())) for one in found]

    async def show(self, actor: Actor, name: str) -> Group:
        """Show one group. Raises UnknownGroup."""
        async with self._database.read() as connection:
            group = await self._find(connection, name)
            return _shown(actor, group, await rows.members(connection, group=group.id))

    @staticmethod
    async def _find(connection: AsyncConnection, name: str) -> GroupRow:
        group = await rows.by_name(connection, name.removeprefix("@"))
        if group is None:
            raise UnknownGroup(f"There is no group {shown(name)}.", todo="wio group ls shows them.")
        return group

    # -------------------------------------------------------------------------------------------------- changing

    async def create(self, actor: Actor, new: NewGroup) -> Group:
        """Make a group; its maker owns it and is in it. Raises BadName, BadInput, NameTaken, TooMany."""
        check_name(new.name, "group")
        if len(new.description) > _LONGEST_DESCRIPTION:
            raise BadInput(f"A description has at most {_LONGEST_DESCRIPTION} characters.")
        if not storable(new.description):
            raise BadInput("A description cannot hold NUL or half a character.")
        now, group = self._clock.now(), self._chance.new_id()
        taken = NameTaken(f"There is a group @{new.name}.", todo="Choose another name.")
        try:
            async with self._database.write() as connection:
                if await rows.owned(connection, actor.id) >= _OWNED:
                    raise TooMany(f"You own {_OWNED} groups.", todo="Delete some first.")
                await _check_room(connection, actor.id, actor.username)
                if await rows.by_name(connection, new.name) is not None:
                    raise taken
                await rows.add(connection, group=group, name=new.name, description=new.description, owner=actor.id, now=now)
                await rows.put_member(connection, group, actor.id, manager=True, now=now)
                await self._audit.record(connection, actor, "group.create", f"@{new.name}")
        except IntegrityError as error:
            raise taken from error
        return await self.show(actor, new.name)

    async def put_member(self, actor: Actor, name: str, who: str, new: NewMember) -> GroupChange:
        """Take somebody in, or change whether they may change who is in it.

        Raises UnknownGroup, UnknownUser, NotAllowed, BadInput.
        """
        group, user = await self._both(name, who, living=True)

        async def change(connection: AsyncConnection) -> None:
            await self._still(connection, group)
            member = await rows.member(connection, group.id, user.id)
            await self._check_may(connection, actor, group, manager=new.manager, member=member)
            if user.id == group.owner_id and not new.manager:
                raise BadInput(f"{user.username} owns @{group.name} and always manages it.")
            if member is not None:
                await rows.set_manager(connection, group.id, user.id, manager=new.manager)
            else:
                if await rows.count(connection, group=group.id) >= _MEMBERS:
                    raise BadInput(f"@{group.name} has {_MEMBERS} members, which is as many as a group can have.")
                await _check_room(connection, user.id, user.username)
                await rows.put_member(connection, group.id, user.id, manager=new.manager, now=self._clock.now())
            await self._audit.record(
                connection, actor, "group.member", f"@{group.name}", who=user.username, manager=new.manager
            )

        return await self._about_person(group, user, change)

    async def remove_member(self, actor: Actor, name: str, who: str) -> GroupChange:
        """Take somebody out; everybody but its owner may leave. Raises UnknownGroup, UnknownUser, NotAllowed, BadInput."""
        group, user = await self._both(name, who, living=False)
        if user.id == group.owner_id:
            raise BadInput(f"{user.username} owns @{group.name} and cannot be taken out.", todo="Delete the group instead.")

        async def change(connection: AsyncConnection) -> None:
            await self._still(connection, group)
            member = await rows.member(connection, group.id, user.id)
            if not (actor.admin or actor.id == user.id):
                await self._check_may(connection, actor, group, manager=member is not None and member.manager, member=member)
            if member is None:
                raise UnknownUser(f"{user.username} is not in @{group.name}.")
            await past.end_members(connection, group.id, user.id, at=self._clock.now())
            await rows.remove_member(connection, group.id, user.id)
            await self._audit.record(connection, actor, "group.member-out", f"@{group.name}", who=user.username)

        return await self._about_person(group, user, change)

    async def delete(self, actor: Actor, name: str) -> GroupChange:
        """Delete a group: what it was given ends for everybody in it. Raises UnknownGroup, NotAllowed."""
        async with self._database.read() as connection:
            group = await self._find(connection, name)
        if not (actor.admin or actor.id == group.owner_id):
            raise NotAllowed(f"Only {group.owner}, who owns @{group.name}, may delete it.")

        async def touches(connection: AsyncConnection) -> Sequence[Touched]:
            found = await rows.nodes_of(connection, group.id)
            return [Touched(At(NodeId(node), called), group.subject, each=True) for node, called in found]

        async def change(connection: AsyncConnection) -> None:
            await self._still(connection, group)
            now = self._clock.now()
            for place in await rows.workspaces_of(connection, group.id):
                # One line for each workspace that loses it: those who manage it see it, and later the name is still known.
                await self._audit.record(
                    connection, actor, GROUP_GONE, f"@{group.name}", node=place.node, workspace=place.workspace, group=group.id
                )
            await past.end_grants_to(connection, SubjectKind.GROUP, group.id, at=now)
            await past.end_members(connection, group.id, at=now)
            members = await rows.count(connection, group=group.id)
            await rows.remove(connection, group.id)
            await self._audit.record(connection, actor, "group.delete", f"@{group.name}", members=members)

        async with self._changes.making(touches, change) as made:
            return GroupChange(group.name, made.receipts or (self._nowhere(group.subject),))

    # -------------------------------------------------------------------------------------------------- within

    async def _about_person(self, group: GroupRow, user: UserRow, change: Work[None]) -> GroupChange:
        person = Subject(SubjectKind.PERSON, user.id, user.username)

        async def touches(connection: AsyncConnection) -> Sequence[Touched]:
            found = [await nodes.by_id(connection, node) for node in await grant_sets.nodes_of(connection, person)]
            return [
                Touched(At(NodeId(one.id), one.name), person) for one in found if one is not None and one.evicted_at is None
            ]

        async with self._changes.making(touches, change) as made:
            return GroupChange(group.name, made.receipts or (self._nowhere(person),))

    def _nowhere(self, subject: Subject) -> Receipt:
        """Return the receipt of a change that concerns no node at all. Nothing will come of it later, so it is not kept."""
        now = self._clock.now()
        return Receipt(
            id=f"{self._chance.new_id():x}",
            node="every node",
            subject=subject,
            epoch=0,
            state=ReceiptState.ENFORCED,
            asked_at=now,
            enforced_at=now,
            reason=f"No key of {subject.name} is out anywhere.",
        )

    async def _both(self, name: str, who: str, *, living: bool) -> tuple[GroupRow, UserRow]:
        async with self._database.read() as connection:
            group = await self._find(connection, name)
            user = await people.by_name(connection, who)
        if user is None or (living and user.disabled_at is not None):
            raise UnknownUser(f"There is nobody called {shown(who)}.", todo="User names are lower case.")
        return group, user

    @staticmethod
    async def _still(connection: AsyncConnection, group: GroupRow) -> None:
        """Hold the group to the end of the transaction, and see that it still is the one that was looked at."""
        if not await rows.lock(connection, group.id):
            raise UnknownGroup(f"There is no group @{group.name} any more.")

    @staticmethod
    async def _check_may(
        connection: AsyncConnection, actor: Actor, group: GroupRow, *, manager: bool, member: MemberRow | None
    ) -> None:
        """Raise NotAllowed unless this person may change that member, who is or becomes a ``manager`` or not."""
        if actor.id == group.owner_id:
            return
        mine = await rows.member(connection, group.id, actor.id)
        if mine is None or not mine.manager:
            raise NotAllowed(f"Only {group.owner} and the managers of @{group.name} may change who is in it.")
        if manager != (member is not None and member.manager) or (manager and member is not None):
            raise NotAllowed(f"Only {group.owner}, who owns @{group.name}, may change who manages it.")


async def _check_room(connection: AsyncConnection, user: int, username: str) -> None:
    if await rows.count(connection, user=user) >= _MEMBERSHIPS:
        raise BadInput(f"{username} is in {_MEMBERSHIPS} groups, which is as many as one can be in.")


def _shown(actor: Actor, group: GroupRow, members: Sequence[MemberRow]) -> Group:
    inside = actor.admin or any(one.user_id == actor.id for one in members)
    return Group(
        id=group.id,
        name=group.name,
        description=group.description,
        owner=group.owner,
        members=tuple(Member(one.username, one.manager, one.since) for one in members) if inside else (),
        created_at=group.created_at,
    )
