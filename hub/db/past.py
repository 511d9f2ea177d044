"""What was: grants, memberships and ownership that ended, written in the transaction that ends them.

``facts`` reads it. What ran out by itself ended when it ran out, not when somebody cleared it away.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, case, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.facts import OWNER
from hub.db.grants import GrantRow
from hub.db.tables import grants, group_members, past_grants, past_members, workspaces
from protocol.grants import SubjectKind

_AT: Final = bindparam("at", type_=BigInteger)
_ENDED: Final = case((grants.c.expires_at < _AT, grants.c.expires_at), else_=_AT)
_INTO: Final = ["workspace_id", "subject_kind", "subject_id", "permission", "created_at", "ended_at"]


def _ending(*where: ColumnElement[bool]) -> Any:
    copied: Select[Any] = select(*(grants.c[name] for name in _INTO[:-1]), _ENDED).where(*where)
    return insert(past_grants).from_select(_INTO, copied)


_OF_ONE: Final = _ending(
    grants.c.workspace_id == bindparam("workspace"),
    grants.c.subject_kind == bindparam("kind"),
    grants.c.subject_id == bindparam("subject"),
)
_OF_WORKSPACE: Final = _ending(grants.c.workspace_id == bindparam("workspace"))
_OF_SUBJECT: Final = _ending(grants.c.subject_kind == bindparam("kind"), grants.c.subject_id == bindparam("subject"))


async def end_grant(connection: AsyncConnection, workspace: int, kind: SubjectKind, subject: int, *, at: int) -> None:
    """Keep what a subject was given on a workspace, before it is removed or replaced."""
    await connection.execute(_OF_ONE, {"workspace": workspace, "kind": str(kind), "subject": subject, "at": at})


async def restore_grant(connection: AsyncConnection, grant: GrantRow) -> None:
    """Forget that a grant ended: it is given again as it was, because a node refused what was to replace it."""
    await connection.execute(
        delete(past_grants).where(
            past_grants.c.workspace_id == grant.workspace_id,
            past_grants.c.subject_kind == grant.subject_kind,
            past_grants.c.subject_id == grant.subject_id,
            past_grants.c.created_at == grant.created_at,
        )
    )


async def end_grants_on(connection: AsyncConnection, workspace: int, *, at: int) -> None:
    """Keep everything that was given on a workspace, before it is removed."""
    await connection.execute(_OF_WORKSPACE, {"workspace": workspace, "at": at})


async def end_grants_to(connection: AsyncConnection, kind: SubjectKind, subject: int, *, at: int) -> None:
    """Keep everything that a subject was given anywhere, before it is removed."""
    await connection.execute(_OF_SUBJECT, {"kind": str(kind), "subject": subject, "at": at})


async def end_ownership(connection: AsyncConnection, workspace: int, *, at: int) -> None:
    """Keep who owned a workspace and since when, before it changes hands or is removed."""
    since = (
        select(func.max(past_grants.c.ended_at))
        .where(past_grants.c.workspace_id == workspace, past_grants.c.permission == OWNER)
        .scalar_subquery()
    )
    copied = select(
        workspaces.c.id,
        literal(str(SubjectKind.PERSON)),
        workspaces.c.owner_id,
        literal(OWNER),
        func.coalesce(since, workspaces.c.created_at),
        literal(at, type_=BigInteger),
    ).where(workspaces.c.id == workspace)
    await connection.execute(insert(past_grants).from_select(_INTO, copied))


async def end_members(connection: AsyncConnection, group: int, user: int | None = None, *, at: int) -> None:
    """Keep who was in a group, one of them or all, before they are taken out."""
    copied = select(
        group_members.c.group_id, group_members.c.user_id, group_members.c.since, literal(at, type_=BigInteger)
    ).where(group_members.c.group_id == group)
    if user is not None:
        copied = copied.where(group_members.c.user_id == user)
    await connection.execute(insert(past_members).from_select(["group_id", "user_id", "since", "ended_at"], copied))
