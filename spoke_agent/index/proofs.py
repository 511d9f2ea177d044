"""What the hub asks to be sure that its catalogue equals storage: count, compare, add up, say again. For the owner as well.

A survey and a verification walk through storage for long; few of them go on at once. Names leave this node only where the
owner lets the hub know them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import msgspec

from protocol.errors import BadSetting, TooMany
from protocol.messages import (
    Counted,
    Digested,
    Digests,
    IndexLevel,
    KeyRange,
    Recheck,
    RootConfig,
    Sum,
    Surveyed,
    Verified,
    Verify,
)
from protocol.messages import Survey as Surveying
from spoke_agent.index import survey as surveys
from spoke_agent.index import verify as verifying
from spoke_agent.index.dirty import Mark
from spoke_agent.index.entries import key_fits
from spoke_agent.index.ledger import Ledger, is_indexed
from spoke_agent.index.scan import Scanner
from spoke_agent.index.snapshot import Totals
from spoke_agent.index.spans import Span
from spoke_agent.index.survey import Survey
from spoke_agent.index.verify import Different
from spoke_agent.storage.node import StorageNode

WALKS: Final = 2
"""Surveys and verifications at once: each lists a whole root."""
LOOKED_AT: Final = 5_000
"""Keys known in a range that are looked at one by one; of more of them it is said again what the last scan found."""
AT_ONCE: Final = 1_000
SAID_AT_ONCE: Final = 5_000
_NOTHING_KNOWN: Final = frozenset({IndexLevel.NONE, IndexLevel.LOCAL})


class Proofs:
    """Carries such requests out. ``clock`` gives Unix microseconds, ``pace`` how many objects a second may be listed."""

    def __init__(
        self,
        node: StorageNode,
        ledger: Ledger,
        scanner: Scanner,
        *,
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        pace: Callable[[RootConfig], int] = lambda config: config.pace,
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._scanner = scanner
        self._clock = clock
        self._pause = pause
        self._pace = pace
        self._walks = 0

    # -------------------------------------------------------------------------------------------------- walks

    async def count(self, config: RootConfig) -> Survey:
        """Count what lies in a root. Raises TooMany, RootMissing, StorageUnreachable, StorageRefused."""
        with self._walk():
            return await surveys.survey(self._node, self._paced(config), clock=self._clock, pause=self._pause)

    async def compare(self, config: RootConfig) -> verifying.Verified:
        """Compare storage with what is known of it. Raises BadSetting, and as ``count``."""
        self._check_indexed(config)
        with self._walk():
            return await verifying.verify(self._node, self._ledger, self._paced(config), clock=self._clock, pause=self._pause)

    async def survey(self, request: Surveying, config: RootConfig) -> Surveyed:
        """Answer a survey; ``config`` is the root as the owner lets the hub have it. Raises as ``count``."""
        found = await self.count(config)
        extensions: tuple[Counted, ...] = ()
        odd = tuple(Counted(one.what, one.objects) for one in found.odd)
        if config.level not in _NOTHING_KNOWN:
            extensions = tuple(Counted(one.extension[:500], one.objects, one.bytes) for one in found.extensions)
            odd = tuple(Counted(one.what, one.objects, 0, _samples(one.samples)) for one in found.odd)
        took, estimate = round(found.took_s * 1000), round(found.estimate_s * 1000)
        return Surveyed(request.request, found.objects, found.bytes, extensions, odd, took, estimate)

    async def verify(self, request: Verify) -> Verified:
        """Answer a verification. Raises UnknownRoot, and as ``compare``."""
        found = await self.compare(self._ledger.config(request.root))
        return Verified(
            request.request,
            _sum(found.storage),
            _sum(found.kept),
            _sum(found.recounted),
            found.generation,
            found.sequence,
            _counted("unknown", found.unknown),
            _counted("gone", found.gone),
            _counted("other", found.other),
        )

    @contextlib.contextmanager
    def _walk(self) -> Iterator[None]:
        if self._walks >= WALKS:
            raise TooMany(f"This node counts or compares {WALKS} roots already.", todo="Try again when that is done.")
        self._walks += 1
        try:
            yield
        finally:
            self._walks -= 1

    def _paced(self, config: RootConfig) -> RootConfig:
        return msgspec.structs.replace(config, pace=self._pace(config))

    def _check_indexed(self, config: RootConfig) -> None:
        if not is_indexed(config):
            raise BadSetting(
                f"Nothing is known of root {config.name}: its index level is {config.level}.",
                todo="Raise its index level, if the node's owner allows that.",
            )

    # -------------------------------------------------------------------------------------------------- ranges

    async def digests(self, request: Digests) -> Digested:
        """Add parts of a root up. Raises UnknownRoot, BadSetting."""
        self._check_indexed(self._ledger.config(request.root))
        sums, at = await self._ledger.sums(request.root, request.ranges)
        return Digested(request.request, at.generation, at.sequence, tuple(map(_sum, sums)))

    async def recheck(self, request: Recheck) -> None:
        """Look at the hub's keys and at all that are known in the range, and have the journal say what is there.

        Where more than LOOKED_AT are known, the journal says what is known of them. Raises UnknownRoot, BadSetting,
        RootMissing, StorageUnreachable, StorageRefused.
        """
        config = self._ledger.config(request.root)
        self._check_indexed(config)
        part = request.range
        known = await self._ledger.known(request.root, Span("", part.low, part.high), limit=LOOKED_AT + 1)
        hubs = [key for key in request.keys if key_fits(key)]
        if len(known) <= LOOKED_AT:
            await self._look(config, sorted({*known, *hubs}))
            return
        await self._look(config, [key for key in hubs if await self._ledger.known_at(config.root, key) is None])
        await self._say_again(config, part)

    async def _look(self, config: RootConfig, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), AT_ONCE):
            marks = [Mark(config.root, key, asked=True) for key in keys[start : start + AT_ONCE]]
            await self._ledger.room()
            confirmed = await self._scanner.confirm(config, marks)
            if confirmed.problem is not None:
                raise confirmed.problem
            # What was overtaken by another look is known by that; whoever made it says what has changed, not what has not.
            if confirmed.again:
                again = await self._scanner.confirm(config, confirmed.again)
                if again.problem is not None:
                    raise again.problem

    async def _say_again(self, config: RootConfig, part: KeyRange) -> None:
        low: str | None = part.low
        while low is not None:
            await self._ledger.room()
            low = await self._ledger.repeat(config.root, KeyRange(low, part.high), SAID_AT_ONCE)


def _sum(totals: Totals) -> Sum:
    return Sum(totals.objects, totals.bytes, totals.digest)


def _counted(what: str, different: Different) -> Counted:
    return Counted(what, different.objects, 0, _samples(different.samples))


def _samples(samples: Sequence[str]) -> tuple[str, ...]:
    """Return samples within the limits of the wire: a name of odd characters is longer when it is made safe to print."""
    return tuple(sample[:1100] for sample in samples[:20])
