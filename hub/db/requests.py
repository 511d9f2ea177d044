"""Requests for access."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.tables import access_requests, grants, group_members, nodes, roots, users, workspaces
from protocol.grants import Permission, SubjectKind


class RequestRow(msgspec.Struct, frozen=True):
    """A request, with the names of its workspace, of who asked and of who answered. Times in Unix microseconds."""

    id: int
    workspace_id: int
    owner: str
    name: str
    user_id: int
    username: str
    permission: str
    message: str
    created_at: int
    answered_at: int | None
    granted: bool | None
    answered_by: str | None


_owner, _asker, _answerer = users.alias("owner"), users.alias("asker"), users.alias("answerer")
_ELSEWHERE: Final = {
    "owner": _owner.c.username,
    "name": workspaces.c.name,
    "username": _asker.c.username,
    "answered_by": _answerer.c.username,
}
_FIELDS: Final = [_ELSEWHERE[name] if name in _ELSEWHERE else access_requests.c[name] for name in RequestRow.__struct_fields__]


def _select(*where: ColumnElement[bool]) -> Select[Any]:
    return (
        select(*_FIELDS)
        .join(workspaces, workspaces.c.id == access_requests.c.workspace_id)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .join(_owner, _owner.c.id == workspaces.c.owner_id)
        .join(_asker, _asker.c.id == access_requests.c.user_id)
        .outerjoin(_answerer, _answerer.c.id == access_requests.c.answered_by)
        .where(nodes.c.evicted_at.is_(None), *where)
    )


_USER: Final = bindparam("user", type_=BigInteger)
_NOW: Final = bindparam("now", type_=BigInteger)
_MANAGED: Final = (
    select(grants.c.workspace_id)
    .outerjoin(
        group_members,
        and_(
            grants.c.subject_kind == str(SubjectKind.GROUP),
            group_members.c.group_id == grants.c.subject_id,
            group_members.c.user_id == _USER,
        ),
    )
    .where(
        grants.c.permission == str(Permission.MANAGE),
        or_(grants.c.expires_at.is_(None), grants.c.expires_at > _NOW),
        or_(
            and_(grants.c.subject_kind == str(SubjectKind.PERSON), grants.c.subject_id == _USER),
            group_members.c.user_id == _USER,
        ),
    )
)
_CONCERNING: Final = (
    _select(
        or_(
            access_requests.c.user_id == _USER,
            workspaces.c.owner_id == _USER,
            workspaces.c.id.in_(_MANAGED),
        )
    )
    .order_by(access_requests.c.answered_at.is_not(None), access_requests.c.created_at.desc(), access_requests.c.id)
    .limit(bindparam("most"))
)


async def add(
    connection: AsyncConnection, *, request: int, workspace: int, user: int, permission: Permission, message: str, now: int
) -> None:
    """Add a request."""
    await connection.execute(
        insert(access_requests).values(
            id=request,
            workspace_id=workspace,
            user_id=user,
            permission=str(permission),
            message=message,
            created_at=now,
        )
    )


async def by_id(connection: AsyncConnection, request: int) -> RequestRow | None:
    """Return a request on a workspace that is there."""
    row = (await connection.execute(_select(access_requests.c.id == request))).first()
    return None if row is None else RequestRow(*row)


async def concerning(connection: AsyncConnection, user: int, *, now: int, most: int) -> list[RequestRow]:
    """Return what somebody asked for, and what they may answer: open ones first, then the newest."""
    return [RequestRow(*row) for row in await connection.execute(_CONCERNING, {"user": user, "now": now, "most": most})]


async def count_open(connection: AsyncConnection, user: int, workspace: int | None = None) -> int:
    """Count somebody's requests that nobody has answered."""
    query = (
        select(func.count())
        .select_from(access_requests)
        .join(workspaces, workspaces.c.id == access_requests.c.workspace_id)
        .where(access_requests.c.user_id == user, access_requests.c.answered_at.is_(None))
    )
    if workspace is not None:
        query = query.where(access_requests.c.workspace_id == workspace)
    return int(await connection.scalar(query) or 0)


async def answer(connection: AsyncConnection, request: int, *, granted: bool, by: int, at: int) -> bool:
    """Answer a request that is open; False where somebody was faster."""
    done = await connection.execute(
        update(access_requests)
        .where(access_requests.c.id == request, access_requests.c.answered_at.is_(None))
        .values(granted=granted, answered_by=by, answered_at=at)
    )
    return done.rowcount == 1


async def reopen(connection: AsyncConnection, request: int) -> None:
    """Take an answer back that could not be carried out."""
    await connection.execute(
        update(access_requests).where(access_requests.c.id == request).values(granted=None, answered_by=None, answered_at=None)
    )


async def close_own(connection: AsyncConnection, workspace: int, user: int, *, by: int, at: int) -> None:
    """Answer what somebody asked for on a workspace, because they own it now."""
    await connection.execute(
        update(access_requests)
        .where(
            access_requests.c.workspace_id == workspace,
            access_requests.c.user_id == user,
            access_requests.c.answered_at.is_(None),
        )
        .values(granted=True, answered_by=by, answered_at=at)
    )
