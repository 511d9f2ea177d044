"""Hints and the schedule: what is said to have changed is looked at, whatever fails meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from protocol.errors import DiskFull, RootMissing, StorageRefused, StorageUnreachable, WioError
from protocol.messages import Change, IndexLevel
from spoke_agent.index import feed
from spoke_agent.index.feed import Feed
from spoke_agent.index.ledger import Superseded
from spoke_agent.index.schedule import Schedule
from spoke_agent.storage.node import Hint
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of, until


async def settled(bench: Bench) -> None:
    await bench.quiet()
    await bench.sync()
    await bench.check(1)


# ---------------------------------------------------------------------------------------------------- hints


async def test_a_hint_is_looked_at_and_never_believed(bench: Bench, node: MemoryNode) -> None:
    await bench.scanner.scan_root(1)
    node.put(1, "there", "x")
    for key in ("there", "not there"):
        bench.feed.hint(Hint(1, key))
    await settled(bench)
    assert {key for _, key in bench.hub.entries} == {"there"}


async def test_a_hinted_overwrite_that_looks_the_same_still_makes_a_row_with_who_did_it(bench: Bench, node: MemoryNode) -> None:
    bench.feed._who = {"h7": 7}.get  # type: ignore[assignment]  # an unknown name is not asked for here
    node.put(1, "a", "x")
    bench.feed.hint(Hint(1, "a"))
    await settled(bench)
    bench.feed.hint(Hint(1, "a", actor="h7"))
    await settled(bench)
    assert bench.hub.cursor.sequence == 2
    assert bench.hub.entries[1, "a"].actor == 7


async def test_who_deleted_something_is_said_in_its_row(bench: Bench, node: MemoryNode) -> None:
    bench.feed._who = lambda _: 7
    node.put(1, "a", "x")
    bench.feed.hint(Hint(1, "a"))
    await bench.quiet()
    node.delete(1, "a")
    bench.feed.hint(Hint(1, "a", actor="h7"))
    await bench.quiet()
    batch, _ = await bench.ledger.outgoing(0)
    assert batch is not None
    assert [(row.change, row.actor) for row in batch.rows] == [(Change.PUT, 0), (Change.DELETE, 7)]


async def test_hints_of_roots_that_are_not_indexed_here_and_of_impossible_keys_are_forgotten(
    bench: Bench, node: MemoryNode
) -> None:
    await bench.ledger.configure(2, [config_of(1), config_of(2, level=IndexLevel.NONE)])
    for hint in (Hint(2, "a"), Hint(3, "a"), Hint(2, "a/", folder=True), Hint(1, "x" * 1025), Hint(1, "nul\0"), Hint(1, "")):
        bench.feed.hint(hint)
    assert bench.feed.backlog == 0
    await bench.quiet()
    assert node.looked == []


async def test_a_hinted_folder_is_listed_and_what_is_gone_below_it_found(bench: Bench, node: MemoryNode) -> None:
    for number in range(30):
        node.put(1, f"a/b/{number}")
    node.put(1, "a/c")
    await bench.scanner.scan_root(1)
    for number in range(0, 30, 2):
        node.delete(1, f"a/b/{number}")
    node.put(1, "a/b/c/d")
    bench.feed.hint(Hint(1, "a/b/", folder=True))
    await settled(bench)


async def test_many_hints_in_one_folder_become_one_listing(
    bench: Bench, node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.scanner.scan_root(1)
    node.page = 1000
    for number in range(500):
        node.put(1, f"a/{number}")
        bench.feed.hint(Hint(1, f"a/{number}"))
    node.requests = 0
    await settled(bench)
    assert node.requests < 20, "500 looks would have been 500 requests"
    monkeypatch.setattr(feed, "LISTED_PER_LOOK", 0)
    node.put(1, "a/new")
    bench.feed.hint(Hint(1, "a/new"))
    await settled(bench)
    assert node.looked[-1] == "a/new", "a few in a large folder are looked at one by one"


async def test_a_flood_of_hints_stays_bounded_and_loses_nothing(bench: Bench, node: MemoryNode) -> None:
    node.page = 1000
    for number in range(100_000):
        key = f"{number % 3000}/{number % 7}/{number}"
        if number % 20 == 0:
            node.put(1, key)
        bench.feed.hint(Hint(1, key))
    assert bench.feed.backlog <= 21_001
    await settled(bench)


# ---------------------------------------------------------------------------------------------------- failures


async def test_marks_stay_when_looking_fails_and_a_sick_key_holds_up_no_other(bench: Bench, node: MemoryNode) -> None:
    await bench.scanner.scan_root(1)
    for number in range(300):
        node.put(1, f"{number}/k")
        bench.feed.hint(Hint(1, f"{number}/k"))
    look = node.look

    async def sick(root: object, key: str) -> object:
        if key == "7/k":
            raise StorageUnreachable("503 for this one")
        return await look(root, key)  # type: ignore[arg-type]  # handed on as it came

    node.look = sick  # type: ignore[method-assign,assignment]  # one key is sick
    for _ in range(5):
        with pytest.raises(StorageUnreachable):
            await bench.feed.look_once()
    assert [mark.key for mark in bench.feed.dirty._keys.values()] == ["7/k"]
    assert bench.ledger.pending == 299, "and the others made one row each"
    node.look = look  # type: ignore[method-assign]  # well again
    await settled(bench)


async def test_a_failure_in_one_root_does_not_lose_the_marks_of_another(bench: Bench, node: MemoryNode) -> None:
    node.make_root(2)
    await bench.ledger.configure(2, [config_of(1), config_of(2)])
    for root in (1, 2):
        node.put(root, "a")
        bench.feed.hint(Hint(root, "a"))

    def away(_: str) -> None:
        raise StorageUnreachable("away")

    node.fault = away
    with pytest.raises(StorageUnreachable):
        await bench.feed.look_once()
    assert bench.feed.backlog == 2
    node.fault = lambda _: None
    await settled(bench)
    await bench.check(2)


async def test_a_full_disk_keeps_the_marks(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    bench.feed.hint(Hint(1, "a"))
    run = bench.database.run

    async def full(_: object) -> object:
        raise DiskFull("No space left.")

    bench.database.run = full  # type: ignore[method-assign,assignment]  # the disk is full
    with pytest.raises(DiskFull):
        await bench.feed.look_once()
    bench.ledger._room.clear()  # and the journal too, so that room has to be made
    with pytest.raises(DiskFull):
        await bench.feed.look_once()
    assert bench.feed.backlog == 1
    bench.database.run = run  # type: ignore[method-assign]  # there is room again
    await settled(bench)


@pytest.mark.parametrize("error", [RootMissing("gone"), StorageRefused("no")], ids=["missing", "refused"])
async def test_what_a_look_cannot_repair_is_left_to_a_scan(bench: Bench, node: MemoryNode, error: WioError) -> None:
    await bench.scanner.scan_root(1)
    node.put(1, "a")
    node.put(1, "b/c")
    bench.feed.hint(Hint(1, "a"))
    bench.feed.hint(Hint(1, "b/", folder=True))

    def fail(_: str) -> None:
        raise error

    node.fault = fail
    assert await bench.feed.look_once()
    assert await bench.feed.list_once()
    assert bench.feed.backlog == 0
    node.fault = lambda _: None
    bench.now_s += 100
    await settled(bench)


async def test_the_loops_go_on_after_errors_and_say_what_is_wrong(bench: Bench, node: MemoryNode) -> None:
    pauses: list[float] = []
    problems: list[str] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        problems.append(str(bench.feed.problem))
        if len(pauses) == 12:
            node.fault = lambda _: None
        await asyncio.sleep(0)

    bench.feed = Feed(bench.ledger, bench.scanner, bench.schedule, pause=pause)

    def away(_: str) -> None:
        raise StorageUnreachable("MinIO is away.")

    node.fault = away
    node.put(1, "a")
    node.put(1, "b/c")
    bench.feed.hint(Hint(1, "a"))
    running = asyncio.create_task(bench.feed.run())
    await until(lambda: bench.ledger.pending == 1)
    bench.feed.hint(Hint(1, "b/", folder=True))
    await until(lambda: bench.ledger.pending == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert pauses[:12] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0]
    assert set(problems) == {"MinIO is away."}
    assert bench.feed.problem is None


# ---------------------------------------------------------------------------------------------------- a full journal


async def test_a_full_journal_holds_looking_back_and_old_news_makes_room_first(bench: Bench, node: MemoryNode) -> None:
    bench.journal_rows = 20
    await bench.restart()
    for _ in range(30):  # one key, again and again: old news of it makes room
        node.put(1, "busy")
        bench.feed.hint(Hint(1, "busy"))
        await bench.feed.look_once()
    assert bench.ledger.pending <= 20
    for number in range(60):
        node.put(1, f"{number}/k")
    scanning = asyncio.create_task(bench.scanner.scan_root(1))
    await until(lambda: bench.ledger.pending >= 20)
    async with asyncio.timeout(10):
        for _ in range(200):
            await asyncio.sleep(0)
        assert not scanning.done()
        assert bench.ledger.pending <= 20 + node.page
        while not scanning.done():
            await bench.sync()
            await asyncio.sleep(0)
    await scanning
    await settled(bench)


# ---------------------------------------------------------------------------------------------------- the schedule


class Times:
    """A clock, and a scan that does as it is told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.scans: list[int] = []
        self.results: list[Exception] = []

    async def scan(self, root: int) -> None:
        self.scans.append(root)
        if self.results:
            raise self.results.pop(0)
        self.ledger._begun[root] += 1

    def schedule(self, bench: Bench) -> Schedule:
        self.ledger = bench.ledger
        return Schedule(bench.ledger, self.scan, now=lambda: self.now, every_s=3600)


async def test_a_root_is_scanned_when_asked_and_then_from_time_to_time(bench: Bench) -> None:
    times = Times()
    schedule = times.schedule(bench)
    assert await schedule.step() is None
    schedule.request(1)
    assert schedule.waiting(1)
    assert await schedule.step() == 0.0
    assert await schedule.step() == 3600.0
    times.now += 3600
    assert await schedule.step() == 0.0
    assert times.scans == [1, 1]


async def test_what_may_pass_is_tried_again_ever_later_and_what_needs_a_person_seldom(bench: Bench) -> None:
    times = Times()
    schedule = times.schedule(bench)
    schedule.request(1)
    waits = []
    for _ in range(9):
        times.results = [StorageUnreachable("away")]
        assert await schedule.step() == 0.0
        wait = await schedule.step()
        assert wait is not None
        waits.append(wait)
        times.now += wait
    assert waits == [4, 8, 16, 32, 64, 128, 256, 300, 300]
    times.results = [RootMissing("gone")]
    await schedule.step()
    assert await schedule.step() == 300.0
    schedule.request(1)
    times.results = [StorageUnreachable("away")]
    await schedule.step()
    assert await schedule.step() == 4.0, "a person asked: it begins anew"


async def test_a_scan_overtaken_by_a_new_generation_is_made_again_at_once(bench: Bench) -> None:
    times = Times()
    schedule = times.schedule(bench)
    schedule.request(1)
    times.results = [Superseded()]
    assert [await schedule.step(), await schedule.step()] == [0.0, 0.0]
    assert times.scans == [1, 1]


async def test_asking_while_a_scan_runs_means_once_more(bench: Bench, node: MemoryNode) -> None:
    bench.schedule.request(1)
    node.between = lambda: bench.schedule.request(1)
    for number in range(25):
        node.put(1, f"{number}")
    assert await bench.schedule.step() == 0.0
    node.between = lambda: None
    assert await bench.schedule.step() == 0.0
    assert (await bench.schedule.step() or 0) > 0


async def test_a_root_taken_off_this_node_is_not_scanned_for_ever(bench: Bench) -> None:
    bench.schedule.request(99)
    assert await bench.schedule.step() == 0.0
    assert await bench.schedule.step() is None


async def test_the_schedule_wakes_for_a_request(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    running = asyncio.create_task(bench.schedule.run())
    await asyncio.sleep(0)
    bench.schedule.request(1)
    await until(lambda: bench.ledger.pending == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_hinders_listing_is_said_also_while_looking_goes_well(bench: Bench, node: MemoryNode) -> None:
    await bench.scanner.scan_root(1)

    def fail(what: str) -> None:
        if what == "scan":
            raise StorageUnreachable("no listing today")

    node.fault = fail
    bench.feed.hint(Hint(1, "b/", folder=True))
    running = asyncio.create_task(bench.feed.run())
    try:
        await until(lambda: bench.feed.problem is not None)
        node.put(1, "a")
        bench.feed.hint(Hint(1, "a"))
        await until(lambda: "a" in node.looked and not bench.feed._looking)
        assert str(bench.feed.problem).startswith("no listing today")
        node.fault = lambda _: None
        await until(lambda: bench.feed.problem is None and bench.feed.backlog == 0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
