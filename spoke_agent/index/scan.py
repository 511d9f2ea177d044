"""Scanning: listing a root or a folder, and making the snapshot agree with it.

A root is cut into spans of keys that are walked side by side. Every page is taken in by itself, together with how far its
span has come: a scan that is cut off anywhere goes on from there. A page in order is all there is between its first and
its last key, so it also says what is *not* there; but a key is deleted only after a look at that very key found nothing,
and only while the root is the one that was scanned first. A root that is gone is missing, never empty.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from protocol.errors import RootMissing, StorageRefused, UnknownRoot, WioError
from protocol.messages import Progress, RootConfig, ScanState
from protocol.names import Layout
from spoke_agent.index.dirty import Mark
from spoke_agent.index.entries import mended
from spoke_agent.index.ledger import Ledger, Seen, Standing, Step, is_indexed, problem_of
from spoke_agent.index.looks import Look
from spoke_agent.index.pace import Pace
from spoke_agent.index.spans import Span, check_page, split
from spoke_agent.storage.node import Entry, StorageNode

SPANS_AT_ONCE: Final = 4
SPANS_IN_A_BUCKET: Final = 2
"""A MinIO that is asked for the second page of a listing lists on by itself to the bucket's end, past the end of a span.

So every span costs the server all that lies behind it: 50 of them cost it 120 s of processor time where 2 cost 4 s (100,000
objects), and 2 are faster than this agent's hub already: 40,000 objects a second. Buckets of their own have ends of their own.
"""
LOOKS_AT_ONCE: Final = 16
PAGES_AHEAD: Final = 2
"""Pages listed while the one before is taken in."""
TRIES: Final = 6
"""Tries at one position before a scan gives up for now: with the delays below, about 6 s."""
FIRST_DELAY_S: Final = 0.2
REPORT_EVERY_US: Final = 250_000
SAME_FOR_US: Final = 1_000_000
"""How long a listing under way takes a root to be the one it was: asking costs 1 ms, with 3,000 buckets 25 ms (measured)."""
EMPTY_PAGES: Final = 1_000
"""Pages without one key, in a row, after which a listing is taken to be endless."""


class Confirmed(msgspec.Struct, frozen=True):
    """What became of looks at single keys: which of them must be made again, and the first error among them."""

    again: tuple[Mark, ...]
    problem: WioError | None


class Scanner:
    """Scans roots and folders. Its steps may run at the same time, also in one root."""

    def __init__(
        self,
        node: StorageNode,
        ledger: Ledger,
        *,
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        report: Callable[[Progress], None] = lambda _: None,
        doubt: Callable[[Mark], None] = lambda _: None,
        pace: Callable[[RootConfig], int] = lambda config: config.pace,
        held: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """``clock`` gives Unix microseconds; ``doubt`` takes keys that should be looked at again.

        ``pace`` says how many objects a second a root may be scanned with, ``held`` whether a scan of it has to stop now.
        """
        self._node = node
        self._ledger = ledger
        self._clock = clock
        self._pause = pause
        self._report = report
        self._doubt = doubt
        self._pace_of = pace
        self._held = held

    async def scan_root(self, root: int) -> Standing:
        """Scan a whole root, or go on where the last scan of it was cut off.

        Raises RootMissing, StorageUnreachable, StorageRefused, DiskFull, UnknownRoot, ``ledger.Superseded``, ``pace.QuietNow``.
        """
        config = self._ledger.config(root)
        if not is_indexed(config):
            raise UnknownRoot(f"Root {config.name} is not scanned here: its index level is {config.level}.")
        try:
            standing = await self._scan_root(config)
        except WioError as error:
            await self.failed(config, error)
            raise
        self._report(self.progress_of(standing, ScanState.DONE))
        return standing

    async def _scan_root(self, config: RootConfig) -> Standing:
        identity = await self.same_root(config)
        spans = split(_few(config.layout, await self._node.ranges(config)))
        scan = await self._ledger.begin_scan(config, identity, spans, self._clock())
        pace = self._pace(config, held=lambda: self._held(config.root))
        walk = _Walk(config, scan.generation, pace, scan.started_at)
        walk.objects, walk.bytes, walk.same_at = scan.objects, scan.bytes, self._clock()
        self._tell(walk)
        await self._side_by_side(walk, scan.spans)
        # The root was itself at the start; it must still be at the end, or the listing was of something else.
        await self.same_root(config)
        return await self._ledger.finish_scan(config.root, scan.generation)

    async def scan_folder(self, root: int, prefix: str) -> None:
        """List one folder with everything below it. Nothing is kept of how far it came: it is marked again if it fails."""
        config = self._ledger.config(root)
        await self.same_root(config)
        walk = _Walk(config, self._ledger.generation, self._pace(config), self._clock())
        walk.same_at = walk.started_at
        await self._walk(walk, None, Span(prefix))

    def _pace(self, config: RootConfig, held: Callable[[], bool] = lambda: False) -> Pace:
        def per_second() -> int:
            try:
                return self._pace_of(self._ledger.config(config.root))
            except UnknownRoot:  # it is being taken off this node
                return config.pace

        return Pace(per_second, self._clock, self._pause, held)

    async def same_root(self, config: RootConfig) -> str:
        """Return the root's identity. Raises RootMissing if it is gone, or another one than was scanned first."""
        identity = await self._node.check_root(config)
        known = await self._ledger.identity(config.root)
        if known is not None and known != identity:
            raise RootMissing(
                f"Root {config.name} ({config.bucket}/{config.prefix}) is another one than it was: its bucket was made anew.",
                todo="Its old catalogue is kept. If the new bucket is meant, retire the root and create it again.",
            )
        return identity

    async def confirm(self, config: RootConfig, marks: Sequence[Mark], who: Callable[[str], int] = lambda _: 0) -> Confirmed:
        """Look at single keys and take in what is found, also where some of the looks failed.

        Raises what taking it in raised (RootMissing, DiskFull …); then none of it was.
        """
        slots = asyncio.Semaphore(LOOKS_AT_ONCE)
        looks = [self._ledger.looks.at_key(mark.root, mark.key) for mark in marks]

        async def at(index: int) -> Seen:
            async with slots:
                mark = marks[index]
                entry = await self._node.look(config, mark.key)
                if entry is not None:
                    entry = mended(msgspec.structs.replace(entry, key=mark.key))
                return Seen(looks[index], mark.key, entry, who(mark.actor) if mark.actor else 0, mark.hinted, mark.asked)

        try:
            found = await asyncio.gather(*(at(index) for index in range(len(marks))), return_exceptions=True)
            for one in found:
                if isinstance(one, BaseException) and not isinstance(one, WioError):
                    raise one
            seen = [one for one in found if isinstance(one, Seen)]
            if seen:
                # After the looks: what they saw is this root's only if it still is the one that it was.
                await self.same_root(config)
            overtaken = {one.key for one in await self._ledger.accept_looks(seen)}
        finally:
            for look in looks:
                self._ledger.looks.end(look)
        again = [mark for mark, one in zip(marks, found, strict=True) if isinstance(one, WioError) or mark.key in overtaken]
        return Confirmed(tuple(again), next((one for one in found if isinstance(one, WioError)), None))

    # -------------------------------------------------------------------------------------------------- walking

    async def _side_by_side(self, walk: _Walk, spans: Iterable[tuple[str, Span]]) -> None:
        waiting = deque(spans)

        async def worker() -> None:
            while waiting:
                await self._walk(walk, *waiting.popleft())

        workers = [asyncio.create_task(worker()) for _ in range(min(SPANS_AT_ONCE, len(waiting)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _walk(self, walk: _Walk, name: str | None, span: Span) -> None:
        """Walk a span to its end, from wherever a try came to."""
        left: Span | None = span
        failures = 0
        while left is not None:
            before = left
            try:
                async for rest in self._listing(walk, name, left):
                    left, failures = rest, 0
            except WioError as error:
                failures += 1
                if not error.retry or failures >= TRIES:
                    raise
                await self._pause(FIRST_DELAY_S * 2**failures)
            if left is before and failures == 0:
                # Nothing counted of what was seen: another listing of the same keys was quicker. Let it get ahead.
                await self._pause(FIRST_DELAY_S)

    async def _listing(self, walk: _Walk, name: str | None, span: Span) -> AsyncIterator[Span | None]:
        """Take in one listing page by page; yield what is left of the span after each, None at its end."""
        look = self._ledger.looks.at_span(walk.config.root, span)
        try:
            async with aclosing(self._pages(walk.config, span)) as pages:
                async for page in pages:
                    await self._ledger.room()
                    if look.void:
                        return
                    entries = check_page(span, page)
                    ended = not page or (span.high is not None and page[-1].key >= span.high)
                    if not ended and not entries:
                        continue
                    part = span if ended else span.until(entries[-1].key)
                    size = sum(entry.size for entry in entries)
                    step = None if name is None else Step(name, None if ended else part.high, len(entries), size)
                    await self._take_in(walk, look, part, entries, step)
                    walk.objects += len(entries)
                    walk.bytes += size
                    self._tell(walk)
                    if ended:
                        yield None
                        return
                    span = span.after(entries[-1].key)
                    yield span
                    await walk.pace.spend(len(entries))
        finally:
            self._ledger.looks.end(look)

    async def _take_in(self, walk: _Walk, look: Look, part: Span, entries: Sequence[Entry], step: Step | None) -> None:
        """Take in all there is in ``part``, in pieces where more is known of it than is listed, then take the scan's step."""
        now = self._clock()
        if now - walk.same_at >= SAME_FOR_US:
            await self.same_root(walk.config)
            walk.same_at = now
        while True:
            listed = await self._ledger.accept_page(look, walk.generation, part, entries, step=step)
            for key in listed.doubtful:
                self._doubt(Mark(walk.config.root, key, hinted=False))
            if listed.missing:
                await self._delete(walk, listed.missing)
            if listed.stopped is None:
                break
            part = part.after(listed.stopped)
            entries = [entry for entry in entries if entry.key > listed.stopped]
        if listed.missing and step is not None:
            await self._ledger.advance(walk.config.root, walk.generation, step)

    async def _delete(self, walk: _Walk, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 1000):
            marks = [Mark(walk.config.root, key, hinted=False) for key in keys[start : start + 1000]]
            confirmed = await self.confirm(walk.config, marks)
            if confirmed.problem is not None:
                raise confirmed.problem
            for mark in confirmed.again:
                self._doubt(mark)

    async def _pages(self, config: RootConfig, span: Span) -> AsyncGenerator[list[Entry], None]:
        """Yield pages, the next ones being listed meanwhile; an empty one is the end."""
        ready: asyncio.Queue[list[Entry] | Exception] = asyncio.Queue(PAGES_AHEAD)

        async def read() -> None:
            try:
                async for page in _without_end(self._node.scan(config, start_after=span.low, prefix=span.prefix)):
                    await ready.put(page)
                await ready.put([])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the pages are read
                await ready.put(error)

        reader = asyncio.create_task(read())
        try:
            while True:
                page = await ready.get()
                if isinstance(page, Exception):
                    raise page
                yield page
                if not page:
                    return
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    # -------------------------------------------------------------------------------------------------- reporting

    def progress_of(self, standing: Standing, state: ScanState) -> Progress:
        """Return the message that says how a root stands."""
        now = self._clock()
        done = state is ScanState.DONE
        return Progress(
            standing.root,
            state,
            standing.objects if done else standing.scan_objects,
            standing.bytes if done else standing.scan_bytes,
            standing.scan_started_at or now,
            now,
            standing.sequence if done else 0,
            standing.digest if done else 0,
            None if done else standing.problem,
        )

    def _tell(self, walk: _Walk) -> None:
        now = self._clock()
        if now - walk.told_at >= REPORT_EVERY_US:
            walk.told_at = now
            self._report(Progress(walk.config.root, ScanState.RUNNING, walk.objects, walk.bytes, walk.started_at, now))

    async def failed(self, config: RootConfig, error: WioError) -> None:
        """Note why a root cannot be looked at, and report it."""
        problem = problem_of(error)
        try:
            await self._ledger.fail_scan(config.root, problem)
            standing = next(one for one in await self._ledger.standings() if one.root == config.root)
        except (WioError, StopIteration):
            return  # the first error says more than that it could not be noted
        self._report(self.progress_of(standing, ScanState.FAILED))


def _few(layout: Layout, borders: Sequence[str]) -> Sequence[str]:
    """Return those of the borders that a root is cut at: all between buckets, few inside of one."""
    if layout is Layout.BUCKET or len(borders) < SPANS_IN_A_BUCKET:
        return borders
    return [borders[len(borders) * at // SPANS_IN_A_BUCKET] for at in range(1, SPANS_IN_A_BUCKET)]


async def _without_end(pages: AsyncIterator[list[Entry]]) -> AsyncIterator[list[Entry]]:
    """Leave out empty pages; raise StorageRefused if nothing else comes."""
    empty = 0
    async for page in pages:
        empty = 0 if page else empty + 1
        if empty > EMPTY_PAGES:
            raise StorageRefused("The storage server's listing goes on for ever without an object in it.")
        if page:
            yield page


class _Walk:
    """One scan under way: what it is of, how fast it may go, how far it is."""

    def __init__(self, config: RootConfig, generation: int, pace: Pace, started_at: int) -> None:
        self.config = config
        self.generation = generation
        self.pace = pace
        self.started_at = started_at
        self.told_at = 0
        self.same_at = 0
        """When the root was last asked whether it is itself, in Unix microseconds."""
        self.objects = 0
        self.bytes = 0
