"""The agent's own scanner, ledger and sender against the hub's ingest: the catalogue equals storage, whatever was lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from hub.db.tables import entries, journals, roots
from protocol.messages import AgentMessage, Events, IndexLevel, Progress, RootConfig
from protocol.names import Layout
from spoke_agent.index.database import Database
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.scan import Scanner
from spoke_agent.index.schedule import Schedule
from spoke_agent.link.sender import Sender
from spoke_agent.storage.node import Entry


class Storage:
    """As much of a storage server as a scan asks for."""

    def __init__(self) -> None:
        self.objects: dict[str, Entry] = {}

    async def check_root(self, root: RootConfig) -> str:
        return f"the one bucket {root.bucket}"

    async def ranges(self, root: RootConfig, prefix: str = "") -> list[str]:
        del root, prefix
        return [""]

    async def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        del root
        keys = sorted(key for key in self.objects if key > start_after and key.startswith(prefix))
        for at in range(0, len(keys), 10):
            yield [self.objects[key] for key in keys[at : at + 10] if key in self.objects]

    async def look(self, root: RootConfig, key: str) -> Entry | None:
        del root
        return self.objects.get(key)


class Spoke:
    """One agent with one root, and its session with the hub."""

    def __init__(self, world: Any, folder: Path, node: int, root: int) -> None:
        self.world = world
        self.folder = folder
        self.node = node
        self.config = RootConfig(root, "data", "bucket", "", Layout.PREFIX, IndexLevel.NAMES)
        self.storage = Storage()
        self.times = itertools.count(10**18)
        self.lives = itertools.count()
        self.answers: list[str] = []

    def put(self, key: str, body: str = "x") -> None:
        self.storage.objects[key] = Entry(key, len(body), next(self.times), f"etag-{body}")

    async def start(self, *, lost: bool = False) -> None:
        if lost or not hasattr(self, "path"):
            self.path = self.folder / f"agent-{next(self.lives)}.sqlite"
        self.ledger = Ledger(Database(self.path))
        await self.ledger.open()
        await self.ledger.configure(1, [self.config])
        scanner = Scanner(
            self.storage,  # type: ignore[arg-type]  # the part that a scan uses
            self.ledger,
            clock=self.world.now,
            report=lambda progress: self.sender.progress(progress),  # noqa: PLW0108 - it is made below
        )
        now = asyncio.get_running_loop().time
        self.schedule = Schedule(self.ledger, scanner.scan_root, now=now, every_s=3600)
        self.sender = Sender(self.ledger, self.schedule, now=now, pause=lambda _: asyncio.sleep(0))
        self.schedule.request_all()
        self.tasks = [asyncio.create_task(self.schedule.run()), asyncio.create_task(self._session())]

    async def _session(self) -> None:
        cursor = await self.world.ingest.cursor(self.node)
        await self.sender.run(cursor, self._send)

    async def _send(self, message: AgentMessage) -> None:
        assert isinstance(message, Events | Progress)
        handed = self.world.ingest.apply if isinstance(message, Events) else self.world.ingest.progress
        answer = await handed(self.node, message)
        if answer is not None:
            self.answers.append(type(answer).__name__)
            self.sender.answered(answer)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.ledger.close()

    async def equal(self) -> None:
        """Wait until the catalogue is what the storage is."""
        stored = {key: (one.size, one.mtime, one.etag) for key, one in self.storage.objects.items()}
        async with asyncio.timeout(30):
            while await self.world.live(self.config.root) != stored:
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)
        await self.world.check(self.config.root)

    async def lose(self, count: int) -> None:
        """Take rows out of the hub's catalogue behind its back."""
        async with self.world.database.write() as connection:
            some = entries.c.root_id == self.config.root
            await connection.execute(delete(entries).where(some, entries.c.key < f"k{count:03}"))


@pytest.fixture
async def spoke(world: Any, tmp_path: Path) -> AsyncIterator[Spoke]:
    node = await world.node()
    made = Spoke(world, tmp_path, node, await world.root(node))
    for number in range(50):
        made.put(f"k{number:03}")
    await made.start()
    await made.equal()
    yield made
    await made.stop()


async def test_a_first_scan_fills_the_catalogue_and_agrees(spoke: Spoke) -> None:
    async with asyncio.timeout(20):
        while spoke.config.root in spoke.world.ingest.drifts:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert set(spoke.answers) == {"Ack"}


async def test_an_agent_that_has_lost_its_state_ends_with_the_same_catalogue(spoke: Spoke) -> None:
    await spoke.stop()
    for key in ("k001", "k049"):
        del spoke.storage.objects[key]
    spoke.put("k002", "other")
    spoke.put("new")
    await spoke.start(lost=True)
    await spoke.equal()


async def test_a_hub_restored_to_an_earlier_state_ends_with_the_same_catalogue(spoke: Spoke) -> None:
    await spoke.stop()
    async with spoke.world.database.write() as connection:
        await connection.execute(update(journals).where(journals.c.node_id == spoke.node).values(sequence=3, running=b"r" * 32))
        await connection.execute(delete(entries).where(entries.c.root_id == spoke.config.root))
        await connection.execute(update(roots).where(roots.c.id == spoke.config.root).values(objects=0, bytes=0, digest=0))
    await spoke.start()
    await spoke.equal()


async def test_a_catalogue_that_has_drifted_repairs_itself_with_the_next_scan(spoke: Spoke) -> None:
    """Rows are gone, and the totals are wrong as well: the worst a fault of the hub's own could do."""
    await spoke.lose(20)
    async with spoke.world.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == spoke.config.root).values(objects=30, bytes=30, digest=17))
    spoke.schedule.request(spoke.config.root)
    await spoke.equal()
    assert "Nak" in spoke.answers
