"""The connection to SQLite or PostgreSQL, and how transactions begin and end.

SQLite has one writer: ``write`` queues for it inside this process and begins IMMEDIATE, so that a transaction never fails
half-way for want of the lock. Readers have connections of their own and are never held up.

On SQLite every statement of an ``AsyncConnection`` costs three or four changes of thread, which is most of what a small
transaction costs. ``run_read`` and ``run_write`` take a whole transaction to the thread at once: measured on a busy
machine, 0.1 ms instead of 4 ms for one SELECT, and a sixth of the processor time. What people wait for goes through them.

``before_commit`` puts a piece of work at the very end of a transaction: for locks that everybody wants, so that they are
taken last, in one order, and held for as short as can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, CursorResult, Dialect, Engine, ScalarResult, create_engine, event, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hub.db.tables import counters
from protocol.errors import Internal

T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]
"""A transaction as one function. It may await its connection and nothing else."""

_LAST: Final = "wio.before_commit"
Item = TypeVar("Item")


def before_commit(
    connection: AsyncConnection, work: Callable[[AsyncConnection, list[Item]], Coroutine[Any, Any, None]], item: Item
) -> None:
    """Have ``work`` done with ``item``, and all others given to it, as the last thing of this writing transaction."""
    connection.info.setdefault(_LAST, {}).setdefault(work, []).append(item)


class Database:
    """One database, by URL: ``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://…``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self._readers = self._engine(begin="BEGIN", size=4)
        self._writers = self._engine(begin="BEGIN IMMEDIATE", size=1) if self.sqlite else self._readers
        self._turn = asyncio.Lock()
        self._direct: dict[str, Engine] = {}
        self._reading = ThreadPoolExecutor(max_workers=2, thread_name_prefix="wio-db-read")
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wio-db-write")
        if self.sqlite:
            url = url.replace("+aiosqlite", "", 1)
            for begin in ("BEGIN", "BEGIN IMMEDIATE"):
                self._direct[begin] = create_engine(url, hide_parameters=True)
                _prepare(self._direct[begin], begin)

    def _engine(self, *, begin: str, size: int) -> AsyncEngine:
        engine = create_async_engine(self.url, pool_size=size, hide_parameters=True)  # errors reach the log; values must not
        if self.sqlite:
            _prepare(engine.sync_engine, begin)
        return engine

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that may write; commits at the end of the block, rolls back if it raises."""
        async with self._turn if self.sqlite else nullcontext(), self._writers.begin() as connection:
            connection.info.pop(_LAST, None)  # the pool hands connections on, and one may have been dropped half-way
            yield connection
            for last, items in connection.info.pop(_LAST, {}).items():
                await last(connection, items)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads, on one snapshot."""
        async with self._readers.connect() as connection:
            yield connection

    @asynccontextmanager
    async def view(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads, for long if need be: all its statements see the same moment, on both servers."""
        async with self._readers.connect() as connection:
            if not self.sqlite:
                connection = await connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901 - the same one
            yield connection

    async def run_read(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that only reads, on one snapshot."""
        if not self.sqlite:
            async with self.read() as connection:
                return await work(connection)
        return await self._in_thread(self._reading, "BEGIN", work)

    async def run_glance(self, work: Work[T]) -> T:
        """Run ``work``, which reads a few rows by their keys, on one snapshot: on SQLite in the event loop itself.

        The two changes of thread cost 0.5 ms on a busy machine, such a read 0.2 ms (measured), and a writer never holds it up.
        """
        if not self.sqlite:
            return await self.run_read(work)
        with self._direct["BEGIN"].begin() as connection:
            return _finish(work(cast("AsyncConnection", _Inline(connection))))

    async def run_write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction that may write; commits when it returns, rolls back if it raises."""
        if not self.sqlite:
            async with self.write() as connection:
                return await work(connection)
        async with self._turn:
            return await self._in_thread(self._writing, "BEGIN IMMEDIATE", work)

    async def _in_thread(self, threads: ThreadPoolExecutor, begin: str, work: Work[T]) -> T:
        engine = self._direct[begin]

        def transaction() -> T:
            with engine.begin() as connection:
                # Everything the work awaits is done when it is called, so its first step is its last.
                inline = cast("AsyncConnection", _Inline(connection))
                done = _finish(work(inline))
                for last, items in inline.info.pop(_LAST, {}).items():
                    _finish(last(inline, items))
                return done

        return await asyncio.get_running_loop().run_in_executor(threads, transaction)

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
        for threads in (self._reading, self._writing):
            await asyncio.to_thread(threads.shutdown)
        for engine in self._direct.values():
            engine.dispose()
        await self._readers.dispose()
        await self._writers.dispose()


def _prepare(engine: Engine, begin: str) -> None:
    """Set each new SQLite connection up, and begin its transactions with ``begin``."""

    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def began(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)


class _Inline:
    """The part of an ``AsyncConnection`` that transactions use, over a connection of the thread that runs them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.info: dict[Any, Any] = {}

    @property
    def dialect(self) -> Dialect:
        return self._connection.dialect

    async def execute(self, *arguments: Any, **options: Any) -> CursorResult[Any]:
        return self._connection.execute(*arguments, **options)

    async def scalar(self, *arguments: Any, **options: Any) -> Any:
        return self._connection.scalar(*arguments, **options)

    async def scalars(self, *arguments: Any, **options: Any) -> ScalarResult[Any]:
        return self._connection.scalars(*arguments, **options)

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> CursorResult[Any]:
        return self._connection.exec_driver_sql(*arguments, **options)


def _finish(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    work.close()
    raise Internal("A transaction waited for something else than its database.")
