"""The connection to SQLite or PostgreSQL, and how transactions begin and end.

SQLite has one writer: ``write`` queues for it inside this process and begins IMMEDIATE, so that a transaction never fails
half-way for want of the lock. Readers have connections of their own and are never held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import event, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hub.db.tables import counters


class Database:
    """One database, by URL: ``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://…``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self._readers = self._engine(begin="BEGIN", size=4)
        self._writers = self._engine(begin="BEGIN IMMEDIATE", size=1) if self.sqlite else self._readers
        self._turn = asyncio.Lock()

    def _engine(self, *, begin: str, size: int) -> AsyncEngine:
        engine = create_async_engine(self.url, pool_size=size, hide_parameters=True)  # errors reach the log; values must not
        if self.sqlite:

            def connected(connection: Any, _record: Any) -> None:
                connection.isolation_level = None  # we begin transactions ourselves, below
                cursor = connection.cursor()
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
                    cursor.execute(f"PRAGMA {pragma}")
                cursor.close()

            def began(connection: Any) -> None:
                connection.exec_driver_sql(begin)

            event.listen(engine.sync_engine, "connect", connected)
            event.listen(engine.sync_engine, "begin", began)
        return engine

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that may write; commits at the end of the block, rolls back if it raises."""
        async with self._turn if self.sqlite else nullcontext(), self._writers.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads, on one snapshot."""
        async with self._readers.connect() as connection:
            yield connection

    @staticmethod
    async def take_revisions(connection: AsyncConnection, count: int) -> int:
        """Take ``count`` revisions inside a writing transaction; returns the first of them.

        From then until it ends, this transaction is the only one that changes the catalogue (``count`` may be 0).
        """
        taken = await connection.execute(
            update(counters)
            .where(counters.c.name == "revision")
            .values(value=counters.c.value + count)
            .returning(counters.c.value)
        )
        return int(taken.scalar_one()) - count + 1

    async def close(self) -> None:
        """Close all connections."""
        await self._readers.dispose()
        await self._writers.dispose()
