"""What stands in a hub at this moment, put beside what ``hub.metrics`` has counted."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import select

from hub.db.database import Database
from hub.db.tables import counters, nodes
from hub.metrics import Metrics
from hub.services.alarms import Alarms
from hub.services.freshness import Freshness
from hub.services.indexing import Indexing
from hub.services.ingest import Ingest
from hub.services.ports import Clock
from protocol.names import NodeId


class Figures:
    """Reads them when somebody asks: two small queries."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        freshness: Freshness,
        alarms: Alarms,
        ingest: Ingest,
        indexing: Indexing,
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._freshness = freshness
        self._alarms = alarms
        self._ingest = ingest
        self._indexing = indexing

    async def text(self) -> bytes:
        """Return everything in Prometheus' text form."""
        async with self._database.read() as connection:
            found = await connection.execute(select(nodes.c.id, nodes.c.name).where(nodes.c.evicted_at.is_(None)))
            names = {NodeId(row.id): row.name for row in found}
            newest = await connection.scalar(select(counters.c.value).where(counters.c.name == "revision")) or 0
        online = sum(self._freshness.online(node) for node in names)
        self._metrics.nodes(online=online, offline=len(names) - online)
        for node, name in names.items():
            health = self._freshness.health(node)
            self._metrics.node(
                name,
                age_s=self._freshness.age_s(node),
                pending=0 if health is None else health.pending_rows,
                dirty=0 if health is None else health.dirty,
            )
        self._metrics.alarms(Counter(str(one.key.kind) for one in self._alarms.standing))
        self._metrics.queues(
            waiting=self._ingest.waiting,
            lag_s=self._ingest.lag_us(self._clock.now()) / 1_000_000,
            index=max(newest - self._indexing.indexed(), 0),
        )
        return self._metrics.text()
