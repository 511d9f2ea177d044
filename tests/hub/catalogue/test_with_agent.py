"""The agent's own scanner, ledger and sender against the hub's ingest: the catalogue equals storage, whatever was lost."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, select, update

from hub.db import catalogue, kept
from hub.db.database import Database as HubDatabase
from hub.db.proofs import Open
from hub.db.tables import audit, entries, journals, roots
from hub.services import repairing as repairs
from hub.services.audit import Audit
from hub.services.counting import Counting, next_root
from hub.services.repairing import Repairing
from protocol.errors import NodeOffline
from protocol.messages import (
    AgentMessage,
    Answer,
    Asking,
    Digests,
    Done,
    Events,
    IndexLevel,
    Progress,
    Recheck,
    RootConfig,
    Scan,
)
from protocol.names import Layout
from spoke_agent.index import proofs
from spoke_agent.index.database import Database
from spoke_agent.index.ledger import Ledger
from spoke_agent.index.proofs import Proofs
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
        self.database = Database(self.path)
        self.ledger = Ledger(self.database)
        await self.ledger.open()
        await self.ledger.configure(1, [self.config])
        scanner = Scanner(
            self.storage,  # type: ignore[arg-type]  # the part that a scan uses
            self.ledger,
            clock=self.world.now,
            report=lambda progress: self.sender.progress(progress),  # noqa: PLW0108 - it is made below
        )
        self.proofs = Proofs(self.storage, self.ledger, scanner, clock=self.world.now)  # type: ignore[arg-type]  # as above
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


class Asked:
    """Carries requests to the one agent (``ports.Agents``); ``fault`` is called before each and may raise."""

    def __init__(self, spoke: Spoke) -> None:
        self._spoke = spoke
        self.asked: list[Asking] = []
        self.fault: Callable[[Asking], None] = lambda _: None

    def online(self, node: int) -> bool:
        return node == self._spoke.node

    async def ask(self, node: int, make: Callable[[int, int], Asking], *, deadline_s: float) -> Answer:
        assert node == self._spoke.node
        request = make(1, round(deadline_s * 1000))
        self.asked.append(request)
        self.fault(request)
        match request:
            case Digests():
                return await self._spoke.proofs.digests(request)
            case Recheck():
                await self._spoke.proofs.recheck(request)
            case Scan():
                self._spoke.schedule.request(request.root)
        return Done(request.request)

    def rechecked(self) -> int:
        return sum(isinstance(one, Recheck) for one in self.asked)


@pytest.fixture
def agents(spoke: Spoke) -> Asked:
    return Asked(spoke)


@pytest.fixture
def repairing(spoke: Spoke, agents: Asked, monkeypatch: pytest.MonkeyPatch) -> Repairing:
    monkeypatch.setattr(repairs, "RANGES", 8)
    monkeypatch.setattr(repairs, "LEAF", 2)
    world = spoke.world
    return Repairing(
        database=world.database,
        agents=agents,  # type: ignore[arg-type]  # the part that a repair uses
        clock=world,
        audit=Audit(database=world.database, clock=world),
        settled=world.ingest.settled,
        begin_anew=world.ingest.begin_anew,
    )


async def drifted(spoke: Spoke) -> None:
    """Scan, and wait until the drift is noted."""
    spoke.schedule.request(spoke.config.root)
    async with asyncio.timeout(20):
        while spoke.config.root not in spoke.world.ingest.drifts:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def wrong_totals(spoke: Spoke, **values: int) -> None:
    async with spoke.world.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == spoke.config.root).values(**values))


async def test_a_catalogue_that_has_drifted_is_repaired_by_ranges(spoke: Spoke, repairing: Repairing) -> None:
    """Rows are gone, and the totals are wrong as well: the worst a fault of the hub's own could do."""
    await spoke.lose(3)
    await wrong_totals(spoke, objects=30, bytes=30, digest=17)
    await drifted(spoke)
    rows = spoke.ledger.pending
    assert await repairing.step() == 1
    await spoke.equal()
    assert spoke.config.root not in spoke.world.ingest.drifts
    assert "Nak" not in spoke.answers
    assert spoke.ledger.pending - rows <= 12
    assert await repairing.step() == 0
    told = await audited(spoke)
    assert told == ["root.repair"]


async def audited(spoke: Spoke) -> list[str]:
    async with spoke.world.database.read() as connection:
        found = await connection.scalars(select(audit.c.action).where(audit.c.node_id == spoke.node))
    return list(found)


async def test_ghosts_and_wrong_contents_on_the_hub_go(spoke: Spoke, repairing: Repairing) -> None:
    async with spoke.world.database.write() as connection:
        for key, size in (("a-ghost", 9), ("k010x", 9), ("z", 9), ("k020", 7)):
            revision = await HubDatabase.take_revisions(connection, 1)
            ghost = catalogue.Entry(spoke.config.root, key, 0, size, 1, "ghost", 0, revision, False, 1)
            await catalogue.store(connection, [ghost])
    await wrong_totals(spoke, digest=1)
    await drifted(spoke)
    assert await repairing.step() == 1
    await spoke.equal()


async def test_a_catalogue_that_lost_everything_has_it_said_again(spoke: Spoke, repairing: Repairing) -> None:
    await spoke.lose(999)
    await wrong_totals(spoke, objects=0, bytes=0, digest=0)
    await drifted(spoke)
    assert await repairing.step() == 1
    await spoke.equal()
    assert "Nak" not in spoke.answers


async def test_where_very_much_is_known_it_is_said_again_without_a_look(
    spoke: Spoke, repairing: Repairing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "LOOKED_AT", 5)
    monkeypatch.setattr(proofs, "SAID_AT_ONCE", 7)
    await spoke.lose(999)
    await wrong_totals(spoke, objects=0, bytes=0, digest=0)
    await drifted(spoke)
    assert await repairing.step() == 1
    await spoke.equal()


async def test_totals_that_are_wrong_on_the_hub_are_counted_again_and_nothing_is_looked_at(
    spoke: Spoke, repairing: Repairing, agents: Asked
) -> None:
    await wrong_totals(spoke, objects=1, bytes=1, digest=17)
    await drifted(spoke)
    assert await repairing.step() == 1
    assert agents.rechecked() == 0
    await spoke.equal()


async def test_totals_that_are_wrong_at_the_agent_are_counted_again_and_nothing_is_looked_at(
    spoke: Spoke, repairing: Repairing, agents: Asked
) -> None:
    await spoke.database.run(lambda connection: connection.execute("UPDATE root SET digest = digest - 1, objects = 7"))
    await drifted(spoke)
    assert await repairing.step() == 1
    assert agents.rechecked() == 0
    spoke.schedule.request(spoke.config.root)
    spoke.put("another")
    await spoke.equal()
    assert spoke.config.root not in spoke.world.ingest.drifts


async def test_a_repair_that_is_cut_off_is_begun_again(spoke: Spoke, repairing: Repairing, agents: Asked) -> None:
    async with spoke.world.database.write() as connection:
        await connection.execute(update(entries).where(entries.c.root_id == spoke.config.root).values(size=77))
    await wrong_totals(spoke, digest=17)
    await drifted(spoke)

    def gone(request: Asking) -> None:
        if isinstance(request, Recheck) and agents.rechecked() > 2:
            raise NodeOffline("It is gone.")

    agents.fault = gone
    assert await repairing.step() == 0
    agents.fault = lambda _: None
    assert await repairing.step() == 1
    await spoke.equal()


async def test_what_ranges_cannot_heal_gets_a_new_journal(spoke: Spoke, repairing: Repairing, agents: Asked) -> None:
    async def deaf(request: Recheck) -> None:
        del request

    spoke.proofs.recheck = deaf  # type: ignore[method-assign]  # it says that it looks, and does not
    await spoke.lose(20)
    await wrong_totals(spoke, digest=17)
    await drifted(spoke)
    assert await repairing.step() == 0
    await spoke.equal()
    assert "Nak" in spoke.answers
    assert isinstance(agents.asked[-1], Scan)


async def test_many_histories_of_tampering_end_equal(spoke: Spoke, repairing: Repairing) -> None:
    chance = random.Random(5)  # noqa: S311 - repeatable on purpose
    for _ in range(6):
        async with spoke.world.database.write() as connection:
            mine = entries.c.root_id == spoke.config.root
            for key in chance.sample(sorted(spoke.storage.objects), 8):
                change = chance.choice(["delete", "size", "gone"])
                here = (mine, entries.c.key == key)
                if change == "delete":
                    await connection.execute(delete(entries).where(*here))
                elif change == "size":
                    await connection.execute(update(entries).where(*here).values(size=entries.c.size + 1))
                else:
                    await connection.execute(update(entries).where(*here).values(gone=True))
        await wrong_totals(spoke, digest=chance.getrandbits(62))
        await drifted(spoke)
        spoke.put(f"new{chance.random()}")
        assert await repairing.step() == 1
        spoke.schedule.request(spoke.config.root)
        await spoke.equal()


class Days:
    """The world's clock, some days on."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.days = 0

    def now(self) -> int:
        return int(self._world.now()) + self.days * 86_400_000_000


async def counted(counting: Counting) -> list[int]:
    """Count every root whose day is over."""
    done = []
    while (root := await counting.step()) is not None:
        done.append(root)
    return done


async def scanned(spoke: Spoke) -> None:
    """Scan, and wait until that is done."""
    began = spoke.world.now()
    spoke.schedule.request(spoke.config.root)
    async with asyncio.timeout(20):
        while ((await spoke.ledger.standings())[0].scanned_at or 0) < began:  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


async def test_what_was_changed_while_all_totals_fit_is_found_by_counting_and_repaired(
    spoke: Spoke, repairing: Repairing, agents: Asked
) -> None:
    world, clock, mine = spoke.world, Days(spoke.world), spoke.config.root
    told: list[str] = []

    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    counting = Counting(database=world.database, clock=clock, drifted=lambda: told.append("drifted"), pause=pause)
    assert mine in await counted(counting)
    async with world.database.write() as connection:
        here = entries.c.root_id == mine
        await connection.execute(update(entries).where(here, entries.c.key == "k007").values(etag="forged"))
        await connection.execute(delete(entries).where(here, entries.c.key == "k008"))
    await scanned(spoke)
    assert mine not in world.ingest.drifts  # a scan does not see it
    assert await counted(counting) == []  # its day is not over
    assert await repairing.step() == 0
    clock.days += 1
    told.clear()
    assert mine in await counted(counting)
    assert "drifted" in told
    assert await repairing.step() == 1
    assert agents.rechecked() > 0
    await spoke.equal()


def test_the_root_that_waited_longest_comes_first_and_none_before_its_day() -> None:
    day, now = 86_400_000_000, 10**15
    made = [Open(root, 1, now - 3 * day) for root in (1, 2, 3)]
    found = next_root(made, {1: now - day, 2: now - 2 * day, 3: now - day + 1}, now)
    assert found is not None
    assert found.root == 2
    assert next_root([made[2]], {3: now - day + 1}, now) is None
    assert next_root([Open(4, 1, now - day + 1)], {}, now) is None
    assert next_root([made[0]], {}, now) == made[0]
    assert next_root([made[0]], {1: now + 365 * day}, now) == made[0], "a time to come does not put it off"


async def test_what_is_kept_of_counts_may_be_damaged_and_forgets_roots_that_are_gone(spoke: Spoke) -> None:
    world, clock = spoke.world, Days(spoke.world)
    counting = Counting(database=world.database, clock=clock)
    async with world.database.write() as connection:
        await kept.put(connection, {"counted roots": b"no msgpack"})
    assert spoke.config.root in await counted(counting)
    async with world.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == spoke.config.root).values(retired_at=1))
    clock.days += 1
    assert spoke.config.root not in await counted(counting)
    async with world.database.read() as connection:
        body = await kept.get(connection, "counted roots")
    assert spoke.config.root not in msgspec.msgpack.decode(body)
