"""A storage server in memory that can misbehave, and a ledger on it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from protocol.digest import EMPTY_RUN, combine, object_number, run_on
from protocol.errors import RootMissing, WioError
from protocol.messages import Change, Cursor, IndexLevel, Progress, RootConfig, Row
from protocol.names import Layout
from spoke_agent.index.database import Database
from spoke_agent.index.feed import Feed
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.scan import Scanner
from spoke_agent.index.schedule import Schedule
from spoke_agent.storage.node import Entry


class MemoryNode:
    """The part of a StorageNode that the index uses. ``fault`` is called before every request and may raise."""

    def __init__(self, page: int = 10) -> None:
        self.objects: dict[int, dict[str, Entry]] = {}
        self.identities: dict[int, str] = {}
        self.page = page
        self.borders: list[str] = [""]
        self.clock = itertools.count(1_700_000_000_000_000_000, 1_000_000)
        self.fault: Callable[[str], None] = lambda _: None
        self.requests = 0
        self.looked: list[str] = []
        self.between: Callable[[], None] = lambda: None
        """Called between pages: the world goes on while one lists."""

    def make_root(self, root: int) -> None:
        self.objects[root] = {}
        self.identities[root] = f"made-{next(self.clock)}"

    def put(self, root: int, key: str, body: str = "") -> None:
        self.objects[root][key] = Entry(key, len(body), next(self.clock), f"etag-{hash(body)}")

    def delete(self, root: int, key: str) -> None:
        self.objects[root].pop(key, None)

    async def _request(self, what: str) -> None:
        self.requests += 1
        await asyncio.sleep(0)
        self.fault(what)

    async def check_root(self, root: RootConfig) -> str:
        await self._request("check")
        if root.root not in self.identities:
            raise RootMissing(f"Bucket {root.bucket} is not there.")
        return self.identities[root.root]

    async def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        while True:
            await self._request("scan")
            if root.root not in self.identities:
                raise RootMissing(f"Bucket {root.bucket} is not there.")
            after = start_after
            keys = sorted(key for key in self.objects[root.root] if key > after and key.startswith(prefix))
            page = [self.objects[root.root][key] for key in keys[: self.page]]
            if page:
                yield page
                start_after = page[-1].key
            if len(keys) <= self.page:
                return
            self.between()

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        del root, prefix
        await self._request("ranges")
        return self.borders

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        await self._request("look")
        self.looked.append(key)
        return self.objects[root.root].get(key)


def config_of(root: int, **changes: object) -> RootConfig:
    values: dict[str, object] = {"name": f"root{root}", "bucket": f"bucket{root}", "prefix": "", "pace": 0}
    values |= {"layout": Layout.PREFIX, "level": IndexLevel.NAMES, **changes}
    return RootConfig(root, **values)  # type: ignore[arg-type]  # the test says which


class FarHub:
    """What a hub does with a journal: apply it, and refuse what does not fit."""

    def __init__(self) -> None:
        self.cursor = Cursor(0, 0, EMPTY_RUN)
        self.entries: dict[tuple[int, str], Row] = {}
        self.fields: dict[tuple[int, str], bytes] = {}
        """What was read out of objects: only of the content that is there."""
        self.told: list[Row] = []
        """Every row of fields that came."""

    def apply(self, generation: int, first: int, rows: Sequence[Row], running: bytes) -> bool:
        if generation > self.cursor.generation and first == 0:
            self.cursor = Cursor(generation, 0, EMPTY_RUN)
            self.entries.clear()
            self.fields.clear()
        if (generation, first) != (self.cursor.generation, self.cursor.sequence):
            return False
        assert run_on(self.cursor.running, rows) == running
        for row in rows:
            place = row.root, row.key
            before = self.entries.get(place)
            same = before is not None and (before.size, before.mtime, before.etag) == (row.size, row.mtime, row.etag)
            if row.change is Change.FIELDS:
                self.told.append(row)
                if same:
                    self.fields[place] = row.fields
                continue
            if not same:
                self.fields.pop(place, None)
            if row.change is Change.PUT:
                self.entries[place] = row
            else:
                self.entries.pop(place, None)
        self.cursor = Cursor(generation, first + len(rows), running)
        return True

    def digest(self, root: int) -> int:
        here = [row for row in self.entries.values() if row.root == root]
        return combine(0, added=(object_number(row.key, row.size, row.mtime, row.etag) for row in here))


async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until something holds, letting everything else run."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - there is no event for whatever a test waits for
            await asyncio.sleep(0)


class Bench:
    """Everything around one ledger. ``restart`` is what a SIGKILL leaves: the file."""

    def __init__(self, path: Path | str, node: MemoryNode) -> None:
        self.path = path
        self.node = node
        self.hub = FarHub()
        self.time = itertools.count(1_800_000_000_000_000, 1_000)
        self.progress: list[Progress] = []
        self.report: Callable[[Progress], None] = self.progress.append
        self.journal_rows = 200_000
        self.now_s = 0.0
        """What the schedule takes for the time."""

    async def start(self) -> None:
        self.database = Database(self.path)
        self.ledger = Ledger(self.database, journal_rows=self.journal_rows)
        await self.ledger.open()
        self.scanner = Scanner(
            self.node,  # type: ignore[arg-type]  # the part that the index uses
            self.ledger,
            clock=lambda: next(self.time),
            pause=lambda _: asyncio.sleep(0),
            report=lambda progress: self.report(progress),  # noqa: PLW0108 - it is another one later
            doubt=lambda mark: self.feed.mark(mark),  # noqa: PLW0108 - it is made below
        )
        self.schedule = Schedule(self.ledger, self.scanner.scan_root, now=lambda: self.now_s, every_s=3600)
        self.feed = Feed(self.ledger, self.scanner, self.schedule, pause=lambda _: asyncio.sleep(0))

    async def stop(self) -> None:
        await self.ledger.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def quiet(self) -> None:
        """Do all that is to be done."""
        for _ in range(1000):
            try:
                done = [await self.feed.look_once(), await self.feed.list_once(), await self.schedule.step() == 0.0]
            except WioError:
                continue
            if not any(done):
                return
        raise AssertionError("it never gets quiet")

    async def sync(self) -> None:
        """Send the hub everything it lacks."""
        after, new = await self.ledger.settle(self.hub.cursor)
        if new:
            self.schedule.request_all()
            await self.quiet()
        while True:
            batch, _ = await self.ledger.outgoing(after)
            if batch is None:
                return
            assert self.hub.apply(batch.generation, batch.first, batch.rows, batch.running)
            assert await self.ledger.acknowledged(self.hub.cursor)
            after = batch.end

    async def check(self, root: int) -> None:
        """Storage, snapshot and hub are the same."""
        stored = {key: (e.size, e.mtime, e.etag) for key, e in self.node.objects[root].items()}
        from spoke_agent.index.spans import Span  # noqa: PLC0415 - only here

        assert await self.ledger.known(root, Span()) == stored
        standing = next(one for one in await self.ledger.standings() if one.root == root)
        number = combine(0, added=(object_number(key, *what) for key, what in stored.items()))
        assert (standing.objects, standing.digest) == (len(stored), number)
        assert standing.bytes == sum(size for size, _, _ in stored.values())
        assert {key for (where, key) in self.hub.entries if where == root} == set(stored)
        assert self.hub.digest(root) == number


@pytest.fixture
def node() -> MemoryNode:
    made = MemoryNode()
    made.make_root(1)
    return made


@pytest.fixture
async def bench(tmp_path: Path, node: MemoryNode) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "index.sqlite", node)
    await made.start()
    await made.ledger.configure(1, [config_of(1)])
    yield made
    await made.stop()
