"""Moves what changes in the catalogue into the search engine, in revision order.

The catalogue is the outbox: whatever has a revision above the engine's position is not in the engine yet. So nothing is
lost with a process, and an empty engine fills itself. ``step`` does one bounded piece; ``run`` calls it when something has
changed, and now and then, as other processes change things too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import func, select

from hub.db import catalogue
from hub.db import fields as fields_rows
from hub.db.catalogue import Address, Pending
from hub.db.database import Database
from hub.db.tables import counters, entries, roots
from protocol.fields import Fields, unpack
from protocol.messages import IndexLevel
from protocol.names import RootId
from search.document import Document, Gone
from search.engine import Engine

STEP_ROWS: Final = 5_000
FIELDS_ROWS: Final = 250
"""Rows at once where some may have fields: 16 MB at most."""
COMMIT_ROWS: Final = 50_000
"""Rows after which an import becomes searchable although more are waiting: a commit costs some 10 ms."""
BETWEEN_S: Final = 0.05
"""Shortest time between two looks: many small changes share one, a single one never waits."""
REST: Final = 4
LONGEST_REST_S: Final = 1.0
BUSY_ROWS: Final = 1_000
"""After a commit of so many changes, as much time as it took passes REST times before the next: during an import a fifth of
the time goes into commits and not most of it. Fewer changes rest for less, and a single one holds up nobody."""
POLL_S: Final = 1.0
"""How long a change made by another process stays unnoticed at most."""

_READ: Final = (str(IndexLevel.METADATA), str(IndexLevel.CONTENT))
_LOG: Final = logging.getLogger("wio.hub.indexing")


class Indexing:
    """The one writer of the search engine."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        now: Callable[[], float] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``now`` is a monotonic clock in seconds; the event loop's own where none is given."""
        self._database = database
        self._engine = engine
        self._now = now
        self._pause = pause
        self._changed = asyncio.Event()
        self._written: int | None = None
        self._committed = 0
        self._uncommitted = 0
        self._rest = 0.0
        """Seconds that the last commit wants to pass before the next."""

    def changed(self) -> None:
        """Say that the catalogue has changed."""
        self._changed.set()

    def indexed(self) -> int:
        """Return the revision up to which everything is searchable, as far as this process knows: 0 at first."""
        return self._committed

    async def searchable(self, root: RootId) -> int:
        """Count the files of a root that the engine knows by now.

        Those in no workspace count too, once the engine has passed them: nobody may find them before there is one.
        """
        position = await self._engine.position()
        waiting = (
            select(func.count())
            .select_from(entries)
            .where(entries.c.revision > position, entries.c.root_id == root, ~entries.c.gone)
        )
        held = select(roots.c.objects).where(roots.c.id == root)
        async with self._database.read() as connection:
            found = (await connection.execute(select(held.scalar_subquery(), waiting.scalar_subquery()))).one()
        return max(int(found[0] or 0) - int(found[1]), 0)

    async def step(self, *, commit: bool = True) -> bool:
        """Move some changes; False where the engine has everything. What fails is begun again at the last commit.

        Without ``commit`` they become searchable with a later step, except where very many are waiting for that already.
        """
        if self._written is None:
            await self._begin()
        try:
            return await self._step(self._written or 0, commit=commit)
        except BaseException:
            self._written = None
            raise

    async def _begin(self) -> None:
        position = await self._engine.position()
        async with self._database.read() as connection:
            newest = await connection.scalar(select(counters.c.value).where(counters.c.name == "revision")) or 0
        if position > newest:
            # The database was restored from a backup: what is in the engine is of a future that did not happen.
            _LOG.warning("The search index is newer than the catalogue (%d, %d): it is built anew.", position, newest)
            await self._engine.clear()
            position = 0
        self._written = self._committed = position
        self._uncommitted = 0

    async def _step(self, after: int, *, commit: bool) -> bool:
        async with self._database.read() as connection:
            rows = await catalogue.pending(connection, after, STEP_ROWS)
            read = set(await connection.scalars(select(roots.c.id).where(roots.c.level.in_(_READ)))) if rows else set()
        for piece in _pieces(rows, read):
            found = await self._fields(piece, read)
            await self._engine.write([_change(row, found.get((row.root_id, row.key))) for row in piece])
        if rows:
            self._written = rows[-1].revision
            self._uncommitted += len(rows)
        more = len(rows) == STEP_ROWS
        if self._uncommitted and ((commit and not more) or self._uncommitted >= COMMIT_ROWS):
            position, now = self._written or 0, self._clock()
            started = now()
            await self._engine.commit(position)
            self._rest = min((now() - started) * REST, LONGEST_REST_S) * min(self._uncommitted / BUSY_ROWS, 1)
            self._committed, self._uncommitted = position, 0
        return more

    async def _fields(self, rows: Sequence[Pending], read: set[int]) -> dict[Address, Fields]:
        """Return what was read out of these objects: only the roots in ``read`` may have any."""
        wanted = [(row.root_id, row.key) for row in rows if row.root_id in read and not row.gone and row.prefix is not None]
        if not wanted:
            return {}
        async with self._database.read() as connection:
            found = await fields_rows.stored(connection, wanted)
        contents = {(row.root_id, row.key): (row.size, row.mtime) for row in rows}
        return {at: unpack(one.body) for at, one in found.items() if contents[at] == (one.size, one.mtime)}

    async def run(self) -> None:
        """Keep the engine up to date, for ever."""
        now = self._clock()
        rested = now()
        while True:
            self._changed.clear()
            started, committed = now(), self._committed
            more = await self.step(commit=started >= rested)
            if self._committed != committed:
                rested = now() + self._rest
            if more:
                continue
            try:
                async with asyncio.timeout(max(rested - now(), 0) if self._uncommitted else POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            if (early := started + BETWEEN_S - now()) > 0:
                await self._pause(early)

    def _clock(self) -> Callable[[], float]:
        return self._now or asyncio.get_running_loop().time


def _pieces(rows: Sequence[Pending], read: set[int]) -> Iterator[Sequence[Pending]]:
    """Cut rows so that what was read out of their objects is never in memory for all of them."""
    step = FIELDS_ROWS if any(row.root_id in read for row in rows) else STEP_ROWS
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _change(row: Pending, fields: Fields | None) -> Document | Gone:
    """Return what the engine is told of an entry; one that lies in no workspace is nobody's to find."""
    if row.gone or row.prefix is None:
        return Gone(row.root_id, row.key, row.revision)
    return Document(
        root=row.root_id,
        workspace=row.workspace_id,
        key=row.key,
        path=row.key[len(row.prefix) :],
        size=row.size,
        mtime=row.mtime,
        revision=row.revision,
        fields=fields,
    )
