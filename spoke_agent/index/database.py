"""One SQLite file, one thread that alone writes to it. The event loop hands over whole transactions and awaits them.

Transactions run in the order in which they were handed over: what is decided in the event loop before ``run`` is called
therefore holds when the transaction runs. WAL with ``synchronous=FULL``: what a transaction wrote survives a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from protocol.errors import BadSetting, DiskFull, Internal, Unreachable

T = TypeVar("T")

SCHEMA_VERSION: Final = 3
SCHEMA: Final = """
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    generation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,      -- rows of this generation written so far; the next row gets this number
    running BLOB NOT NULL,          -- the hash over all of them
    acknowledged INTEGER NOT NULL,  -- how many of them the hub has
    acknowledged_running BLOB NOT NULL,
    offered INTEGER NOT NULL        -- rows below this may have been sent and never change again
);
CREATE TABLE journal (
    first INTEGER PRIMARY KEY,      -- sequence of the first row
    rows INTEGER NOT NULL,
    body BLOB NOT NULL,             -- msgpack array of protocol.messages.Row
    running BLOB NOT NULL           -- the hash after the last row
);
CREATE TABLE object (
    root INTEGER NOT NULL,
    key TEXT NOT NULL,              -- compared as UTF-8 bytes, which is the order of listings
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    etag TEXT NOT NULL,
    PRIMARY KEY (root, key)
) WITHOUT ROWID;
CREATE TABLE root (
    root INTEGER PRIMARY KEY,
    config BLOB NOT NULL,           -- msgpack of protocol.messages.RootConfig
    identity TEXT,                  -- what check_root said when it was first scanned
    objects INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    digest INTEGER NOT NULL,        -- protocol.digest
    scanned_at INTEGER,             -- when the last completed scan of this generation began, Unix microseconds
    scan_started_at INTEGER,        -- of the scan that runs or was cut off
    scan_objects INTEGER NOT NULL,
    scan_bytes INTEGER NOT NULL,
    problem BLOB                    -- msgpack of the Problem that ended the last scan
);
CREATE TABLE span (                 -- what is left of a scan
    root INTEGER NOT NULL,
    low TEXT NOT NULL,              -- keys above this one; "" from the start. Also the span's name
    prefix TEXT NOT NULL,           -- that start with this
    high TEXT,                      -- up to and with this one; NULL to the end
    position TEXT NOT NULL,         -- listed and accepted up to and with this key
    PRIMARY KEY (root, low)
) WITHOUT ROWID;
CREATE TABLE configuration (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL
);
"""

READING: Final = """
CREATE TABLE unread (               -- objects that must be looked into, or told of again
    root INTEGER NOT NULL,
    key TEXT NOT NULL,
    hinted INTEGER NOT NULL,        -- somebody reported it: its tags may be others even where its content is the same
    asked INTEGER NOT NULL,         -- how often it was put here since it was last done
    PRIMARY KEY (root, key)
) WITHOUT ROWID;
CREATE INDEX unread_hinted ON unread (root, hinted, key);
CREATE TABLE read_fields (          -- what was read out of objects, where that is anything
    id INTEGER PRIMARY KEY,
    root INTEGER NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,          -- of the content that was read
    mtime INTEGER NOT NULL,
    etag TEXT NOT NULL,
    level TEXT NOT NULL,            -- the index level it was read for
    kind TEXT NOT NULL,
    version TEXT NOT NULL,          -- of that kind's extractor
    problem INTEGER NOT NULL,
    said INTEGER NOT NULL,          -- reading.saying when it went into the journal; 0 and -1: the object is gone
    body BLOB NOT NULL,             -- protocol.fields, packed
    UNIQUE (root, key)
);
CREATE INDEX read_fields_content ON read_fields (root, size, etag);
CREATE INDEX read_fields_said ON read_fields (root, said);
CREATE INDEX read_fields_problem ON read_fields (root) WHERE problem = 1;
CREATE TABLE reading (              -- roots of which anything is read, or was
    root INTEGER PRIMARY KEY,
    unread INTEGER NOT NULL,        -- rows of unread
    saying INTEGER NOT NULL,        -- how often all of it had to be said
    position TEXT,                  -- where the root is gone through as a whole: up to and with this key; NULL: it is not
    swept INTEGER NOT NULL,
    abilities TEXT NOT NULL         -- what could be read here when it was last gone through
);
CREATE TRIGGER unread_more AFTER INSERT ON unread BEGIN
    UPDATE reading SET unread = unread + 1 WHERE root = NEW.root;
END;
CREATE TRIGGER unread_fewer AFTER DELETE ON unread BEGIN
    UPDATE reading SET unread = unread - 1 WHERE root = OLD.root;
END;
"""
"""Since version 2."""

WISHES: Final = """
CREATE TABLE wish (                 -- roots of which a person wants a scan, whatever the hours, and which has not ended yet
    root INTEGER PRIMARY KEY
);
"""
"""Since version 3."""

_LAYOUTS: Final = (SCHEMA, READING, WISHES)
"""What each version adds to the one before."""


class Database:
    """The file, and its thread. ``path`` may be ``:memory:`` in tests."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wio-index")
        self._looking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wio-index-look")
        self._connection: sqlite3.Connection | None = None
        self._view: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, and make its tables if it is new. Raises BadSetting for a file that is not ours."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Finish what was handed over, then close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        if (view := self._view) is not None:
            view.interrupt()
        await asyncio.to_thread(self._looking.shutdown)
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` as one transaction: all of it is written, or none. Raises DiskFull, Internal, or what work raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, which reads for long and writes nothing, on one view of the file, beside what others write.

        In memory there is nothing to be beside of: there it is ``run``. Raises as ``run``.
        """
        if self._path == ":memory:":
            return await self.run(work)
        return await asyncio.get_running_loop().run_in_executor(self._looking, self._look, work)

    def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise Internal("The agent's index is closed.")
        try:
            with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=5)) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                self._view = connection
                try:
                    return work(connection)
                finally:
                    self._view = None
        except sqlite3.Error as error:
            raise _explained(error, self._path) from error

    def _open(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=True, timeout=5)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -16384")  # 16 MiB
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version < SCHEMA_VERSION:
                added = "".join(_LAYOUTS[version:])
                connection.executescript(f"BEGIN IMMEDIATE;{added}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise _explained(error, self._path) from error
        if version > SCHEMA_VERSION:
            connection.close()
            raise BadSetting(
                f"{self._path} was written by another version of wio-agent: layout {version}, not {SCHEMA_VERSION}.",
                todo="Use the newer wio-agent, or move the file away: the agent then scans its roots again.",
            )
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise Internal("The agent's index is closed.")
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _explained(error, self._path) from error
        return result


def _explained(error: sqlite3.Error, path: str) -> DiskFull | BadSetting | Unreachable | Internal:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return DiskFull(f"The agent's index {path} could not be written: {error}.", todo="Make room on that disk.")
    if primary in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return BadSetting(
            f"The agent's index {path} is damaged: {error}.",
            todo="Move the file away: the agent then scans its roots again. Nothing else is lost.",
        )
    if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return BadSetting(
            f"The agent's index {path} cannot be opened for writing: {error}.", todo="Check who owns that folder."
        )
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Unreachable(
            f"The agent's index {path} is held by another program.", todo="It is tried again; see what has it open."
        )
    return Internal(f"The agent's index {path} failed: {error}.")
