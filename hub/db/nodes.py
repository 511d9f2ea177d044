"""Nodes and the invitations they come by."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.rows import columns, storable
from hub.db.tables import invitations, nodes, users


class NodeRow(msgspec.Struct, frozen=True):
    """A node and its owner's name. ``report`` and ``health`` are msgpack."""

    id: int
    name: str
    owner_id: int
    owner: str
    key: bytes
    report: bytes | None
    health: bytes | None
    config_revision: int
    joined_at: int
    seen_at: int | None
    evicted_at: int | None
    unconfirmed_since: int | None


class InvitationRow(msgspec.Struct, frozen=True):
    """An invitation. ``join_key`` is the public half; ``node_id`` is set once it is used up.

    ``replaces_id`` is the node whose key is another one then; None: it is for a new node.
    """

    id: int
    join_key: bytes
    owner_id: int
    name: str | None
    created_at: int
    expires_at: int
    node_id: int | None
    replaces_id: int | None = None


def _select(*where: ColumnElement[bool]) -> Select[Any]:
    fields = [users.c.username if name == "owner" else nodes.c[name] for name in NodeRow.__struct_fields__]
    return select(*fields).join(users, users.c.id == nodes.c.owner_id).where(*where)


async def by_name(connection: AsyncConnection, name: str) -> NodeRow | None:
    """Return the node with this name."""
    if not storable(name):
        return None
    row = (await connection.execute(_select(nodes.c.name == name))).first()
    return None if row is None else NodeRow(*row)


async def by_id(connection: AsyncConnection, node: int) -> NodeRow | None:
    """Return the node with this id."""
    row = (await connection.execute(_select(nodes.c.id == node))).first()
    return None if row is None else NodeRow(*row)


async def by_key(connection: AsyncConnection, key: bytes) -> NodeRow | None:
    """Return the node with this public key."""
    row = (await connection.execute(_select(nodes.c.key == key))).first()
    return None if row is None else NodeRow(*row)


async def everything(connection: AsyncConnection) -> list[NodeRow]:
    """Return all nodes by name."""
    return [NodeRow(*row) for row in await connection.execute(_select().order_by(nodes.c.name))]


async def add(connection: AsyncConnection, *, node: int, name: str, owner: int, key: bytes, now: int) -> None:
    """Add a node; raises IntegrityError where its name or key are taken."""
    await connection.execute(
        insert(nodes).values(id=node, name=name, owner_id=owner, key=key, config_revision=0, joined_at=now, seen_at=now)
    )


async def set_key(connection: AsyncConnection, node: int, key: bytes) -> None:
    """Change a node's key; raises IntegrityError where another node has it."""
    await connection.execute(update(nodes).where(nodes.c.id == node).values(key=key))


async def set_report(connection: AsyncConnection, node: int, report: bytes, now: int) -> None:
    """Keep the last Report."""
    await connection.execute(update(nodes).where(nodes.c.id == node).values(report=report, seen_at=now))


async def set_health(connection: AsyncConnection, node: int, health: bytes, now: int) -> None:
    """Keep the last Health."""
    await connection.execute(update(nodes).where(nodes.c.id == node).values(health=health, seen_at=now))


async def set_seen(connection: AsyncConnection, node: int, now: int) -> None:
    """Keep when the node was last heard of."""
    await connection.execute(update(nodes).where(nodes.c.id == node).values(seen_at=now))


_UNCONFIRMED: Final = select(nodes.c.unconfirmed_since).where(nodes.c.id == bindparam("node"))


async def unconfirmed_since(connection: AsyncConnection, node: int) -> int | None:
    """Return since when a node waits for a person to confirm what this hub knew before; None where it does not."""
    found: int | None = await connection.scalar(_UNCONFIRMED, {"node": node})
    return found


async def doubt(connection: AsyncConnection, node: int, now: int) -> bool:
    """Have a node wait for confirmation from now on; False where it does already."""
    done = await connection.execute(
        update(nodes).where(nodes.c.id == node, nodes.c.unconfirmed_since.is_(None)).values(unconfirmed_since=now)
    )
    return done.rowcount == 1


async def doubt_all(connection: AsyncConnection, now: int) -> None:
    """Have every node that is here wait for confirmation from now on, also of what came since it last began to wait."""
    await connection.execute(update(nodes).where(nodes.c.evicted_at.is_(None)).values(unconfirmed_since=now))


async def confirm(connection: AsyncConnection, node: int) -> bool:
    """End a node's waiting for confirmation; False where it did not wait."""
    done = await connection.execute(
        update(nodes).where(nodes.c.id == node, nodes.c.unconfirmed_since.is_not(None)).values(unconfirmed_since=None)
    )
    return done.rowcount == 1


async def evict(connection: AsyncConnection, node: int, now: int) -> None:
    """Mark a node as no longer wanted."""
    await connection.execute(update(nodes).where(nodes.c.id == node).values(evicted_at=now))


async def next_revision(connection: AsyncConnection, node: int) -> int:
    """Move the node's configuration on by one and lock it until the end of the transaction."""
    moved = await connection.execute(
        update(nodes)
        .where(nodes.c.id == node)
        .values(config_revision=nodes.c.config_revision + 1)
        .returning(nodes.c.config_revision)
    )
    return int(moved.scalar_one())


# ------------------------------------------------------------------------------------------------------ invitations


async def add_invitation(connection: AsyncConnection, invitation: InvitationRow) -> None:
    """Add an invitation."""
    await connection.execute(insert(invitations).values(msgspec.structs.asdict(invitation)))


async def open_invitations(connection: AsyncConnection, owner: int, now: int) -> int:
    """Count a person's invitations that could still be used."""
    count = await connection.scalar(
        select(func.count())
        .select_from(invitations)
        .where(invitations.c.owner_id == owner, invitations.c.node_id.is_(None), invitations.c.expires_at > now)
    )
    return int(count or 0)


async def invitation(connection: AsyncConnection, join_key: bytes) -> InvitationRow | None:
    """Return the invitation whose public join key this is."""
    row = (
        await connection.execute(select(*columns(invitations, InvitationRow)).where(invitations.c.join_key == join_key))
    ).first()
    return None if row is None else InvitationRow(*row)


async def use_up(connection: AsyncConnection, invitation_id: int, node: int, now: int) -> bool:
    """Use an invitation up for this node: of any number of tries, one succeeds."""
    used = await connection.execute(
        update(invitations)
        .where(invitations.c.id == invitation_id, invitations.c.node_id.is_(None), invitations.c.expires_at > now)
        .values(node_id=node)
    )
    return used.rowcount == 1
