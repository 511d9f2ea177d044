"""Workspaces as one person sees them: where each lies, and what that person and everyone were given there.

Everything that asks "which workspaces may this person …" goes through ``_select``, so there is one place to be right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, case, literal, or_, select, tuple_, union, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.quotas import STRAIN
from hub.db.rows import storable
from hub.db.tables import counters, grant_sets, grants, group_members, groups, nodes, roots, users, workspaces
from protocol.api import RootKind
from protocol.grants import Permission, SubjectKind
from protocol.names import Layout

_PUBLIC: Final = [str(kind) for kind in RootKind if kind.public]
_own = grants.alias("own")
_shared = grants.alias("shared")
_grouped = grants.alias("grouped")
_member = group_members.alias("member")
_my_set = grant_sets.alias("my_set")
_their_set = grant_sets.alias("their_set")


class Through(msgspec.Struct, frozen=True):
    """What somebody was given by being in a group. ``until`` in Unix microseconds."""

    group: str
    permission: Permission
    until: int | None
    since: int


class Standing(msgspec.Struct, frozen=True):
    """One workspace, and what one person holds in it. ``size`` in bytes; expired grants are left out.

    ``unconfirmed_since``: its node waits for a person to confirm what this hub knows of it.
    """

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
    granted_since: int | None
    everyone_since: int | None
    archived_at: int | None
    unconfirmed_since: int | None
    strain: int
    """How the quotas that count it stand: 2 where a hard limit is exceeded, 1 where a soft one is, else 0."""
    groups: tuple[Through, ...] = ()


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
    _own.c.created_at,
    _shared.c.created_at,
    workspaces.c.archived_at,
    nodes.c.unconfirmed_since,
    STRAIN,
]
_LATER: Final = case((_grouped.c.created_at > _member.c.since, _grouped.c.created_at), else_=_member.c.since)
_THROUGH: Final = [groups.c.name, _grouped.c.permission, _grouped.c.expires_at, _LATER]
_WIDTH: Final = len(_COLUMNS) + len(_THROUGH)


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
    groups_behind: bool = False
    """Whether a group of this person has a set on the node that it may not have as it should be."""


# Statements are built once: building one costs several times what running it does.
_ACTOR: Final = bindparam("actor", type_=BigInteger)
_NOW: Final = bindparam("now", type_=BigInteger)


# One row for each group that was given something; those that this person is not in have no name. Both tables are entered
# by their keys, so that it costs next to nothing where no group was given anything.
def _select(*extra: Any) -> Select[Any]:
    return (
        select(*_COLUMNS, *_THROUGH, *extra)
        .join(users, users.c.id == workspaces.c.owner_id)
        .join(roots, roots.c.id == workspaces.c.root_id)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .outerjoin(_own, _given(_own, SubjectKind.PERSON, _ACTOR))
        .outerjoin(_shared, _given(_shared, SubjectKind.EVERYONE, literal(0)))
        .outerjoin(_grouped, and_(*_on_workspace(_grouped, SubjectKind.GROUP)))
        .outerjoin(_member, and_(_member.c.group_id == _grouped.c.subject_id, _member.c.user_id == _ACTOR))
        .outerjoin(groups, groups.c.id == _member.c.group_id)
        .where(roots.c.retired_at.is_(None), nodes.c.evicted_at.is_(None))
    )


def _given(table: Any, kind: SubjectKind, subject: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(*_on_workspace(table, kind), table.c.subject_id == subject)


def _on_workspace(table: Any, kind: SubjectKind) -> list[ColumnElement[bool]]:
    return [
        table.c.workspace_id == workspaces.c.id,
        table.c.subject_kind == str(kind),
        or_(table.c.expires_at.is_(None), table.c.expires_at > _NOW),
    ]


def _set_of(table: Any, kind: SubjectKind, subject: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(table.c.node_id == nodes.c.id, table.c.subject_kind == str(kind), table.c.subject_id == subject)


_CALLED: Final = tuple_(users.c.username, workspaces.c.name).in_(bindparam("names", expanding=True))
_CANDIDATES: Final = union(
    select(workspaces.c.id).where(workspaces.c.owner_id == _ACTOR),
    select(grants.c.workspace_id).where(grants.c.subject_kind == str(SubjectKind.PERSON), grants.c.subject_id == _ACTOR),
    select(grants.c.workspace_id).where(grants.c.subject_kind == str(SubjectKind.EVERYONE), grants.c.subject_id == 0),
    select(workspaces.c.id).join(roots, roots.c.id == workspaces.c.root_id).where(roots.c.kind.in_(_PUBLIC)),
    select(grants.c.workspace_id)
    .join(group_members, group_members.c.group_id == grants.c.subject_id)
    .where(grants.c.subject_kind == str(SubjectKind.GROUP), group_members.c.user_id == _ACTOR),
)
_KNOWN: Final = _select().where(workspaces.c.id.in_(_CANDIDATES)).order_by(users.c.username, workspaces.c.name)
_DESCRIBED: Final = _select().where(workspaces.c.description != "").order_by(users.c.username, workspaces.c.name)
_NAMED: Final = _select().where(_CALLED)
_BEHIND: Final = (
    select(grant_sets.c.epoch)
    .join(group_members, group_members.c.group_id == grant_sets.c.subject_id)
    .where(
        grant_sets.c.node_id == nodes.c.id,
        grant_sets.c.subject_kind == str(SubjectKind.GROUP),
        group_members.c.user_id == _ACTOR,
        grant_sets.c.epoch > 0,
        or_(
            grant_sets.c.stale,
            grant_sets.c.applied_epoch < grant_sets.c.epoch,
            grant_sets.c.refused.is_not(None),
            grant_sets.c.lease_end < bindparam("lease", type_=BigInteger),
        ),
    )
    .correlate(nodes)
    .exists()
)
_REACHED: Final = (
    _select(nodes.c.key, nodes.c.report, _BEHIND, *(table.c[name] for table in (_my_set, _their_set) for name in _STATE))
    .outerjoin(_my_set, _set_of(_my_set, SubjectKind.PERSON, _ACTOR))
    .outerjoin(_their_set, _set_of(_their_set, SubjectKind.EVERYONE, literal(0)))
    .where(_CALLED)
)
_VERSION: Final = select(counters.c.value).where(counters.c.name == "access")


def _read(row: Any, through: tuple[Through, ...]) -> Standing:
    values = dict(zip(Standing.__struct_fields__, (*row[: len(_COLUMNS)], through), strict=True))
    values |= {"kind": RootKind(values["kind"]), "layout": Layout(values["layout"])}
    for field in ("granted", "everyone"):
        if values[field] is not None:
            values[field] = Permission(values[field])
    return Standing(**values)


def _gather(rows: Iterable[Any]) -> list[tuple[Standing, Any]]:
    """Put the rows of each workspace together; returns each with the first of its rows, in the order they came."""
    found: dict[int, tuple[Any, list[Through]]] = {}
    for row in rows:
        _, through = found.setdefault(row[0], (row, []))
        name, permission, until, since = row[len(_COLUMNS) : _WIDTH]
        if name is not None:
            through.append(Through(name, Permission(permission), until, since))
    return [(_read(row, tuple(through)), row) for row, through in found.values()]


async def known(connection: AsyncConnection, actor: int, now: int) -> list[Standing]:
    """Return every workspace that this person owns, was given, by name or in a group, or that is public."""
    return [one for one, _ in _gather(await connection.execute(_KNOWN, {"actor": actor, "now": now}))]


async def described(connection: AsyncConnection, actor: int, now: int) -> list[Standing]:
    """Return every workspace that has a description, whether or not this person may do anything in it."""
    return [one for one, _ in _gather(await connection.execute(_DESCRIBED, {"actor": actor, "now": now}))]


async def named(
    connection: AsyncConnection, actor: int, names: Iterable[tuple[str, str]], now: int
) -> dict[tuple[str, str], Standing]:
    """Return those of the workspaces (owner, name) that are there, whether or not this person may know of them."""
    found = await connection.execute(_NAMED, {"actor": actor, "now": now, "names": _storable(names)})
    return {(one.owner, one.name): one for one, _ in _gather(found)}


async def reached(
    connection: AsyncConnection, actor: int, names: Iterable[tuple[str, str]], now: int, *, lease: int = 0
) -> dict[tuple[str, str], Reached]:
    """Return the same with all that minting a key needs, in one query. ``lease``: the first Unix second that still is fresh."""
    found: dict[tuple[str, str], Reached] = {}
    values = {"actor": actor, "now": now, "names": _storable(names), "lease": lease}
    for standing, row in _gather(await connection.execute(_REACHED, values)):
        at = _WIDTH + 3
        key, report, behind = row[_WIDTH:at]
        mine, theirs = row[at : at + len(_STATE)], row[at + len(_STATE) :]
        found[standing.owner, standing.name] = Reached(standing, key, report, _state(mine), _state(theirs), bool(behind))
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
