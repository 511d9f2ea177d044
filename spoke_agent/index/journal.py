"""The journal: rows in the order in which the hub must apply them, kept until the hub says it has them.

Everything here runs inside a transaction of ``database.Database``. Rows lie in chunks, as the msgpack they are sent in,
each with the running hash after its last row.

A *generation* ends when hub and agent no longer agree on what came before: the hub knows another generation, rows that
this journal never had or has trimmed, or another hash. Then nothing of the past counts and the roots are scanned again.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from protocol.digest import EMPTY_RUN, run_on
from protocol.messages import Change, Cursor, Row

CHUNK_ROWS: Final = 1000
CHUNK_BYTES: Final = 400_000
"""Two chunks always fit one frame (protocol.messages.MAX_FRAME)."""
AHEAD: Final = 20_000
"""How far ahead rows are marked as offered, so that not every batch sent costs a write."""

_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(tuple[Row, ...])


class Head(msgspec.Struct, frozen=True):
    """Where the journal stands."""

    generation: int
    sequence: int
    running: bytes
    acknowledged: int
    acknowledged_running: bytes
    offered: int

    @property
    def pending(self) -> int:
        """Rows the hub has not acknowledged."""
        return self.sequence - self.acknowledged


class Batch(msgspec.Struct, frozen=True):
    """Rows to send: those numbered ``first`` … of ``generation``; ``running`` is the hash after the last."""

    generation: int
    first: int
    rows: tuple[Row, ...]
    running: bytes

    @property
    def end(self) -> int:
        """The number after the last row."""
        return self.first + len(self.rows)


class Agreement(enum.Enum):
    """What a hub's cursor means for this journal."""

    RESUME = "resume"
    """The hub has what this journal says it has, up to the cursor."""
    FROM_START = "from-start"
    """The hub knows nothing of this generation yet, and no row of it has been trimmed."""
    NEW_GENERATION = "new-generation"
    """Nothing fits."""


class _Chunk(msgspec.Struct, frozen=True):
    first: int
    count: int
    body: bytes
    running: bytes

    @property
    def rows(self) -> tuple[Row, ...]:
        return _DECODE.decode(self.body)


def head(connection: sqlite3.Connection) -> Head:
    """Return where the journal stands; a new one stands at the start of generation 1."""
    found = connection.execute(
        "SELECT generation, sequence, running, acknowledged, acknowledged_running, offered FROM state"
    ).fetchone()
    if found is None:
        begin(connection, 1)
        return head(connection)
    return Head(*found)


def begin(connection: sqlite3.Connection, generation: int) -> None:
    """Forget every row and stand at the start of ``generation``."""
    connection.execute("DELETE FROM journal")
    connection.execute(
        "INSERT OR REPLACE INTO state VALUES (1, ?, 0, ?, 0, ?, 0)",
        (generation, EMPTY_RUN, EMPTY_RUN),
    )


def append(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Write rows behind the last one."""
    if not rows:
        return
    now = head(connection)
    sequence, running = _write(connection, now.sequence, now.running, rows)
    connection.execute("UPDATE state SET sequence = ?, running = ?", (sequence, running))


def _write(connection: sqlite3.Connection, sequence: int, running: bytes, rows: Sequence[Row]) -> tuple[int, bytes]:
    for piece, body in _pieces(rows):
        running = run_on(running, piece)
        connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?)", (sequence, len(piece), body, running))
        sequence += len(piece)
    return sequence, running


def _pieces(rows: Sequence[Row]) -> Iterator[tuple[Sequence[Row], bytes]]:
    """Cut rows into chunks within CHUNK_ROWS and CHUNK_BYTES (a single row always fits)."""
    for start in range(0, len(rows), CHUNK_ROWS):
        piece = rows[start : start + CHUNK_ROWS]
        body = _ENCODE.encode(piece)
        if len(body) <= CHUNK_BYTES:
            yield piece, body
            continue
        middle = len(piece) // 2
        yield from _pieces(piece[:middle])
        yield from _pieces(piece[middle:])


def next_batch(
    connection: sqlite3.Connection, after: int, *, max_rows: int, max_bytes: int, until: int | None = None
) -> Batch | None:
    """Return the rows from number ``after`` on, at most ``until`` (exclusive); None where there are none.

    ``max_bytes`` bounds the rows' msgpack and is never less than one chunk. Rows returned are marked as offered: from
    then on they keep their numbers and content.
    """
    now = head(connection)
    end = now.sequence if until is None else min(until, now.sequence)
    rows: list[Row] = []
    size, running = 0, now.running
    for chunk in _chunks(connection, after):
        inside = chunk.rows[max(after - chunk.first, 0) : end - chunk.first]
        if not inside or (rows and (size + len(chunk.body) > max_bytes or len(rows) + len(inside) > max_rows)):
            break
        inside = inside[:max_rows]
        rows += inside
        size += len(chunk.body)
        stop = after + len(rows)
        if stop == chunk.first + chunk.count:
            running = chunk.running
        else:
            running = run_on(_running_before(connection, chunk.first), chunk.rows[: stop - chunk.first])
            break
    if not rows:
        return None
    if after + len(rows) > now.offered:
        connection.execute("UPDATE state SET offered = ?", (after + len(rows) + AHEAD,))
    return Batch(now.generation, after, tuple(rows), running)


def _chunks(connection: sqlite3.Connection, after: int) -> Iterator[_Chunk]:
    """Yield the chunks that hold row ``after`` and those behind it. One at a time: a chunk may be 400 kB."""
    first = connection.execute("SELECT max(first) FROM journal WHERE first <= ?", (after,)).fetchone()[0]
    position = after if first is None else first
    while True:
        found = connection.execute(
            "SELECT first, rows, body, running FROM journal WHERE first >= ? ORDER BY first LIMIT 1", (position,)
        ).fetchone()
        if found is None:
            return
        chunk = _Chunk(*found)
        position = chunk.first + chunk.count
        if position > after:
            yield chunk


def _running_before(connection: sqlite3.Connection, first: int) -> bytes:
    """Return the hash before the chunk that starts at ``first``; the oldest one starts at what is acknowledged."""
    found = connection.execute("SELECT running FROM journal WHERE first < ? ORDER BY first DESC LIMIT 1", (first,)).fetchone()
    return bytes(found[0]) if found is not None else head(connection).acknowledged_running


def running_at(connection: sqlite3.Connection, sequence: int) -> bytes | None:
    """Return the running hash after ``sequence`` rows; None where that is not known any more, or not yet."""
    now = head(connection)
    known = {0: EMPTY_RUN, now.sequence: now.running, now.acknowledged: now.acknowledged_running}
    if sequence in known:
        return known[sequence]
    if not now.acknowledged < sequence < now.sequence:
        return None
    chunk = next(_chunks(connection, sequence - 1))
    if chunk.first + chunk.count == sequence:
        return chunk.running
    return run_on(_running_before(connection, chunk.first), chunk.rows[: sequence - chunk.first])


def acknowledged(connection: sqlite3.Connection, cursor: Cursor) -> bool:
    """Note that the hub has everything before the cursor, and trim it. False where the cursor does not fit.

    A cursor of before what is already acknowledged changes nothing and fits.
    """
    now = head(connection)
    if cursor.generation != now.generation or cursor.sequence > now.sequence:
        return False
    if cursor.sequence <= now.acknowledged:
        return True
    if running_at(connection, cursor.sequence) != cursor.running:
        return False
    _trim(connection, cursor.sequence, cursor.running, now)
    return True


def _trim(connection: sqlite3.Connection, sequence: int, running: bytes, now: Head) -> None:
    # A chunk that is acknowledged in part is cut, so that the oldest chunk always starts at what is acknowledged.
    chunk = next(_chunks(connection, sequence), None)
    connection.execute("DELETE FROM journal WHERE first < ?", (sequence,))
    if chunk is not None and chunk.first < sequence:
        rest = chunk.rows[sequence - chunk.first :]
        connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?)", (sequence, len(rest), _ENCODE.encode(rest), chunk.running)
        )
    connection.execute(
        "UPDATE state SET acknowledged = ?, acknowledged_running = ?, offered = ?",
        (sequence, running, max(now.offered, sequence)),
    )


def agree(connection: sqlite3.Connection, cursor: Cursor) -> Agreement:
    """Decide what the hub's cursor means. Changes nothing."""
    now = head(connection)
    if cursor.generation == now.generation:
        fits = now.acknowledged <= cursor.sequence <= now.sequence
        return (
            Agreement.RESUME if fits and running_at(connection, cursor.sequence) == cursor.running else Agreement.NEW_GENERATION
        )
    if cursor.generation < now.generation and now.acknowledged == 0:
        return Agreement.FROM_START
    return Agreement.NEW_GENERATION


def _coalesced(rows: Sequence[Row]) -> list[Row]:
    """Keep the last row that says what a key holds, and behind it the last one with what was read out of just that."""
    last: dict[tuple[int, str], int] = {}
    fields: dict[tuple[int, str], int] = {}
    for number, row in enumerate(rows):
        place = row.root, row.key
        if row.change is not Change.FIELDS:
            last[place] = number
            before = fields.get(place)
            if before is not None and (row.change is Change.DELETE or _content(rows[before]) != _content(row)):
                del fields[place]
        else:
            fields[place] = number
    kept = [(number, 0, number) for number in last.values()]
    # Fields say nothing of a key before the row that puts it: they follow it, wherever they stood.
    kept += [(max(number, last.get(place, number)), 1, number) for place, number in fields.items()]
    return [rows[number] for _, _, number in sorted(kept)]


def _content(row: Row) -> tuple[int, int, str]:
    return row.size, row.mtime, row.etag


def coalesce(connection: sqlite3.Connection) -> int:
    """Of the rows never offered, keep only the last of each key (``_coalesced``); return how many rows that saved.

    Rows that may have been sent keep their numbers: the hub's cursor speaks of them.
    """
    now = head(connection)
    start = min(max(now.offered, now.acknowledged), now.sequence)
    chunks = list(_chunks(connection, start)) if start < now.sequence else []
    rows = [row for chunk in chunks for row in chunk.rows][start - chunks[0].first if chunks else 0 :]
    kept = _coalesced(rows)
    if len(kept) == len(rows):
        return 0
    running = running_at(connection, start)
    if running is None:  # start lies within what is there, so its hash is known
        raise AssertionError(start)
    head_rows = chunks[0].rows[: start - chunks[0].first]
    connection.execute("DELETE FROM journal WHERE first >= ?", (chunks[0].first,))
    if head_rows:
        connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?)", (chunks[0].first, len(head_rows), _ENCODE.encode(head_rows), running)
        )
    sequence, running = _write(connection, start, running, kept)
    connection.execute("UPDATE state SET sequence = ?, running = ?", (sequence, running))
    return len(rows) - len(kept)
