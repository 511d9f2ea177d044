"""What is given now, and what of it concerns one subject on one node."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Select, bindparam, delete, literal, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, inserting
from hub.db.tables import grants, roots, users, workspaces
from protocol.api import RootKind
from protocol.grants import Permission, SubjectKind
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
    """One grant as it is listed. ``username`` is None for everyone."""

    grant: GrantRow
    username: str | None
    by: str


class Given(msgspec.Struct, frozen=True):
    """A workspace opened to a subject, and where it lies."""

    workspace: int
    layout: Layout
    bucket: str
    root_prefix: str
    prefix: str
    permission: Permission
    expires_at: int | None


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
        select(*columns(grants, GrantRow), users.c.username, giver.c.username)
        .join(giver, giver.c.id == grants.c.by_id)
        .outerjoin(users, (users.c.id == grants.c.subject_id) & (grants.c.subject_kind == str(SubjectKind.PERSON)))
        .where(grants.c.workspace_id == workspace)
        .order_by(grants.c.created_at, grants.c.id)
    )
    return [Listed(GrantRow(*row[:-2]), row[-2], row[-1]) for row in await connection.execute(query)]


# ------------------------------------------------------------------------------------------------------ what to enforce


def _opened(permission: Any, expires: Any) -> Select[Any]:
    return (
        select(workspaces.c.id, roots.c.layout, roots.c.bucket, roots.c.prefix, workspaces.c.prefix, permission, expires)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .where(roots.c.node_id == bindparam("node"), roots.c.retired_at.is_(None))
    )


_GIVEN: Final = (
    _opened(grants.c.permission, grants.c.expires_at)
    .join(grants, grants.c.workspace_id == workspaces.c.id)
    .where(grants.c.subject_kind == bindparam("kind"), grants.c.subject_id == bindparam("subject"))
)
_OWNED: Final = _opened(literal(str(Permission.MANAGE)), null()).where(workspaces.c.owner_id == bindparam("owner"))
_IN_PUBLIC: Final = _opened(literal(str(Permission.READ)), null()).where(
    roots.c.kind.in_(_PUBLIC), roots.c.layout == str(Layout.BUCKET)
)


async def _read(connection: AsyncConnection, query: Select[Any], values: dict[str, Any]) -> list[Given]:
    return [
        Given(row[0], Layout(row[1]), row[2], row[3], row[4], Permission(row[5]), row[6])
        for row in await connection.execute(query, values)
    ]


async def given_to(connection: AsyncConnection, node: int, kind: SubjectKind, subject: int) -> list[Given]:
    """Return what a subject was given on a node, expired or not."""
    return await _read(connection, _GIVEN, {"node": node, "kind": str(kind), "subject": subject})


async def owned_by(connection: AsyncConnection, node: int, owner: int) -> list[Given]:
    """Return somebody's own workspaces on a node."""
    return await _read(connection, _OWNED, {"node": node, "owner": owner})


async def in_public_bucket_roots(connection: AsyncConnection, node: int) -> list[Given]:
    """Return the workspaces of a node's public roots in which each is a bucket of its own."""
    return await _read(connection, _IN_PUBLIC, {"node": node})


async def public_prefix_roots(connection: AsyncConnection, node: int) -> list[tuple[str, str]]:
    """Return bucket and prefix of a node's public roots that can be opened as a whole."""
    found = await connection.execute(
        select(roots.c.bucket, roots.c.prefix).where(
            roots.c.node_id == node,
            roots.c.retired_at.is_(None),
            roots.c.kind.in_(_PUBLIC),
            roots.c.layout == str(Layout.PREFIX),
        )
    )
    return [(row[0], row[1]) for row in found]
