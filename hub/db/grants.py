"""What is given now, and what of it concerns one subject on one node."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Select, bindparam, case, delete, literal, null, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, inserting
from hub.db.tables import grant_sets, grants, group_members, groups, roots, users, workspaces
from protocol.api import RootKind
from protocol.grants import Permission, Subject, SubjectKind
from protocol.names import Layout

_PUBLIC: Final = [str(kind) for kind in RootKind if kind.public]


class GrantRow(msgspec.Struct, frozen=True):
    """One grant. Times in Unix microseconds."""

    id: int
    workspace_id: int
    subject_kind: str
    subject_id: int
    permission: str
    expires_at: int | None
    by_id: int
    created_at: int


class Listed(msgspec.Struct, frozen=True):
    """One grant as it is listed. ``username`` is None for everyone and for groups, ``group`` for all but groups."""

    grant: GrantRow
    username: str | None
    group: str | None
    by: str

    @property
    def subject(self) -> Subject:
        """Who it is given to."""
        name = self.username or (f"@{self.group}" if self.group else self.grant.subject_kind)
        return Subject(SubjectKind(self.grant.subject_kind), self.grant.subject_id, name)


class Given(msgspec.Struct, frozen=True):
    """A workspace opened to a subject, and where it lies. ``since``: when the last of what opens it came about."""

    workspace: int
    layout: Layout
    bucket: str
    root_prefix: str
    prefix: str
    permission: Permission
    expires_at: int | None
    since: int
    archived: bool


_THIS: Final = (
    grants.c.workspace_id == bindparam("workspace"),
    grants.c.subject_kind == bindparam("kind"),
    grants.c.subject_id == bindparam("subject"),
)
_FIND: Final = select(*columns(grants, GrantRow)).where(*_THIS)
_REMOVE: Final = delete(grants).where(*_THIS)


async def find(connection: AsyncConnection, workspace: int, kind: SubjectKind, subject: int) -> GrantRow | None:
    """Return what a subject was given on a workspace, expired or not."""
    row = (await connection.execute(_FIND, _values(workspace, kind, subject))).first()
    return None if row is None else GrantRow(*row)


async def put(connection: AsyncConnection, grant: GrantRow) -> None:
    """Give, instead of whatever that subject was given on that workspace before."""
    values = msgspec.structs.asdict(grant)
    await connection.execute(
        inserting(connection, grants)
        .values(values)
        .on_conflict_do_update(index_elements=["workspace_id", "subject_kind", "subject_id"], set_=values)
    )


async def remove(connection: AsyncConnection, workspace: int, kind: SubjectKind, subject: int) -> None:
    """Take back what a subject was given on a workspace."""
    await connection.execute(_REMOVE, _values(workspace, kind, subject))


def _values(workspace: int, kind: SubjectKind, subject: int) -> dict[str, int | str]:
    return {"workspace": workspace, "kind": str(kind), "subject": subject}


async def of_workspace(connection: AsyncConnection, workspace: int) -> list[Listed]:
    """Return all grants on a workspace, oldest first."""
    giver = users.alias("giver")
    query = (
        select(*columns(grants, GrantRow), users.c.username, groups.c.name, giver.c.username)
        .join(giver, giver.c.id == grants.c.by_id)
        .outerjoin(users, (users.c.id == grants.c.subject_id) & (grants.c.subject_kind == str(SubjectKind.PERSON)))
        .outerjoin(groups, (groups.c.id == grants.c.subject_id) & (grants.c.subject_kind == str(SubjectKind.GROUP)))
        .where(grants.c.workspace_id == workspace)
        .order_by(grants.c.created_at, grants.c.id)
    )
    return [Listed(GrantRow(*row[:-3]), *row[-3:]) for row in await connection.execute(query)]


# ------------------------------------------------------------------------------------------------------ what to enforce


def _opened(permission: Any, expires: Any, since: Any) -> Select[Any]:
    archived = workspaces.c.archived_at.is_not(None)
    place = (roots.c.layout, roots.c.bucket, roots.c.prefix, workspaces.c.prefix)
    return (
        select(workspaces.c.id, *place, permission, expires, since, archived)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .where(roots.c.node_id == bindparam("node"), roots.c.retired_at.is_(None))
    )


_GIVEN: Final = (
    _opened(grants.c.permission, grants.c.expires_at, grants.c.created_at)
    .join(grants, grants.c.workspace_id == workspaces.c.id)
    .where(grants.c.subject_kind == bindparam("kind"), grants.c.subject_id == bindparam("subject"))
)
_BOTH: Final = case((grants.c.created_at > group_members.c.since, grants.c.created_at), else_=group_members.c.since)
_HAS_SHARED_SET: Final = (
    select(grant_sets.c.epoch)
    .where(
        grant_sets.c.node_id == bindparam("node"),
        grant_sets.c.subject_kind == str(SubjectKind.GROUP),
        grant_sets.c.subject_id == group_members.c.group_id,
        grant_sets.c.epoch > 0,
    )
    .exists()
)
# A shared set can hold no dropping: each dropper has a folder of their own.
_THROUGH_GROUPS: Final = (
    _opened(grants.c.permission, grants.c.expires_at, _BOTH)
    .join(grants, grants.c.workspace_id == workspaces.c.id)
    .join(group_members, group_members.c.group_id == grants.c.subject_id)
    .where(
        grants.c.subject_kind == str(SubjectKind.GROUP),
        group_members.c.user_id == bindparam("user"),
        or_(grants.c.permission == str(Permission.DROP), ~_HAS_SHARED_SET),
    )
)
_OWNED: Final = _opened(literal(str(Permission.MANAGE)), null(), workspaces.c.created_at).where(
    workspaces.c.owner_id == bindparam("owner")
)
_IN_PUBLIC: Final = _opened(literal(str(Permission.READ)), null(), workspaces.c.created_at).where(
    roots.c.kind.in_(_PUBLIC), roots.c.layout == str(Layout.BUCKET)
)


async def _read(connection: AsyncConnection, query: Select[Any], values: dict[str, Any]) -> list[Given]:
    return [
        Given(row[0], Layout(row[1]), row[2], row[3], row[4], Permission(row[5]), row[6], row[7], bool(row[8]))
        for row in await connection.execute(query, values)
    ]


async def given_to(connection: AsyncConnection, node: int, kind: SubjectKind, subject: int) -> list[Given]:
    """Return what a subject was given on a node, expired or not."""
    return await _read(connection, _GIVEN, {"node": node, "kind": str(kind), "subject": subject})


async def through_groups(connection: AsyncConnection, node: int, user: int) -> list[Given]:
    """Return what a person was given on a node through groups, as far as it has to stand in their own set."""
    return await _read(connection, _THROUGH_GROUPS, {"node": node, "user": user})


async def owned_by(connection: AsyncConnection, node: int, owner: int) -> list[Given]:
    """Return somebody's own workspaces on a node."""
    return await _read(connection, _OWNED, {"node": node, "owner": owner})


async def in_public_bucket_roots(connection: AsyncConnection, node: int) -> list[Given]:
    """Return the workspaces of a node's public roots in which each is a bucket of its own."""
    return await _read(connection, _IN_PUBLIC, {"node": node})


async def public_prefix_roots(connection: AsyncConnection, node: int) -> list[tuple[str, str, int]]:
    """Return bucket, prefix and time of making of a node's public roots that can be opened as a whole."""
    found = await connection.execute(
        select(roots.c.bucket, roots.c.prefix, roots.c.created_at).where(
            roots.c.node_id == node,
            roots.c.retired_at.is_(None),
            roots.c.kind.in_(_PUBLIC),
            roots.c.layout == str(Layout.PREFIX),
        )
    )
    return [(row[0], row[1], row[2]) for row in found]
