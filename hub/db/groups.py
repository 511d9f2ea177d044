"""Groups, who is in them, and which of their members a node has to hear of."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import storable
from hub.db.tables import grant_sets, grants, group_members, groups, nodes, root_roles, roots, users, workspaces
from protocol.grants import Subject, SubjectKind

LARGE: Final = 50
"""Members with living keys on a node, above which a group gets one shared set there."""
_PERSON: Final = str(SubjectKind.PERSON)
_GROUP: Final = str(SubjectKind.GROUP)


class GroupRow(msgspec.Struct, frozen=True):
    """A group and its owner's name."""

    id: int
    name: str
    description: str
    owner_id: int
    owner: str
    created_at: int

    @property
    def subject(self) -> Subject:
        """The group as grants name it."""
        return subject(self.id, self.name)


class MemberRow(msgspec.Struct, frozen=True):
    """Somebody in a group. ``since`` in Unix microseconds."""

    group_id: int
    user_id: int
    username: str
    manager: bool
    since: int


class MemberSet(msgspec.Struct, frozen=True):
    """A member's grant set on a node, as far as it is to be decided who has to be told."""

    user_id: int
    username: str
    epoch: int
    applied_epoch: int
    stale: bool
    refused: str | None
    keys_until: int


def subject(group: int, name: str) -> Subject:
    """Return a group as a subject of grants."""
    return Subject(SubjectKind.GROUP, group, f"@{name}")


def _select(*where: ColumnElement[bool]) -> Select[Any]:
    fields = [users.c.username if name == "owner" else groups.c[name] for name in GroupRow.__struct_fields__]
    return select(*fields).join(users, users.c.id == groups.c.owner_id).where(*where).order_by(groups.c.name)


_BY_NAME: Final = _select(groups.c.name == bindparam("name"))


async def by_name(connection: AsyncConnection, name: str) -> GroupRow | None:
    """Return the group with this name, without @."""
    if not storable(name):
        return None
    row = (await connection.execute(_BY_NAME, {"name": name})).first()
    return None if row is None else GroupRow(*row)


async def name_of(connection: AsyncConnection, group: int) -> str | None:
    """Return the name of a group; None where it is gone."""
    found: str | None = await connection.scalar(select(groups.c.name).where(groups.c.id == group))
    return found


async def everything(connection: AsyncConnection) -> list[GroupRow]:
    """Return all groups by name."""
    return [GroupRow(*row) for row in await connection.execute(_select())]


async def owned(connection: AsyncConnection, owner: int) -> int:
    """Count the groups of an owner."""
    return int(await connection.scalar(select(func.count()).select_from(groups).where(groups.c.owner_id == owner)) or 0)


async def add(connection: AsyncConnection, *, group: int, name: str, description: str, owner: int, now: int) -> None:
    """Add a group; raises IntegrityError where the name is taken."""
    await connection.execute(
        insert(groups).values(id=group, name=name, description=description, owner_id=owner, created_at=now)
    )


async def remove(connection: AsyncConnection, group: int) -> None:
    """Remove a group, its members, what it was given and its roles on roots."""
    await connection.execute(delete(grants).where(grants.c.subject_kind == _GROUP, grants.c.subject_id == group))
    await connection.execute(delete(root_roles).where(root_roles.c.subject_kind == _GROUP, root_roles.c.subject_id == group))
    await connection.execute(delete(group_members).where(group_members.c.group_id == group))
    await connection.execute(delete(groups).where(groups.c.id == group))


async def lock(connection: AsyncConnection, group: int) -> bool:
    """Hold a group until the end of the transaction; False where it is gone."""
    held = await connection.execute(select(groups.c.id).where(groups.c.id == group).with_for_update())
    return held.first() is not None


# ------------------------------------------------------------------------------------------------------ members

_MEMBERS: Final = (
    select(group_members.c.group_id, group_members.c.user_id, users.c.username, group_members.c.manager, group_members.c.since)
    .join(users, users.c.id == group_members.c.user_id)
    .order_by(group_members.c.since, users.c.username)
)


async def members(
    connection: AsyncConnection, *, group: int | None = None, of_those_with: int | None = None
) -> list[MemberRow]:
    """Return who is in a group, in those that somebody is in, or in all; the longest first."""
    query = _MEMBERS
    if group is not None:
        query = query.where(group_members.c.group_id == group)
    if of_those_with is not None:
        mine = group_members.alias("mine")
        query = query.where(group_members.c.group_id.in_(select(mine.c.group_id).where(mine.c.user_id == of_those_with)))
    return [MemberRow(*row) for row in await connection.execute(query)]


async def member(connection: AsyncConnection, group: int, user: int) -> MemberRow | None:
    """Return somebody as a member of a group; None where they are none."""
    row = (await connection.execute(_MEMBERS.where(group_members.c.group_id == group, group_members.c.user_id == user))).first()
    return None if row is None else MemberRow(*row)


async def count(connection: AsyncConnection, *, group: int | None = None, user: int | None = None) -> int:
    """Count the members of a group, or the groups of a person."""
    query = select(func.count()).select_from(group_members)
    if group is not None:
        query = query.where(group_members.c.group_id == group)
    if user is not None:
        query = query.where(group_members.c.user_id == user)
    return int(await connection.scalar(query) or 0)


async def put_member(connection: AsyncConnection, group: int, user: int, *, manager: bool, now: int) -> None:
    """Take somebody in."""
    await connection.execute(insert(group_members).values(group_id=group, user_id=user, manager=manager, since=now))


async def set_manager(connection: AsyncConnection, group: int, user: int, *, manager: bool) -> None:
    """Change whether a member may change who is in the group."""
    await connection.execute(
        update(group_members).where(group_members.c.group_id == group, group_members.c.user_id == user).values(manager=manager)
    )


async def remove_member(connection: AsyncConnection, group: int, user: int) -> None:
    """Take somebody out."""
    await connection.execute(delete(group_members).where(group_members.c.group_id == group, group_members.c.user_id == user))


# ------------------------------------------------------------------------------------------------------ on a node

_MEMBER_SETS: Final = (
    select(
        users.c.id,
        users.c.username,
        grant_sets.c.epoch,
        grant_sets.c.applied_epoch,
        grant_sets.c.stale,
        grant_sets.c.refused,
        grant_sets.c.keys_until,
    )
    .join(group_members, group_members.c.user_id == users.c.id)
    .join(grant_sets, (grant_sets.c.subject_id == users.c.id) & (grant_sets.c.subject_kind == _PERSON))
    .where(group_members.c.group_id == bindparam("group"), grant_sets.c.node_id == bindparam("node"))
    .order_by(users.c.id)
)
_IS_SHARED: Final = select(grant_sets.c.epoch).where(
    grant_sets.c.node_id == bindparam("node"),
    grant_sets.c.subject_kind == _GROUP,
    grant_sets.c.subject_id == bindparam("group"),
)
_SHARED_HERE: Final = (
    select(grant_sets.c.subject_id)
    .where(grant_sets.c.node_id == bindparam("node"), grant_sets.c.subject_kind == _GROUP, grant_sets.c.epoch > 0)
    .scalar_subquery()
)
_size = group_members.alias("size")
_SIZE: Final = select(func.count()).where(_size.c.group_id == group_members.c.group_id).scalar_subquery()
_COUNTING: Final = (
    select(group_members.c.group_id)
    .where(
        group_members.c.user_id == bindparam("user"),
        group_members.c.since >= bindparam("since"),
        or_(group_members.c.group_id.in_(_SHARED_HERE), _SIZE > LARGE),
    )
    .order_by(group_members.c.group_id)
)
_mates = group_members.alias("mates")
_their = grant_sets.alias("their")
_LIVING: Final = (
    select(func.count())
    .select_from(_mates)
    .join(_their, (_their.c.subject_id == _mates.c.user_id) & (_their.c.subject_kind == _PERSON))
    .where(
        _mates.c.group_id == groups.c.id,
        _mates.c.user_id != bindparam("user"),
        _their.c.node_id == bindparam("node"),
        _their.c.keys_until > bindparam("now"),
    )
    .scalar_subquery()
)
_OF_PERSON: Final = (
    select(groups.c.id, groups.c.name, groups.c.id.in_(_SHARED_HERE), _LIVING)
    .join(group_members, group_members.c.group_id == groups.c.id)
    .where(group_members.c.user_id == bindparam("user"))
    .order_by(groups.c.id)
)
_HOLD: Final = (
    select(groups.c.id)
    .join(group_members, group_members.c.group_id == groups.c.id)
    .where(group_members.c.user_id == bindparam("user"))
    .order_by(groups.c.id)
    .with_for_update(read=True, of=groups)
)
_NODES: Final = (
    select(nodes.c.id, nodes.c.name)
    .join(roots, roots.c.node_id == nodes.c.id)
    .join(workspaces, workspaces.c.root_id == roots.c.id)
    .join(grants, grants.c.workspace_id == workspaces.c.id)
    .where(
        grants.c.subject_kind == _GROUP,
        grants.c.subject_id == bindparam("group"),
        roots.c.retired_at.is_(None),
        nodes.c.evicted_at.is_(None),
    )
    .distinct()
)
_NODES_WITH_SET: Final = (
    select(nodes.c.id, nodes.c.name)
    .join(grant_sets, grant_sets.c.node_id == nodes.c.id)
    .where(grant_sets.c.subject_kind == _GROUP, grant_sets.c.subject_id == bindparam("group"), nodes.c.evicted_at.is_(None))
)


async def member_sets(connection: AsyncConnection, node: int, group: int) -> list[MemberSet]:
    """Return the grant sets that members of a group have on a node, by user id."""
    return [MemberSet(*row) for row in await connection.execute(_MEMBER_SETS, {"node": node, "group": group})]


async def is_shared(connection: AsyncConnection, node: int, group: int) -> bool:
    """Say whether a group has a shared set on a node, so that its grants stand in that and not in its members' own."""
    return bool(await connection.scalar(_IS_SHARED, {"node": node, "group": group}))


async def hold_those_of(connection: AsyncConnection, user: int) -> None:
    """Wait for changes of a person's groups that are under way, and hold them off until the end of the transaction."""
    await connection.execute(_HOLD, {"user": user})


async def counting_for(connection: AsyncConnection, node: int, user: int, *, since: int = 0) -> tuple[int, ...]:
    """Return the groups whose shared sets count for a person on a node.

    Those that have one there, and those so large that they may get one: then nobody's own set has to change for it.
    """
    found = await connection.scalars(_COUNTING, {"node": node, "user": user, "since": since})
    return tuple(found)


async def of_person(connection: AsyncConnection, node: int, user: int, now: int) -> list[tuple[Subject, bool, int]]:
    """Return a person's groups; whether each has a shared set on a node, and how many others in it hold keys there."""
    found = await connection.execute(_OF_PERSON, {"node": node, "user": user, "now": now})
    return [(subject(row[0], row[1]), bool(row[2]), int(row[3])) for row in found]


class Lost(msgspec.Struct, frozen=True):
    """A workspace that a group was given something on."""

    workspace: int
    node: int


async def workspaces_of(connection: AsyncConnection, group: int) -> list[Lost]:
    """Return the workspaces that a group was given something on."""
    query = (
        select(workspaces.c.id, roots.c.node_id)
        .join(grants, grants.c.workspace_id == workspaces.c.id)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .where(grants.c.subject_kind == _GROUP, grants.c.subject_id == group)
        .order_by(workspaces.c.id)
    )
    return [Lost(*row) for row in await connection.execute(query)]


async def nodes_of(connection: AsyncConnection, group: int) -> list[tuple[int, str]]:
    """Return id and name of the nodes on which a group has been given something, or has a shared set."""
    found = {tuple(row) for query in (_NODES, _NODES_WITH_SET) for row in await connection.execute(query, {"group": group})}
    return sorted(found)
