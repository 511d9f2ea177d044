"""The journal: rows keep their order, their numbers once sent, and their hash; what does not fit begins a new generation."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator

import msgspec
import pytest

from protocol.digest import EMPTY_RUN, run_on
from protocol.messages import MAX_FRAME, Change, Cursor, Events, Row
from protocol.wire import encode
from spoke_agent.index import journal
from spoke_agent.index.database import SCHEMA
from spoke_agent.index.journal import Agreement


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript(SCHEMA)
    yield made
    made.close()


def rows(count: int, start: int = 0, *, keys: int = 10**9) -> list[Row]:
    return [Row(Change.PUT, 1, f"key{number % keys}", number, number, "e") for number in range(start, start + count)]


def read(connection: sqlite3.Connection, after: int, **limits: int) -> list[journal.Batch]:
    """Read to the end, as a sender does."""
    found = []
    values = {"max_rows": 4000, "max_bytes": 800_000, **limits}
    while (batch := journal.next_batch(connection, after, **values)) is not None:  # type: ignore[arg-type]  # whole numbers
        found.append(batch)
        after = batch.end
    return found


def cursor(connection: sqlite3.Connection, sequence: int) -> Cursor:
    """What a hub has that took the rows before ``sequence``."""
    running = journal.running_at(connection, sequence)
    assert running is not None
    return Cursor(journal.head(connection).generation, sequence, running)


# ---------------------------------------------------------------------------------------------------- in and out


@pytest.mark.parametrize("sizes", [[1], [999, 1, 1000, 1001], [3500], [1] * 50], ids=str)
@pytest.mark.parametrize("limits", [{}, {"max_rows": 1}, {"max_rows": 7}, {"max_bytes": 1}, {"max_rows": 1500}], ids=str)
def test_what_goes_in_comes_out_in_order_with_the_hash_after_every_batch(
    connection: sqlite3.Connection, sizes: list[int], limits: dict[str, int]
) -> None:
    if limits.get("max_rows") == 1 and sum(sizes) > 1000:
        sizes = [300]
    written: list[Row] = []
    for size in sizes:
        written += rows(size, len(written))
        journal.append(connection, written[-size:])
    batches = read(connection, 0, **limits)
    assert [row for batch in batches for row in batch.rows] == written
    running = EMPTY_RUN
    for batch in batches:
        running = run_on(running, batch.rows)
        assert batch.running == running
        assert len(batch.rows) <= limits.get("max_rows", 4000)
    assert journal.head(connection).running == running


def test_a_batch_of_the_longest_keys_fits_a_frame(connection: sqlite3.Connection) -> None:
    long = [
        Row(Change.PUT, 2**53 - 1, f"{number:04}" + "ü" * 510, 2**63 - 1, 7 * 10**18, "e" * 200, 1) for number in range(3000)
    ]
    journal.append(connection, long)
    batches = read(connection, 0)
    assert len(batches) > 1
    for batch in batches:
        assert len(encode(Events(batch.generation, batch.first, batch.rows, batch.running))) + 72 <= MAX_FRAME


def test_reading_from_the_middle_of_a_chunk_gives_the_right_rows_and_hash(connection: sqlite3.Connection) -> None:
    written = rows(2500)
    journal.append(connection, written)
    for after in (1, 999, 1000, 1001, 2499):
        (batch,) = read(connection, after)
        assert list(batch.rows) == written[after:]
        assert batch.running == run_on(EMPTY_RUN, written)
    assert read(connection, 2500) == []
    batch = journal.next_batch(connection, 10, max_rows=4000, max_bytes=10**6, until=20)
    assert batch is not None
    assert list(batch.rows) == written[10:20]
    assert batch.running == run_on(EMPTY_RUN, written[:20])


# ---------------------------------------------------------------------------------------------------- acknowledging


@pytest.mark.parametrize("at", [1, 500, 1000, 1700, 2500])
def test_what_is_acknowledged_is_trimmed_and_the_rest_stays_as_it_was(connection: sqlite3.Connection, at: int) -> None:
    written = rows(2500)
    journal.append(connection, written)
    assert journal.acknowledged(connection, cursor(connection, at))
    assert [row for batch in read(connection, at) for row in batch.rows] == written[at:]
    assert journal.head(connection).pending == 2500 - at
    (stored,) = connection.execute("SELECT coalesce(sum(rows), 0) FROM journal").fetchone()
    assert stored == 2500 - at
    for later in {at, (at + 2500) // 2, 2500}:
        assert journal.running_at(connection, later) == run_on(EMPTY_RUN, written[:later])


def test_an_acknowledgement_that_does_not_fit_changes_nothing(connection: sqlite3.Connection) -> None:
    journal.append(connection, rows(10))
    good = cursor(connection, 5)
    for bad in (
        Cursor(good.generation + 1, 5, good.running),
        Cursor(good.generation, 11, good.running),
        Cursor(good.generation, 5, b"x" * 32),
    ):
        before = journal.head(connection)
        assert not journal.acknowledged(connection, bad)
        assert journal.head(connection) == before
    assert journal.acknowledged(connection, good)
    assert journal.acknowledged(connection, good), "saying it twice is fine"
    assert journal.acknowledged(connection, Cursor(1, 3, b"?" * 32)), "and so is what was said before"
    assert journal.head(connection).acknowledged == 5


# ---------------------------------------------------------------------------------------------------- agreeing


def test_a_hub_that_has_what_this_journal_says_it_has_goes_on(connection: sqlite3.Connection) -> None:
    journal.append(connection, rows(10))
    assert journal.agree(connection, cursor(connection, 0)) is Agreement.RESUME
    assert journal.agree(connection, cursor(connection, 7)) is Agreement.RESUME
    journal.acknowledged(connection, cursor(connection, 7))
    assert journal.agree(connection, cursor(connection, 7)) is Agreement.RESUME
    assert journal.agree(connection, cursor(connection, 10)) is Agreement.RESUME


def test_a_hub_that_knows_nothing_of_this_generation_gets_it_from_the_start(connection: sqlite3.Connection) -> None:
    journal.begin(connection, 3)
    journal.append(connection, rows(10))
    for there in (Cursor(0, 0, EMPTY_RUN), Cursor(2, 99, b"x" * 32)):
        assert journal.agree(connection, there) is Agreement.FROM_START


def test_whatever_does_not_fit_begins_a_new_generation(connection: sqlite3.Connection) -> None:
    journal.begin(connection, 3)
    journal.append(connection, rows(10))
    five = cursor(connection, 5)
    journal.acknowledged(connection, five)
    for there in (
        Cursor(3, 4, run_on(EMPTY_RUN, rows(4))),  # a hub restored to before what was trimmed
        Cursor(3, 11, b"x" * 32),  # an agent restored: the hub has rows it never wrote
        Cursor(3, 7, b"x" * 32),  # numbers used twice, with other rows
        Cursor(4, 0, EMPTY_RUN),  # a generation from the future
        Cursor(2, 9, b"x" * 32),  # an older one, and rows of this one are gone already
        Cursor(0, 0, EMPTY_RUN),
    ):
        assert journal.agree(connection, there) is Agreement.NEW_GENERATION


# ---------------------------------------------------------------------------------------------------- coalescing


def test_only_the_last_row_of_a_key_is_kept_and_what_was_offered_keeps_its_number(connection: sqlite3.Connection) -> None:
    written = rows(3000, keys=50)
    journal.append(connection, written[:1500])
    sent = journal.next_batch(connection, 0, max_rows=700, max_bytes=10**6)
    assert sent is not None
    connection.execute("UPDATE state SET offered = 700")  # as if no row ahead had been marked
    journal.append(connection, written[1500:])
    saved = journal.coalesce(connection)
    assert saved == 2300 - 50
    got = [row for batch in read(connection, 0) for row in batch.rows]
    assert got[:700] == written[:700]
    assert sorted(got[700:], key=lambda row: row.size) == written[-50:]
    assert journal.head(connection).running == run_on(EMPTY_RUN, got)
    assert journal.coalesce(connection) == 0


def test_rows_that_may_have_been_sent_are_never_coalesced(connection: sqlite3.Connection) -> None:
    journal.append(connection, rows(1000, keys=5))
    read(connection, 0)
    assert journal.coalesce(connection) == 0
    journal.append(connection, rows(1000, keys=5))
    assert journal.coalesce(connection) == 0, "they lie within what was marked ahead"


def put(key: str, size: int) -> Row:
    return Row(Change.PUT, 1, key, size, size, "e")


def read_out(key: str, size: int, body: bytes = b"f") -> Row:
    return Row(Change.FIELDS, 1, key, size, size, "e", fields=body)


GONE = Row(Change.DELETE, 1, "k")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ([put("k", 1), read_out("k", 1)], [put("k", 1), read_out("k", 1)]),
        ([put("k", 1), put("k", 2), read_out("k", 2)], [put("k", 2), read_out("k", 2)]),
        ([put("k", 1), read_out("k", 1), put("k", 2)], [put("k", 2)]),
        ([put("k", 1), read_out("k", 1), put("k", 1)], [put("k", 1), read_out("k", 1)]),
        ([put("k", 1), read_out("k", 1), GONE], [GONE]),
        ([put("k", 1), read_out("k", 1), GONE, put("k", 1)], [put("k", 1)]),
        ([read_out("k", 1), read_out("k", 1, b"g")], [read_out("k", 1, b"g")]),
        ([put("k", 1), read_out("k", 1), put("j", 1), put("k", 1)], [put("j", 1), put("k", 1), read_out("k", 1)]),
    ],
    ids=range(8),
)
def test_what_was_read_out_stays_behind_the_row_of_its_content_and_goes_with_it(
    connection: sqlite3.Connection, written: list[Row], kept: list[Row]
) -> None:
    journal.append(connection, written)
    journal.coalesce(connection)
    got = [row for batch in read(connection, 0) for row in batch.rows]
    assert got == kept
    assert journal.head(connection).running == run_on(EMPTY_RUN, kept)


@pytest.mark.parametrize("seed", range(30))
def test_any_mixture_with_fields_gives_the_same_files_and_fields_coalesced_or_not(
    connection: sqlite3.Connection, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    there: dict[str, int] = {}
    written: list[Row] = []
    for _ in range(60):
        key = f"k{chance.randrange(4)}"
        if key in there and chance.random() < 0.4:
            written.append(read_out(key, there[key], bytes([chance.randrange(5)])))
        elif key in there and chance.random() < 0.3:
            del there[key]
            written.append(Row(Change.DELETE, 1, key))
        else:
            there[key] = chance.randrange(3)
            written.append(put(key, there[key]))
    journal.append(connection, written)
    journal.coalesce(connection)
    got = [row for batch in read(connection, 0) for row in batch.rows]
    assert len(got) < len(written)
    assert applied(got) == applied(written)


def applied(rows: list[Row]) -> dict[str, tuple[int, bytes]]:
    """What a hub has after these rows: sizes, and what was read out of just that content."""
    found: dict[str, tuple[int, bytes]] = {}
    for row in rows:
        before = found.get(row.key)
        if row.change is Change.DELETE:
            found.pop(row.key, None)
        elif row.change is Change.PUT:
            found[row.key] = (row.size, before[1] if before is not None and before[0] == row.size else b"")
        elif before is not None and before[0] == row.size:
            found[row.key] = (row.size, row.fields)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_any_mixture_of_writing_of_writing_sending_acknowledging_and_coalescing_ends_in_the_same_state(
    connection: sqlite3.Connection, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    monkeypatch.setattr(journal, "CHUNK_ROWS", chance.choice([1, 3, 10]))
    monkeypatch.setattr(journal, "AHEAD", chance.choice([0, 5]))
    numbers = itertools.count()
    truth: dict[str, int] = {}
    hub: dict[str, int] = {}
    there = Cursor(1, 0, EMPTY_RUN)
    been = [there]
    for _ in range(150):
        match chance.randrange(5):
            case 0 | 1:
                new = [
                    Row(Change.PUT, 1, f"k{chance.randrange(6)}", size)
                    for size in itertools.islice(numbers, chance.randrange(1, 8))
                ]
                journal.append(connection, new)
                truth |= {row.key: row.size for row in new}
            case 2:
                batch = journal.next_batch(connection, there.sequence, max_rows=chance.randrange(1, 9), max_bytes=10**6)
                if batch is not None:
                    assert batch.first == there.sequence
                    assert run_on(there.running, batch.rows) == batch.running
                    hub |= {row.key: row.size for row in batch.rows}
                    there = Cursor(batch.generation, batch.end, batch.running)
                    been.append(there)
            case 3:
                assert journal.acknowledged(connection, chance.choice(been[-4:]))
            case 4:
                journal.coalesce(connection)
        assert journal.agree(connection, there) is Agreement.RESUME
    for batch in read(connection, there.sequence):
        hub |= {row.key: row.size for row in batch.rows}
    assert hub == truth


def test_a_new_generation_starts_empty_and_at_nought(connection: sqlite3.Connection) -> None:
    journal.append(connection, rows(10))
    journal.begin(connection, 9)
    head = journal.head(connection)
    assert msgspec.structs.astuple(head) == (9, 0, EMPTY_RUN, 0, EMPTY_RUN, 0)
    assert read(connection, 0) == []
