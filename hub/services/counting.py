"""The catalogue counts itself: once a day each root is added up from its entries and held against what is kept of it.

A scan compares what is kept from change to change, so it does not see entries that were changed while that still fits: by a
hand in the database, by a fault of the disk, by a backup that was laid over half of it. What differs here is marked as drift
and repaired by ranges like any other. A root at a time, in small pieces with pauses between them: nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from hub.db import kept, proofs
from hub.db.database import Database
from hub.db.proofs import Open
from hub.services import sums
from hub.services.ports import Clock

EVERY_US: Final = 24 * 3600 * 1_000_000
LOOK_S: Final = 600.0
"""How often it is looked for roots whose day is over."""
REST_S: Final = 10.0
"""Between two roots."""
PIECE_S: Final = 0.003
"""Between two pieces of a root, as long as one takes: a million entries take some 15 s, in which the database's log of changes
cannot be shortened. Longer pauses would cost more there than they give here."""

_NAME: Final = "counted roots"
_ENCODE: Final = msgspec.msgpack.Encoder()
_DECODE: Final = msgspec.msgpack.Decoder(dict[int, int])
_LOG: Final = logging.getLogger("wio.hub.counting")


class Counting:
    """Counts. ``run`` is the loop, ``step`` one root of it."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        drifted: Callable[[], None] = lambda: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``drifted`` is called when a catalogue turns out not to be what is kept of it: it is noted then."""
        self._database = database
        self._clock = clock
        self._drifted = drifted
        self._pause = pause

    async def step(self) -> int | None:
        """Count the root whose turn it is; return its id, None where no day is over."""
        async with self._database.read() as connection:
            there = await proofs.open_roots(connection)
            counted = _read(await kept.get(connection, _NAME))
        root = next_root(there, counted, self._clock.now())
        if root is None:
            return None
        found = await sums.count(self._database, root.node, root.root, breath=lambda: self._pause(PIECE_S))
        wrong, now = found.kept != found.sum, self._clock.now()
        still = {one.root for one in there}
        async with self._database.write() as connection:
            if wrong:
                await proofs.note_drift(connection, {root.root: now})
            news = {at: when for at, when in counted.items() if at in still} | {root.root: now}
            await kept.put(connection, {_NAME: _ENCODE.encode(news)})
        if wrong:
            _LOG.error("Root %d holds %s, and what is kept of it says %s: it is repaired.", root.root, found.sum, found.kept)
            self._drifted()
        return root.root

    async def run(self) -> None:
        """Count for ever."""
        while True:
            await self._pause(LOOK_S if await self.step() is None else REST_S)


def next_root(there: Sequence[Open], counted: Mapping[int, int], now: int) -> Open | None:
    """Return the root that has waited longest, of those whose day is over. Pure.

    A time that is still to come was written by a clock that was wrong: it does not count. A new root has a day before its
    first turn: what it holds has only just been written.
    """
    last = {one: counted.get(one.root, one.since) for one in there}
    due = [one for one, at in last.items() if at > now or now - at >= EVERY_US]
    return min(due, key=lambda one: (last[one] if last[one] <= now else 0, one.root), default=None)


def _read(body: bytes | None) -> dict[int, int]:
    try:
        return {} if body is None else _DECODE.decode(body)
    except msgspec.MsgspecError:
        return {}  # nothing is lost with it: every root is counted again
