"""The audit trail: append-only, each line chained to the one before.

A line's chain is SHA-256 over the chain of the line before and this line in msgpack. Lines wait until the end of their
transaction; there the counter "audit" is moved, which lets one transaction at a time append, and the newest line is read.
Lines of before there were chains have none, and come before all that have one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.database import before_commit
from hub.db.tables import audit, counters, nodes, users, workspaces

GROUP_GONE: Final = "share.group-gone"
"""The action of a line about a workspace that a group has lost because it was deleted; its target is ``@name``."""
_ENCODE: Final = msgspec.msgpack.Encoder()


class Line(msgspec.Struct, frozen=True):
    """What a line says. ``at`` in Unix microseconds, ``detail`` JSON. The order of the fields is part of the chain."""

    at: int
    actor_id: int
    action: str
    target: str
    detail: str
    node_id: int | None
    workspace_id: int | None


class AuditRow(msgspec.Struct, frozen=True):
    """One line as it is stored, with the actor's name; None for the hub itself or somebody who is gone."""

    id: int
    actor: str | None
    chain: bytes
    line: Line


class Seen(msgspec.Struct, frozen=True):
    """Which lines are looked at; all of them where nothing is said.

    ``viewer``: only what they did, and what concerns their workspaces and nodes. ``workspace``: only what concerns it.
    ``target``: only lines about something of that name.
    """

    viewer: int | None = None
    workspace: int | None = None
    target: str | None = None


def chained(before: bytes, line: Line) -> bytes:
    """Return the chain of a line, 32 bytes, given that of the line before; of the first line that is empty."""
    return hashlib.sha256(before + _ENCODE.encode(msgspec.structs.astuple(line))).digest()


_NEWEST: Final = select(audit.c.chain).order_by(audit.c.id.desc()).limit(1)
_ADD: Final = insert(audit).inline()
_EXTENT: Final = select(
    select(counters.c.value).where(counters.c.name == "audit").scalar_subquery(), select(func.max(audit.c.id)).scalar_subquery()
)


def add(connection: AsyncConnection, line: Line) -> None:
    """Add a line at the end of this transaction."""
    before_commit(connection, _append, line)


async def _append(connection: AsyncConnection, lines: list[Line]) -> None:
    await connection.execute(update(counters).where(counters.c.name == "audit").values(value=counters.c.value + len(lines)))
    chain = await connection.scalar(_NEWEST) or b""
    rows = []
    for line in lines:
        chain = chained(chain, line)
        rows.append(msgspec.structs.asdict(line) | {"chain": chain})
    for row in rows:  # one by one, so that their ids have the order of the chain
        await connection.execute(_ADD, row)


async def extent(connection: AsyncConnection) -> tuple[int, int]:
    """Return how many lines with a chain were ever added, and the id of the newest line; both of one moment."""
    count, newest = (await connection.execute(_EXTENT)).one()
    return int(count or 0), int(newest or 0)


# ------------------------------------------------------------------------------------------------------ reading


_LINE: Final = [audit.c[name] for name in Line.__struct_fields__]


def _select(seen: Seen) -> Select[Any]:
    query = select(audit.c.id, users.c.username, audit.c.chain, *_LINE).outerjoin(users, users.c.id == audit.c.actor_id)
    return query.where(*_conditions(seen))


def _conditions(seen: Seen) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if seen.viewer is not None:
        mine = audit.c.workspace_id.in_(select(workspaces.c.id).where(workspaces.c.owner_id == seen.viewer))
        here = audit.c.node_id.in_(select(nodes.c.id).where(nodes.c.owner_id == seen.viewer))
        found.append(or_(audit.c.actor_id == seen.viewer, mine, here))
    if seen.workspace is not None:
        found.append(audit.c.workspace_id == seen.workspace)
    if seen.target is not None:
        found.append(audit.c.target == seen.target)
    return found


def _read(row: Any) -> AuditRow:
    return AuditRow(row[0], row[1], row[2], Line(*row[3:]))


async def newest(connection: AsyncConnection, seen: Seen, *, limit: int, before: int | None) -> list[AuditRow]:
    """Return lines, newest first."""
    query = _select(seen).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [_read(row) for row in await connection.execute(query)]


async def oldest(connection: AsyncConnection, seen: Seen, *, after: int, limit: int) -> list[AuditRow]:
    """Return the lines behind an id, oldest first."""
    query = _select(seen).where(audit.c.id > after).order_by(audit.c.id).limit(limit)
    return [_read(row) for row in await connection.execute(query)]


async def last(
    connection: AsyncConnection, actions: Sequence[str], *, workspace: int, detail: str | None = None
) -> AuditRow | None:
    """Return the newest line of one of these kinds about a workspace; ``detail`` is a part that its JSON begins with."""
    about = [audit.c.workspace_id == workspace, audit.c.action.in_(actions)]
    if detail is not None:
        about.append(func.substr(audit.c.detail, 1, len(detail)) == detail)
    found = (await connection.execute(_select(Seen()).where(and_(*about)).order_by(audit.c.id.desc()).limit(1))).first()
    return None if found is None else _read(found)


async def workspace_called(connection: AsyncConnection, target: str) -> int | None:
    """Return the id of the workspace that lines about something of this name are about, the newest; None where none is."""
    query = select(audit.c.workspace_id).where(audit.c.target == target, audit.c.workspace_id.is_not(None))
    found = await connection.scalar(query.order_by(audit.c.id.desc()).limit(1))
    return None if found is None else int(found)


async def groups_gone(connection: AsyncConnection, workspace: int) -> dict[int, str]:
    """Return the names of groups that lost a workspace because they were deleted, by id, as its audit lines tell."""
    query = select(audit.c.target, audit.c.detail).where(audit.c.workspace_id == workspace, audit.c.action == GROUP_GONE)
    told = [(target, msgspec.json.decode(detail)) for target, detail in await connection.execute(query)]
    return {int(detail["group"]): target.removeprefix("@") for target, detail in told if "group" in detail}
