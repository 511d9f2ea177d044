"""Workspaces as one person sees them: where each lies, and what that person and everyone were given there.

Everything that asks "which workspaces may this person …" goes through ``_select``, so there is one place to be right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, literal, or_, select, tuple_, union, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import storable
from hub.db.tables import counters, grant_sets, grants, nodes, roots, users, workspaces
from protocol.api import RootKind
from protocol.grants import Permission, SubjectKind
from protocol.names import Layout

_PUBLIC: Final = [str(kind) for kind in RootKind if kind.public]
_own = grants.alias("own")
_shared = grants.alias("shared")
_my_set = grant_sets.alias("my_set")
_their_set = grant_sets.alias("their_set")


class Standing(msgspec.Struct, frozen=True):
    """One workspace, and what one person holds in it. ``size`` in bytes; expired grants are left out."""

    id: int
    owner_id: int
    owner: str
    name: str
    prefix: str
    description: str
    created_at: int
    objects: int
    size: int
    root_id: int
    root: str
    kind: RootKind
    bucket: str
    root_prefix: str
    layout: Layout
    node_id: int
    node: str
    granted: Permission | None
    granted_until: int | None
    everyone: Permission | None
    everyone_until: int | None


_COLUMNS: Final = [
    workspaces.c.id,
    workspaces.c.owner_id,
    users.c.username,
    workspaces.c.name,
    workspaces.c.prefix,
    workspaces.c.description,
    workspaces.c.created_at,
    workspaces.c.objects,
    workspaces.c.bytes,
    roots.c.id,
    roots.c.name,
    roots.c.kind,
    roots.c.bucket,
    roots.c.prefix,
    roots.c.layout,
    nodes.c.id,
    nodes.c.name,
    _own.c.permission,
    _own.c.expires_at,
    _shared.c.permission,
    _shared.c.expires_at,
]


class SetState(msgspec.Struct, frozen=True):
    """How a subject's grant set on a node stands; all zero where there is none yet. ``lease_end`` in Unix seconds."""

    epoch: int = 0
    stale: bool = True
    applied_epoch: int = 0
    lease_end: int = 0
    keys_until: int = 0
    refused: str | None = None


_STATE: Final = SetState.__struct_fields__


class Reached(msgspec.Struct, frozen=True):
    """A workspace for which a key is asked: its standing, its node, and the two grant sets that count there."""

    standing: Standing
    key: bytes
    report: bytes | None
    mine: SetState
    everyones: SetState


# Statements are built once: building one costs several times what running it does.
_ACTOR: Final = bindparam("actor", type_=BigInteger)
_NOW: Final = bindparam("now", type_=BigInteger)


def _select(*extra: Any) -> Select[Any]:
    return (
        select(*_COLUMNS, *extra)
        .join(users, users.c.id == workspaces.c.owner_id)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .outerjoin(_own, _given(_own, SubjectKind.PERSON, _ACTOR))
        .outerjoin(_shared, _given(_shared, SubjectKind.EVERYONE, literal(0)))
        .where(roots.c.retired_at.is_(None), nodes.c.evicted_at.is_(None))
    )


def _given(table: Any, kind: SubjectKind, subject: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(
        table.c.workspace_id == workspaces.c.id,
        table.c.subject_kind == str(kind),
        table.c.subject_id == subject,
        or_(table.c.expires_at.is_(None), table.c.expires_at > _NOW),
    )


def _set_of(table: Any, kind: SubjectKind, subject: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(table.c.node_id == nodes.c.id, table.c.subject_kind == str(kind), table.c.subject_id == subject)


_CALLED: Final = tuple_(users.c.username, workspaces.c.name).in_(bindparam("names", expanding=True))
_CANDIDATES: Final = union(
    select(workspaces.c.id).where(workspaces.c.owner_id == _ACTOR),
    select(grants.c.workspace_id).where(grants.c.subject_kind == str(SubjectKind.PERSON), grants.c.subject_id == _ACTOR),
    select(grants.c.workspace_id).where(grants.c.subject_kind == str(SubjectKind.EVERYONE), grants.c.subject_id == 0),
    select(workspaces.c.id).join(roots, roots.c.id == workspaces.c.root_id).where(roots.c.kind.in_(_PUBLIC)),
)
_KNOWN: Final = _select().where(workspaces.c.id.in_(_CANDIDATES)).order_by(users.c.username, workspaces.c.name)
_NAMED: Final = _select().where(_CALLED)
_REACHED: Final = (
    _select(nodes.c.key, nodes.c.report, *(table.c[name] for table in (_my_set, _their_set) for name in _STATE))
    .outerjoin(_my_set, _set_of(_my_set, SubjectKind.PERSON, _ACTOR))
    .outerjoin(_their_set, _set_of(_their_set, SubjectKind.EVERYONE, literal(0)))
    .where(_CALLED)
)
_VERSION: Final = select(counters.c.value).where(counters.c.name == "access")


def _read(row: Any) -> Standing:
    values = dict(zip(Standing.__struct_fields__, row[: len(_COLUMNS)], strict=True))
    values |= {"kind": RootKind(values["kind"]), "layout": Layout(values["layout"])}
    for field in ("granted", "everyone"):
        if values[field] is not None:
            values[field] = Permission(values[field])
    return Standing(**values)


async def known(connection: AsyncConnection, actor: int, now: int) -> list[Standing]:
    """Return every workspace that this person owns, was given, or that is public."""
    return [_read(row) for row in await connection.execute(_KNOWN, {"actor": actor, "now": now})]


async def named(
    connection: AsyncConnection, actor: int, names: Iterable[tuple[str, str]], now: int
) -> dict[tuple[str, str], Standing]:
    """Return those of the workspaces (owner, name) that are there, whether or not this person may know of them."""
    found = await connection.execute(_NAMED, {"actor": actor, "now": now, "names": _storable(names)})
    return {(one.owner, one.name): one for one in map(_read, found)}


async def reached(
    connection: AsyncConnection, actor: int, names: Iterable[tuple[str, str]], now: int
) -> dict[tuple[str, str], Reached]:
    """Return the same with all that minting a key needs, in one query."""
    found: dict[tuple[str, str], Reached] = {}
    for row in await connection.execute(_REACHED, {"actor": actor, "now": now, "names": _storable(names)}):
        standing = _read(row)
        at = len(_COLUMNS)
        key, report = row[at : at + 2]
        mine = row[at + 2 : at + 2 + len(_STATE)]
        theirs = row[at + 2 + len(_STATE) :]
        found[standing.owner, standing.name] = Reached(standing, key, report, _state(mine), _state(theirs))
    return found


def _storable(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [one for one in names if storable("".join(one))]


def _state(values: Any) -> SetState:
    return SetState() if values[0] is None else SetState(*values)


async def version(connection: AsyncConnection) -> int:
    """Return a number that moves whenever who may read what changes."""
    return int(await connection.scalar(_VERSION) or 0)


async def changed(connection: AsyncConnection) -> None:
    """Say inside a writing transaction that who may read what changes with it."""
    await connection.execute(update(counters).where(counters.c.name == "access").values(value=counters.c.value + 1))
