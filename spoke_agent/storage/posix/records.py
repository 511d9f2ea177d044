"""gateway.sqlite: who has what access on a directory node, and which accounts of the gateway are theirs. No secrets.

Written before the gateway hears of a thing: what the gateway has is made from this file at every start. What decides about
access survives a power cut; that an account was made need not: one that is forgotten opens nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from protocol.errors import BadSetting, DiskFull, Internal
from protocol.grants import Grant, Narrowing
from spoke_agent.storage.node import Holder, HolderKind

T = TypeVar("T")

LAYOUT: Final = 1
_SCHEMA: Final = """
CREATE TABLE holder (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    grants BLOB NOT NULL,    -- msgpack of protocol.grants.Grant
    shared BLOB NOT NULL     -- msgpack of names of shared holders
) WITHOUT ROWID;
CREATE TABLE account (
    access_key TEXT PRIMARY KEY,  -- never used twice
    holder TEXT NOT NULL,
    expires INTEGER NOT NULL,     -- Unix seconds
    narrowing BLOB NOT NULL       -- msgpack of protocol.grants.Narrowing, or nil
) WITHOUT ROWID;
CREATE TABLE refused (
    bucket TEXT PRIMARY KEY,
    keys BLOB NOT NULL       -- msgpack of keys that nobody gets at
) WITHOUT ROWID;
"""
_ENCODE: Final = msgspec.msgpack.Encoder()
_GRANTS: Final = msgspec.msgpack.Decoder(tuple[Grant, ...])
_NAMES: Final = msgspec.msgpack.Decoder(tuple[str, ...])
_NARROWING: Final = msgspec.msgpack.Decoder(Narrowing | None)
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class HolderRecord(msgspec.Struct, frozen=True):
    """A holder as it lies on disk."""

    holder: Holder
    grants: tuple[Grant, ...]
    shared: tuple[str, ...]


class AccountRecord(msgspec.Struct, frozen=True):
    """One account of the gateway: a key that was handed out. ``expires`` in Unix seconds."""

    access_key: str
    holder: str
    expires: int
    narrowing: Narrowing | None


class Loaded(msgspec.Struct, frozen=True):
    """Everything on disk."""

    holders: list[HolderRecord]
    accounts: list[AccountRecord]
    refused: list[tuple[str, tuple[str, ...]]]


class Records:
    """The file. Every method may raise DiskFull, BadSetting (damaged) or Internal; then nothing was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> Loaded:
        """Open the file, made if it is new, and read all of it."""
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="wio-gateway")
        return await self._in_thread(self._open)

    async def close(self) -> None:
        """Finish what was begun, then close the file."""
        thread = self._thread
        if thread is not None:
            await self._in_thread(self._close)
            self._thread = None
            thread.shutdown(wait=True)

    async def keep_holder(self, record: HolderRecord) -> None:
        """Write what a holder has; for good."""
        holder = record.holder
        row = (holder.name, holder.kind.value, _ENCODE.encode(record.grants), _ENCODE.encode(record.shared))
        await self._run(lambda it: it.execute("INSERT OR REPLACE INTO holder VALUES (?, ?, ?, ?)", row), durable=True)

    async def drop_holder(self, name: str) -> None:
        """Forget a holder and its accounts; for good."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM account WHERE holder = ?", (name,))
            connection.execute("DELETE FROM holder WHERE name = ?", (name,))

        await self._run(work, durable=True)

    async def keep_account(self, record: AccountRecord) -> None:
        """Write that an account is there."""
        row = (record.access_key, record.holder, record.expires, _ENCODE.encode(record.narrowing))
        await self._run(lambda it: it.execute("INSERT INTO account VALUES (?, ?, ?, ?)", row), durable=False)

    async def drop_accounts(self, access_keys: Sequence[str]) -> None:
        """Forget accounts."""
        rows = [(key,) for key in access_keys]
        await self._run(lambda it: it.executemany("DELETE FROM account WHERE access_key = ?", rows), durable=False)

    async def keep_refused(self, bucket: str, keys: tuple[str, ...]) -> None:
        """Write which keys of a bucket nobody gets at."""
        row = (bucket, _ENCODE.encode(keys))
        await self._run(lambda it: it.execute("INSERT OR REPLACE INTO refused VALUES (?, ?)", row), durable=False)

    # -------------------------------------------------------------------------------------------------- the thread

    def _open(self) -> Loaded:
        if self._connection is None:
            self._path.touch(mode=0o600)
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                self._set_up(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        holders = [
            HolderRecord(Holder(HolderKind(kind), name), _GRANTS.decode(grants), _NAMES.decode(shared))
            for name, kind, grants, shared in self._connection.execute("SELECT name, kind, grants, shared FROM holder")
        ]
        accounts = [
            AccountRecord(key, holder, expires, _NARROWING.decode(narrowing))
            for key, holder, expires, narrowing in self._connection.execute(
                "SELECT access_key, holder, expires, narrowing FROM account"
            )
        ]
        found = self._connection.execute("SELECT bucket, keys FROM refused")
        return Loaded(holders, accounts, [(bucket, _NAMES.decode(keys)) for bucket, keys in found])

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={LAYOUT}; COMMIT;")
        elif version != LAYOUT:
            raise BadSetting(f"{self._path} was written by another version of wio-agent (layout {version}).")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], object], *, durable: bool) -> None:
        await self._in_thread(lambda: self._transaction(work, durable=durable))

    def _transaction(self, work: Callable[[sqlite3.Connection], object], *, durable: bool) -> None:
        connection = self._connection
        if connection is None:
            raise Internal("The records of the gateway were used before they were opened.")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            work(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise Internal("The records of the gateway were used before they were opened.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL:
                raise DiskFull(f"{self._path} could not be written: {error}.", todo="Make room on that disk.") from error
            raise BadSetting(
                f"{self._path} is damaged: {error}.", todo="Move it away: everybody's keys are then replaced."
            ) from error
        except msgspec.MsgspecError as error:
            raise BadSetting(
                f"{self._path} is damaged: {error}.", todo="Move it away: everybody's keys are then replaced."
            ) from error
