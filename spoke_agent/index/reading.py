"""Reading what lies in objects, in roots at index level metadata or content, and in no others.

The last in line: it takes a few objects at a time, waits while the hub has much to take, and while changes are looked at or
a root is scanned rests longer than it works. What was found goes into the agent's own database together with the journal
row that tells the hub: whatever is killed in between is read again, and nothing is told twice for it.

An object is read only while it is the one that was seen (its etag goes with every request). Where the same content was read
before under another name, only its tags are asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from protocol.errors import Conflict, NotAllowed, RootMissing, StorageRefused, UnknownRoot, WioError
from protocol.fields import Fields, fitted
from protocol.messages import IndexLevel, RootConfig
from protocol.names import shown
from search.words import name_of
from spoke_agent.index.dirty import Mark
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.pace import Pace
from spoke_agent.index.readout import Unread, known_body

OBJECTS: Final = 16
"""Objects read in one step, and kept in one transaction."""
AT_ONCE: Final = 3
AHEAD: Final = 1_000
"""Journal rows the hub has not taken from which on nothing more is read: fields may have 64 kB each."""
WAIT_S: Final = 1.0
REST: Final = 4
LONGEST_REST_S: Final = 2.0
"""While there is something more urgent, so many times as long as a step took passes before the next, up to that."""
TIDY_EVERY_S: Final = 120.0
REFUSED_FOR_S: Final = 600.0
"""How long a root, or tags, are left alone after the storage server did not let the agent see them."""
FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 60.0

_log: Final = logging.getLogger(__name__)

Read = Callable[[int, int], Awaitable[bytes]]
"""Returns bytes of one object: from where, how many."""


class Extraction(Protocol):
    """What reads fields out of files (``spoke_agent.extraction``). A file that cannot be read is a Fields with a problem."""

    async def extract(self, name: str, size: int, level: IndexLevel, read: Read) -> Fields | None:
        """Read what a file holds; None where files of that name are none of its kinds. Lets out what ``read`` raises."""

    def wants(self, name: str, size: int) -> bool:
        """Say whether a file of that name is one to be read."""

    def versions(self) -> str:
        """Return what reads, with versions: ``image=2 text=1``."""

    async def prepare(self) -> None:
        """Find out what can be read; the other methods may block where this was not awaited before."""


class Storage(Protocol):
    """What is asked of ``storage.node.StorageNode``."""

    async def read(self, root: RootConfig, key: str, etag: str, start: int, length: int) -> bytes:
        """Read a piece of an object."""

    async def tags(self, root: RootConfig, key: str) -> dict[str, str]:
        """Return an object's tags."""


class Reading:
    """Reads objects. ``now`` is a monotonic clock in seconds.

    ``doubt`` takes keys that should be looked at again, ``busy`` says whether there is something more urgent, ``pace`` how many
    objects a second may be read in a root (0: no limit), ``quiet`` whether it has its quiet hours: then only what was reported
    is read. ``tell`` takes a warning for the owner, None where it is over.
    """

    def __init__(
        self,
        ledger: Ledger,
        node: Storage,
        extraction: Extraction,
        *,
        now: Callable[[], float],
        doubt: Callable[[Mark], None],
        busy: Callable[[], bool] = lambda: False,
        pace: Callable[[RootConfig], int] = lambda config: config.pace,
        quiet: Callable[[int], bool] = lambda _: False,
        tell: Callable[[str | None], None] = lambda _: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._node = node
        self._extraction = extraction
        self._now = now
        self._doubt = doubt
        self._busy = busy
        self._pace_of = pace
        self._quiet = quiet
        self._tell = tell
        self._pause = pause
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._paces: dict[int, Pace] = {}
        self._refused: dict[int, float] = {}
        """Until when a root is left alone."""
        self._tagless: dict[int, float] = {}
        """Until when nobody is asked for tags in a root."""
        self._tidied: float | None = None
        self.problem: WioError | None = None
        """Why reading does not work at the moment."""

    # -------------------------------------------------------------------------------------------------- steps

    async def step(self) -> bool:
        """Read some objects; False where there are none. Raises what hinders all of them: they stay on the list."""
        now = self._now()
        roots = {root for root in self._ledger.read() if self._refused.get(root, now) <= now}
        if not roots or self._ledger.pending >= AHEAD:
            return False
        versions = self._extraction.versions()
        bulk = [root for root in roots if not self._quiet(root)]
        plan = await self._ledger.plan_reading(versions, bulk=bulk, limit=OBJECTS)
        items = [item for item in plan.unread if item.root in roots]
        if not items:
            return plan.moved
        await self._held_back(items)
        found = await asyncio.gather(*(self._looked_into(item) for item in items), return_exceptions=True)
        await self._keep(items, found, versions)
        return True

    async def _keep(self, items: list[Unread], found: list[Fields | BaseException | None], versions: str) -> None:
        """Keep what was found; raise the first thing that hindered all, once the rest is kept."""
        kept: list[tuple[Unread, Fields]] = []
        other: list[Unread] = []
        failed: BaseException | None = None
        for item, one in zip(items, found, strict=True):
            if isinstance(one, Fields):
                kept.append((item, one))
            elif isinstance(one, Conflict):
                other.append(item)
            elif one is not None:
                failed = failed or one
        if kept:
            await self._ledger.keep_read(kept, versions)
        if other:
            await self._ledger.let_go(other)
            for item in other:
                self._doubt(Mark(item.root, item.key, hinted=False))
        if failed is not None:
            raise failed

    async def _held_back(self, items: list[Unread]) -> None:
        for root in {item.root for item in items}:
            pace = self._paces.setdefault(root, Pace(lambda root=root: self._per_second(root), _micro(self._now), self._pause))  # type: ignore[misc]  # bound here on purpose
            await pace.spend(sum(item.root == root for item in items))

    def _per_second(self, root: int) -> int:
        try:
            return self._pace_of(self._ledger.config(root))
        except UnknownRoot:
            return 0

    async def _looked_into(self, item: Unread) -> Fields | None:
        """Return what is in an object; None for one that is left for later."""
        async with self._slots:
            if item.root in self._refused and self._refused[item.root] > self._now():
                return None
            try:
                config = self._ledger.config(item.root)
                fields = known_body(item)
                if fields is None:
                    fields = await self._read(config, item)
                tags = await self._tags(config, item)
            except (NotAllowed, RootMissing, UnknownRoot) as error:
                self._leave_alone(item, error)
                return None
        # Fitted whatever an extractor made: what does not fit would end the session with the hub.
        known = fields.tags if tags is None else tags
        return fitted(fields.kind, fields.values, tags=known, text=fields.text, problem=fields.problem)

    async def _read(self, config: RootConfig, item: Unread) -> Fields:
        name = name_of(item.key)
        if not self._extraction.wants(name, item.size):
            return Fields()
        failures: list[WioError] = []

        async def read(start: int, length: int) -> bytes:
            try:
                return await self._node.read(config, item.key, item.etag, start, length)
            except WioError as error:
                failures.append(error)
                raise

        try:
            found = await self._extraction.extract(name, item.size, item.level, read)
        except WioError as error:
            failures.append(error)
        except Exception as error:  # noqa: BLE001 - a file must not be able to stop the others
            _log.warning("reading %s failed: %s", shown(item.key), type(error).__name__)
            return fitted("", {}, problem=f"It could not be read: {type(error).__name__}.")
        if not failures:
            return found or Fields()
        # Whatever was made of an object that could not be read to its end counts for nothing.
        first = failures[0]
        if isinstance(first, StorageRefused) and not first.retry and not isinstance(first, RootMissing):
            return fitted("", {}, problem=first.message)
        raise first

    async def _tags(self, config: RootConfig, item: Unread) -> dict[str, str] | None:
        """Return an object's tags; None where they are not to be had."""
        now = self._now()
        if self._tagless.get(item.root, now) > now:
            return None
        try:
            tags = await self._node.tags(config, item.key)
        except NotAllowed as error:
            self._tagless[item.root] = now + REFUSED_FOR_S
            self._say(config, error)
        except StorageRefused as error:
            if error.retry or isinstance(error, RootMissing):
                raise
        else:
            if self._tagless.pop(item.root, None) is not None:
                self._tell(None)
            return tags
        return None

    def _leave_alone(self, item: Unread, error: WioError) -> None:
        self._refused[item.root] = self._now() + REFUSED_FOR_S
        if isinstance(error, NotAllowed):
            self._say(self._ledger.config(item.root), error)

    def _say(self, config: RootConfig, error: WioError) -> None:
        self._tell(f"Root {config.name} is at index level {config.level}, but {error.message} {error.todo}"[:500])

    async def tidy(self) -> bool:
        """Drop some of what belongs to nothing any more, if it is time to; True where there is more of it."""
        now = self._now()
        if self._tidied is not None and now - self._tidied < TIDY_EVERY_S:
            return False
        more = await self._ledger.tidy_reading()
        if not more:
            self._tidied = now
        return more

    # -------------------------------------------------------------------------------------------------- loop

    async def run(self) -> None:
        """Read whatever is to be read, for ever."""
        self._refused.clear()
        self._tagless.clear()
        self._tell(None)
        await self._extraction.prepare()
        await self._ledger.able(self._extraction.versions())
        failures = 0
        while True:
            self._ledger.unread.clear()
            started = self._now()
            try:
                more = await self.step() or await self.tidy()
            except WioError as error:
                self.problem = error
                await self._pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1
                continue
            failures, self.problem = 0, None
            if not more:
                await self._woken()
            elif self._busy():
                await self._pause(min((self._now() - started) * REST, LONGEST_REST_S))

    async def _woken(self) -> None:
        """Wait for news, or until it is time to look again whether the hub has taken enough, or quiet hours are over."""
        waits = bool(self._ledger.read())
        try:
            async with asyncio.timeout(WAIT_S if waits and self._ledger.pending >= AHEAD else TIDY_EVERY_S / 2):
                await self._ledger.unread.wait()
        except TimeoutError:
            pass


def _micro(now: Callable[[], float]) -> Callable[[], int]:
    return lambda: int(now() * 1_000_000)
