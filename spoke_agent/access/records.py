"""grants.sqlite: grant sets as the hub signed them, holders, and keys that are out (never their secrets).

One file, one thread that alone touches it. What decides about access is written with ``synchronous=FULL``: it survives a
power cut. That a key was minted is written with NORMAL, which survives a SIGKILL and costs no wait for the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from protocol.errors import BadSetting, DiskFull, Internal, Unreachable
from protocol.grants import SignedGrantSet, Subject, SubjectKind
from spoke_agent.storage.node import Holder, HolderKind

T = TypeVar("T")

LAYOUT: Final = 1
_SCHEMA: Final = """
CREATE TABLE subject (
    kind TEXT NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,           -- of the newest set accepted
    body BLOB NOT NULL,               -- that set as the hub signed it
    signature BLOB NOT NULL,
    other_body BLOB,                  -- another set of the same epoch: only what both open counts
    other_signature BLOB,
    applied_epoch INTEGER NOT NULL,   -- what the server was last made to agree with
    applied_content BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE holder (
    name TEXT PRIMARY KEY,            -- never used twice
    kind TEXT NOT NULL,
    subject_kind TEXT NOT NULL,       -- 'probe': the agent's own, for proofs about shared access
    subject_id INTEGER NOT NULL,
    retired INTEGER NOT NULL          -- 1: no longer used; kept to know who it was
) WITHOUT ROWID;
CREATE TABLE key (
    access_key TEXT PRIMARY KEY,
    subject_id INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,       -- Unix seconds
    expires INTEGER NOT NULL,
    narrowed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE fact (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
"""
MEMORY: Final = ":memory:"
KEPT_S: Final = 7 * 86_400
"""How long the record of a key is kept after it expired."""


class SubjectRecord(msgspec.Struct, frozen=True):
    """One subject as it lies on disk."""

    subject: Subject
    epoch: int
    signed: SignedGrantSet
    other: SignedGrantSet | None
    applied_epoch: int
    applied_content: bytes


class HolderRecord(msgspec.Struct, frozen=True):
    """One holder. ``subject`` is (kind, id), with kind ``probe`` for the agent's own."""

    holder: Holder
    subject: tuple[str, int]
    retired: bool


class KeyRecord(msgspec.Struct, frozen=True):
    """One key that was handed out. Times in Unix seconds."""

    access_key: str
    subject_id: int
    issued_at: int
    expires: int
    narrowed: bool


class Loaded(msgspec.Struct, frozen=True):
    """Everything on disk that an agent starts with."""

    subjects: list[SubjectRecord]
    holders: list[HolderRecord]
    keys: list[KeyRecord]
    facts: dict[str, int]


class Records:
    """The file. Every method may raise DiskFull, BadSetting (damaged) or Internal; then nothing was written."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wio-grants")
        self._connection: sqlite3.Connection | None = None

    async def open(self, now: int) -> Loaded:
        """Open the file, made if it is new, and read all of it. Forgets keys that expired a week before ``now``."""

        def work(connection: sqlite3.Connection) -> Loaded:
            connection.execute("DELETE FROM key WHERE expires < ?", (now - KEPT_S,))
            return _load(connection, now)

        await self._in_thread(self._open)
        return await self.run(work)

    async def close(self) -> None:
        """Finish what was begun, then close the file."""
        await self._in_thread(self._close)
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run ``work`` as one transaction. Not ``durable``: without waiting for the disk."""
        return await self._in_thread(lambda: self._run(work, durable=durable))

    # -------------------------------------------------------------------------------------------------- writing

    async def keep_set(self, record: SubjectRecord) -> None:
        """Write the newest set of a subject."""
        other = record.other
        values = (
            record.subject.kind.value,
            record.subject.id,
            record.subject.name,
            record.epoch,
            record.signed.body,
            record.signed.signature,
            other.body if other else None,
            other.signature if other else None,
            record.applied_epoch,
            record.applied_content,
        )
        await self.run(lambda c: c.execute("INSERT OR REPLACE INTO subject VALUES (?,?,?,?,?,?,?,?,?,?)", values))

    async def keep_applied(self, subject: Subject, epoch: int, content: bytes) -> None:
        """Note what the server agrees with now. Losing it costs one comparison, so nobody waits for the disk."""
        statement = "UPDATE subject SET applied_epoch = ?, applied_content = ? WHERE kind = ? AND id = ?"
        values = (epoch, content, subject.kind.value, subject.id)
        await self.run(lambda c: c.execute(statement, values), durable=False)

    async def keep_holder(self, record: HolderRecord) -> None:
        """Write a holder down, before it is made on the server."""
        holder = record.holder
        values = (holder.name, holder.kind.value, *record.subject, int(record.retired))
        await self.run(lambda c: c.execute("INSERT OR REPLACE INTO holder VALUES (?,?,?,?,?)", values))

    async def drop_link(self, link: int) -> None:
        """Forget a link and what carried it. Losing that costs one look more at the next start."""

        def work(connection: sqlite3.Connection) -> None:
            kind = SubjectKind.LINK.value
            connection.execute("DELETE FROM subject WHERE kind = ? AND id = ?", (kind, link))
            connection.execute("DELETE FROM holder WHERE subject_kind = ? AND subject_id = ?", (kind, link))

        await self.run(work, durable=False)

    async def keep_key(self, key: KeyRecord) -> None:
        """Write down that a key was minted."""
        values = msgspec.structs.astuple(key)
        await self.run(lambda c: c.execute("INSERT OR REPLACE INTO key VALUES (?,?,?,?,?)", values), durable=False)

    async def keep_fact(self, name: str, value: int) -> None:
        """Write a number down."""
        await self.run(lambda c: c.execute("INSERT OR REPLACE INTO fact VALUES (?,?)", (name, value)))

    async def keys(self, now: int) -> list[KeyRecord]:
        """Return the keys that are out at Unix second ``now``."""
        return await self.run(lambda c: _keys(c, now), durable=False)

    # -------------------------------------------------------------------------------------------------- the thread

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Shielded: a transaction that began is finished, whoever stopped waiting for it.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _open(self) -> None:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=True, timeout=5)
            if self._path != MEMORY:
                Path(self._path).chmod(0o600)  # its -wal and -shm get the same
            connection.execute("PRAGMA journal_mode = WAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {LAYOUT};COMMIT;")
        except sqlite3.Error as error:
            raise _explained(error, self._path) from error
        if version not in {0, LAYOUT}:
            connection.close()
            raise BadSetting(
                f"{self._path} was written by another version of wio-agent: layout {version}, not {LAYOUT}.",
                todo="Use the newer wio-agent.",
            )
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        if self._connection is None:
            raise Internal("The agent's record of grants is closed.")
        connection = self._connection
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
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


def _load(connection: sqlite3.Connection, now: int) -> Loaded:
    subjects = [
        SubjectRecord(
            Subject(SubjectKind(kind), number, name),
            epoch,
            SignedGrantSet(body, signature),
            SignedGrantSet(other_body, other_signature) if other_body is not None else None,
            applied_epoch,
            applied_content,
        )
        for (
            kind,
            number,
            name,
            epoch,
            body,
            signature,
            other_body,
            other_signature,
            applied_epoch,
            applied_content,
        ) in connection.execute("SELECT * FROM subject")
    ]
    holders = [
        HolderRecord(Holder(HolderKind(kind), name), (subject_kind, subject_id), bool(retired))
        for name, kind, subject_kind, subject_id, retired in connection.execute("SELECT * FROM holder")
    ]
    facts = dict(connection.execute("SELECT name, value FROM fact"))
    return Loaded(subjects, holders, _keys(connection, now), facts)


def _keys(connection: sqlite3.Connection, now: int) -> list[KeyRecord]:
    found = connection.execute("SELECT * FROM key WHERE expires > ? ORDER BY expires", (now,))
    return [KeyRecord(name, subject, issued, expires, bool(narrowed)) for name, subject, issued, expires, narrowed in found]


def _explained(error: sqlite3.Error, path: str) -> DiskFull | BadSetting | Unreachable | Internal:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return DiskFull(f"The agent's record of grants {path} could not be written: {error}.", todo="Make room on that disk.")
    if primary in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return BadSetting(
            f"The agent's record of grants {path} is damaged: {error}.",
            todo="Move the file away: the agent then removes every key that is out, and the hub sends all grants again.",
        )
    if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        return BadSetting(
            f"The agent's record of grants {path} cannot be written: {error}.", todo="Check who owns that folder."
        )
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Unreachable(
            f"The agent's record of grants {path} is held by another program.", todo="It is tried again; see what has it open."
        )
    return Internal(f"The agent's record of grants {path} failed: {error}.")
