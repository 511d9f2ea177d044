"""One workspace and one person as they are, whatever state they are in: for what explains, and for who may change a root.

``standings`` leaves out what is retired, evicted or expired, because nobody can use it. Here it is told, with when it ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import Select, and_, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, storable
from hub.db.tables import (
    grant_sets,
    grants,
    group_members,
    groups,
    nodes,
    past_grants,
    past_members,
    receipts,
    root_roles,
    roots,
    users,
    workspaces,
)
from protocol.api import RootKind
from protocol.grants import SubjectKind
from protocol.names import Layout

OWNER: Final = "owner"
"""What stands for past ownership where a permission would stand."""


class WorkspaceFacts(msgspec.Struct, frozen=True):
    """A workspace, its root and its node. Times in Unix microseconds."""

    id: int
    owner_id: int
    owner: str
    name: str
    prefix: str
    created_at: int
    archived_at: int | None
    root_id: int
    root: str
    kind: RootKind
    bucket: str
    root_prefix: str
    layout: Layout
    retired_at: int | None
    node_id: int
    node: str
    node_owner_id: int
    evicted_at: int | None
    health: bytes | None
    """What the node last said of itself, msgpack of ``protocol.messages.Health``."""


class GrantFacts(msgspec.Struct, frozen=True):
    """A grant that is there (``ended_at`` None, but it may have expired) or was."""

    subject_kind: str
    subject_id: int
    permission: str
    created_at: int
    expires_at: int | None
    ended_at: int | None

    @property
    def until(self) -> int | None:
        """When it ended or will end; None: not yet known."""
        ends = [end for end in (self.expires_at, self.ended_at) if end is not None]
        return min(ends, default=None)

    def held_at(self, at: int) -> bool:
        """Say whether it held at Unix microsecond ``at``."""
        return self.created_at <= at and (self.until is None or self.until > at)


class MemberFacts(msgspec.Struct, frozen=True):
    """Somebody in a group, now (``ended_at`` None) or then."""

    group_id: int
    user_id: int
    since: int
    ended_at: int | None

    def in_it_at(self, at: int) -> bool:
        """Say whether they were in it at Unix microsecond ``at``."""
        return self.since <= at and (self.ended_at is None or self.ended_at > at)


_COLUMNS: Final = (
    workspaces.c.id,
    workspaces.c.owner_id,
    users.c.username,
    workspaces.c.name,
    workspaces.c.prefix,
    workspaces.c.created_at,
    workspaces.c.archived_at,
    roots.c.id,
    roots.c.name,
    roots.c.kind,
    roots.c.bucket,
    roots.c.prefix,
    roots.c.layout,
    roots.c.retired_at,
    nodes.c.id,
    nodes.c.name,
    nodes.c.owner_id,
    nodes.c.evicted_at,
    nodes.c.health,
)


async def workspace(connection: AsyncConnection, owner: str, name: str) -> WorkspaceFacts | None:
    """Return a workspace by its owner's name and its own."""
    if not storable(owner + name):
        return None
    query = (
        select(*_COLUMNS)
        .join(users, users.c.id == workspaces.c.owner_id)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .where(users.c.username == owner, workspaces.c.name == name)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    values: dict[str, Any] = dict(zip(WorkspaceFacts.__struct_fields__, row, strict=True))
    return WorkspaceFacts(**values | {"kind": RootKind(values["kind"]), "layout": Layout(values["layout"])})


async def node_owner(connection: AsyncConnection, node: int) -> int | None:
    """Return whose node that is."""
    found = await connection.scalar(select(nodes.c.owner_id).where(nodes.c.id == node))
    return None if found is None else int(found)


async def given(connection: AsyncConnection, workspace_id: int) -> list[GrantFacts]:
    """Return every grant there is or was on a workspace, past ownership too, newest first."""
    names = ("subject_kind", "subject_id", "permission", "created_at")
    now: Select[Any] = select(*(grants.c[name] for name in names), grants.c.expires_at).where(
        grants.c.workspace_id == workspace_id
    )
    past: Select[Any] = select(*(past_grants.c[name] for name in names), past_grants.c.ended_at).where(
        past_grants.c.workspace_id == workspace_id
    )
    found = [GrantFacts(row[0], row[1], row[2], row[3], row[4], None) for row in await connection.execute(now)]
    found += [GrantFacts(row[0], row[1], row[2], row[3], None, row[4]) for row in await connection.execute(past)]
    return sorted(found, key=lambda one: (one.until is None, one.until or 0, one.created_at), reverse=True)


async def members(connection: AsyncConnection, wanted: Iterable[int]) -> list[MemberFacts]:
    """Return everybody who is or was in these groups."""
    ids = list(wanted)
    now = select(group_members.c.group_id, group_members.c.user_id, group_members.c.since).where(
        group_members.c.group_id.in_(ids)
    )
    past = select(*columns(past_members, MemberFacts)).where(past_members.c.group_id.in_(ids))
    found = [MemberFacts(*row, None) for row in await connection.execute(now)]
    return found + [MemberFacts(*row) for row in await connection.execute(past)]


async def memberships(connection: AsyncConnection, user: int) -> dict[int, str]:
    """Return the groups somebody is in: name by id."""
    query = select(groups.c.id, groups.c.name).join(group_members, group_members.c.group_id == groups.c.id)
    return {row[0]: row[1] for row in await connection.execute(query.where(group_members.c.user_id == user))}


async def group_names(connection: AsyncConnection, wanted: Iterable[int]) -> dict[int, str]:
    """Return names of groups by id, of those that are there."""
    found = await connection.execute(select(groups.c.id, groups.c.name).where(groups.c.id.in_(list(wanted))))
    return {row[0]: row[1] for row in found}


async def people(connection: AsyncConnection, wanted: Iterable[int]) -> dict[int, tuple[str, int | None]]:
    """Return names of people and when their accounts were ended, by id."""
    query = select(users.c.id, users.c.username, users.c.disabled_at).where(users.c.id.in_(list(wanted)))
    return {row[0]: (row[1], row[2]) for row in await connection.execute(query)}


_MANAGES: Final = (
    select(root_roles.c.root_id)
    .where(
        root_roles.c.root_id == bindparam("root"),
        root_roles.c.role == "manage",
        or_(
            and_(root_roles.c.subject_kind == str(SubjectKind.PERSON), root_roles.c.subject_id == bindparam("user")),
            and_(
                root_roles.c.subject_kind == str(SubjectKind.GROUP),
                root_roles.c.subject_id.in_(
                    select(group_members.c.group_id).where(group_members.c.user_id == bindparam("user"))
                ),
            ),
        ),
    )
    .limit(1)
)


async def manages_root(connection: AsyncConnection, root: int, user: int) -> bool:
    """Say whether somebody was made a manager of a root, by name or through a group."""
    return (await connection.execute(_MANAGES, {"root": root, "user": user})).first() is not None


class SetFacts(msgspec.Struct, frozen=True):
    """How a subject's grant set on a node stands. ``keys_until`` in Unix microseconds."""

    epoch: int
    applied_epoch: int
    stale: bool
    refused: str | None
    keys_until: int


async def set_of(connection: AsyncConnection, node: int, kind: SubjectKind, subject: int) -> SetFacts | None:
    """Return how a subject's grant set on a node stands; None where there is none."""
    query = select(*columns(grant_sets, SetFacts)).where(
        grant_sets.c.node_id == node, grant_sets.c.subject_kind == str(kind), grant_sets.c.subject_id == subject
    )
    row = (await connection.execute(query)).first()
    return None if row is None else SetFacts(*row)


async def last_receipt(connection: AsyncConnection, workspace_id: int, kind: SubjectKind, subject: int) -> str | None:
    """Return the id of the newest receipt about a subject on a workspace."""
    query = select(receipts.c.id).where(
        receipts.c.workspace_id == workspace_id, receipts.c.subject_kind == str(kind), receipts.c.subject_id == subject
    )
    found = await connection.scalar(query.order_by(receipts.c.asked_at.desc()).limit(1))
    return None if found is None else str(found)
