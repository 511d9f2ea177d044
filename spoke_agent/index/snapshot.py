"""What the agent last knew of every object, and what a new look at storage changes in it.

Everything here runs inside a transaction of ``database.Database``, together with the journal: a change is in both or in
neither. Rows are written hundreds per statement, so that SQLite works without holding Python's lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.digest import combine, object_number
from protocol.messages import Change, Row
from spoke_agent.index.spans import Span
from spoke_agent.storage.node import Entry

_WRITE_ROWS: Final = 500
"""Rows per statement: 2,500 values, far under SQLite's limit of 32,766."""

_TOP: Final = "\U0010ffff" * 257

Known = tuple[int, int, str]
"""Size, mtime and etag of an object as last known."""


class Totals(msgspec.Struct, frozen=True):
    """What a root holds: how many objects, their bytes, and the digest over them (``protocol.digest``)."""

    objects: int
    bytes: int
    digest: int


class Difference(msgspec.Struct, frozen=True):
    """What a look changes: rows for the journal, and with them the snapshot and the root's totals."""

    rows: tuple[Row, ...]
    totals: Totals


def known_between(connection: sqlite3.Connection, root: int, span: Span, limit: int = -1) -> dict[str, Known]:
    """Return what is known of a span of a root, in order; the first ``limit`` of it, where that is not negative."""
    # Every key lies below U+10FFFF repeated: no key is longer than 1,024 bytes, 256 of these.
    high = span.prefix + _TOP if span.high is None else span.high
    found = connection.execute(
        "SELECT key, size, mtime, etag FROM object WHERE root = ? AND key > ? AND key >= ? AND key <= ? ORDER BY key LIMIT ?",
        (root, span.low, span.prefix, min(high, span.prefix + _TOP), limit),
    )
    return {key: (size, mtime, etag) for key, size, mtime, etag in found}


def known_at(connection: sqlite3.Connection, root: int, keys: Sequence[str]) -> dict[str, Known]:
    """Return what is known of these keys; at most a few thousand of them."""
    found = connection.execute(
        f"SELECT key, size, mtime, etag FROM object WHERE root = ? AND key IN ({','.join('?' * len(keys))})",  # noqa: S608 - only question marks
        (root, *keys),
    )
    return {key: (size, mtime, etag) for key, size, mtime, etag in found}


def count_below(connection: sqlite3.Connection, root: int, prefix: str, limit: int) -> int:
    """Count the objects known below a prefix, but not beyond ``limit``."""
    found = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM object WHERE root = ? AND key >= ? AND key < ? LIMIT ?)",
        (root, prefix, prefix + _TOP, limit),
    )
    return int(found.fetchone()[0])


def difference(
    root: int,
    totals: Totals,
    known: Mapping[str, Known],
    seen: Iterable[Entry],
    gone: Iterable[str] = (),
    *,
    actors: Mapping[str, int] | None = None,
    always: bool = False,
    asked: Collection[str] = (),
) -> Difference:
    """Work out what these looks change. ``gone`` are keys that were looked at and are not there.

    ``always`` makes a row even for an object that looks as before: the writer may have forged its time and etag. Keys in
    ``asked`` make a row whatever is there, and was: the hub knows something else of them.
    """
    rows: list[Row] = []
    objects, size, added, removed = 0, 0, 0, 0
    who = actors or {}
    for entry in seen:
        before = known.get(entry.key)
        after = (entry.size, entry.mtime, entry.etag)
        if before == after:
            if always or entry.key in asked:
                rows.append(Row(Change.PUT, root, entry.key, *after, who.get(entry.key, 0)))
            continue
        if before is None:
            objects += 1
        else:
            size -= before[0]
            removed += object_number(entry.key, *before)
        size += entry.size
        added += object_number(entry.key, *after)
        rows.append(Row(Change.PUT, root, entry.key, *after, who.get(entry.key, 0)))
    for key in gone:
        before = known.get(key)
        if before is None:
            if key in asked:
                rows.append(Row(Change.DELETE, root, key, actor=who.get(key, 0)))
            continue
        objects -= 1
        size -= before[0]
        removed += object_number(key, *before)
        rows.append(Row(Change.DELETE, root, key, actor=who.get(key, 0)))
    digest = combine(totals.digest, added=(added,), removed=(removed,))
    return Difference(tuple(rows), Totals(totals.objects + objects, totals.bytes + size, digest))


def write(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Write what journal rows say into the snapshot; of several rows of one key the last counts."""
    last = {(row.root, row.key): row for row in rows}
    put = [row for row in last.values() if row.change is Change.PUT]
    for start in range(0, len(put), _WRITE_ROWS):
        piece = put[start : start + _WRITE_ROWS]
        values = [value for row in piece for value in (row.root, row.key, row.size, row.mtime, row.etag)]
        places = ",".join(["(?,?,?,?,?)"] * len(piece))
        connection.execute(f"INSERT OR REPLACE INTO object VALUES {places}", values)  # noqa: S608 - only question marks
    connection.executemany(
        "DELETE FROM object WHERE root = ? AND key = ?",
        [key for key, row in last.items() if row.change is Change.DELETE],
    )


def totals(connection: sqlite3.Connection, root: int) -> Totals:
    """Return a root's totals; zero for a root that is not there."""
    found = connection.execute("SELECT objects, bytes, digest FROM root WHERE root = ?", (root,)).fetchone()
    return Totals(*found) if found is not None else Totals(0, 0, 0)


def keep_totals(connection: sqlite3.Connection, root: int, now: Totals) -> None:
    """Write a root's totals."""
    connection.execute(
        "UPDATE root SET objects = ?, bytes = ?, digest = ? WHERE root = ?", (now.objects, now.bytes, now.digest, root)
    )


def recount(connection: sqlite3.Connection, root: int, low: str = "", high: str | None = None) -> Totals:
    """Work the totals out again from every row: what ``keep_totals`` should have kept. One pass.

    Of the keys behind ``low`` (exclusive) up to ``high`` (inclusive; None: to the end).
    """
    objects, size, numbers = 0, 0, 0
    for key, length, mtime, etag in connection.execute(
        "SELECT key, size, mtime, etag FROM object WHERE root = ? AND key > ? AND key <= ?",
        (root, low, _TOP if high is None else high),
    ):
        objects += 1
        size += length
        numbers += object_number(key, length, mtime, etag)
    return Totals(objects, size, combine(0, added=(numbers,)))


def added(parts: Iterable[Totals]) -> Totals:
    """Add totals of parts up."""
    all_of = list(parts)
    digest = combine(0, added=(one.digest for one in all_of))
    return Totals(sum(one.objects for one in all_of), sum(one.bytes for one in all_of), digest)


def mend_totals(connection: sqlite3.Connection, root: int, kept: Totals, recounted: Totals) -> None:
    """Put totals right that were ``kept`` where ``recounted`` was true, whatever has come and gone since then."""
    now = totals(connection, root)
    digest = combine(now.digest, added=(recounted.digest,), removed=(kept.digest,))
    objects, size = now.objects + recounted.objects - kept.objects, now.bytes + recounted.bytes - kept.bytes
    keep_totals(connection, root, Totals(objects, size, digest))


def forget(connection: sqlite3.Connection, root: int) -> None:
    """Forget every object of a root."""
    connection.execute("DELETE FROM object WHERE root = ?", (root,))
    keep_totals(connection, root, Totals(0, 0, 0))
