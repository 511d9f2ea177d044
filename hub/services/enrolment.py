"""How storage servers join, are seen, and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, nodes
from hub.db import roots as root_rows
from hub.db.database import Database
from hub.db.nodes import InvitationRow, NodeRow
from hub.db.roots import RootRow
from hub.services.audit import HUB, Audit
from hub.services.freshness import Freshness, view_of
from hub.services.limits import Limiter
from hub.services.ports import Actor, Agents, Chance, Clock
from protocol.api import Alarm, Invitation, NewInvitation, Node, NodeState
from protocol.errors import (
    AlreadyJoined,
    BadJoinString,
    BadLifetime,
    BadName,
    Evicted,
    JoinStringUsed,
    NameTaken,
    NotAllowed,
    TooMany,
    UnknownNode,
    UnknownPeer,
    WioError,
)
from protocol.identity import JoinString, fingerprint, label_of, new_key, public_bytes, to_text
from protocol.messages import Enrolment as Enrolling
from protocol.messages import EpochState, Health, Report
from protocol.names import NodeId, UserId, check_name, shown
from protocol.session import Proved

_MICROSECOND: Final = 1_000_000
_SHORTEST_S, _LONGEST_S = 60, 7 * 86_400
_OPEN_INVITATIONS: Final = 100
_HEALTH_EVERY: Final = 15 * _MICROSECOND
"""How often a node's health is written down while nothing of note changes in it."""
_MOST_STATES: Final = 5000
"""``Welcome`` carries no more; the agent's own report is what decides."""
_AGAIN: Final = "Ask for a new one: wio node invite."


class Admitted(msgspec.Struct, frozen=True):
    """A node that may open its session, and what is wanted of it."""

    node: NodeId
    name: str
    epochs: tuple[EpochState, ...]


class _Heard(msgspec.Struct, frozen=True):
    """A node's last Health, and when it was last written down."""

    health: Health
    at: int
    written_at: int


class Enrolment:
    """All nodes of this hub. ``hub_url`` is where agents reach it."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        hub_key: Ed25519PrivateKey,
        hub_url: str,
        freshness: Freshness | None = None,
        alarms: Callable[[int], tuple[Alarm, ...]] = lambda _: (),
    ) -> None:
        """``freshness`` is told how nodes are; ``alarms`` gives those of a node."""
        self._database = database
        self._agents = agents
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._key = hub_key
        self._url = hub_url
        self._freshness = freshness
        self._alarms = alarms
        self._joins = Limiter(clock=clock, tries=30, window_s=600, what="tries to join")
        self._heard: dict[int, _Heard] = {}

    # -------------------------------------------------------------------------------------------------- for people

    async def invite(self, actor: Actor, new: NewInvitation) -> Invitation:
        """Make a join string, shown this once.

        Raises BadName, NameTaken, BadLifetime, TooMany; where it is to replace a node also UnknownNode, NotAllowed, Evicted.
        """
        if new.name is not None:
            check_name(new.name, "node")
        if not _SHORTEST_S <= new.life_s <= _LONGEST_S:
            raise BadLifetime(f"A join string lives {_SHORTEST_S} s to {_LONGEST_S} s; {new.life_s} s were asked for.")
        now = self._clock.now()
        expires = now // _MICROSECOND + new.life_s
        seed = self._chance.secret(32)
        text = JoinString(self._url, public_bytes(self._key), seed, expires).encode()
        row = InvitationRow(
            id=self._chance.new_id(),
            join_key=public_bytes(new_key(seed)),
            owner_id=actor.id,
            name=new.name,
            created_at=now,
            expires_at=expires * _MICROSECOND,
            node_id=None,
        )
        command = f"wio-agent join '{text}' --s3 http://127.0.0.1:9000"
        async with self._database.write() as connection:
            here = None if new.name is None else await nodes.by_name(connection, new.name)
            if new.replace:
                here = _replaceable(actor, here, new.name)
                row = msgspec.structs.replace(row, owner_id=here.owner_id, replaces_id=here.id)
                command += f" --replace --name {here.name} --label {label_of(here.key)}"
            elif here is not None:
                raise _taken(here.name)
            if await nodes.open_invitations(connection, actor.id, now) >= _OPEN_INVITATIONS:
                raise TooMany(f"{_OPEN_INVITATIONS} of your join strings are still open.", todo="Wait until some expire.")
            await nodes.add_invitation(connection, row)
            told = {"replace": True} if new.replace else {}
            name = new.name or "(named when it joins)"
            await self._audit.record(connection, actor, "node.invite", name, life_s=new.life_s, **told)
        return Invitation(text, row.expires_at, command)

    async def nodes(self, actor: Actor) -> list[Node]:
        """List nodes: all that are here; those that were evicted only to their owner and to admins."""
        async with self._database.read() as connection:
            found = await nodes.everything(connection)
            rooms = _by_node(await root_rows.everything(connection))
        return [self._shown(actor, row, rooms.get(row.id, ())) for row in found if row.evicted_at is None or _runs(actor, row)]

    async def node(self, actor: Actor, name: str) -> Node:
        """Show one node. Raises UnknownNode."""
        async with self._database.read() as connection:
            row = await nodes.by_name(connection, name)
            rooms = [] if row is None else await root_rows.of_node(connection, row.id)
        if row is None or (row.evicted_at is not None and not _runs(actor, row)):
            raise _unknown(name)
        return self._shown(actor, row, rooms)

    async def evict(self, actor: Actor, name: str) -> None:
        """Remove a node from the hub. Raises UnknownNode, NotAllowed."""
        async with self._database.write() as connection:
            row = await nodes.by_name(connection, name)
            if row is None:
                raise _unknown(name)
            if not _runs(actor, row):
                raise NotAllowed(f"Only {row.owner}, who joined {name}, may evict it.")
            if row.evicted_at is None:
                await nodes.evict(connection, row.id, self._clock.now())
                await self._audit.record(connection, actor, "node.evict", name, node=row.id)
        await self._agents.end(NodeId(row.id), Evicted(f"{name} was removed from the hub by {actor.username}.").problem)
        self._heard.pop(row.id, None)
        if self._freshness is not None:
            self._freshness.forget(NodeId(row.id))

    def _shown(self, actor: Actor, row: NodeRow, rooms: Sequence[RootRow]) -> Node:
        report = None if row.report is None else msgspec.msgpack.decode(row.report, type=Report)
        heard = self._heard.get(row.id)
        health = heard.health if heard else None if row.health is None else msgspec.msgpack.decode(row.health, type=Health)
        inside = _runs(actor, row)
        if row.evicted_at is not None:
            state = NodeState.EVICTED
        else:
            state = NodeState.ONLINE if self._agents.online(NodeId(row.id)) else NodeState.OFFLINE
        return Node(
            id=row.id,
            name=row.name,
            owner=row.owner,
            state=state,
            key=to_text(row.key),
            storage=report.storage if report else "",
            server=report.server if report else "",
            agent_version=report.agent_version if report else "",
            endpoints=report.endpoints if report else (),
            region=report.region if report else "",
            isolates_names=str(report.isolates_names) if report else "unknown",
            probes=report.probes if report and inside else (),
            ceiling=report.ceiling if report and inside else (),
            warnings=(*_unconfirmed(row), *(health.warnings if health else ())) if inside else (),
            pending_rows=health.pending_rows if health else 0,
            seen_at=max(row.seen_at or 0, heard.at if heard else 0) or None,
            joined_at=row.joined_at,
            age_s=None if self._freshness is None else self._freshness.age_s(NodeId(row.id)),
            roots=tuple(view_of(self._freshness, one) for one in rooms) if inside and self._freshness is not None else (),
            alarms=self._alarms(row.id) if inside and row.evicted_at is None else (),
        )

    # -------------------------------------------------------------------------------------------------- for the gateway

    async def admit(self, proved: Proved, address: str) -> Admitted:
        """Decide on a node that has proved its key. Nothing is used up unless it is let in.

        Raises UnknownPeer, Evicted, and when enrolling JoinStringUsed, BadJoinString, BadName, NameTaken, AlreadyJoined,
        TooMany.
        """
        if proved.enrolment is None:

            async def look(connection: AsyncConnection) -> Admitted:
                row = await nodes.by_key(connection, proved.node_key)
                if row is None:
                    raise UnknownPeer("This hub does not know this node.", todo="Join it again: wio-agent join.")
                return await self._admitted(connection, row)

            return await self._database.run_read(look)
        self._joins.count(address)
        try:
            try:
                return await self._enrol(proved.node_key, proved.enrolment, address)
            except IntegrityError:
                # The same node, or another of the same name, was faster; look again at what there is now.
                return await self._enrol(proved.node_key, proved.enrolment, address)
        except IntegrityError as error:
            raise _taken(proved.enrolment.wishes.name) from error
        except WioError as error:
            async with self._database.write() as connection:
                who = msgspec.structs.replace(HUB, address=address)
                key = fingerprint(proved.node_key)
                await self._audit.record(connection, who, "node.join-refused", key, reason=error.code)
            raise

    async def _enrol(self, node_key: bytes, enrolment: Enrolling, address: str) -> Admitted:
        now = self._clock.now()
        async with self._database.write() as connection:
            invitation = await nodes.invitation(connection, enrolment.join_key)
            if invitation is None:
                raise BadJoinString("This hub did not make that join string.", todo=_AGAIN)
            here = await nodes.by_key(connection, node_key)
            if here is not None:
                if here.owner_id != invitation.owner_id:
                    raise AlreadyJoined(f"This node has already joined, as {here.name} of {here.owner}.")
                return await self._admitted(connection, here)
            if invitation.node_id is not None:
                raise JoinStringUsed("That join string was used by another node.", todo=_AGAIN)
            if invitation.replaces_id is not None:
                return await self._replaced(connection, invitation, node_key, enrolment.wishes.name, address)
            name = enrolment.wishes.name or invitation.name
            if not name:
                raise BadName("The node has no name yet.", todo="Give it one: wio-agent join … --name NAME.")
            check_name(name, "node")
            if await nodes.by_name(connection, name) is not None:
                raise _taken(name)
            node = self._chance.new_id()
            await nodes.add(connection, node=node, name=name, owner=invitation.owner_id, key=node_key, now=now)
            await self._use_up(connection, invitation, node, now)
            who = Actor(UserId(invitation.owner_id), "", admin=False, address=address)
            key = fingerprint(node_key)
            await self._audit.record(connection, who, "node.join", name, node=node, key=key, storage=enrolment.wishes.storage)
            return Admitted(NodeId(node), name, ())

    async def _use_up(self, connection: AsyncConnection, invitation: InvitationRow, node: int, now: int) -> None:
        if not await nodes.use_up(connection, invitation.id, node, now):
            if invitation.expires_at <= now:
                raise BadJoinString("That join string has expired.", todo=_AGAIN)
            raise JoinStringUsed("That join string was used by another node just now.", todo=_AGAIN)

    async def _replaced(
        self, connection: AsyncConnection, invitation: InvitationRow, node_key: bytes, name: str, address: str
    ) -> Admitted:
        """Give a node another key: its roots, workspaces and grants stay, and whoever has the old key is a stranger."""
        row = None if invitation.replaces_id is None else await nodes.by_id(connection, invitation.replaces_id)
        if row is None or row.evicted_at is not None:
            raise BadJoinString("The node that this join string is for was removed from this hub.", todo=_AGAIN)
        if name not in {"", row.name}:
            raise BadName(f"That join string is for node {row.name}.", todo=f"Leave --name out, or say --name {row.name}.")
        await self._use_up(connection, invitation, row.id, self._clock.now())
        await nodes.set_key(connection, row.id, node_key)
        who = Actor(UserId(row.owner_id), "", admin=False, address=address)
        now, before = fingerprint(node_key), fingerprint(row.key)
        await self._audit.record(connection, who, "node.replace", row.name, node=row.id, key=now, before=before)
        return await self._admitted(connection, msgspec.structs.replace(row, key=node_key))

    async def _admitted(self, connection: AsyncConnection, row: NodeRow) -> Admitted:
        if row.evicted_at is not None:
            raise Evicted(f"{row.name} was removed from this hub.", todo="Remove what is left of it here: wio-agent leave.")
        return Admitted(NodeId(row.id), row.name, await grant_sets.states(connection, row.id, _MOST_STATES))

    async def report(self, node: NodeId, report: Report) -> bool:
        """Keep what a node says of itself; True where its owner has changed the ceiling since it last did.

        With another ceiling, what it refused before is tried again, and what it took before it may refuse now:
        ``Settling.recheck`` asks.
        """

        async def keep(connection: AsyncConnection) -> bool | None:
            row = await nodes.by_id(connection, node)
            if row is None:
                return None
            before = None if row.report is None else msgspec.msgpack.decode(row.report, type=Report)
            await nodes.set_report(connection, node, msgspec.msgpack.encode(report), self._clock.now())
            if before is None or before.ceiling != report.ceiling:
                await grant_sets.mark_refused_stale(connection, node)
            return before is not None and before.ceiling != report.ceiling

        changed = await self._database.run_write(keep)
        if changed is None:
            raise UnknownNode("That node is not known any more.")
        return changed

    async def health(self, node: NodeId, health: Health) -> None:
        """Keep how a node is: in memory each time, in the database when it matters."""
        now = self._clock.now()
        if self._freshness is not None:
            self._freshness.heard(node, health)
        before = self._heard.get(node)
        same = before is not None and (before.health.paused, before.health.warnings) == (health.paused, health.warnings)
        if before is not None and same and now < before.written_at + _HEALTH_EVERY:
            self._heard[node] = _Heard(health, now, before.written_at)
            return
        self._heard[node] = _Heard(health, now, now)

        async def keep(connection: AsyncConnection) -> None:
            row = await nodes.by_id(connection, node)
            last = None if row is None or row.health is None else msgspec.msgpack.decode(row.health, type=Health)
            await nodes.set_health(connection, node, msgspec.msgpack.encode(health), now)
            if row is not None and health.paused != (last is not None and last.paused):
                action = "node.pause" if health.paused else "node.resume"
                await self._audit.record(connection, HUB, action, row.name, node=node, reported=True)

        await self._database.run_write(keep)

    async def seen(self, node: NodeId) -> None:
        """Note that a node was here until now, as when its connection ends."""
        await self._database.run_write(lambda connection: nodes.set_seen(connection, node, self._clock.now()))


def _by_node(found: Iterable[RootRow]) -> dict[int, list[RootRow]]:
    rooms: dict[int, list[RootRow]] = {}
    for one in found:
        rooms.setdefault(one.node_id, []).append(one)
    return rooms


def _runs(actor: Actor, row: NodeRow) -> bool:
    return actor.admin or row.owner_id == actor.id


def _replaceable(actor: Actor, row: NodeRow | None, name: str | None) -> NodeRow:
    """Return the node, if this person may have its key replaced. Raises BadName, UnknownNode, NotAllowed, Evicted."""
    if name is None:
        raise BadName("Which node is to be replaced?", todo="Say its name: wio node invite NAME --replace.")
    if row is None:
        raise _unknown(name)
    if not _runs(actor, row):
        raise NotAllowed(f"Only {row.owner}, who joined {name}, may replace it.")
    if row.evicted_at is not None:
        raise Evicted(f"{name} was removed from this hub: it cannot be replaced.", todo="Choose another name.")
    return row


def _unconfirmed(row: NodeRow) -> tuple[str, ...]:
    if row.unconfirmed_since is None:
        return ()
    told = "The hub came back from a backup: what it knew before is not sent to this node until you say that it is right."
    return (f"{told} Look at what is shared, then: wio node confirm {row.name}.",)


def _unknown(name: str) -> UnknownNode:
    return UnknownNode(f"There is no node called {shown(name)}.", todo="wio node ls shows them.")


def _taken(name: str) -> NameTaken:
    return NameTaken(f"There is a node called {shown(name)}.", todo="Choose another name: wio-agent join … --name NAME.")
