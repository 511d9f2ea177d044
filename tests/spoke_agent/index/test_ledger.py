"""Snapshot and journal together: what each transaction of theirs promises to the rest of the agent."""

from __future__ import annotations

import asyncio

import pytest

from protocol.digest import EMPTY_RUN
from protocol.errors import UnknownRoot
from protocol.messages import Cursor, IndexLevel
from spoke_agent.index.ledger import Seen, Superseded
from spoke_agent.index.spans import Span
from spoke_agent.storage.node import Entry, Hint
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of


def entry(key: str, size: int = 1, mtime: int = 1, etag: str = "e") -> Entry:
    return Entry(key, size, mtime, etag)


# ---------------------------------------------------------------------------------------------------- looks


async def test_a_look_that_was_overtaken_changes_nothing_and_is_given_back(bench: Bench) -> None:
    ledger = bench.ledger
    slow, fast = ledger.looks.at_key(1, "a"), ledger.looks.at_key(1, "a")
    assert await ledger.accept_looks([Seen(fast, "a", entry("a", 2, 2))]) == []
    stale = Seen(slow, "a", None)
    assert await ledger.accept_looks([stale]) == [stale]
    assert await ledger.known(1, Span()) == {"a": (2, 2, "e")}


async def test_a_page_does_not_overwrite_what_a_later_look_saw_and_doubts_where_they_differ(bench: Bench) -> None:
    ledger = bench.ledger
    listing = ledger.looks.at_span(1, Span())
    for key, found in (("changed", entry("changed", 9, 9)), ("gone", None), ("new", entry("new", 9, 9))):
        await ledger.accept_looks([Seen(ledger.looks.at_key(1, key), key, found)])
    page = [entry("changed"), entry("gone"), entry("other")]
    listed = await ledger.accept_page(listing, ledger.generation, Span(), page, step=None)
    assert set(listed.doubtful) == {"changed", "gone", "new"}
    assert listed.missing == ()
    assert await ledger.known(1, Span()) == {"changed": (9, 9, "e"), "new": (9, 9, "e"), "other": (1, 1, "e")}


async def test_a_look_that_a_page_overtook_changes_nothing(bench: Bench) -> None:
    ledger = bench.ledger
    slow = ledger.looks.at_key(1, "a"), ledger.looks.at_key(1, "gone")
    listing = ledger.looks.at_span(1, Span())
    await ledger.accept_page(listing, ledger.generation, Span(), [entry("a", 2, 2)], step=None)
    stale = [Seen(slow[0], "a", entry("a")), Seen(slow[1], "gone", entry("gone"))]
    assert await ledger.accept_looks(stale) == stale
    assert await ledger.known(1, Span()) == {"a": (2, 2, "e")}


async def test_a_page_says_what_is_missing_and_deletes_nothing_itself(bench: Bench) -> None:
    ledger = bench.ledger
    for key in ("a", "b", "c"):
        await ledger.accept_looks([Seen(ledger.looks.at_key(1, key), key, entry(key))])
    listing = ledger.looks.at_span(1, Span())
    listed = await ledger.accept_page(listing, ledger.generation, Span().until("b"), [entry("b")], step=None)
    assert listed.missing == ("a",)
    assert set(await ledger.known(1, Span())) == {"a", "b", "c"}


async def test_a_page_of_a_generation_that_is_over_is_superseded(bench: Bench) -> None:
    listing = bench.ledger.looks.at_span(1, Span())
    with pytest.raises(Superseded):
        await bench.ledger.accept_page(listing, bench.ledger.generation + 1, Span(), [entry("a")], step=None)
    assert bench.ledger.pending == 0


# ---------------------------------------------------------------------------------------------------- roots


async def test_a_root_that_is_taken_away_takes_its_objects_with_it_and_an_older_word_changes_nothing(
    bench: Bench, node: MemoryNode
) -> None:
    node.make_root(2)
    node.put(2, "a")
    assert await bench.ledger.configure(5, [config_of(1), config_of(2)])
    await bench.scanner.scan_root(2)
    assert not await bench.ledger.configure(4, [])
    assert len(bench.ledger.configs()) == 2
    assert await bench.ledger.configure(5, [config_of(1)])
    assert await bench.ledger.known(2, Span()) == {}
    with pytest.raises(UnknownRoot):
        bench.ledger.config(2)
    await bench.restart()
    assert [config.root for config in bench.ledger.configs()] == [1]


async def test_a_root_set_to_none_forgets_its_objects_and_knows_them_again_after_a_scan(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    await bench.scanner.scan_root(1)
    await bench.ledger.limit(lambda _: config_of(1, level=IndexLevel.NONE))
    assert await bench.ledger.known(1, Span()) == {}
    (standing,) = await bench.ledger.standings()
    assert (standing.objects, standing.bytes, standing.digest, standing.scanned_at) == (0, 0, 0, None)
    await bench.ledger.configure(1, [config_of(1)])
    await bench.scanner.scan_root(1)
    assert set(await bench.ledger.known(1, Span())) == {"a"}


# ---------------------------------------------------------------------------------------------------- the hub


async def test_standings_come_where_everything_before_them_has_been_taken(bench: Bench, node: MemoryNode) -> None:
    for number in range(5_000):
        node.put(1, f"{number:05}")
    node.page = 1000
    await bench.scanner.scan_root(1)
    first, none = await bench.ledger.outgoing(0, [1])
    assert first is not None
    assert (first.end, none) == (4_000, [])
    last, standings = await bench.ledger.outgoing(4_000, [1])
    assert last is not None
    assert (last.end, standings[0].sequence) == (5_000, 5_000)
    nothing, again = await bench.ledger.outgoing(5_000, [1])
    assert nothing is None
    assert again == standings


async def test_whoever_sends_is_woken_by_rows_and_by_nothing_else(bench: Bench, node: MemoryNode) -> None:
    bench.ledger.changed.clear()
    node.put(1, "a")
    bench.feed.hint(Hint(1, "a"))
    await bench.quiet()
    assert bench.ledger.changed.is_set()
    bench.ledger.changed.clear()
    await bench.ledger.outgoing(0)
    await bench.ledger.standings()
    assert not bench.ledger.changed.is_set()
    await bench.ledger.settle(Cursor(9, 9, b"x" * 32))
    assert bench.ledger.changed.is_set(), "a new generation is news"


async def test_what_is_known_outlives_a_restart_and_the_hub_goes_on_where_it_was(bench: Bench, node: MemoryNode) -> None:
    for number in range(50):
        node.put(1, f"{number}")
    await bench.scanner.scan_root(1)
    batch, _ = await bench.ledger.outgoing(0)
    assert batch is not None
    bench.hub.apply(batch.generation, batch.first, batch.rows, batch.running)  # the hub has it, and could not say so
    await bench.restart()
    after, new = await bench.ledger.settle(bench.hub.cursor)
    assert (after, new) == (50, False)
    assert bench.ledger.pending == 0
    await bench.check(1)


async def test_an_agent_restored_from_yesterday_is_found_out_by_its_numbers(bench: Bench, node: MemoryNode) -> None:
    """Its journal has the same numbers again, with other rows: the hash gives it away."""
    node.put(1, "a")
    await bench.scanner.scan_root(1)
    await bench.sync()
    hub = bench.hub.cursor
    await bench.stop()
    saved = {file.name: file.read_bytes() for file in bench.path.parent.iterdir()}  # type: ignore[union-attr]  # a Path here
    await bench.start()
    node.put(1, "b")
    await bench.scanner.scan_root(1)
    await bench.sync()
    await bench.stop()
    for name, body in saved.items():
        (bench.path.parent / name).write_bytes(body)  # type: ignore[union-attr]  # a Path here
    await bench.start()
    assert bench.hub.cursor.sequence == hub.sequence + 1
    node.put(1, "c")
    node.delete(1, "b")
    await bench.scanner.scan_root(1)
    _, new = await bench.ledger.settle(bench.hub.cursor)
    assert new
    bench.schedule.request_all()
    await bench.quiet()
    await bench.sync()
    await bench.check(1)
    assert bench.hub.cursor.generation == hub.generation + 1


async def test_room_waits_for_the_hub_and_no_longer(bench: Bench, node: MemoryNode) -> None:
    bench.journal_rows = 5
    await bench.restart()
    for number in range(6):
        node.put(1, f"{number}")
        bench.feed.hint(Hint(1, f"{number}"))
    await bench.quiet()
    waiting = asyncio.create_task(bench.ledger.room())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    await bench.sync()
    await asyncio.wait_for(waiting, 10)
    assert bench.hub.cursor.running != EMPTY_RUN
