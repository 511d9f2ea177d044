"""Quotas, what they count, and whom they concern.

A quota counts the workspaces that fit every id it carries; 0 stands for any. Only a quota of a whole root counts what lies
in no workspace as well. What is counted are the totals that the catalogue keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    union,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.grant_sets import SetBrief
from hub.db.roles import Role
from hub.db.rows import columns, inserting
from hub.db.tables import grant_sets, grants, group_members, groups, nodes, quotas, root_roles, roots, users, workspaces
from protocol.api import QuotaKind
from protocol.grants import Permission, SubjectKind
from protocol.messages import IndexLevel

_ADDING: Final = [str(one) for one in (Permission.WRITE, Permission.MANAGE, Permission.DROP)]
_PERSON: Final = str(SubjectKind.PERSON)
_GROUP: Final = str(SubjectKind.GROUP)
_AT_ONCE: Final = 1000
"""Grant sets in one statement."""


class QuotaRow(msgspec.Struct, frozen=True):
    """A quota as it is set. Bytes; times in Unix microseconds."""

    id: int
    kind: str
    user_id: int
    root_id: int
    workspace_id: int
    soft: int | None
    hard: int | None
    by_id: int
    created_at: int
    over_since: int | None
    warned_at: int | None


class Measured(msgspec.Struct, frozen=True):
    """A quota, how much of it is used, what it is called (``NewQuota.of``), and the node it is about where that is one."""

    row: QuotaRow
    used: int
    of: str
    node: int | None


class Counted(msgspec.Struct, frozen=True):
    """A root that a quota counts something in. ``report`` is msgpack."""

    root: str
    node: str
    level: IndexLevel
    report: bytes | None


class Concerned(msgspec.Struct, frozen=True):
    """A grant set that lets somebody add to what a quota counts."""

    node_id: int
    node: str
    set: SetBrief


def _counts(quota: Any) -> ColumnElement[bool]:
    """Return the condition that a quota counts a workspace."""
    return and_(
        quota.c.user_id.in_([literal(0), workspaces.c.owner_id]),
        quota.c.root_id.in_([literal(0), workspaces.c.root_id]),
        quota.c.workspace_id.in_([literal(0), workspaces.c.id]),
    )


def _stands_out(quota: Any) -> ColumnElement[bool]:
    """Return the condition that a quota is exceeded in some way; in the words of the index over those."""
    return or_(quota.c.over_since.is_not(None), quota.c.warned_at.is_not(None))


_strained = quotas.alias("strained")
STRAIN: Final = func.coalesce(
    select(func.max(case((_strained.c.over_since.is_not(None), 2), else_=1)))
    .where(_stands_out(_strained), _counts(_strained))
    .correlate(workspaces)
    .scalar_subquery(),
    0,
)
"""For a query over workspaces: 2 where a hard limit that counts the workspace is exceeded, 1 where a soft one is, else 0."""

_OVER_AMONG: Final = select(workspaces.c.id).where(
    workspaces.c.id.in_(bindparam("workspaces", expanding=True)),
    select(quotas.c.id)
    .where(_stands_out(quotas), quotas.c.over_since.is_not(None), _counts(quotas))
    .correlate(workspaces)
    .exists(),
)
_ANY_OVER: Final = select(quotas.c.id).where(_stands_out(quotas), quotas.c.over_since.is_not(None)).limit(1)


async def over_among(connection: AsyncConnection, found: Iterable[int]) -> frozenset[int]:
    """Return those of these workspaces to which nobody may add now."""
    ids = list(found)
    if not ids or (await connection.execute(_ANY_OVER)).first() is None:
        return frozenset()
    return frozenset(await connection.scalars(_OVER_AMONG, {"workspaces": ids}))


async def over(connection: AsyncConnection, workspace: int) -> list[int]:
    """Return the ids of the quotas that keep people from adding to a workspace now."""
    query = select(quotas.c.id).join(workspaces, _counts(quotas))
    found = await connection.scalars(query.where(quotas.c.over_since.is_not(None), workspaces.c.id == workspace))
    return list(found)


async def persons_over(connection: AsyncConnection, persons: Iterable[int]) -> bool:
    """Say whether a hard quota on one of these people is exceeded, everywhere or in some root."""
    query = select(quotas.c.id).where(quotas.c.over_since.is_not(None), quotas.c.user_id.in_(list(persons))).limit(1)
    return (await connection.execute(query)).first() is not None


# ------------------------------------------------------------------------------------------------------ setting


async def find(connection: AsyncConnection, kind: QuotaKind, user: int, root: int, workspace: int) -> QuotaRow | None:
    """Return the quota of this kind on this target."""
    same = (quotas.c.kind == str(kind), quotas.c.user_id == user, quotas.c.root_id == root)
    row = (
        await connection.execute(select(*columns(quotas, QuotaRow)).where(*same, quotas.c.workspace_id == workspace))
    ).first()
    return None if row is None else QuotaRow(*row)


async def by_id(connection: AsyncConnection, quota: int) -> QuotaRow | None:
    """Return a quota."""
    row = (await connection.execute(select(*columns(quotas, QuotaRow)).where(quotas.c.id == quota))).first()
    return None if row is None else QuotaRow(*row)


async def put(connection: AsyncConnection, row: QuotaRow) -> None:
    """Set a quota, instead of the one of this kind that its target had; how that stood is kept, for it is decided anew."""
    kept = {"id", "created_at", "over_since", "warned_at"}
    values = msgspec.structs.asdict(row)
    await connection.execute(
        inserting(connection, quotas)
        .values(values)
        .on_conflict_do_update(
            index_elements=["kind", "user_id", "root_id", "workspace_id"],
            set_={name: value for name, value in values.items() if name not in kept},
        )
    )


async def remove(connection: AsyncConnection, quota: int) -> None:
    """Remove a quota."""
    await connection.execute(delete(quotas).where(quotas.c.id == quota))


async def forget_dangling(connection: AsyncConnection) -> None:
    """Remove the quotas on workspaces and roots that are no more."""
    here = select(workspaces.c.id)
    living = select(roots.c.id).where(roots.c.retired_at.is_(None))
    await connection.execute(
        delete(quotas).where(
            or_(
                and_(quotas.c.workspace_id != 0, quotas.c.workspace_id.not_in(here)),
                and_(quotas.c.root_id != 0, quotas.c.root_id.not_in(living)),
            )
        )
    )


async def turn(connection: AsyncConnection, quota: int, *, over_since: int | None, warned_at: int | None) -> None:
    """Note how a quota stands."""
    await connection.execute(update(quotas).where(quotas.c.id == quota).values(over_since=over_since, warned_at=warned_at))


# ------------------------------------------------------------------------------------------------------ counting


_one, _whole, _there = workspaces.alias("one"), roots.alias("whole"), nodes.alias("there")
# Each counts along an index, and only for the quotas that are asked for.
_USED: Final = case(
    (
        quotas.c.kind == str(QuotaKind.ROOT),
        select(_whole.c.bytes).where(_whole.c.id == quotas.c.root_id).correlate(quotas).scalar_subquery(),
    ),
    (
        quotas.c.kind == str(QuotaKind.WORKSPACE),
        select(_one.c.bytes).where(_one.c.id == quotas.c.workspace_id).correlate(quotas).scalar_subquery(),
    ),
    else_=select(func.sum(_one.c.bytes))
    .join(_whole, _whole.c.id == _one.c.root_id)
    .join(_there, _there.c.id == _whole.c.node_id)
    .where(
        _one.c.owner_id == quotas.c.user_id,
        or_(quotas.c.root_id == 0, quotas.c.root_id == _one.c.root_id),
        _whole.c.retired_at.is_(None),
        _there.c.evicted_at.is_(None),
    )
    .correlate(quotas)
    .scalar_subquery(),
)
_holder = users.alias("holder")
_MEASURED: Final = (
    select(
        *columns(quotas, QuotaRow),
        func.coalesce(_USED, 0),
        users.c.username,
        nodes.c.name,
        func.coalesce(roots.c.name, literal("")),
        _holder.c.username,
        workspaces.c.name,
        nodes.c.id,
    )
    .select_from(quotas)
    .outerjoin(users, users.c.id == quotas.c.user_id)
    .outerjoin(workspaces, workspaces.c.id == quotas.c.workspace_id)
    .outerjoin(_holder, _holder.c.id == workspaces.c.owner_id)
    .outerjoin(roots, roots.c.id == case((quotas.c.workspace_id != 0, workspaces.c.root_id), else_=quotas.c.root_id))
    .outerjoin(nodes, nodes.c.id == roots.c.node_id)
    .where(or_(quotas.c.workspace_id == 0, workspaces.c.id.is_not(None)))
    .order_by(quotas.c.kind, users.c.username, nodes.c.name, roots.c.name, workspaces.c.name)
)
_ROOTS: Final[BindParameter[Any]] = bindparam("roots", expanding=True)
# Kinds are named so that the index over kind and target serves.
_TOUCHED: Final = union(
    select(quotas.c.id).where(quotas.c.root_id.in_(_ROOTS)),
    select(quotas.c.id)
    .join(workspaces, workspaces.c.id == quotas.c.workspace_id)
    .where(
        quotas.c.kind == str(QuotaKind.WORKSPACE),
        quotas.c.user_id == 0,
        quotas.c.root_id == 0,
        workspaces.c.root_id.in_(_ROOTS),
    ),
    select(quotas.c.id)
    .join(workspaces, workspaces.c.owner_id == quotas.c.user_id)
    .where(quotas.c.kind == str(QuotaKind.USER), workspaces.c.root_id.in_(_ROOTS)),
)
_OF_ROOTS: Final = _MEASURED.where(quotas.c.id.in_(_TOUCHED))
_SOME: Final = _MEASURED.where(quotas.c.id.in_(bindparam("ids", expanding=True)))
_ME: Final = bindparam("me", type_=BigInteger)
_MINE: Final = select(workspaces.c.id).where(workspaces.c.owner_id == _ME)
_MY_GROUPS: Final = select(group_members.c.group_id).where(group_members.c.user_id == _ME)
_SHARED: Final = select(grants.c.workspace_id).where(
    or_(
        and_(grants.c.subject_kind == _PERSON, grants.c.subject_id == _ME),
        and_(grants.c.subject_kind == _GROUP, grants.c.subject_id.in_(_MY_GROUPS)),
    ),
    or_(grants.c.expires_at.is_(None), grants.c.expires_at > bindparam("now", type_=BigInteger)),
)
_USED_BY_ME: Final = select(workspaces.c.root_id).where(workspaces.c.owner_id == _ME)
_MANAGED: Final = select(root_roles.c.root_id).where(
    root_roles.c.role == str(Role.MANAGE),
    or_(
        and_(root_roles.c.subject_kind == _PERSON, root_roles.c.subject_id == _ME),
        and_(root_roles.c.subject_kind == _GROUP, root_roles.c.subject_id.in_(_MY_GROUPS)),
    ),
)
_CONCERNING: Final = _MEASURED.where(
    or_(
        quotas.c.user_id == _ME,
        nodes.c.owner_id == _ME,
        roots.c.id.in_(_MANAGED),
        quotas.c.workspace_id.in_(_MINE),
        quotas.c.workspace_id.in_(_SHARED),
        and_(quotas.c.kind == str(QuotaKind.ROOT), quotas.c.root_id.in_(_USED_BY_ME)),
    )
)


def _measured(row: Any) -> Measured:
    wide = len(QuotaRow.__struct_fields__)
    quota = QuotaRow(*row[:wide])
    used, user, node, root, owner, name, node_id = row[wide:]
    place = f"{node}/{root}"
    of = {
        QuotaKind.USER: f"{user}",
        QuotaKind.USER_ROOT: f"{user}@{place}",
        QuotaKind.ROOT: place,
        QuotaKind.WORKSPACE: f"{owner}/{name}",
    }[QuotaKind(quota.kind)]
    return Measured(quota, int(used), of, node_id)


async def of_roots(connection: AsyncConnection, touched: Iterable[int]) -> list[Measured]:
    """Return the quotas that count something in these roots, measured, in one query."""
    return [_measured(row) for row in await connection.execute(_OF_ROOTS, {"roots": list(touched)})]


async def some(connection: AsyncConnection, ids: Iterable[int]) -> list[Measured]:
    """Return these quotas, measured."""
    return [_measured(row) for row in await connection.execute(_SOME, {"ids": list(ids)})]


async def everything(connection: AsyncConnection) -> list[Measured]:
    """Return all quotas, measured."""
    return [_measured(row) for row in await connection.execute(_MEASURED)]


async def concerning(connection: AsyncConnection, user: int, now: int) -> list[Measured]:
    """Return the quotas that concern somebody: on them, on what they have or was shared with them, on roots they use or run."""
    return [_measured(row) for row in await connection.execute(_CONCERNING, {"me": user, "now": now})]


async def counted(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, list[Counted]]:
    """Return the roots in which these quotas count something, by quota."""
    ids = list(ids)
    fields = (quotas.c.id, roots.c.name, nodes.c.name, roots.c.level, nodes.c.report)
    by_root = (select(*fields).join(roots, roots.c.id == quotas.c.root_id).join(nodes, nodes.c.id == roots.c.node_id)).where(
        quotas.c.id.in_(ids)
    )
    by_workspace = (
        select(*fields)
        .join(
            workspaces,
            or_(
                workspaces.c.id == quotas.c.workspace_id,
                and_(quotas.c.root_id == 0, workspaces.c.owner_id == quotas.c.user_id),
            ),
        )
        .join(roots, roots.c.id == workspaces.c.root_id)
        .join(nodes, nodes.c.id == roots.c.node_id)
        .where(quotas.c.id.in_(ids), roots.c.retired_at.is_(None), nodes.c.evicted_at.is_(None))
    )
    found: dict[int, list[Counted]] = {}
    for query in (by_root, by_workspace):
        for quota, root, node, level, report in await connection.execute(query):
            one = Counted(root, node, IndexLevel(level), report)
            if one not in found.setdefault(quota, []):
                found[quota].append(one)
    return found


# ------------------------------------------------------------------------------------------------------ whom it concerns


async def concerned(connection: AsyncConnection, quota: int) -> list[Concerned]:
    """Return the grant sets that let somebody add to what a quota counts: owners, people, groups' members, everyone."""
    counted_here = (
        select(roots.c.node_id, workspaces.c.id, workspaces.c.owner_id)
        .select_from(quotas)
        .join(workspaces, _counts(quotas))
        .join(roots, roots.c.id == workspaces.c.root_id)
        .where(quotas.c.id == quota)
        .subquery()
    )
    given = grants.c.permission.in_(_ADDING)
    subjects = union(
        select(counted_here.c.node_id, literal(_PERSON).label("kind"), counted_here.c.owner_id.label("subject")),
        select(counted_here.c.node_id, grants.c.subject_kind, grants.c.subject_id)
        .join(grants, grants.c.workspace_id == counted_here.c.id)
        .where(given),
        select(counted_here.c.node_id, literal(_PERSON), group_members.c.user_id)
        .select_from(counted_here)
        .join(grants, and_(grants.c.workspace_id == counted_here.c.id, grants.c.subject_kind == _GROUP))
        .join(group_members, group_members.c.group_id == grants.c.subject_id)
        .where(given),
    ).subquery()
    named = and_(users.c.id == grant_sets.c.subject_id, grant_sets.c.subject_kind == _PERSON)
    group = and_(groups.c.id == grant_sets.c.subject_id, grant_sets.c.subject_kind == _GROUP)
    name = case((grant_sets.c.subject_kind == _GROUP, "@" + groups.c.name), else_=users.c.username)
    fields = [name if field == "name" else grant_sets.c[field] for field in SetBrief.__struct_fields__]
    query = (
        select(nodes.c.id, nodes.c.name, *fields)
        .select_from(grant_sets)
        .join(
            subjects,
            and_(
                subjects.c.node_id == grant_sets.c.node_id,
                subjects.c.kind == grant_sets.c.subject_kind,
                subjects.c.subject == grant_sets.c.subject_id,
            ),
        )
        .join(nodes, nodes.c.id == grant_sets.c.node_id)
        .outerjoin(users, named)
        .outerjoin(groups, group)
        .where(nodes.c.evicted_at.is_(None))
        .order_by(grant_sets.c.node_id, grant_sets.c.subject_kind, grant_sets.c.subject_id)
    )
    return [Concerned(row[0], row[1], SetBrief(*row[2:])) for row in await connection.execute(query)]


async def mark_stale(connection: AsyncConnection, sets: Sequence[Concerned]) -> None:
    """Have these sets compiled again, before the next key at the latest."""
    keys = [(one.node_id, one.set.subject_kind, one.set.subject_id) for one in sets]
    this = tuple_(grant_sets.c.node_id, grant_sets.c.subject_kind, grant_sets.c.subject_id)
    ordered = (grant_sets.c.node_id, grant_sets.c.subject_kind, grant_sets.c.subject_id)
    for start in range(0, len(keys), _AT_ONCE):
        some_of_them = this.in_(keys[start : start + _AT_ONCE])
        # Held in the order that all transactions share before they are changed, so that nobody waits in a ring.
        await connection.execute(select(grant_sets.c.node_id).where(some_of_them).order_by(*ordered).with_for_update())
        await connection.execute(update(grant_sets).where(some_of_them).values(stale=True))
