"""Nodes that are not wanted any more and may not know it yet."""

from __future__ import annotations

from hub.db import nodes
from hub.db.database import Database
from hub.services.enrolment import Admitted
from protocol.names import NodeId


class EvictedNodes:
    """Finds them by their key, so that one that comes back can be told, signed."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def find(self, node_key: bytes) -> Admitted | None:
        """Return the evicted node with this key; None where there is none."""
        async with self._database.read() as connection:
            row = await nodes.by_key(connection, node_key)
        return None if row is None or row.evicted_at is None else Admitted(NodeId(row.id), row.name, ())
