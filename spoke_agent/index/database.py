"""One SQLite file, one thread that alone touches it. The event loop hands over whole transactions and awaits them.

Transactions run in the order in which they were handed over: what is decided in the event loop before ``run`` is called
therefore holds when the transaction runs. WAL with ``synchronous=FULL``: what a transaction wrote survives a power cut.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from protocol.errors import BadSetting, DiskFull, Internal

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
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
    scanned_at INTEGER,             -- Unix microseconds of the last completed scan of this generation
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


class Database:
    """The file, and its thread. ``path`` may be ``:memory:`` in tests."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wio-index")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, and make its tables if it is new. Raises BadSetting for a file that is not ours."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Finish what was handed over, then close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` as one transaction: all of it is written, or none. Raises DiskFull, Internal, or what work raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def _open(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=True, timeout=5)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -16384")  # 16 MiB
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise _explained(error, self._path) from error
        if version not in {0, SCHEMA_VERSION}:
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


def _explained(error: sqlite3.Error, path: str) -> DiskFull | BadSetting | Internal:
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
    return Internal(f"The agent's index {path} failed: {error}.")
