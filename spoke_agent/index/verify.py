"""Comparing storage with the snapshot, object by object, from nothing. Changes nothing; memory stays bounded.

Storage goes on changing while it is walked, and what has changed is known a moment later. So a difference counts only if
looking at that very key again finds it, again and again over some seconds, just as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from protocol.digest import combine, object_number
from protocol.messages import RootConfig
from protocol.names import shown
from spoke_agent.index.entries import mended
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.pace import Pace
from spoke_agent.index.snapshot import Known, Totals
from spoke_agent.index.spans import Span, check_page
from spoke_agent.storage.node import Entry, StorageNode

SAMPLES: Final = 20
KNOWN_AT_ONCE: Final = 20_000
"""Known objects in memory at once."""
SECOND_LOOKS: Final = 5_000
"""Differences looked at again; beyond that they are counted as they were first seen."""
SETTLING_S: Final = (0.5, 1.5, 3.0)
"""Pauses before differences are looked at again. What is reported at all is known within a second or two."""
LOOKS_AT_ONCE: Final = 16


class Different(msgspec.Struct, frozen=True):
    """Keys of one kind of difference: how many, and the first few of them, safe to print."""

    objects: int = 0
    samples: tuple[str, ...] = ()

    def with_one(self, key: str) -> Different:
        """Return this with one more."""
        samples = (*self.samples, shown(key)) if len(self.samples) < SAMPLES else self.samples
        return Different(self.objects + 1, samples)


class Verified(msgspec.Struct, frozen=True):
    """How storage and snapshot compare."""

    root: int
    storage: Totals
    """What storage holds, counted in this walk."""
    kept: Totals
    """What the snapshot says of itself, as it goes along."""
    recounted: Totals
    """The same, worked out again from every row: equal to ``kept``, or there is a fault in wio."""
    generation: int
    sequence: int
    """The journal position at which ``kept`` and ``recounted`` were read."""
    unknown: Different
    """There, but not in the snapshot."""
    gone: Different
    """In the snapshot, but not there."""
    other: Different
    """In both, with another size, time or etag."""

    @property
    def equal(self) -> bool:
        """Whether nothing is different, and the snapshot agrees with itself."""
        return self.kept == self.recounted and not (self.unknown.objects or self.gone.objects or self.other.objects)


async def verify(
    node: StorageNode,
    ledger: Ledger,
    config: RootConfig,
    *,
    clock: Callable[[], int],
    pause: Callable[[float], Awaitable[None]],
    told: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Walk a whole root and compare. ``told`` is called with the number of objects walked so far.

    Raises RootMissing, StorageUnreachable, StorageRefused, UnknownRoot.
    """
    await node.check_root(config)
    walk = _Walk(node, ledger, config)
    pace = Pace(config.pace, clock, pause)
    span = Span()
    async for page in node.scan(config):
        entries = check_page(span, page)
        if not entries:
            continue
        await walk.compare(span.until(entries[-1].key), entries)
        span = span.after(entries[-1].key)
        told(walk.objects)
        await pace.spend(len(entries))
    await walk.compare(span, ())
    for pause_s in SETTLING_S:
        if walk.open:
            await pause(pause_s)
            await walk.settle()
    walk.conclude()
    kept, recounted, at = await ledger.recount(config.root)
    storage = Totals(walk.objects, walk.bytes, walk.digest)
    return Verified(config.root, storage, kept, recounted, at.generation, at.sequence, walk.unknown, walk.gone, walk.other)


class _Open(msgspec.Struct, frozen=True):
    """A key that differs: what storage has, what is known, and whether both were so at the look before."""

    entry: Entry | None
    known: Known | None
    still: bool


class _Walk:
    """What was walked and found so far."""

    def __init__(self, node: StorageNode, ledger: Ledger, config: RootConfig) -> None:
        self._node = node
        self._ledger = ledger
        self._config = config
        self.open: dict[str, _Open] = {}
        """Keys that differ, as they were last found; in the order of the walk."""
        self.objects = 0
        self.bytes = 0
        self.digest = 0
        self.unknown = Different()
        self.gone = Different()
        self.other = Different()

    async def compare(self, part: Span, entries: Sequence[Entry]) -> None:
        """Compare ``entries``, which are all there is in ``part``, with what is known of it."""
        at = 0
        while True:
            known = await self._ledger.known(self._config.root, part, limit=KNOWN_AT_ONCE)
            stop = max(known) if len(known) == KNOWN_AT_ONCE else None
            while at < len(entries) and (stop is None or entries[at].key <= stop):
                entry = entries[at]
                before = known.pop(entry.key, None)
                if before == known_of(entry):
                    self._count(entry)
                else:
                    await self._again(entry.key, entry, before)
                at += 1
            for key, before in known.items():
                await self._again(key, None, before)
            if stop is None:
                return
            part = part.after(stop)

    def _count(self, entry: Entry | None) -> None:
        if entry is not None:
            self.objects += 1
            self.bytes += entry.size
            self.digest = combine(self.digest, added=(object_number(entry.key, entry.size, entry.mtime, entry.etag),))

    async def _again(self, key: str, entry: Entry | None, known: Known | None) -> None:
        """Look at a key that differs once more, and keep it open if it still does."""
        if len(self.open) >= SECOND_LOOKS:
            self._differs(key, entry, known)
            return
        self._found(key, *await self._look(key), still=False)

    async def settle(self) -> None:
        """Look at what is open again."""
        slots = asyncio.Semaphore(LOOKS_AT_ONCE)
        before, self.open = self.open, {}

        async def look(key: str) -> tuple[Entry | None, Known | None]:
            async with slots:
                return await self._look(key)

        found = await asyncio.gather(*map(look, before), return_exceptions=True)
        for key, now in zip(before, found, strict=True):
            if isinstance(now, BaseException):
                raise now
            self._found(key, *now, still=now == (before[key].entry, before[key].known))

    def conclude(self) -> None:
        """Count what is open: as different what stayed as it was; what is being written at this moment, as it is."""
        for key, one in self.open.items():
            if one.still:
                self._differs(key, one.entry, one.known)
            else:
                self._count(one.entry)

    async def _look(self, key: str) -> tuple[Entry | None, Known | None]:
        # Storage first: whatever is known of it by then may only be newer.
        found = await self._node.look(self._config, key)
        return mended(found) if found is not None else None, await self._ledger.known_at(self._config.root, key)

    def _found(self, key: str, entry: Entry | None, known: Known | None, *, still: bool) -> None:
        if known == (None if entry is None else known_of(entry)):
            self._count(entry)
        else:
            self.open[key] = _Open(entry, known, still)

    def _differs(self, key: str, entry: Entry | None, known: Known | None) -> None:
        self._count(entry)
        if entry is None:
            self.gone = self.gone.with_one(key)
        elif known is None:
            self.unknown = self.unknown.with_one(key)
        else:
            self.other = self.other.with_one(key)


def known_of(entry: Entry) -> Known:
    """Return what the snapshot would know of an object."""
    return entry.size, entry.mtime, entry.etag
