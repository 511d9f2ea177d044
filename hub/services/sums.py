"""The catalogue added up from its entries, in pieces, so that nobody else waits for long: whole roots, or ranges of keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import journals, proofs
from hub.db.database import Database
from hub.db.proofs import Content
from protocol.digest import combine, object_number
from protocol.messages import Cursor, KeyRange, Sum

READ: Final = 4_000
"""Entries read at once: some 10 ms of the database's time."""
BREATH: Final = 500
"""Entries added up before other tasks get their turn: some 3 ms."""
Breath = Callable[[], Awaitable[None]]
"""What happens between two pieces, that others get their turn."""
EVERYTHING: Final = KeyRange("", None)
NOTHING: Final = Sum(0, 0, 0)


async def turn() -> None:
    """Let all others have their turn, and go on."""
    await asyncio.sleep(0)


class Part(msgspec.Struct, frozen=True):
    """A range of keys, and what the catalogue holds of it."""

    range: KeyRange
    sum: Sum


class Counted(msgspec.Struct, frozen=True):
    """A whole root, at one journal position of its node: what is kept from change to change, and every entry counted."""

    cursor: Cursor
    kept: Sum
    parts: tuple[Part, ...]

    @property
    def sum(self) -> Sum:
        """All parts together."""
        return added(part.sum for part in self.parts)


async def count(database: Database, node: int, root: int, *, pieces: int = 1, breath: Breath = turn) -> Counted:
    """Count a root from nothing, cut into ranges of equal counts: ``pieces`` of them, or one more."""
    async with database.view() as connection:
        cursor, kept = await journals.cursor(connection, node), await proofs.kept(connection, root)
        return Counted(
            cursor, kept, tuple(await cut(connection, root, EVERYTHING, -(-max(kept.objects, 1) // pieces), breath=breath))
        )


async def cut(
    connection: AsyncConnection, root: int, within: KeyRange, each: int, most: int = 200, *, breath: Breath = turn
) -> list[Part]:
    """Cut a range into parts of ``each`` keys, at most ``most`` parts: the last holds the rest. Together they are the range."""
    parts: list[Part] = []
    low = border = within.low
    sums = NOTHING
    async for rows in _rows(connection, root, within, breath):
        at = 0
        while at < len(rows):
            last_part = len(parts) >= most - 1
            if sums.objects >= each and not last_part:
                parts.append(Part(KeyRange(low, border), sums))
                low, sums = border, NOTHING
                continue
            piece = rows[at:] if last_part else rows[at : at + each - sums.objects]
            sums = added((sums, of(piece)))
            border = piece[-1].key
            at += len(piece)
    return [*parts, Part(KeyRange(low, within.high), sums)]


async def measure(connection: AsyncConnection, root: int, ranges: Sequence[KeyRange]) -> list[Sum]:
    """Add ranges up."""
    found = []
    for one in ranges:
        total = NOTHING
        async for rows in _rows(connection, root, one):
            total = added((total, of(rows)))
        found.append(total)
    return found


async def keys(connection: AsyncConnection, root: int, within: KeyRange, limit: int) -> tuple[str, ...]:
    """Return the first keys of a range."""
    return tuple(row.key for row in await proofs.stretch(connection, root, within.low, within.high, limit))


async def _rows(
    connection: AsyncConnection, root: int, within: KeyRange, breath: Breath = turn
) -> AsyncIterator[Sequence[Content]]:
    """Yield a range's entries in key order, BREATH of them at most; others get their turn in between."""
    low: str | None = within.low
    while low is not None:
        rows = await proofs.stretch(connection, root, low, within.high, READ)
        for start in range(0, len(rows), BREATH):
            yield rows[start : start + BREATH]
            await breath()
        low = rows[-1].key if len(rows) == READ else None


def of(rows: Sequence[Content]) -> Sum:
    """Add entries up."""
    numbers = sum(object_number(*row) for row in rows)
    return Sum(len(rows), sum(row.size for row in rows), combine(0, added=(numbers,)))


def added(sums: Iterable[Sum]) -> Sum:
    """Add sums up."""
    all_of = list(sums)
    digest = combine(0, added=(one.digest for one in all_of))
    return Sum(sum(one.objects for one in all_of), sum(one.bytes for one in all_of), digest)
