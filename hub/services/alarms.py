"""Alarms: looked for every few seconds, kept across restarts, told once when they are raised and once when they end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import httpx
import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import kept
from hub.db.database import Database
from hub.db.tables import nodes, roots
from hub.domain.alarms import NodeFacts, Raised, RootFacts, Thresholds, Turn, Watch, by_node
from hub.services.audit import HUB, Audit
from hub.services.freshness import Freshness
from hub.services.ports import Actor, Clock
from protocol.api import Alarm
from protocol.messages import IndexLevel
from protocol.names import NodeId

LOOK_EVERY_S: Final = 5.0
ROW: Final = "alarms"
_UNKNOWN: Final = {str(IndexLevel.NONE), str(IndexLevel.LOCAL)}
_KEPT: Final = msgspec.msgpack.Decoder(tuple[Raised, ...])
_LOG: Final = logging.getLogger("wio.hub.alarms")


class Alarms:
    """All alarms of this hub. ``tell`` is called with what was raised and what ended, after it is written down."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        audit: Audit,
        freshness: Freshness,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
        tell: Callable[[Turn], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._freshness = freshness
        self._thresholds = thresholds
        self._tell = tell
        self._watch = Watch(thresholds, began=clock.now())
        self._owners: dict[int, int] = {}
        self._by_node: Mapping[int, tuple[Alarm, ...]] = {}

    async def load(self) -> None:
        """Read which alarms stood when the hub was stopped."""
        async with self._database.read() as connection:
            value = await kept.get(connection, ROW)
        try:
            standing = () if value is None else _KEPT.decode(value)
        except msgspec.MsgspecError:
            standing = ()
        self._watch = Watch(self._thresholds, began=self._clock.now(), standing=standing)
        self._by_node = by_node(standing)

    # -------------------------------------------------------------------------------------------------- for people

    @property
    def standing(self) -> tuple[Raised, ...]:
        """All alarms that stand."""
        return self._watch.standing

    def of_node(self, node: int) -> tuple[Alarm, ...]:
        """Return a node's alarms, the oldest first."""
        return self._by_node.get(node, ())

    async def alarms(self, actor: Actor) -> list[Alarm]:
        """Return the alarms of this person's nodes, all for an administrator; the oldest first."""
        async with self._database.read() as connection:
            query = select(nodes.c.id).where(nodes.c.evicted_at.is_(None))
            mine = set(await connection.scalars(query if actor.admin else query.where(nodes.c.owner_id == actor.id)))
        found = [one for node, alarms in self._by_node.items() if node in mine for one in alarms]
        return sorted(found, key=lambda one: (one.since, one.node, one.root))

    # -------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_EVERY_S)

    async def step(self) -> Turn:
        """Look once; what is raised and what ends is audited, logged and written down together."""
        async with self._database.read() as connection:
            facts = await self._facts(connection)
        before = self._watch.standing
        turn = self._watch.look(facts, self._clock.now())
        if turn.raised or turn.cleared:
            try:
                await self._database.run_write(lambda connection: self._write(connection, turn))
            except BaseException:
                self._watch = Watch(self._thresholds, began=self._clock.now(), standing=before)
                raise
            for one in turn.raised:
                _LOG.warning("Alarm, %s: %s %s", one.key.kind, one.message, one.todo)
            for one in turn.cleared:
                _LOG.info("Alarm over, %s of %s: %s", one.key.kind, one.root or one.node, one.message)
            self._tell(turn)
        self._by_node = by_node(turn.standing)
        return turn

    async def _write(self, connection: AsyncConnection, turn: Turn) -> None:
        await kept.put(connection, {ROW: msgspec.msgpack.encode(turn.standing)})
        for action, changed in (("alarm.raise", turn.raised), ("alarm.clear", turn.cleared)):
            for one in changed:
                target = one.root or one.node
                await self._audit.record(
                    connection, HUB, action, target, node=one.key.node, kind=str(one.key.kind), since=one.since
                )

    async def _facts(self, connection: AsyncConnection) -> list[NodeFacts]:
        rooms: dict[int, list[RootFacts]] = {}
        names = {
            row.id: row
            for row in await connection.execute(
                select(nodes.c.id, nodes.c.name, nodes.c.seen_at, nodes.c.joined_at).where(nodes.c.evicted_at.is_(None))
            )
        }
        for row in await connection.execute(
            select(roots.c.id, roots.c.node_id, roots.c.name, roots.c.created_at, roots.c.drifted_at).where(
                roots.c.retired_at.is_(None), roots.c.level.not_in(_UNKNOWN)
            )
        ):
            if row.node_id in names:
                rooms.setdefault(row.node_id, []).append(self._root(row, names[row.node_id].name))
        return [self._node(row, tuple(rooms.get(row.id, ()))) for row in names.values()]

    def _root(self, row: object, node: str) -> RootFacts:
        found = msgspec.convert(row, _RootRow, from_attributes=True)
        state = self._freshness.state(NodeId(found.node_id), found.id)
        return RootFacts(
            id=found.id,
            name=f"{node}/{found.name}",
            created_at=found.created_at,
            drifted_at=found.drifted_at,
            activity=None if state is None else state.activity,
            age_s=self._freshness.root_age_s(NodeId(found.node_id), found.id),
            scanned_at=0 if state is None else state.scanned_at,
            interval=self._freshness.interval(NodeId(found.node_id), found.id),
            dirty=0 if state is None else state.dirty,
        )

    def _node(self, row: object, rooms: tuple[RootFacts, ...]) -> NodeFacts:
        found = msgspec.convert(row, _NodeRow, from_attributes=True)
        node = NodeId(found.id)
        health = self._freshness.health(node)
        return NodeFacts(
            id=found.id,
            name=found.name,
            online=self._freshness.online(node),
            heard=self._freshness.heard_since_start(node),
            seen_at=max(found.seen_at or found.joined_at, self._freshness.heard_at(node) or 0),
            pending_rows=0 if health is None else health.pending_rows,
            growing_since=self._freshness.growing_since(node),
            warnings=() if health is None else health.warnings,
            roots=rooms,
        )


class _NodeRow(msgspec.Struct, frozen=True):
    id: int
    name: str
    seen_at: int | None
    joined_at: int


class _RootRow(msgspec.Struct, frozen=True):
    id: int
    node_id: int
    name: str
    created_at: int
    drifted_at: int | None


# ---------------------------------------------------------------------------------------------------- telling others


class Notice(msgspec.Struct, frozen=True):
    """What is sent to WIO_ALARM_URL: ``what`` is ``raised`` or ``cleared``, ``at`` when that was, Unix microseconds."""

    what: str
    at: int
    hub: str
    alarm: Alarm


class Caller:
    """Sends raised and ended alarms to an address, in order, trying again; never holds anybody up, and drops the oldest.

    ``pause`` waits seconds between tries.
    """

    MOST = 1_000
    TRIES = 8
    FIRST_DELAY_S = 1.0
    LAST_DELAY_S = 60.0
    ANSWER_S = 10.0

    def __init__(self, url: str, *, hub: str, clock: Clock, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._url = url
        self._hub = hub
        self._clock = clock
        self._pause = pause
        self._waiting: deque[Notice] = deque(maxlen=self.MOST)
        self._filled = asyncio.Event()
        self.failed = 0
        """Notices nobody took in."""

    def tell(self, turn: Turn) -> None:
        """Take what changed; it is sent by ``run``."""
        now = self._clock.now()
        for what, changed in (("raised", turn.raised), ("cleared", turn.cleared)):
            self._waiting.extend(Notice(what, now, self._hub, one.shown) for one in changed)
        self._filled.set()

    async def run(self) -> None:
        """Send, for ever."""
        async with httpx.AsyncClient(timeout=self.ANSWER_S, trust_env=False) as client:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._waiting:
                    await self._send(client, self._waiting.popleft())

    async def _send(self, client: httpx.AsyncClient, notice: Notice) -> None:
        body, headers = msgspec.json.encode(notice), {"content-type": "application/json"}
        for number in range(self.TRIES):
            try:
                answer = await client.post(self._url, content=body, headers=headers)
                if answer.is_success:
                    return
                why = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                why = type(error).__name__
            if number == 0:
                _LOG.warning("An alarm could not be told to WIO_ALARM_URL (%s); it is tried again.", why)
            await self._pause(min(self.FIRST_DELAY_S * 2**number, self.LAST_DELAY_S))
        self.failed += 1
        _LOG.error("An alarm was never taken in by WIO_ALARM_URL: %s of %s.", notice.alarm.kind, notice.alarm.node)
