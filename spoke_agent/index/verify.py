"""Comparing storage with the snapshot, object by object, from nothing. Changes nothing; memory stays bounded.

Storage goes on changing while it is walked, so a difference counts only if a second look, at that very key, still finds it.
"""

from __future__ import annotations

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
    kept, recounted, sequence = await ledger.recount(config.root)
    storage = Totals(walk.objects, walk.bytes, walk.digest)
    return Verified(config.root, storage, kept, recounted, sequence, walk.unknown, walk.gone, walk.other)


class _Walk:
    """What was walked and found so far."""

    def __init__(self, node: StorageNode, ledger: Ledger, config: RootConfig) -> None:
        self._node = node
        self._ledger = ledger
        self._config = config
        self._looks_left = SECOND_LOOKS
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
                self._count(entry if known.pop(entry.key, None) == known_of(entry) else await self._again(entry.key, entry))
                at += 1
            for key in known:
                self._count(await self._again(key, None))
            if stop is None:
                return
            part = part.after(stop)

    def _count(self, entry: Entry | None) -> None:
        if entry is not None:
            self.objects += 1
            self.bytes += entry.size
            self.digest = combine(self.digest, added=(object_number(entry.key, entry.size, entry.mtime, entry.etag),))

    async def _again(self, key: str, entry: Entry | None) -> Entry | None:
        """Look at a key that differs once more, note the difference if it is still there, return what storage has."""
        if self._looks_left:
            self._looks_left -= 1
            found = await self._node.look(self._config, key)
            entry = mended(found) if found is not None else None
        known = await self._ledger.known_at(self._config.root, key)
        if entry is None:
            self.gone = self.gone.with_one(key) if known is not None else self.gone
        elif known is None:
            self.unknown = self.unknown.with_one(key)
        elif known != known_of(entry):
            self.other = self.other.with_one(key)
        return entry


def known_of(entry: Entry) -> Known:
    """Return what the snapshot would know of an object."""
    return entry.size, entry.mtime, entry.etag
