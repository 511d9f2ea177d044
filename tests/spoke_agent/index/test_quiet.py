"""In quiet hours no scan runs: what is under way stops at its next page and goes on after them, unless a person asks."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from protocol.messages import RootActivity
from spoke_agent.index.dirty import MAX_FOLDERS, MAX_KEYS
from spoke_agent.index.scan import Scanner
from spoke_agent.index.schedule import HELD_S, Schedule
from spoke_agent.index.states import States
from spoke_agent.storage.node import Hint

from .conftest import Bench, MemoryNode, config_of


@pytest.fixture
def hours(bench: Bench) -> Any:
    """Quiet hours that a test begins and ends: ``hours.left_s``, by root."""

    class Hours:
        def __init__(self) -> None:
            self.left_s: dict[int, float] = {}

    made = Hours()
    bench.schedule = Schedule(
        bench.ledger,
        lambda root: bench.scanner.scan_root(root),  # noqa: PLW0108 - it is made below
        now=lambda: bench.now_s,
        every_s=3600,
        quiet_s=lambda root: made.left_s.get(root, 0.0),
    )
    bench.scanner = Scanner(
        bench.node,  # type: ignore[arg-type]  # the part that the index uses
        bench.ledger,
        clock=lambda: next(bench.time),
        pause=lambda _: asyncio.sleep(0),
        report=bench.progress.append,
        held=bench.schedule.held,
    )
    bench.feed._scanner, bench.feed._schedule = bench.scanner, bench.schedule
    return made


def states(bench: Bench) -> States:
    return States(bench.ledger, bench.schedule, bench.feed, clock=lambda: 1_800_000_000_000_000)


async def test_a_scan_stops_at_its_next_page_and_goes_on_after_quiet_hours(bench: Bench, node: MemoryNode, hours: Any) -> None:
    for number in range(55):
        node.put(1, f"k{number:02}")
    pages = []

    def begin() -> None:
        pages.append(1)
        if len(pages) == 2:
            hours.left_s[1] = 3600.0

    node.between = begin
    bench.schedule.request(1)
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert 0 < standing.scan_objects < 55
    assert standing.problem is None
    assert standing.scanned_at is None
    assert await bench.schedule.step() == HELD_S
    (state,) = await states(bench).look()
    assert (state.activity, state.dirty > 0) == (RootActivity.WAITING, True)
    assert state.next_scan_at == 1_800_000_000_000_000 + 3600 * 1_000_000
    hours.left_s.clear()
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert standing.objects == 55
    await bench.quiet()
    await bench.sync()
    await bench.check(1)


async def test_hints_are_looked_at_in_quiet_hours(bench: Bench, node: MemoryNode, hours: Any) -> None:
    hours.left_s[1] = 3600.0
    bench.schedule.request(1)
    for number in range(300):
        node.put(1, f"many/{number}")
        bench.feed.hint(Hint(1, f"many/{number}"))
    node.put(1, "a/b")
    bench.feed.hint(Hint(1, "a/", folder=True))
    while await bench.feed.look_once() or await bench.feed.list_once():
        pass
    assert await bench.schedule.step() == HELD_S
    (standing,) = await bench.ledger.standings()
    assert standing.objects == 301


async def test_what_a_person_asks_for_runs_at_once_and_only_this_once(bench: Bench, node: MemoryNode, hours: Any) -> None:
    hours.left_s[1] = 3600.0
    node.put(1, "a")
    bench.schedule.request(1, person=True)
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert standing.objects == 1
    bench.schedule.request(1)
    assert await bench.schedule.step() == HELD_S
    bench.schedule.insist(1)
    assert await bench.schedule.step() == 0.0
    bench.now_s += 3601
    assert await bench.schedule.step() == HELD_S, "the next one is the schedule's own again"


async def test_one_roots_quiet_hours_hold_up_no_other(bench: Bench, node: MemoryNode, hours: Any) -> None:
    node.make_root(2)
    await bench.ledger.configure(2, [config_of(1), config_of(2)])
    hours.left_s[1] = 30.0
    bench.schedule.request(1)
    bench.schedule.request(2)
    assert await bench.schedule.step() == 0.0
    by_root = {one.root: one for one in await bench.ledger.standings()}
    assert by_root[2].scanned_at is not None
    assert by_root[1].scanned_at is None
    assert await bench.schedule.step() == 30.0


async def test_a_root_is_as_fresh_as_what_is_still_to_be_looked_at(bench: Bench, node: MemoryNode, hours: Any) -> None:
    del hours
    look = states(bench).look
    node.put(1, "a")
    bench.schedule.request(1)
    (state,) = await look()
    assert (state.activity, state.scanned_at, state.dirty) == (RootActivity.WAITING, 0, 1)
    await bench.quiet()
    (state,) = await look()
    assert (state.activity, state.dirty) == (RootActivity.IDLE, 0)
    (standing,) = await bench.ledger.standings()
    assert state.scanned_at == standing.scan_started_at, "everything up to its beginning is known, not up to its end"
    assert state.next_scan_at == 1_800_000_000_000_000 + 3600 * 1_000_000
    bench.feed.hint(Hint(1, "b"))
    assert (await look())[0].dirty == 1
    await bench.quiet()
    del node.identities[1]
    bench.schedule.request(1)
    await bench.schedule.step()
    (state,) = await look()
    assert (state.activity, state.dirty) == (RootActivity.MISSING, 1)


async def test_a_person_who_asks_for_a_scan_makes_nothing_look_old(bench: Bench, node: MemoryNode, hours: Any) -> None:
    del hours
    node.put(1, "a")
    await bench.quiet()
    bench.schedule.request(1, person=True)
    (state,) = await states(bench).look()
    assert state.dirty == 0


async def test_a_flood_of_hints_stays_bounded_and_everything_is_found_after_it(bench: Bench, node: MemoryNode) -> None:
    node.page = 1000
    for number in range(22_000):
        node.put(1, f"d{number % 120}/f{number}")
    most = 0
    for number in range(22_000):
        bench.feed.hint(Hint(1, f"d{number % 120}/f{number}"))
        if number % 500 == 0:
            most = max(most, len(bench.feed.dirty))
    assert most <= MAX_KEYS + MAX_FOLDERS
    await bench.quiet()
    await bench.sync()
    await bench.check(1)
    assert bench.feed.backlog == 0


# ---------------------------------------------------------------------------------------------------- a restart


def _quiet_again(bench: Bench, left_s: float = 3600.0) -> None:
    """Give the parts that a restart has made quiet hours that hold now."""
    bench.schedule = Schedule(
        bench.ledger, bench.scanner.scan_root, now=lambda: bench.now_s, every_s=3600, quiet_s=lambda _: left_s
    )
    bench.scanner._held = bench.schedule.held
    bench.feed._schedule = bench.schedule


class Killed(Exception):
    pass


async def _cut_at_page(bench: Bench, node: MemoryNode, page: int) -> None:
    """Scan until so many pages are in, then be killed."""
    pages = itertools.count(1)

    def cut() -> None:
        if next(pages) == page:
            raise Killed

    node.between = cut
    with pytest.raises(Killed):
        await bench.scanner.scan_root(1)
    node.between = lambda: None
    await bench.restart()


async def test_a_scan_that_a_person_asked_for_goes_on_after_a_restart_whatever_the_hours(
    bench: Bench, node: MemoryNode
) -> None:
    for number in range(55):
        node.put(1, f"k{number:02}")
    _quiet_again(bench)
    bench.schedule.insist(1)
    await bench.schedule.remember()
    await _cut_at_page(bench, node, 3)
    _quiet_again(bench)
    await bench.schedule.recall()
    bench.schedule.request_all(after_s=5.0)
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert (standing.objects, standing.scanned_at is not None) == (55, True)
    assert await bench.schedule.step() == HELD_S, "what the start itself asks for waits for the end of the hours"
    assert await bench.ledger.wishes() == []
    await bench.restart()
    _quiet_again(bench)
    await bench.schedule.recall()
    bench.schedule.request(1)
    assert await bench.schedule.step() == HELD_S


async def test_a_wish_whose_turn_had_not_come_is_not_forgotten_by_a_restart(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    _quiet_again(bench)
    bench.schedule.request(1, person=True)
    await bench.schedule.remember()
    await bench.restart()
    _quiet_again(bench)
    await bench.schedule.recall()
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert standing.objects == 1


async def test_a_wish_goes_with_its_root(bench: Bench) -> None:
    await bench.ledger.wish(1)
    await bench.ledger.configure(2, [])
    assert await bench.ledger.wishes() == []


async def test_a_scan_that_nobody_asked_for_waits_after_a_restart_in_quiet_hours_and_goes_on_where_it_was(
    bench: Bench, node: MemoryNode
) -> None:
    for number in range(55):
        node.put(1, f"k{number:02}")
    await _cut_at_page(bench, node, 3)
    (standing,) = await bench.ledger.standings()
    there = standing.scan_objects
    assert 0 < there < 55
    _quiet_again(bench)
    await bench.schedule.recall()
    bench.schedule.request_all()
    assert await bench.schedule.step() == HELD_S
    _quiet_again(bench, 0.0)
    bench.schedule.request_all()
    node.requests = 0
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert standing.objects == 55
    assert await bench.schedule.step() == 0.0, "what it had listed before the restart may have changed: it is scanned once more"
    assert (await bench.schedule.step() or 0.0) > 0.0


async def test_the_start_scans_every_root_once_also_those_that_were_scanned(bench: Bench, node: MemoryNode) -> None:
    node.make_root(2)
    await bench.ledger.configure(2, [config_of(1), config_of(2)])
    for root in (1, 2):
        node.put(root, "a")
    bench.schedule.request_all()
    await bench.quiet()
    node.delete(1, "a")
    node.put(2, "b")
    await bench.restart()
    bench.schedule.request_all(after_s=5.0)
    assert await bench.schedule.step() == 5.0, "as long as the storage server may not report changes yet"
    bench.now_s = 5.0
    await bench.quiet()
    await bench.sync()
    assert {(root, key) for root, key in bench.hub.entries} == {(2, "a"), (2, "b")}


async def test_when_the_server_reports_again_the_scan_of_the_start_begins_at_once(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    bench.schedule.request_all(after_s=5.0)
    bench.schedule.request_all()
    assert await bench.schedule.step() == 0.0
    (standing,) = await bench.ledger.standings()
    assert standing.objects == 1
