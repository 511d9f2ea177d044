"""Scanning: the snapshot comes to agree with storage, nothing is deleted without a look, and lies change nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from protocol.errors import RootMissing, StorageRefused, StorageUnreachable, UnknownRoot
from protocol.messages import IndexLevel, Progress, RootConfig, ScanState
from protocol.names import Layout
from spoke_agent.index import ledger, scan
from spoke_agent.index.dirty import Mark
from spoke_agent.index.ledger import Seen, Superseded
from spoke_agent.index.spans import Span
from spoke_agent.storage.node import Entry, Hint
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of


def fill(node: MemoryNode, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        node.put(1, f"f{number % 5}/k{number:04}", "x" * (number % 9))


async def scanned(bench: Bench) -> None:
    await bench.scanner.scan_root(1)
    await bench.quiet()
    await bench.sync()
    await bench.check(1)


# ---------------------------------------------------------------------------------------------------- the straight path


@pytest.mark.parametrize(
    "borders", [[""], ["", "f1/", "f3/"], ["f2/k0007", "zz"], ["f0/", "f1/", "f2/", "f3/", "f4/", "f9/"]], ids=str
)
async def test_a_scan_finds_what_is_there_what_changed_and_what_is_gone(
    bench: Bench, node: MemoryNode, borders: list[str]
) -> None:
    node.borders = borders
    fill(node, 300)
    await scanned(bench)
    rows = bench.hub.cursor.sequence
    assert rows == 300
    node.put(1, "f1/k0001", "another")
    node.delete(1, "f2/k0002")
    node.put(1, "a", "new")
    await scanned(bench)
    assert bench.hub.cursor.sequence == rows + 3
    await scanned(bench)
    assert bench.hub.cursor.sequence == rows + 3, "what did not change makes no row"


async def test_progress_is_told_from_beginning_to_end(bench: Bench, node: MemoryNode) -> None:
    fill(node, 100)
    await bench.scanner.scan_root(1)
    told = bench.progress
    assert [one.state for one in told] == [ScanState.RUNNING] * (len(told) - 1) + [ScanState.DONE]
    assert all(isinstance(one, Progress) for one in told)
    (standing,) = await bench.ledger.standings()
    assert (told[-1].objects, told[-1].sequence, told[-1].digest) == (100, 100, standing.digest)
    assert told[-1].bytes == standing.bytes == sum(number % 9 for number in range(100))


async def test_a_huge_folder_that_is_gone_is_worked_off_in_pieces(
    bench: Bench, node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(node, 500)
    await scanned(bench)
    monkeypatch.setattr(ledger, "KNOWN_AT_ONCE", 7)
    for key in list(node.objects[1]):
        if not key.endswith("3"):
            node.delete(1, key)
    await scanned(bench)
    for key in list(node.objects[1]):
        node.delete(1, key)
    await scanned(bench)


async def test_a_root_the_hub_may_not_know_is_not_scanned(bench: Bench, node: MemoryNode) -> None:
    fill(node, 5)
    for level in (IndexLevel.NONE, IndexLevel.LOCAL):
        await bench.ledger.configure(2, [config_of(1, level=level)])
        with pytest.raises(UnknownRoot):
            await bench.scanner.scan_root(1)
    assert bench.ledger.pending == 0
    assert node.requests == 0


# ---------------------------------------------------------------------------------------------------- cut off


async def test_a_scan_that_is_cut_off_goes_on_where_it_was_after_a_restart(bench: Bench, node: MemoryNode) -> None:
    fill(node, 400)
    node.borders = ["", "f2/"]
    pages = 0

    def cut(what: str) -> None:
        nonlocal pages
        pages += what == "scan"
        if pages > 25:
            raise StorageRefused("Somebody pulled the plug.")

    node.fault = cut
    with pytest.raises(StorageRefused):
        await bench.scanner.scan_root(1)
    assert bench.progress[-1].state is ScanState.FAILED
    assert bench.progress[-1].problem is not None
    done = bench.ledger.pending
    assert 150 <= done < 400
    await bench.restart()
    node.fault = lambda _: None
    pages = 0
    node.requests = 0
    await scanned(bench)
    assert node.requests < 30, "it did not begin again: 40 pages are the whole root"
    assert bench.progress[-1].objects == 400


async def test_a_storm_of_503_is_waited_out(bench: Bench, node: MemoryNode) -> None:
    fill(node, 200)
    count = 0

    def storm(what: str) -> None:
        nonlocal count
        count += what == "scan"
        if what == "scan" and count % 3:
            raise StorageUnreachable("503 Slow Down")

    node.fault = storm
    await scanned(bench)
    assert count >= 60, "20 pages, each asked for three times"


async def test_a_server_that_stays_away_ends_the_scan_with_its_reason(bench: Bench, node: MemoryNode) -> None:
    fill(node, 50)
    await scanned(bench)

    def away(what: str) -> None:
        if what == "scan":
            raise StorageUnreachable("MinIO does not answer.")

    node.fault = away
    with pytest.raises(StorageUnreachable):
        await bench.scanner.scan_root(1)
    (standing,) = await bench.ledger.standings()
    assert standing.problem is not None
    assert standing.problem.code == "storage-unreachable"
    assert standing.objects == 50, "and nothing was taken for deleted"


async def test_a_scan_goes_no_further_before_what_is_missing_has_been_looked_at(bench: Bench, node: MemoryNode) -> None:
    fill(node, 100)
    await scanned(bench)
    for key in list(node.objects[1])[::2]:
        node.delete(1, key)

    def away(what: str) -> None:
        if what == "look":
            raise StorageUnreachable("away")

    node.fault = away
    with pytest.raises(StorageUnreachable):
        await bench.scanner.scan_root(1)
    await bench.restart()
    node.fault = lambda _: None
    await bench.scanner.scan_root(1)
    assert set(await bench.ledger.known(1, Span())) == set(node.objects[1])


async def test_a_scan_that_goes_on_after_a_restart_is_followed_by_a_whole_one(bench: Bench, node: MemoryNode) -> None:
    fill(node, 200)

    def cut(_: str) -> None:
        if bench.ledger.pending > 100:
            raise StorageRefused("Somebody pulled the plug.")

    node.fault = cut
    with pytest.raises(StorageRefused):
        await bench.scanner.scan_root(1)
    node.fault = lambda _: None
    node.put(1, "a", "changed while the agent was not there, where it had listed before")
    await bench.restart()
    bench.schedule.request_all()
    await bench.quiet()
    await bench.sync()
    await bench.check(1)
    assert [one.state for one in bench.progress].count(ScanState.DONE) == 2


# ---------------------------------------------------------------------------------------------------- a root that is not itself


async def test_a_root_that_is_gone_or_made_anew_is_missing_and_never_empty(bench: Bench, node: MemoryNode) -> None:
    fill(node, 50)
    await scanned(bench)
    kept = dict(node.objects[1])
    identity = node.identities.pop(1)
    with pytest.raises(RootMissing):
        await bench.scanner.scan_root(1)
    node.make_root(1)
    with pytest.raises(RootMissing, match="made anew"):
        await bench.scanner.scan_root(1)
    with pytest.raises(RootMissing):
        await bench.scanner.confirm(config_of(1), [Mark(1, "f1/k0001")])
    assert len(await bench.ledger.known(1, Span())) == 50
    node.objects[1], node.identities[1] = kept, identity
    await scanned(bench)


async def test_a_root_replaced_in_the_middle_of_a_scan_loses_nothing(bench: Bench, node: MemoryNode) -> None:
    fill(node, 100)
    await scanned(bench)
    pages = 0

    def replace() -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            node.make_root(1)

    node.between = replace
    with pytest.raises(RootMissing):
        await bench.scanner.scan_root(1)
    assert len(await bench.ledger.known(1, Span())) == 100
    (standing,) = await bench.ledger.standings()
    assert standing.problem is not None
    assert standing.problem.code == "root-missing"


async def test_a_root_replaced_while_it_is_first_scanned_is_not_taken_for_scanned(bench: Bench, node: MemoryNode) -> None:
    fill(node, 100)
    node.between = lambda: None if len(node.objects[1]) < 100 else node.make_root(1)
    with pytest.raises(RootMissing):
        await bench.scanner.scan_root(1)
    (standing,) = await bench.ledger.standings()
    assert standing.scanned_at is None


# ---------------------------------------------------------------------------------------------------- storage that lies


class LyingNode(MemoryNode):
    """Lists whatever it is told to."""

    pages: list[list[Entry]] | None = None
    endless = False

    async def scan(self, root: RootConfig, *, start_after: str = "", prefix: str = "") -> AsyncIterator[list[Entry]]:
        if self.endless:
            while True:
                await asyncio.sleep(0)
                yield []
        if self.pages is None:
            async for page in super().scan(root, start_after=start_after, prefix=prefix):
                yield page
        for page in self.pages or ():
            yield [entry for entry in page if entry.key > start_after]


@pytest.fixture
def node() -> LyingNode:
    made = LyingNode()
    made.make_root(1)
    return made


async def test_a_listing_out_of_order_is_refused_and_deletes_nothing(bench: Bench, node: LyingNode) -> None:
    fill(node, 50)
    await scanned(bench)
    entries = list(node.objects[1].values())
    node.pages = [entries[40:], entries[:10]]
    with pytest.raises(StorageRefused, match="out of order"):
        await bench.scanner.scan_root(1)
    node.pages = None
    await scanned(bench)


async def test_an_object_the_listing_leaves_out_is_not_deleted_while_a_look_finds_it(bench: Bench, node: LyingNode) -> None:
    fill(node, 50)
    await scanned(bench)
    node.pages = [[entry for _, entry in sorted(node.objects[1].items()) if not entry.key.endswith("7")]]
    node.looked.clear()
    await bench.scanner.scan_root(1)
    assert sorted(node.looked) == sorted(key for key in node.objects[1] if key.endswith("7"))
    assert len(await bench.ledger.known(1, Span())) == 50
    node.pages = None
    await scanned(bench)


async def test_where_a_slow_look_and_a_listing_disagree_it_is_looked_again(bench: Bench, node: LyingNode) -> None:
    """The look saw what was before and came back first, so what the listing saw of that key does not count."""
    node.put(1, "a", "old")
    slow = bench.ledger.looks.at_key(1, "a")
    before = node.objects[1]["a"]
    node.put(1, "a", "new, and nobody hints")
    listing = node.scan

    async def scan(root: RootConfig, **options: str) -> AsyncIterator[list[Entry]]:
        async for page in listing(root, **options):
            await bench.ledger.accept_looks([Seen(slow, "a", before)])
            yield page

    node.scan = scan  # type: ignore[method-assign,assignment]  # one look comes back in between
    await bench.scanner.scan_root(1)
    assert bench.feed.backlog == 1
    await bench.quiet()
    await bench.sync()
    await bench.check(1)


async def test_an_endless_listing_of_nothing_is_given_up(
    bench: Bench, node: LyingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "EMPTY_PAGES", 20)
    node.endless = True
    with pytest.raises(StorageRefused, match="for ever"):
        await bench.scanner.scan_root(1)


async def test_objects_no_row_can_carry_do_not_stop_the_others(bench: Bench, node: LyingNode) -> None:
    odd = [Entry("a", -5, -1, "e" * 300), Entry("b\0", 1, 1, "e"), Entry("c", 1, 10**20, "\udcff"), Entry("d", 1, 1, "e")]
    node.pages = [odd]
    await bench.scanner.scan_root(1)
    known = await bench.ledger.known(1, Span())
    assert known == {"a": (0, 0, "e" * 200), "c": (1, 7_258_118_400_000_000_000, "?"), "d": (1, 1, "e")}
    node.objects[1] = {entry.key: entry for entry in odd}
    before = bench.ledger.pending
    await bench.scanner.confirm(config_of(1), [Mark(1, entry.key, hinted=False) for entry in odd if entry.key != "b\0"])
    assert bench.ledger.pending == before, "a look at one key says the same as a listing"


# ---------------------------------------------------------------------------------------------------- meanwhile


async def test_a_root_moved_elsewhere_in_the_middle_of_a_scan_is_scanned_again_there(bench: Bench, node: LyingNode) -> None:
    fill(node, 100)
    moved = False

    def move() -> None:
        nonlocal moved
        if not moved:
            moved = True
            moving.append(asyncio.ensure_future(bench.ledger.configure(2, [config_of(1, bucket="elsewhere")])))
            node.make_root(1)
            node.put(1, "there")

    moving: list[asyncio.Future[bool]] = []
    node.between = move
    with pytest.raises((Superseded, RootMissing)):
        await bench.scanner.scan_root(1)
    assert await moving[0]
    await scanned(bench)
    assert set(await bench.ledger.known(1, Span())) == {"there"}


async def test_a_root_that_may_no_longer_be_known_writes_no_more_names(bench: Bench, node: LyingNode) -> None:
    fill(node, 200)
    pages = 0
    told: list[asyncio.Future[bool]] = []

    def hide() -> None:
        nonlocal pages
        pages += 1
        if pages == 5:
            told.append(asyncio.ensure_future(bench.ledger.configure(2, [config_of(1, level=IndexLevel.NONE)])))

    node.between = hide
    with pytest.raises(Superseded):
        await bench.scanner.scan_root(1)
    assert await told[0]
    assert await bench.ledger.known(1, Span()) == {}
    assert bench.ledger.pending < 120


async def test_a_new_generation_in_the_middle_of_a_scan_ends_it(bench: Bench, node: LyingNode) -> None:
    fill(node, 200)
    pages = 0
    settled: list[asyncio.Future[tuple[int, bool]]] = []
    await scanned(bench)
    cursor = bench.hub.cursor
    bench.hub.cursor = type(cursor)(cursor.generation + 4, 9, b"x" * 32)

    def settle() -> None:
        nonlocal pages
        pages += 1
        if pages == 5:
            settled.append(asyncio.ensure_future(bench.ledger.settle(bench.hub.cursor)))

    node.between = settle
    with pytest.raises(Superseded):
        await bench.scanner.scan_root(1)
    assert (await settled[0])[1]
    assert bench.ledger.generation == cursor.generation + 5
    node.between = lambda: None
    await scanned(bench)


async def test_one_bucket_is_cut_at_one_place_and_many_are_cut_between_all_of_them(bench: Bench, node: MemoryNode) -> None:
    node.borders = [f"f{number}/" for number in range(9)]
    cuts: list[int] = []
    begin = bench.ledger.begin_scan

    async def begun(config: RootConfig, identity: str, spans: list[Span], at: int) -> object:
        cuts.append(len(spans))
        return await begin(config, identity, spans, at)

    bench.ledger.begin_scan = begun  # type: ignore[method-assign,assignment]  # only looks on
    for layout in (Layout.PREFIX, Layout.BUCKET):
        await bench.ledger.configure(len(cuts) + 10, [config_of(1, layout=layout)])
        fill(node, 60)
        await bench.scanner.scan_root(1)
    assert cuts == [scan.SPANS_IN_A_BUCKET, 10]


async def test_objects_of_a_root_made_anew_do_not_come_in_by_hints(bench: Bench, node: MemoryNode) -> None:
    fill(node, 20)
    await scanned(bench)
    known = await bench.ledger.known(1, Span())
    node.make_root(1)
    node.put(1, "f1/k0001", "the new root's")
    node.put(1, "new", "the new root's")
    bench.progress.clear()
    for key in ("new", "f1/k0001"):
        bench.feed.hint(Hint(1, key))
        assert await bench.feed.look_once()
    assert await bench.ledger.known(1, Span()) == known
    assert [one.state for one in bench.progress] == [ScanState.FAILED, ScanState.FAILED], "nobody had to scan it to find out"
    bench.feed.hint(Hint(1, "f1/", folder=True))
    assert await bench.feed.list_once()
    assert await bench.ledger.known(1, Span()) == known
    assert bench.feed.backlog == 0


async def test_a_long_listing_asks_now_and_then_whether_the_root_is_itself(bench: Bench, node: MemoryNode) -> None:
    fill(node, 100)
    await scanned(bench)
    known = await bench.ledger.known(1, Span())
    pages = 0

    def replace() -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            kept = dict(node.objects[1])
            node.make_root(1)
            node.objects[1] = kept | {f"f9/new{number}": entry for number, entry in enumerate(kept.values())}
            bench.time = itertools.count(next(bench.time) + 2_000_000, 1_000)

    node.between = replace
    with pytest.raises(RootMissing):
        await bench.scanner.scan_root(1)
    assert set(await bench.ledger.known(1, Span())) == set(known)
