"""Desired state: the signed grant set of every subject on every node; and the receipts of its changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, case, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, inserting
from hub.db.tables import grant_sets, group_members, groups, links, receipts, users
from protocol.grants import Receipt, ReceiptState, Subject, SubjectKind
from protocol.messages import EpochState

_NONE: Final = bytes(32)
LINK_OF: Final = "'s link"
"""What follows the maker's name where a link is named."""
_AT_ONCE: Final = 500
"""Values in one statement."""


class SetRow(msgspec.Struct, frozen=True):
    """One grant set. Epoch 0: never signed yet. ``lease_end`` in Unix seconds, other times in microseconds."""

    node_id: int
    subject_kind: str
    subject_id: int
    epoch: int
    body: bytes
    signature: bytes
    content: bytes
    lease_end: int
    stale: bool
    applied_epoch: int
    refused: str | None
    keys_until: int


class SetBrief(msgspec.Struct, frozen=True):
    """The same without what was signed; ``name`` is the person's or, with @, the group's; None where they are gone."""

    subject_kind: str
    subject_id: int
    epoch: int
    content: bytes
    lease_end: int
    stale: bool
    applied_epoch: int
    refused: str | None
    keys_until: int
    name: str | None


# Statements on the way of a share or a key are built once: building one costs several times what running it does.
_THIS: Final = (
    grant_sets.c.node_id == bindparam("node"),
    grant_sets.c.subject_kind == bindparam("kind"),
    grant_sets.c.subject_id == bindparam("subject"),
)
_ROW: Final = select(*columns(grant_sets, SetRow)).where(*_THIS)
_CLAIM: Final = _ROW.with_for_update()
_BODY: Final = select(grant_sets.c.body).where(*_THIS)
_SIGN: Final = (
    update(grant_sets)
    .where(*_THIS)
    .values(
        epoch=bindparam("new_epoch"),
        body=bindparam("new_body"),
        signature=bindparam("new_signature"),
        content=bindparam("new_content"),
        lease_end=bindparam("new_lease_end"),
        stale=False,
        refused=None,
    )
)


def _key(node: int, subject: Subject) -> dict[str, Any]:
    return {"node": node, "kind": str(subject.kind), "subject": subject.id}


def _of(node: int, subject: Subject) -> list[ColumnElement[bool]]:
    return [
        grant_sets.c.node_id == node,
        grant_sets.c.subject_kind == str(subject.kind),
        grant_sets.c.subject_id == subject.id,
    ]


async def claim(connection: AsyncConnection, node: int, subject: Subject) -> SetRow:
    """Return a subject's set on a node, made empty and stale where there is none, and hold it to the transaction's end."""
    key = _key(node, subject)
    row = (await connection.execute(_CLAIM, key)).first()
    if row is not None:
        return SetRow(*row)
    new = SetRow(node, str(subject.kind), subject.id, 0, b"", b"", _NONE, 0, True, 0, None, 0)
    await connection.execute(inserting(connection, grant_sets).values(msgspec.structs.asdict(new)).on_conflict_do_nothing())
    return SetRow(*(await connection.execute(_CLAIM, key)).one())


async def body(connection: AsyncConnection, node: int, subject: Subject) -> bytes:
    """Return what was last signed for a subject on a node; empty where nothing was."""
    return await connection.scalar(_BODY, _key(node, subject)) or b""


async def sign(
    connection: AsyncConnection,
    node: int,
    subject: Subject,
    *,
    epoch: int,
    body: bytes,
    signature: bytes,
    content: bytes,
    lease_end: int,
) -> None:
    """Keep a newly signed set."""
    new = {"new_epoch": epoch, "new_body": body, "new_signature": signature}
    new |= {"new_content": content, "new_lease_end": lease_end}
    await connection.execute(_SIGN, _key(node, subject) | new)


async def mark_stale(connection: AsyncConnection, node: int, subject: Subject) -> None:
    """Have the set compiled again before the next mint."""
    await connection.execute(update(grant_sets).where(*_of(node, subject)).values(stale=True))


async def mark_all_stale(connection: AsyncConnection, node: int) -> None:
    """Have every set of a node compiled again."""
    await connection.execute(update(grant_sets).where(grant_sets.c.node_id == node).values(stale=True))


async def mark_fresh(connection: AsyncConnection, node: int, subject: Subject) -> None:
    """Note that what was signed last is what is wanted."""
    await connection.execute(update(grant_sets).where(*_of(node, subject)).values(stale=False))


async def hold_persons(connection: AsyncConnection, node: int, persons: Sequence[int]) -> bool:
    """Hold the sets of these people, given by rising id, to the end of the transaction; True."""
    for at in range(0, len(persons), _AT_ONCE):
        await connection.execute(
            select(grant_sets.c.subject_id)
            .where(
                grant_sets.c.node_id == node,
                grant_sets.c.subject_kind == str(SubjectKind.PERSON),
                grant_sets.c.subject_id.in_(persons[at : at + _AT_ONCE]),
            )
            .order_by(grant_sets.c.subject_id)
            .with_for_update()
        )
    return True


async def mark_persons_stale(connection: AsyncConnection, node: int, persons: Sequence[int], *, now: int) -> list[int]:
    """Have the sets of these people compiled again before the next mint; return whose keys are out, which is not enough.

    Holds their rows to the end of the transaction.
    """
    mine = [grant_sets.c.node_id == node, grant_sets.c.subject_kind == str(SubjectKind.PERSON)]
    living: list[int] = []
    for at in range(0, len(persons), _AT_ONCE):
        some = grant_sets.c.subject_id.in_(persons[at : at + _AT_ONCE])
        held = (
            select(grant_sets.c.subject_id, grant_sets.c.keys_until)
            .where(*mine, some)
            .order_by(grant_sets.c.subject_id)
            .with_for_update()
        )
        living += [row[0] for row in await connection.execute(held) if row[1] > now]
        await connection.execute(update(grant_sets).where(*mine, some).values(stale=True))
    return living


async def mark_members_stale(connection: AsyncConnection, node: int, group: int) -> None:
    """Have the sets of a group's members compiled again before their next mint: what they hold now stays right till then."""
    members = select(group_members.c.user_id).where(group_members.c.group_id == group)
    mine = (grant_sets.c.node_id == node, grant_sets.c.subject_kind == str(SubjectKind.PERSON))
    these = grant_sets.c.subject_id.in_(members)
    await connection.execute(
        select(grant_sets.c.subject_id).where(*mine, these).order_by(grant_sets.c.subject_id).with_for_update()
    )
    await connection.execute(update(grant_sets).where(*mine, these).values(stale=True))


async def mark_refused_stale(connection: AsyncConnection, node: int) -> None:
    """Have every set of a node tried again of which something was refused."""
    await connection.execute(
        update(grant_sets).where(grant_sets.c.node_id == node, grant_sets.c.refused.is_not(None)).values(stale=True)
    )


async def applied(
    connection: AsyncConnection, node: int, subject: Subject, *, epoch: int, at: int, left_out: str | None
) -> None:
    """Note that the node enforces this epoch. ``left_out`` says which grants it refused and the set is now without."""
    await connection.execute(
        update(grant_sets)
        .where(*_of(node, subject), grant_sets.c.applied_epoch < epoch)
        .values(
            applied_epoch=epoch,
            applied_at=at,
            refused=case((grant_sets.c.epoch == epoch, left_out), else_=grant_sets.c.refused),
        )
    )


async def refused(connection: AsyncConnection, node: int, subject: Subject, *, epoch: int, reason: str) -> None:
    """Note that the node refused this epoch."""
    await connection.execute(update(grant_sets).where(*_of(node, subject), grant_sets.c.epoch == epoch).values(refused=reason))


_UNTIL: Final = bindparam("until", type_=BigInteger)
_HOLD: Final = (
    update(grant_sets)
    .where(*_THIS, grant_sets.c.epoch == bindparam("now_epoch"), grant_sets.c.stale.is_(False))
    .values(keys_until=case((grant_sets.c.keys_until < _UNTIL, _UNTIL), else_=grant_sets.c.keys_until))
)


async def hold_keys(connection: AsyncConnection, node: int, subject: Subject, *, epoch: int, until: int) -> bool:
    """Note that a key may be out until then, if this epoch still is what is wanted; False if it is not."""
    now = {"now_epoch": epoch, "until": until}
    return (await connection.execute(_HOLD, _key(node, subject) | now)).rowcount == 1


async def raise_keys(connection: AsyncConnection, node: int, subject: Subject, *, until: int) -> None:
    """Note that keys of a subject may be out until then, whatever epoch they were minted on."""
    await connection.execute(
        update(grant_sets).where(*_of(node, subject), grant_sets.c.keys_until < until).values(keys_until=until)
    )


async def expect_keys(connection: AsyncConnection, node: int, *, until: int) -> None:
    """Assume that keys of anybody on this node, of which this database knows nothing, may be out until then."""
    await connection.execute(
        update(grant_sets).where(grant_sets.c.node_id == node, grant_sets.c.keys_until < until).values(keys_until=until)
    )


_maker = users.alias("maker")
_NAME: Final = case(
    (grant_sets.c.subject_kind == str(SubjectKind.GROUP), "@" + groups.c.name),
    (grant_sets.c.subject_kind == str(SubjectKind.LINK), _maker.c.username + LINK_OF),
    else_=users.c.username,
)


def _named(*fields: Any) -> Select[Any]:
    person, group, link = str(SubjectKind.PERSON), str(SubjectKind.GROUP), str(SubjectKind.LINK)
    return (
        select(*fields)
        .outerjoin(users, (users.c.id == grant_sets.c.subject_id) & (grant_sets.c.subject_kind == person))
        .outerjoin(groups, (groups.c.id == grant_sets.c.subject_id) & (grant_sets.c.subject_kind == group))
        .outerjoin(links, (links.c.id == grant_sets.c.subject_id) & (grant_sets.c.subject_kind == link))
        .outerjoin(_maker, _maker.c.id == links.c.by_id)
    )


async def of_node(connection: AsyncConnection, node: int) -> list[SetBrief]:
    """Return all sets of a node."""
    fields = [_NAME if name == "name" else grant_sets.c[name] for name in SetBrief.__struct_fields__]
    return [SetBrief(*row) for row in await connection.execute(_named(*fields).where(grant_sets.c.node_id == node))]


async def states(connection: AsyncConnection, node: int, limit: int) -> tuple[EpochState, ...]:
    """Return what is wanted of a node, for its Welcome; without links, of which there are many."""
    return tuple(
        EpochState(subject_of(one.subject_kind, one.subject_id, one.name), one.epoch, one.content)
        for one in (await of_node(connection, node))
        if one.epoch > 0 and one.subject_kind != SubjectKind.LINK
    )[:limit]


async def waiting(connection: AsyncConnection, now: int) -> list[tuple[int, Subject]]:
    """Return (node, subject) of the sets that nodes have yet to take over and that open something to living keys.

    Those too of which a node refused something and that are to be tried again (``mark_refused_stale``).
    """
    found = await connection.execute(
        _named(grant_sets.c.node_id, grant_sets.c.subject_kind, grant_sets.c.subject_id, _NAME).where(
            or_(
                and_(grant_sets.c.epoch > grant_sets.c.applied_epoch, grant_sets.c.refused.is_(None)),
                and_(grant_sets.c.stale, grant_sets.c.refused.is_not(None)),
            ),
            or_(grant_sets.c.keys_until > now, grant_sets.c.subject_kind.not_in([SubjectKind.PERSON, SubjectKind.LINK])),
        )
    )
    return [(row[0], subject_of(row[1], row[2], row[3])) for row in found]


async def nodes_of(connection: AsyncConnection, subject: Subject) -> list[int]:
    """Return the nodes on which a subject has a set."""
    found = await connection.scalars(
        select(grant_sets.c.node_id).where(
            grant_sets.c.subject_kind == str(subject.kind), grant_sets.c.subject_id == subject.id
        )
    )
    return list(found)


def subject_of(kind: str, subject: int, name: str | None) -> Subject:
    """Return a subject as rows name it."""
    return Subject(SubjectKind(kind), subject, name or (kind if kind == SubjectKind.EVERYONE else f"#{subject}"))


# ------------------------------------------------------------------------------------------------------ receipts


async def add_receipt(connection: AsyncConnection, node: int, workspace: int, receipt: Receipt) -> None:
    """Keep a receipt."""
    await connection.execute(
        insert(receipts).values(
            id=receipt.id,
            node_id=node,
            workspace_id=workspace,
            epoch=receipt.epoch,
            subject_kind=str(receipt.subject.kind),
            subject_id=receipt.subject.id,
            state=str(receipt.state),
            asked_at=receipt.asked_at,
            body=msgspec.json.encode(receipt),
        )
    )


async def change_receipt(connection: AsyncConnection, receipt: Receipt) -> None:
    """Keep what became of a change."""
    await connection.execute(
        update(receipts)
        .where(receipts.c.id == receipt.id)
        .values(state=str(receipt.state), epoch=receipt.epoch, body=msgspec.json.encode(receipt))
    )


async def pending_receipts(
    connection: AsyncConnection, node: int, subject: Subject | None = None, *, up_to: int | None = None
) -> list[Receipt]:
    """Return a node's receipts that are pending: all, or one subject's up to an epoch."""
    query = select(receipts.c.body).where(receipts.c.node_id == node, receipts.c.state == str(ReceiptState.PENDING))
    if subject is not None:
        query = query.where(receipts.c.subject_kind == str(subject.kind), receipts.c.subject_id == subject.id)
    if up_to is not None:
        query = query.where(receipts.c.epoch <= up_to)
    return [msgspec.json.decode(row, type=Receipt) for row in await connection.scalars(query)]
