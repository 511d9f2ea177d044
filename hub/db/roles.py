"""Who may make workspaces in a root, and who may change it, beside its node's owner."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from sqlalchemy import and_, bindparam, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import group_members, groups, root_roles, users
from protocol.grants import Subject, SubjectKind


class Role(enum.StrEnum):
    """What somebody may do with a root."""

    CREATE = "create"
    MANAGE = "manage"


_PERSON: Final = str(SubjectKind.PERSON)
_GROUP: Final = str(SubjectKind.GROUP)
_MINE: Final = select(root_roles.c.root_id, root_roles.c.role).where(
    or_(
        root_roles.c.subject_kind == str(SubjectKind.EVERYONE),
        and_(root_roles.c.subject_kind == _PERSON, root_roles.c.subject_id == bindparam("user")),
        and_(
            root_roles.c.subject_kind == _GROUP,
            root_roles.c.subject_id.in_(select(group_members.c.group_id).where(group_members.c.user_id == bindparam("user"))),
        ),
    )
)
_LISTED: Final = (
    select(root_roles.c.root_id, root_roles.c.role, root_roles.c.subject_kind, users.c.username, groups.c.name)
    .outerjoin(users, and_(root_roles.c.subject_kind == _PERSON, users.c.id == root_roles.c.subject_id))
    .outerjoin(groups, and_(root_roles.c.subject_kind == _GROUP, groups.c.id == root_roles.c.subject_id))
    .order_by(root_roles.c.subject_kind, users.c.username, groups.c.name)
)


async def of_person(connection: AsyncConnection, user: int) -> frozenset[tuple[int, Role]]:
    """Return (root, role) of everything somebody may do with roots, as everybody may, by name, or in a group."""
    return frozenset((row[0], Role(row[1])) for row in await connection.execute(_MINE, {"user": user}))


async def listed(connection: AsyncConnection, root: int | None = None) -> dict[tuple[int, Role], tuple[str, ...]]:
    """Return who has each role on a root, or on all, as people write them: user names, ``@group``, ``public``."""
    found: dict[tuple[int, Role], list[str]] = {}
    query = _LISTED if root is None else _LISTED.where(root_roles.c.root_id == root)
    for root_id, role, _, user, group in await connection.execute(query):
        found.setdefault((root_id, Role(role)), []).append(user or (f"@{group}" if group else "public"))
    return {key: tuple(names) for key, names in found.items()}


async def replace(connection: AsyncConnection, root: int, role: Role, subjects: Iterable[Subject]) -> None:
    """Give a role on a root to these and nobody else."""
    await connection.execute(delete(root_roles).where(root_roles.c.root_id == root, root_roles.c.role == str(role)))
    rows = [{"root_id": root, "role": str(role), "subject_kind": str(one.kind), "subject_id": one.id} for one in set(subjects)]
    if rows:
        await connection.execute(insert(root_roles), rows)
