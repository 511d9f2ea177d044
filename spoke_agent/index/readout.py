"""What is still to be read out of objects, what was, and which of it the hub has been told.

Everything here runs inside a transaction of ``database.Database``, together with snapshot and journal. ``unread`` holds one
row per object that must be looked into, or only told of again; ``read_fields`` what was found, one row per object that has
something. Each root counts how often all of it had to be said anew (``reading.saying``: a new journal, another index level):
rows that carry an older number have not been said since.

What was read out of an object that is gone stays for a while: where it turns up under another name, with the same size and
etag, it has moved, and nothing is read twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.errors import BadMessage
from protocol.fields import Fields, pack, unpack
from protocol.messages import Change, IndexLevel, RootConfig, Row
from search.words import extension, name_of

PLANNED: Final = 500
"""Waiting objects looked through in one transaction; most of them need nothing but a row."""
SWEPT: Final = 2_000
"""Objects queued in one transaction when a whole root is."""
DROPPED: Final = 1_000
MARKED: Final = 20_000
SAID_BYTES: Final = 256 * 1024
"""Bytes of fields that go into the journal in one transaction, about."""
TWINS: Final = 8
_QUEUED: Final = 500
"""Rows per statement."""

GONE: Final = 0
LONG_GONE: Final = -1
"""``said`` of what belongs to no object: since the last ``tidy``, and since before it."""

NOTHING: Final = Fields()
_NOTHING: Final = pack(NOTHING)


class Unread(msgspec.Struct, frozen=True):
    """An object that must be looked into, as the snapshot has it. ``level`` is its root's."""

    root: int
    key: str
    size: int
    mtime: int
    etag: str
    level: IndexLevel
    asked: int
    """How often it was queued: what is found counts only for as many."""
    known: bytes | None = None
    """What was read out of just this content before: only its tags must be asked for."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be read, and whether anything else was done."""

    unread: tuple[Unread, ...]
    moved: bool


class _Kept(msgspec.Struct, frozen=True):
    """One row of ``read_fields``."""

    id: int
    key: str
    size: int
    mtime: int
    etag: str
    level: IndexLevel
    kind: str
    version: str
    problem: int
    said: int
    body: bytes


def is_read(config: RootConfig) -> bool:
    """Say whether what lies in the objects of a root is read out."""
    return config.level in {IndexLevel.METADATA, IndexLevel.CONTENT}


def stripped(fields: Fields, level: IndexLevel) -> Fields:
    """Return what of some fields a level lets the hub know."""
    return fields if level is IndexLevel.CONTENT or not fields.text else msgspec.structs.replace(fields, text="")


# ---------------------------------------------------------------------------------------------------- what changes


def configure(connection: sqlite3.Connection, config: RootConfig, before: RootConfig | None) -> None:
    """Follow a root's level: what was read is said, read or stripped again in pieces, or dropped in pieces (``tidy``)."""
    if not is_read(config):
        _say_again(connection, config.root)
        return
    new = connection.execute("INSERT OR IGNORE INTO reading VALUES (?, 0, 1, NULL, 0, '')", (config.root,)).rowcount
    if new or (before is not None and before.level is not config.level):
        _say_again(connection, config.root)
        _sweep(connection, config.root)


def _say_again(connection: sqlite3.Connection, root: int) -> None:
    connection.execute("UPDATE reading SET saying = saying + 1, position = NULL WHERE root = ?", (root,))


def _sweep(connection: sqlite3.Connection, root: int) -> None:
    if connection.execute("SELECT 1 FROM object WHERE root = ?", (root,)).fetchone() is not None:
        connection.execute("UPDATE reading SET position = '', swept = 0 WHERE root = ?", (root,))


def able(connection: sqlite3.Connection, versions: str) -> None:
    """Go again through the roots that were read with other extractors than there are now: what fits is not read twice."""
    connection.execute(
        "UPDATE reading SET position = '', swept = 0, abilities = ? WHERE abilities NOT IN ('', ?)",
        (f"={versions}", f"={versions}"),
    )


def version_of(kind: str, versions: str) -> str:
    """Return what of all extractors' versions (``image=2 text=1``) concerns files of this kind; all, where that is open."""
    return next((word for word in versions.split() if kind and word.startswith(f"{kind}=")), versions)


def follow(connection: sqlite3.Connection, root: int, rows: Sequence[Row], *, hinted: bool) -> None:
    """Queue what the rows of a root that is read put, and let go of what they delete."""
    last = {row.key: row.change for row in rows}
    put = [key for key, change in last.items() if change is Change.PUT]
    for start in range(0, len(put), _QUEUED):
        piece = put[start : start + _QUEUED]
        rows_of = ",".join(["(?,?,?,1)"] * len(piece))
        values = [value for key in piece for value in (root, key, int(hinted))]
        connection.execute(
            f"INSERT INTO unread VALUES {rows_of} ON CONFLICT (root, key) "  # noqa: S608 - only question marks
            "DO UPDATE SET hinted = max(hinted, excluded.hinted), asked = asked + 1",
            values,
        )
    gone = [(root, key) for key, change in last.items() if change is Change.DELETE]
    connection.executemany("DELETE FROM unread WHERE root = ? AND key = ?", gone)
    # The hub drops what it was told of other contents, and has to be told again also where a content comes back.
    places = [(root, key) for key in last]
    connection.executemany(f"UPDATE read_fields SET said = {GONE} WHERE root = ? AND key = ?", places)  # noqa: S608 - a number


def begin(connection: sqlite3.Connection) -> None:
    """Begin a new generation: every object is found again, and all that was read out of it said again."""
    # Somebody reported these, so their tags may be others by now; what is found again by a listing is not asked for them.
    connection.execute("DELETE FROM read_fields WHERE (root, key) IN (SELECT root, key FROM unread WHERE hinted = 1)")
    connection.execute("DELETE FROM unread")
    connection.execute("UPDATE reading SET saying = saying + 1, position = NULL, unread = 0")


# ---------------------------------------------------------------------------------------------------- what is to be done


def plan(
    connection: sqlite3.Connection,
    configs: Mapping[int, RootConfig],
    versions: str,
    *,
    bulk: Iterable[int],
    limit: int,
) -> tuple[Plan, list[Row]]:
    """Return what is to be read next, at most ``limit`` objects, and rows for what is known and has only to be said.

    What was reported comes first; of other objects only those of the roots in ``bulk`` are taken. ``versions`` are those of
    the extractors that are here.
    """
    connection.execute("UPDATE reading SET abilities = ? WHERE abilities = ''", (f"={versions}",))
    roots = [root for root in bulk if root in configs]
    waiting = _waiting(connection, list(configs), roots)
    if not waiting:
        return Plan((), _sweep_on(connection, roots)), []
    saying = dict(connection.execute("SELECT root, saying FROM reading"))
    unread: list[Unread] = []
    rows: list[Row] = []
    size = done = 0
    for root, key, hinted, asked in waiting:
        if len(unread) >= limit or size > SAID_BYTES:
            break
        config = configs[root]
        found = connection.execute("SELECT size, mtime, etag FROM object WHERE root = ? AND key = ?", (root, key)).fetchone()
        if found is None:
            _done(connection, root, key)
            done += 1
            continue
        length, mtime, etag = found
        item = Unread(root, key, length, mtime, etag, config.level, asked)
        own = _own(connection, item)
        if own is not None and _fits(own, config.level, versions):
            if hinted:
                unread.append(item if own.problem else msgspec.structs.replace(item, known=own.body))
                continue
            if own.said != saying[root] or own.level is not config.level:
                rows.append(_said(connection, item, own, saying[root]))
                size += len(rows[-1].fields)
            _done(connection, root, key)
            done += 1
            continue
        twin = None if own is not None else _twin(connection, item, versions)
        unread.append(item if twin is None else msgspec.structs.replace(item, known=twin))
    return Plan(tuple(unread), done > 0), rows


def _waiting(connection: sqlite3.Connection, roots: list[int], bulk: list[int]) -> list[tuple[int, str, int, int]]:
    # Each query walks an index from a root's first key and stops: what waits may be millions.
    found: list[tuple[int, str, int, int]] = []
    for hinted, some in ((1, roots), (0, bulk)):
        for root in some:
            if len(found) < PLANNED:
                found += connection.execute(
                    f"SELECT root, key, hinted, asked FROM unread WHERE root = ? AND hinted = {hinted} ORDER BY key LIMIT ?",  # noqa: S608 - 0 or 1
                    (root, PLANNED - len(found)),
                )
    return found


def _sweep_on(connection: sqlite3.Connection, roots: Sequence[int]) -> bool:
    """Queue some more of the first root that is gone through as a whole; False where none is."""
    return any(_swept(connection, root) for root in roots)


def _swept(connection: sqlite3.Connection, root: int) -> bool:
    """Queue the next objects of a root that is gone through as a whole; False where none is."""
    found = connection.execute("SELECT position FROM reading WHERE root = ?", (root,)).fetchone()
    if found is None or found[0] is None:
        return False
    keys = [
        key
        for (key,) in connection.execute(
            "SELECT key FROM object WHERE root = ? AND key > ? ORDER BY key LIMIT ?", (root, found[0], SWEPT)
        )
    ]
    connection.executemany("INSERT OR IGNORE INTO unread VALUES (?, ?, 0, 1)", [(root, key) for key in keys])
    position = keys[-1] if len(keys) == SWEPT else None
    connection.execute("UPDATE reading SET position = ?, swept = swept + ? WHERE root = ?", (position, len(keys), root))
    return True


_COLUMNS: Final = "id, key, size, mtime, etag, level, kind, version, problem, said, body"


def _kept(row: Sequence[object]) -> _Kept:
    made = _Kept(*row)  # type: ignore[arg-type]  # as the table has them
    return msgspec.structs.replace(made, level=IndexLevel(made.level))


def _own(connection: sqlite3.Connection, item: Unread) -> _Kept | None:
    """Return what was read out of just this content of this object."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM read_fields WHERE root = ? AND key = ? AND size = ? AND mtime = ? AND etag = ?",  # noqa: S608 - fixed
        (item.root, item.key, item.size, item.mtime, item.etag),
    ).fetchone()
    return None if found is None else _kept(found)


def _twin(connection: sqlite3.Connection, item: Unread, versions: str) -> bytes | None:
    """Return what was read out of the same content under another name of the same kind; None where that is not known."""
    if not item.etag:
        return None
    ending = extension(name_of(item.key))
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM read_fields WHERE root = ? AND size = ? AND etag = ? LIMIT {TWINS}",  # noqa: S608 - fixed
        (item.root, item.size, item.etag),
    )
    for row in found:
        one = _kept(row)
        if not one.problem and extension(name_of(one.key)) == ending and _fits(one, item.level, versions):
            return one.body
    return None


def _fits(one: _Kept, level: IndexLevel, versions: str) -> bool:
    """Say whether nothing more would be found by reading once more."""
    deep = one.level is IndexLevel.CONTENT or level is IndexLevel.METADATA
    return deep and one.version == version_of(one.kind, versions)


def _said(connection: sqlite3.Connection, item: Unread, own: _Kept, saying: int) -> Row:
    """Say again what is known; what the level lets nobody know any more is dropped here too."""
    body = own.body if own.level is item.level else pack(stripped(unpack(own.body), item.level))
    connection.execute(
        "UPDATE read_fields SET said = ?, level = ?, body = ? WHERE id = ?", (saying, str(item.level), body, own.id)
    )
    return _row(item, body)


def _row(item: Unread, body: bytes) -> Row:
    return Row(Change.FIELDS, item.root, item.key, item.size, item.mtime, item.etag, fields=body)


def _done(connection: sqlite3.Connection, root: int, key: str) -> None:
    connection.execute("DELETE FROM unread WHERE root = ? AND key = ?", (root, key))


def keep(connection: sqlite3.Connection, item: Unread, config: RootConfig, fields: Fields, versions: str) -> Row | None:
    """Keep what was read out of an object; return the row that tells the hub, where there is anything to tell.

    Where the object is another one by now nothing is kept: it was queued again when that was found out.
    """
    found = connection.execute(
        "SELECT size, mtime, etag FROM object WHERE root = ? AND key = ?", (item.root, item.key)
    ).fetchone()
    if not is_read(config) or found != (item.size, item.mtime, item.etag):
        return None
    if config.level is not item.level and config.level is IndexLevel.CONTENT:
        return None  # read for less than is wanted by now: it is queued again
    connection.execute("DELETE FROM unread WHERE root = ? AND key = ? AND asked = ?", (item.root, item.key, item.asked))
    body = pack(stripped(fields, config.level))
    own = _own(connection, item)
    if body == _NOTHING:
        connection.execute("DELETE FROM read_fields WHERE root = ? AND key = ?", (item.root, item.key))
        return None if own is None else _row(item, body)
    (saying,) = connection.execute("SELECT saying FROM reading WHERE root = ?", (item.root,)).fetchone()
    connection.execute(
        "INSERT INTO read_fields (root, key, size, mtime, etag, level, kind, version, problem, said, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (root, key) DO UPDATE SET size = excluded.size, "
        "mtime = excluded.mtime, etag = excluded.etag, level = excluded.level, kind = excluded.kind, "
        "version = excluded.version, problem = excluded.problem, said = excluded.said, body = excluded.body",
        (
            item.root,
            item.key,
            item.size,
            item.mtime,
            item.etag,
            str(config.level),
            fields.kind,
            version_of(fields.kind, versions),
            bool(fields.problem),
            saying,
            body,
        ),
    )
    return _row(item, body)


def let_go(connection: sqlite3.Connection, item: Unread) -> None:
    """Take an object out of the queue that turned out to be another one; whoever looks at it next queues it again."""
    connection.execute("DELETE FROM unread WHERE root = ? AND key = ? AND asked = ?", (item.root, item.key, item.asked))


def tidy(connection: sqlite3.Connection, configs: Mapping[int, RootConfig]) -> bool:
    """Drop some of what belongs to no object any more; True where more of it is left to drop now.

    What was read out of objects that are gone outlives one call, so with some time between calls a move is recognised.
    """
    more = False
    for root, unread, saying, position in connection.execute("SELECT root, unread, saying, position FROM reading").fetchall():
        if root not in configs:
            more |= _drop_root(connection, root)
            continue
        scanned = connection.execute("SELECT scanned_at FROM root WHERE root = ?", (root,)).fetchone()
        if unread or position is not None or scanned is None or scanned[0] is None:
            continue  # what has not been said again yet may still be waiting for it
        dropped = connection.execute(
            "DELETE FROM read_fields WHERE id IN "
            "(SELECT id FROM read_fields WHERE root = ? AND said < ? AND said <> ? LIMIT ?)",
            (root, saying, GONE, DROPPED),
        ).rowcount
        if dropped == DROPPED:
            more = True
            continue
        connection.execute(
            "UPDATE read_fields SET said = ? WHERE id IN (SELECT id FROM read_fields WHERE root = ? AND said = ? LIMIT ?)",
            (LONG_GONE, root, GONE, MARKED),
        )
    return more


def _drop_root(connection: sqlite3.Connection, root: int) -> bool:
    dropped = connection.execute(
        "DELETE FROM read_fields WHERE id IN (SELECT id FROM read_fields WHERE root = ? LIMIT ?)", (root, DROPPED)
    ).rowcount
    dropped += connection.execute(
        "DELETE FROM unread WHERE root = ?1 AND key IN (SELECT key FROM unread WHERE root = ?1 LIMIT ?2)", (root, DROPPED)
    ).rowcount
    if not dropped:
        connection.execute("DELETE FROM reading WHERE root = ?", (root,))
    return dropped > 0


def state(connection: sqlite3.Connection) -> dict[int, tuple[int, int]]:
    """Return of every root that is read how many objects are still to be read, and how many could not be; about."""
    unreadable = dict(connection.execute("SELECT root, count(*) FROM read_fields WHERE problem = 1 AND said > 0 GROUP BY root"))
    found = connection.execute(
        "SELECT r.root, min(r.unread + CASE WHEN r.position IS NULL THEN 0 ELSE max(o.objects - r.swept, 0) END, o.objects) "
        "FROM reading r JOIN root o ON o.root = r.root"
    )
    return {root: (unread, unreadable.get(root, 0)) for root, unread in found}


def known_body(item: Unread) -> Fields | None:
    """Return what is known of an object's content; None where it must be read."""
    if item.known is None:
        return None
    try:
        return unpack(item.known)
    except BadMessage:  # another version of wio wrote it
        return None
