"""The catalogue's bulk path: thousands of entries per statement, on SQLite and PostgreSQL.

Lists go into a statement as one value (JSON on SQLite, arrays on PostgreSQL), so that one statement does the work of
thousands, SQLite's limit of variables does not matter, and the database works without holding Python's lock.

Whoever changes entries takes revisions first (``Database.take_revisions``). That makes it the only one until it commits:
an entry and a workspace that are made at the same moment always find each other.
"""

# ruff: noqa: S608 - every name in this SQL is written in this file; values are always parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db.database import Database
from protocol.messages import IndexLevel
from protocol.names import RootId, WorkspaceId

Address = tuple[int, str]
"""A root's id, and a key or prefix in its space."""

_JSON: Final = msgspec.json.Encoder()


class Entry(NamedTuple):
    """One row of the catalogue. A tuple, because a batch makes thousands; ``mtime`` in Unix nanoseconds."""

    root_id: int
    key: str
    workspace_id: int
    size: int
    mtime: int
    etag: str
    actor_id: int
    revision: int
    gone: bool
    generation: int

    @property
    def content(self) -> tuple[int, int, str]:
        """What makes the object another one when it changes."""
        return self.size, self.mtime, self.etag


class Totals(NamedTuple):
    """What is added to the totals of a root or a workspace; negative where something went."""

    objects: int
    bytes: int


class Pending(NamedTuple):
    """An entry as the search index wants it. ``prefix`` is its workspace's, None where it lies in none."""

    root_id: int
    key: str
    workspace_id: int
    size: int
    mtime: int
    revision: int
    gone: bool
    prefix: str | None


class Changed(NamedTuple):
    """An entry that changed, for people who watch. ``mtime`` in Unix nanoseconds."""

    workspace_id: int
    key: str
    size: int
    mtime: int
    etag: str
    revision: int
    gone: bool


class Line(NamedTuple):
    """One line of a folder: a file, or a folder (``name`` ends in ``/``) with what is below it."""

    name: str
    objects: int
    size: int
    mtime: int
    etag: str


# ---------------------------------------------------------------------------------------------------- entries


async def stored(connection: AsyncConnection, addresses: Sequence[Address]) -> dict[Address, Entry]:
    """Return the entries there are at these addresses, tombstones too."""
    sql = (
        "SELECT e.root_id, e.key, e.workspace_id, e.size, e.mtime, e.etag, e.actor_id, e.revision, e.gone, e.generation "
        f"FROM {table(connection, 'a', 'bigint', 'text')} {cross(connection)} entries e ON e.root_id = a.c0 AND e.key = a.c1"
    )
    found = await _fetch(connection, sql, lists(connection, addresses, 2))
    return {(row[0], row[1]): Entry(*row) for row in found}


async def store(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Write entries over what is there; at most one per address."""
    if not entries:
        return
    names = ", ".join(Entry._fields)
    news = ", ".join(f"{name} = excluded.{name}" for name in Entry._fields[2:])
    types = ("bigint", "text", "bigint", "bigint", "bigint", "text", "bigint", "bigint", "boolean", "bigint")
    values = ", ".join(f"a.c{at}" for at in range(len(types)))
    sql = (
        f"INSERT INTO entries ({names}) SELECT {values} FROM {table(connection, 'a', *types)} WHERE true "
        f"ON CONFLICT (root_id, key) DO UPDATE SET {news}"
    )
    await connection.exec_driver_sql(sql, lists(connection, entries, len(types)))


async def homes(connection: AsyncConnection, addresses: Iterable[Address]) -> dict[Address, int]:
    """Return the workspaces that lie at these prefixes."""
    sql = (
        f"SELECT w.root_id, w.prefix, w.id FROM {table(connection, 'a', 'bigint', 'text')} "
        f"{cross(connection)} workspaces w ON w.root_id = a.c0 AND w.prefix = a.c1"
    )
    found = await _fetch(connection, sql, lists(connection, list(addresses), 2))
    return {(root, prefix): workspace for root, prefix, workspace in found}


async def add_to_workspaces(connection: AsyncConnection, totals: Mapping[int, Totals]) -> None:
    """Add to the totals of workspaces, by id; those of workspace 0, which is none, are nobody's."""
    changes = [(workspace, *added) for workspace, added in totals.items() if workspace and any(added)]
    if not changes:
        return
    sql = (
        "UPDATE workspaces SET objects = workspaces.objects + a.c1, bytes = workspaces.bytes + a.c2 "
        f"FROM {table(connection, 'a', 'bigint', 'bigint', 'bigint')} WHERE workspaces.id = a.c0"
    )
    await connection.exec_driver_sql(sql, lists(connection, changes, 3))


async def assign(connection: AsyncConnection, root_id: RootId, prefix: str, workspace_id: WorkspaceId) -> int:
    """Give every entry below a prefix to a workspace (0: to none); returns how many files that are.

    Runs in the transaction that makes, moves or removes the workspace, and keeps the totals of all workspaces concerned.
    """
    await Database.take_revisions(connection, 0)
    low, high = prefix, after_folder(prefix)
    where = "root_id = $1 AND key >= $2 AND key < $3 AND workspace_id <> $4"
    before = await _fetch(
        connection,
        "SELECT workspace_id, count(*), sum(CASE WHEN gone THEN 0 ELSE 1 END), sum(CASE WHEN gone THEN 0 ELSE size END) "
        f"FROM entries WHERE {where} GROUP BY workspace_id",
        (root_id, low, high, workspace_id),
    )
    rows = sum(int(row[1]) for row in before)
    if not rows:
        return 0
    first = await Database.take_revisions(connection, rows)
    await connection.exec_driver_sql(
        _marks(
            connection,
            "UPDATE entries SET workspace_id = $4, revision = $5 + n.at FROM "
            f"(SELECT id, row_number() OVER (ORDER BY key) - 1 AS at FROM entries WHERE {where}) AS n WHERE entries.id = n.id",
        ),
        (root_id, low, high, workspace_id, first),
    )
    totals = {int(row[0]): Totals(-int(row[2]), -int(row[3])) for row in before}
    moved = Totals(-sum(one.objects for one in totals.values()), -sum(one.bytes for one in totals.values()))
    await add_to_workspaces(connection, totals | {workspace_id: moved})
    return moved.objects


async def live(connection: AsyncConnection, root_id: int, after: str, limit: int) -> list[Entry]:
    """Return live entries of a root in key order, those behind ``after``: to count a root from nothing."""
    sql = f"SELECT {', '.join(Entry._fields)} FROM entries WHERE root_id = $1 AND key > $2 AND NOT gone ORDER BY key LIMIT $3"
    return [Entry(*row) for row in await _fetch(connection, sql, (root_id, after, limit))]


async def recount_workspaces(connection: AsyncConnection, root_id: int) -> None:
    """Count the totals of a root's workspaces from nothing."""
    inside = "FROM entries e WHERE e.workspace_id = workspaces.id AND NOT e.gone"
    sql = (
        f"UPDATE workspaces SET objects = (SELECT count(*) {inside}), "
        f"bytes = (SELECT coalesce(sum(e.size), 0) {inside}) WHERE root_id = $1"
    )
    await connection.exec_driver_sql(_marks(connection, sql), (root_id,))


# ---------------------------------------------------------------------------------------------------- generations, tombstones


async def unconfirmed(connection: AsyncConnection, root_id: int, generation: int) -> list[Entry]:
    """Return the live entries of a root that the journal has not spoken of since before this generation."""
    sql = f"SELECT {', '.join(Entry._fields)} FROM entries WHERE root_id = $1 AND generation < $2 AND NOT gone"
    found = await _fetch(connection, sql, (root_id, generation))
    return [Entry(*row) for row in found]


async def purge(connection: AsyncConnection, root_id: int, revision: int) -> None:
    """Forget the tombstones of a root up to this revision."""
    await connection.exec_driver_sql(
        _marks(connection, "DELETE FROM entries WHERE root_id = $1 AND gone AND revision <= $2"), (root_id, revision)
    )


async def purge_some(connection: AsyncConnection, root_id: int, revision: int, limit: int) -> int:
    """Forget some of a root's tombstones up to this revision; return how many that were."""
    sql = "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE root_id = $1 AND gone AND revision <= $2 LIMIT $3)"
    return (await connection.exec_driver_sql(_marks(connection, sql), (root_id, revision, limit))).rowcount


async def level_of_root(connection: AsyncConnection, root_id: int) -> IndexLevel:
    """Return how much the hub may know of a root; nothing of one that is not there."""
    found = await _fetch(connection, "SELECT level FROM roots WHERE id = $1 AND retired_at IS NULL", (root_id,))
    return IndexLevel(found[0][0]) if found else IndexLevel.NONE


async def any_of_root(connection: AsyncConnection, root_id: int) -> bool:
    """Say whether there is any entry of a root, tombstones included."""
    return bool(await _fetch(connection, "SELECT 1 FROM entries WHERE root_id = $1 LIMIT 1", (root_id,)))


async def pending(connection: AsyncConnection, after: int, limit: int) -> list[Pending]:
    """Return what the search index has not seen, in revision order."""
    sql = (
        "SELECT e.root_id, e.key, e.workspace_id, e.size, e.mtime, e.revision, e.gone, w.prefix "
        "FROM entries e LEFT JOIN workspaces w ON w.id = e.workspace_id "
        "WHERE e.revision > $1 ORDER BY e.revision LIMIT $2"
    )
    found = await _fetch(connection, sql, (after, limit))
    return [Pending(*row) for row in found]


async def newest_revision(connection: AsyncConnection) -> int:
    """Return the revision of the newest change that is committed."""
    found = await _fetch(connection, "SELECT value FROM counters WHERE name = 'revision'", ())
    return int(found[0][0]) if found else 0


async def changed(
    connection: AsyncConnection, workspaces: Sequence[int], revisions: tuple[int, int], *, below: str = "", limit: int
) -> list[Changed]:
    """Return what changed in these workspaces behind one revision and up to another, in that order, tombstones included.

    ``below``: only this key and what lies below it as a folder; empty: everything. At most ``limit`` rows.
    """
    if not workspaces:
        return []
    within = ""
    arguments: tuple[Any, ...] = (*revisions, limit)
    if below:
        folder = below if below.endswith("/") else below + "/"
        within = "AND (e.key = $4 OR (e.key >= $5 AND e.key < $6))"
        arguments = (*arguments, below, folder, after_folder(folder))
    # Whole numbers of this hub's own, and thousands of them: as text they need no place in the list of arguments.
    numbers = ", ".join(str(int(one)) for one in workspaces)
    sql = (
        f"SELECT {', '.join(f'e.{name}' for name in Changed._fields)} FROM entries e "
        f"WHERE e.revision > $1 AND e.revision <= $2 AND e.workspace_id IN ({numbers}) {within} "
        "ORDER BY e.revision LIMIT $3"
    )
    return [Changed(*row) for row in await _fetch(connection, sql, arguments)]


# ---------------------------------------------------------------------------------------------------- folders


def after_folder(prefix: str) -> str:
    """Return the first text behind every key below a prefix that ends in a slash (0 comes after the slash)."""
    return prefix[:-1] + "0"


def after_key(key: str) -> str:
    """Return the first text behind a key: no key holds NUL."""
    return key + "\1"


async def level(connection: AsyncConnection, workspace_id: int, prefix: str, start: str, limit: int) -> list[Line]:
    """Return one level of a workspace: files and folders directly below ``prefix``, from key ``start`` on, in key order.

    Each step jumps behind the folder it has found, however much lies in it; what lies in it is then counted once.
    """
    position = "instr" if _sqlite(connection) else "strpos"
    char = "char" if _sqlite(connection) else "chr"
    rest = "substr(l.key, $4)"
    behind = (
        f"CASE WHEN {position}({rest}, '/') > 0 "
        f"THEN $5 || substr({rest}, 1, {position}({rest}, '/') - 1) || '0' ELSE l.key || {char}(1) END"
    )
    following = "SELECT e.key FROM entries e WHERE e.workspace_id = $1 AND NOT e.gone AND e.key < $3 AND e.key >="
    sql = (
        f"WITH RECURSIVE l (key, n) AS (SELECT ({following} $2 ORDER BY e.key LIMIT 1), 1 UNION ALL "
        f"SELECT ({following} ({behind}) ORDER BY e.key LIMIT 1), l.n + 1 FROM l WHERE l.key IS NOT NULL AND l.n < $6) "
        f"SELECT l.key, e.size, e.mtime, e.etag FROM l {cross(connection)} entries e "
        "ON e.workspace_id = $1 AND e.key = l.key ORDER BY l.key"
    )
    arguments = (workspace_id, start, after_folder(prefix), len(prefix) + 1, prefix, limit)
    found = await _fetch(connection, sql, arguments)
    folders = {key: prefix + key[len(prefix) :].partition("/")[0] + "/" for key, *_ in found if "/" in key[len(prefix) :]}
    inside = await _inside(connection, workspace_id, list(folders.values()))
    lines = []
    for key, size, mtime, etag in found:
        folder = folders.get(key)
        if folder is None:
            lines.append(Line(key[len(prefix) :], 1, size, mtime, etag))
        else:
            objects, total, newest = inside[folder]
            lines.append(Line(folder[len(prefix) :], objects, total, newest, ""))
    return lines


async def _inside(connection: AsyncConnection, workspace_id: int, folders: list[str]) -> dict[str, tuple[int, int, int]]:
    if not folders:
        return {}
    spans = [(workspace_id, folder, after_folder(folder)) for folder in folders]
    sql = (
        "SELECT a.c1, count(*), sum(e.size), max(e.mtime) "
        f"FROM {table(connection, 'a', 'bigint', 'text', 'text')} {cross(connection)} entries e "
        "ON e.workspace_id = a.c0 AND e.key >= a.c1 AND e.key < a.c2 AND NOT e.gone GROUP BY a.c1"
    )
    found = await _fetch(connection, sql, lists(connection, spans, 3))
    return {folder: (int(count), int(size), int(newest)) for folder, count, size, newest in found}


# ---------------------------------------------------------------------------------------------------- two dialects


def _sqlite(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "sqlite"


def table(connection: AsyncConnection, name: str, *types: str) -> str:
    """Return SQL for a table with columns c0, c1 … that is passed in as a value (see ``lists``)."""
    if _sqlite(connection):
        columns = ", ".join(f"value ->> {at} AS c{at}" for at in range(len(types)))
        return f"(SELECT {columns} FROM json_each(?)) AS {name}"
    arrays = ", ".join(f"${at + 1}::{kind}[]" for at, kind in enumerate(types))
    return f"unnest({arrays}) AS {name} ({', '.join(f'c{at}' for at in range(len(types)))})"


def lists(connection: AsyncConnection, rows: Sequence[Sequence[Any]], width: int) -> tuple[Any, ...]:
    """Return rows as the values of a statement that has a ``table`` of them."""
    if _sqlite(connection):
        return (_JSON.encode(rows).decode(),)
    return tuple(map(list, zip(*rows, strict=True))) if rows else tuple([] for _ in range(width))


def cross(connection: AsyncConnection) -> str:
    """Return how to join a passed-in table: SQLite then keeps the order written, and looks each row up in the index."""
    return "CROSS JOIN" if _sqlite(connection) else "JOIN"


async def _fetch(connection: AsyncConnection, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
    return list(await connection.exec_driver_sql(_marks(connection, sql), arguments))


def _marks(connection: AsyncConnection, sql: str) -> str:
    """Return SQL written with $1 $2 … as the driver wants it."""
    return sql.replace("$", "?") if _sqlite(connection) else sql
