"""Bringing what the hub knows of a root down to its index level: in pieces, so that nobody waits for a million entries.

Whoever lowers a level notes the root in the same transaction (``lowered``), and from then on nothing above the new level is
taken in or shown. What was known before goes here, a piece per transaction, through the same outbox as every other change;
the note stays until nothing is left, whatever ends the hub in between. A level that is raised meanwhile ends the work where
it stands: every piece leaves totals and digest right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue, fields
from hub.db.database import Database
from hub.db.tables import settings
from hub.services.batches import Sheet, known_at
from hub.services.ports import Clock
from protocol.messages import IndexLevel

PIECE: Final = 500
"""Entries per transaction: some 10 ms."""
REST_S: Final = 0.02
"""Between two pieces, so that others get the database too."""
WAIT_S: Final = 1.0
"""Until it is asked again whether the search index has passed what is gone."""
RANK: Final = {
    IndexLevel.NONE: 0,
    IndexLevel.LOCAL: 0,
    IndexLevel.NAMES: 1,
    IndexLevel.METADATA: 2,
    IndexLevel.CONTENT: 3,
}
"""How much the hub knows at each level."""

_NOTE: Final = "level of root "
_LOG: Final = logging.getLogger("wio.hub.levels")


class _Left(msgspec.Struct):
    """One root's note: from which key on its fields are still to be looked at."""

    root: int
    after: str


async def lowered(connection: AsyncConnection, root: int) -> None:
    """Note that more is known of a root than its level allows, in the transaction that lowers it or retires the root."""
    await connection.execute(delete(settings).where(settings.c.name == _name(root)))
    await connection.execute(insert(settings).values(name=_name(root), value=b""))


def _name(root: int) -> str:
    return f"{_NOTE}{root}"


class Levels:
    """Does the work. ``changed`` wakes the search index, ``indexed`` says up to which revision it is."""

    def __init__(self, *, database: Database, clock: Clock, changed: Callable[[], None], indexed: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._changed = changed
        self._indexed = indexed
        self._noted = asyncio.Event()

    def noted(self) -> None:
        """Say that there is a new note."""
        self._noted.set()

    async def step(self) -> bool | None:
        """Do one piece; False where nothing is left to do, None where it has to wait for the search index."""
        async with self._database.read() as connection:
            noted = select(settings).where(settings.c.name.startswith(_NOTE)).order_by(settings.c.name)
            found = await connection.execute(noted)
            notes = [_Left(int(row.name.removeprefix(_NOTE)), bytes(row.value).decode()) for row in found]
        waits = False
        for left in notes:
            async with self._database.write() as connection:
                done = await self._piece(connection, left)
            if done is not None:
                self._changed()
                return True
            waits = True
        return None if waits else False

    async def _piece(self, connection: AsyncConnection, left: _Left) -> bool | None:
        """Do one piece of one root; None where it waits."""
        sheet = Sheet(connection, self._clock.now())
        await sheet.open([left.root], [])  # holds the root, so that no batch of its journal comes in between
        root = sheet.roots.get(left.root)
        rank = RANK[IndexLevel.CONTENT if root is None else IndexLevel.NONE if root.retired else root.level]
        if rank == RANK[IndexLevel.NONE] and await self._drop_entries(sheet, left):
            return True
        if rank <= RANK[IndexLevel.NAMES] and await self._drop_fields(connection, left.root):
            return True
        if rank == RANK[IndexLevel.METADATA] and await self._drop_text(connection, left):
            return True
        if rank == RANK[IndexLevel.NONE]:
            if await catalogue.purge_some(connection, left.root, self._indexed(), PIECE):
                return True
            if await catalogue.any_of_root(connection, left.root):
                return None
        await connection.execute(delete(settings).where(settings.c.name == _name(left.root)))
        _LOG.info("What is known of root %d is down to its index level.", left.root)
        return True

    async def _drop_entries(self, sheet: Sheet, left: _Left) -> bool:
        entries = await catalogue.live(sheet.connection, left.root, left.after, PIECE)
        if entries:
            await sheet.drop(entries, max(entry.generation for entry in entries))
            await sheet.flush()
            await self._note(sheet.connection, left.root, entries[-1].key)
        return bool(entries)

    async def _drop_fields(self, connection: AsyncConnection, root: int) -> bool:
        places = [(root, key) for key in await fields.keys_of_root(connection, root, PIECE)]
        await fields.remove(connection, places)
        await self._touch(connection, places)
        return bool(places)

    async def _drop_text(self, connection: AsyncConnection, left: _Left) -> bool:
        rows = await fields.of_root(connection, left.root, left.after, PIECE)
        bodies = [known_at(IndexLevel.METADATA, row.body)[0] for row in rows]
        less = [msgspec.structs.replace(row, body=body) for row, body in zip(rows, bodies, strict=True) if body != row.body]
        await fields.store(connection, less)
        await self._touch(connection, [(row.root_id, row.key) for row in less])
        if rows:
            await self._note(connection, left.root, rows[-1].key)
        return bool(rows)

    @staticmethod
    async def _note(connection: AsyncConnection, root: int, after: str) -> None:
        await connection.execute(update(settings).where(settings.c.name == _name(root)).values(value=after.encode()))

    @staticmethod
    async def _touch(connection: AsyncConnection, places: list[catalogue.Address]) -> None:
        if not places:
            return
        first = await Database.take_revisions(connection, len(places))
        await fields.touch(connection, {place: first + at for at, place in enumerate(places)})

    async def run(self) -> None:
        """Do whatever is noted, for ever."""
        while True:
            self._noted.clear()
            done = await self.step()
            if done:
                await asyncio.sleep(REST_S)
                continue
            try:
                async with asyncio.timeout(WAIT_S if done is None else None):
                    await self._noted.wait()
            except TimeoutError:
                continue
