"""Marks, tickets, spans, entries: the pure parts, and what bounds them."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import StorageRefused
from protocol.messages import Access, Accesses, Change, Events, Row
from protocol.wire import decode_agent, encode
from spoke_agent.index import accesses, looks
from spoke_agent.index.dirty import Dirty, Mark
from spoke_agent.index.entries import fits, key_fits, mended
from spoke_agent.index.looks import Looks
from spoke_agent.index.pace import Pace
from spoke_agent.index.spans import Span, apart, check_page, split
from spoke_agent.storage.node import Call, Entry

KEYS = ["".join(parts) for size in range(5) for parts in itertools.product("a/é", repeat=size)]


def entry(key: str, size: int = 1, mtime: int = 1, etag: str = "e") -> Entry:
    return Entry(key, size, mtime, etag)


# ---------------------------------------------------------------------------------------------------- marks


def covered(dirty: Dirty, root: int, key: str) -> bool:
    return (
        (root, key) in dirty._keys
        or root in dirty._roots
        or any(at == root and key.startswith(prefix) for at, prefix in dirty._folders)
    )


@pytest.mark.parametrize("seed", range(20))
def test_marks_stay_bounded_and_none_is_ever_forgotten(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    dirty = Dirty(max_keys=30, max_folders=5)
    marked = []
    for _ in range(500):
        root, folder = chance.randrange(3), "".join(chance.choice("abc") + "/" for _ in range(chance.randrange(4)))
        if chance.random() < 0.1:
            dirty.mark_folder(root, folder)
            marked.append((root, folder + "whatever"))
        else:
            key = folder + str(chance.randrange(50))
            dirty.mark_key(Mark(root, key))
            marked.append((root, key))
        assert len(dirty._keys) <= 30
        assert len(dirty._folders) <= 5
        assert all(covered(dirty, root, key) for root, key in marked)


def test_keys_come_out_once_in_the_order_in_which_they_went_in() -> None:
    dirty = Dirty()
    for key in ("b", "a", "c", "b"):
        dirty.mark_key(Mark(1, key))
    assert [mark.key for mark in dirty.take_keys(2)] == ["b", "a"]
    assert [mark.key for mark in dirty.take_keys(2)] == ["c"]
    assert len(dirty) == 0


def test_who_did_it_and_that_it_was_hinted_survive_a_second_mark() -> None:
    dirty = Dirty()
    dirty.mark_key(Mark(1, "a", "holder", hinted=True))
    dirty.mark_key(Mark(1, "a", "", hinted=False))
    assert dirty.take_keys(9) == [Mark(1, "a", "holder", hinted=True)]


def test_places_are_counted_for_each_root_and_a_whole_root_is_one() -> None:
    dirty = Dirty()
    dirty.mark_root(2)
    assert dirty.places() == {2: 1}
    dirty.mark_key(Mark(1, "a"))
    dirty.mark_folder(1, "b/")
    assert dirty.places() == {1: 2, 2: 1}


def test_a_root_that_is_gone_leaves_no_mark() -> None:
    dirty = Dirty()
    dirty.mark_key(Mark(1, "a"))
    dirty.mark_folder(1, "b/")
    dirty.mark_root(1)
    dirty.mark_key(Mark(2, "a"))
    dirty.drop_root(1)
    assert len(dirty) == 1
    assert dirty.take_roots() == []
    assert dirty.take_folder() is None


# ---------------------------------------------------------------------------------------------------- tickets


def test_of_two_looks_at_a_key_the_one_accepted_first_is_the_last_that_counts() -> None:
    tickets = Looks()
    slow, fast = tickets.at_key(1, "a"), tickets.at_key(1, "a")
    tickets.accept_key(fast, "a")
    assert not slow.counts("a")
    assert fast.counts("a")
    later = tickets.at_key(1, "a")
    assert later.counts("a")


def test_a_listing_under_way_does_not_count_where_a_look_overtook_it_and_counts_elsewhere() -> None:
    tickets = Looks()
    listing, look = tickets.at_span(1, Span("a/")), tickets.at_key(1, "a/x")
    elsewhere = tickets.at_span(1, Span("b/"))
    tickets.accept_key(look, "a/x")
    assert not listing.counts("a/x")
    assert listing.counts("a/y")
    assert elsewhere.overtaken() == (frozenset(), ())


def test_a_listing_that_was_accepted_overtakes_looks_and_listings_of_the_same_keys_only() -> None:
    tickets = Looks()
    first, second = tickets.at_span(1, Span("a/")), tickets.at_span(1, Span())
    look, other_root = tickets.at_key(1, "a/x"), tickets.at_key(2, "a/x")
    tickets.accept_span(first, Span("a/", "", "a/m"))
    assert look.counts("a/x"), "a/x lies behind what was accepted"
    tickets.accept_span(first, Span("a/", "a/m", None))
    assert not look.counts("a/x")
    assert not second.counts("a/x")
    assert second.counts("b")
    assert other_root.counts("a/x")
    assert first.counts("a/x")


def test_a_listing_overtaken_too_often_counts_for_nothing_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MAX_OVERTAKEN", 10)
    tickets = Looks()
    listing = tickets.at_span(1, Span())
    for number in range(11):
        key = f"k{number}"
        look = tickets.at_key(1, key)
        tickets.accept_key(look, key)
        tickets.end(look)
    assert listing.void
    assert not listing.counts("anything")
    assert listing.overtaken() == (frozenset(), ())


def test_looks_that_are_over_are_forgotten() -> None:
    tickets = Looks()
    for made in (tickets.at_key(1, "a"), tickets.at_key(1, "a"), tickets.at_span(1, Span())):
        tickets.end(made)
        tickets.end(made)
    assert not tickets._keys
    assert not tickets._listings


# ---------------------------------------------------------------------------------------------------- spans


@given(borders=st.lists(st.sampled_from(KEYS), max_size=6))
def test_spans_hold_every_key_exactly_once_whatever_the_borders(borders: list[str]) -> None:
    spans = split(borders)
    for key in KEYS:
        assert key == "" or sum(span.holds(key) for span in spans) == 1


SPANS = st.builds(Span, st.sampled_from(KEYS[:40]), st.sampled_from(KEYS), st.none() | st.sampled_from(KEYS))


@given(one=SPANS, other=SPANS)
def test_spans_said_to_be_apart_share_no_key(one: Span, other: Span) -> None:
    if apart(one, other):
        assert not any(one.holds(key) and other.holds(key) for key in KEYS)


@given(span=SPANS, key=st.sampled_from(KEYS))
def test_what_lies_before_a_key_and_behind_it_is_the_whole_span(span: Span, key: str) -> None:
    if span.holds(key):
        for other in KEYS:
            assert span.holds(other) == (span.until(key).holds(other) + span.after(key).holds(other))


@pytest.mark.parametrize("page", [["b", "a"], ["a", "a"], ["a", "c", "b"]], ids=str)
def test_a_page_out_of_order_or_with_a_repeat_is_refused(page: list[str]) -> None:
    with pytest.raises(StorageRefused, match="out of order"):
        check_page(Span(), [entry(key) for key in page])


def test_a_page_that_begins_before_where_it_was_to_begin_is_refused() -> None:
    with pytest.raises(StorageRefused, match="out of order"):
        check_page(Span("", "m", None), [entry("a")])


def test_entries_outside_the_span_and_keys_no_row_can_carry_are_left_out() -> None:
    page = [entry(key) for key in ("a/1", "a/2\0", "a/3" + "x" * 1022, "a/4\ud800", "b/1", "c/1")]
    assert [one.key for one in check_page(Span("", "", "b/1"), page)] == ["a/1", "b/1"]
    assert [one.key for one in check_page(Span(), page)] == ["a/1", "b/1", "c/1"]
    assert [one.key for one in check_page(Span("b/"), page)] == ["b/1"]


# ---------------------------------------------------------------------------------------------------- entries


@given(
    key=st.text(st.characters(), max_size=1100) | st.text(max_size=20),
    size=st.integers(-5, 2**64),
    mtime=st.integers(-(10**20), 10**20),
    etag=st.text(st.characters(), max_size=250),
)
def test_whatever_a_server_says_becomes_a_row_that_the_hub_can_read_or_none(key: str, size: int, mtime: int, etag: str) -> None:
    made = mended(Entry(key, size, mtime, etag))
    if made is None:
        assert not key_fits(key)
        return
    assert fits(made)
    assert made.key == key
    row = Row(Change.PUT, 1, made.key, made.size, made.mtime, made.etag)
    events = Events(1, 0, (row,), bytes(32))
    assert decode_agent(encode(events)) == events


def test_an_entry_that_fits_stays_the_very_same() -> None:
    good = entry("a", 5, 1_700_000_000_000_000_000, "d41d8cd98f00b204e9800998ecf8427e-12")
    assert mended(good) is good


@pytest.mark.parametrize(
    ("size", "mtime"), [(-1, 5), (5, -1), (5, 253_402_300_800_000_000_000)], ids=["negative", "1960", "9999"]
)
def test_sizes_and_times_that_cannot_be_said_become_the_nearest_that_can(size: int, mtime: int) -> None:
    made = mended(entry("a", size, mtime))
    assert made is not None
    assert (made.size, made.mtime) == (max(size, 0), min(max(mtime, 0), 7_258_118_400_000_000_000))


# ---------------------------------------------------------------------------------------------------- pace, accesses


async def test_a_scan_goes_no_faster_than_its_root_allows() -> None:
    waited: list[float] = []
    time = [0]

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        time[0] += int(seconds * 1_000_000)

    pace = Pace(100, lambda: time[0], pause)
    for _ in range(10):
        await pace.spend(50)
    assert sum(waited) == pytest.approx(5.0)
    time[0] += 60_000_000
    waited.clear()
    for _ in range(4):
        await pace.spend(50)
    assert sum(waited) == pytest.approx(2.0), "a rest is not saved up for a burst"
    await Pace(0, lambda: time[0], pause).spend(10**9)
    assert len(waited) == 4


def test_what_the_agent_itself_tries_with_a_key_of_its_own_is_no_access_of_the_person() -> None:
    calls = accesses.Accesses(lambda _: 7, lambda key: key == "PROBE")
    for key in ("PROBE", "THEIRS", ""):
        calls.add(Call(1, "a", "h1", "GetObject", 200, 5, key))
    assert [one.count for one in calls.take(60_000_000)] == [2]


def test_calls_are_counted_by_the_minute_and_only_those_of_people_wio_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = accesses.Accesses(lambda holder: {"h1": 7}.get(holder, 0))
    minute = 60_000_000
    for at, status in ((5, 200), (9, 403), (7, 200)):
        calls.add(Call(1, "a", "h1", "GetObject", status, at))
    calls.add(Call(1, "a", "h1", "GetObject", 200, minute + 1))
    calls.add(Call(1, "a", "stranger", "GetObject", 200, 5))
    for key in ("", "x" * 1025, "nul\0"):
        calls.add(Call(1, key, "h1", "ListObjectsV2", 200, 5))
    assert calls.take(minute - 1) == []
    assert calls.take(minute) == [Access(1, "a", 7, "GetObject", 5, 9, 3, 1)]
    assert calls.take(minute * 2) == [Access(1, "a", 7, "GetObject", minute + 1, minute + 1, 1, 0)]
    monkeypatch.setattr(accesses, "MAX_ROWS", 3)
    for number in range(10):
        calls.add(Call(1, f"{number}", "h1", "GetObject", 200, 5))
    assert calls.lost == 7
    taken = calls.take(minute, limit=2)
    assert len(taken) == 2
    assert len(calls.take(minute)) == 1
    assert decode_agent(encode(Accesses(tuple(taken)))) == Accesses(tuple(taken))
