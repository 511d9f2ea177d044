"""The connected agents, by node: serves ``services.ports.Agents``."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hub.gateway.connection import Connection
from protocol.errors import Conflict, NodeOffline, Problem
from protocol.messages import Answer, Asking, Health
from protocol.names import NodeId

_LOG = logging.getLogger("wio.hub.gateway")


class Connections:
    """One live connection per node at most; what is counted here is for people who run the hub."""

    def __init__(self) -> None:
        self._live: dict[NodeId, Connection] = {}
        self._health: dict[NodeId, Health] = {}
        self._fresh: dict[NodeId, int] = {}
        self._late = 0
        self.replaced = 0
        """Sessions that ended because another one of the same node began."""

    # -------------------------------------------------------------------------------------------------- for the services

    def online(self, node: NodeId) -> bool:
        """Say whether this node's agent is connected now."""
        return node in self._live

    def fresh_at(self, node: NodeId) -> int | None:
        """Return when this node last said that everything it knows is here, Unix microseconds; None: not since the start."""
        return self._fresh.get(node)

    def health(self, node: NodeId) -> Health | None:
        """Return the last Health of this node since the hub's start."""
        return self._health.get(node)

    async def ask(self, node: NodeId, make: Callable[[int, int], Asking], *, deadline_s: float) -> Answer:
        """Send the request that ``make(request, deadline_ms)`` builds, and return its answer (see ``ports.Agents``)."""
        connection = self._live.get(node)
        if connection is None:
            raise NodeOffline("The node's agent is not connected to the hub.", todo="Try again once it is: wio node ls.")
        return await connection.ask(make, deadline_s)

    async def end(self, node: NodeId, problem: Problem) -> None:
        """End this node's connection, if there is one, with a reason. One that was evicted is told so, signed."""
        connection = self._live.get(node)
        if connection is not None:
            self.remove(connection)
            connection.end(problem)

    # -------------------------------------------------------------------------------------------------- for the gateway

    def add(self, connection: Connection) -> None:
        """Make this the node's connection. One that is there already ends: an agent that comes back has lost it."""
        old = self._live.get(connection.node)
        self._live[connection.node] = connection
        if old is not None:
            self.replaced += 1
            self._late += old.late
            _LOG.warning(
                "A second session of node %s replaces the first. If that goes on, its key is used on two machines.", old.name
            )
            old.end(Conflict("Another session of this node has begun, with the same key.").problem)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended; a newer one of its node stays."""
        if self._live.get(connection.node) is connection:
            del self._live[connection.node]
            self._late += connection.late

    def heard(self, node: NodeId, health: Health, at: int) -> None:
        """Note how a node is. One with nothing left to look at or to send has told all it knows."""
        self._health[node] = health
        if not health.pending_rows and not health.dirty:
            self._fresh[node] = at

    def close(self, problem: Problem) -> None:
        """End all connections."""
        for connection in list(self._live.values()):
            connection.end(problem)
        self._live.clear()

    @property
    def late(self) -> int:
        """How many answers came that nobody waited for any more."""
        return self._late + sum(connection.late for connection in self._live.values())

    def __len__(self) -> int:
        return len(self._live)
