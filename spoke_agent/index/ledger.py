"""Snapshot and journal as one thing: what looks found goes in, rows for the hub come out, in whole transactions.

The rest of the agent uses this and none of the modules below it. Every method may raise DiskFull; then nothing was
written and it may be tried again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from protocol.errors import Problem, UnknownRoot, WioError
from protocol.fields import Fields
from protocol.messages import MAX_ROWS, Change, Cursor, IndexLevel, KeyRange, RootConfig, Row
from protocol.names import Layout
from spoke_agent.index import journal, readout, snapshot
from spoke_agent.index.database import Database
from spoke_agent.index.journal import Agreement, Batch, Head
from spoke_agent.index.looks import Look, Looks
from spoke_agent.index.readout import Plan, Unread, is_read
from spoke_agent.index.snapshot import Known, Totals
from spoke_agent.index.spans import Span
from spoke_agent.storage.node import Entry

T = TypeVar("T")

JOURNAL_ROWS: Final = 200_000
"""Rows the hub has not acknowledged, at most: some 30 MB. Beyond that looking waits, and what may have changed is marked."""
KNOWN_AT_ONCE: Final = 20_000
"""Known objects compared with a page at once: a folder of millions that is gone must not be in memory as a whole."""
BATCH_BYTES: Final = 800_000
"""Bytes of rows in one batch, so that the frame stays under protocol.messages.MAX_FRAME."""

_log: Final = logging.getLogger(__name__)
_ENCODE = msgspec.msgpack.Encoder()
_CONFIG = msgspec.msgpack.Decoder(RootConfig)
_PROBLEM = msgspec.msgpack.Decoder(Problem)


class Superseded(Exception):
    """Not an error: a new generation began while something was under way. Its user starts again."""


class Seen(msgspec.Struct, frozen=True):
    """What one look at one key found; ``entry`` is None where nothing is there."""

    look: Look
    key: str
    entry: Entry | None
    actor: int = 0
    always: bool = False
    """Make a row even where it looks as before (see ``snapshot.difference``)."""
    asked: bool = False
    """Make a row whatever is there, and was."""


class Position(msgspec.Struct, frozen=True):
    """A place in the journal: behind ``sequence`` rows of ``generation``."""

    generation: int
    sequence: int


class Listed(msgspec.Struct, frozen=True):
    """What became of a page: keys known but not in it, and keys for which another look is needed."""

    missing: tuple[str, ...]
    doubtful: tuple[str, ...]
    stopped: str | None = None
    """Where more was known than is looked through at once: the last key that was. The rest of the page is still to come."""


class Step(msgspec.Struct, frozen=True):
    """How far one page takes a scan: in which span, up to which key (None: the span is done), with how many objects."""

    span: str
    position: str | None
    objects: int
    bytes: int


class Standing(msgspec.Struct, frozen=True):
    """A root as the snapshot has it at one journal position, and where its scan stands. Times in Unix microseconds."""

    root: int
    name: str
    objects: int
    bytes: int
    digest: int
    sequence: int
    scanned_at: int | None
    scan_started_at: int | None
    scan_objects: int
    scan_bytes: int
    problem: Problem | None


class Scanning(msgspec.Struct, frozen=True):
    """A scan that begins or goes on: what is left of it, and what it has counted."""

    generation: int
    started_at: int
    spans: tuple[tuple[str, Span], ...]
    """(the span's name: its lower end when it was cut; what is left of it)."""
    objects: int
    bytes: int
    resumed: bool
    """Whether it began earlier: then what lies before ``spans`` may have changed since it was listed."""


class Ledger:
    """Snapshot and journal. Used in the event loop; the work is done in the database's thread."""

    def __init__(self, database: Database, *, journal_rows: int = JOURNAL_ROWS) -> None:
        self._database = database
        self._journal_rows = journal_rows
        self._head = Head(0, 0, b"", 0, b"", 0)
        self._roots: dict[int, RootConfig] = {}
        self._begun: Counter[int] = Counter()
        self._room = asyncio.Event()
        self.looks = Looks()
        self.changed = asyncio.Event()
        """Set whenever there is something new to send; whoever sends clears it."""
        self.unread = asyncio.Event()
        """Set whenever there may be something new to read out of objects; whoever reads clears it."""

    # -------------------------------------------------------------------------------------------------- life

    async def open(self) -> None:
        """Open the file and read where things stand."""
        await self._database.open()

        def work(connection: sqlite3.Connection) -> list[RootConfig]:
            found = [_CONFIG.decode(body) for (body,) in connection.execute("SELECT config FROM root").fetchall()]
            for config in found:
                readout.configure(connection, config, config)  # for a file that an older version wrote
            return found

        self._roots = {config.root: config for config in await self._run(work)}

    async def close(self) -> None:
        """Finish and close the file."""
        await self._database.close()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(connection: sqlite3.Connection) -> tuple[T, Head]:
            return work(connection), journal.head(connection)

        result, now = await self._database.run(whole)
        before, self._head = self._head, now
        if self.pending < self._journal_rows:
            self._room.set()
        else:
            self._room.clear()
        if (now.generation, now.sequence) != (before.generation, before.sequence):
            self.changed.set()
            self.unread.set()
        return result

    @property
    def generation(self) -> int:
        """The journal's generation."""
        return self._head.generation

    @property
    def pending(self) -> int:
        """Rows the hub has not acknowledged."""
        return self._head.pending

    async def room(self) -> None:
        """Wait until the journal has room. Where it is full of old news of few keys, room is made."""
        if self._room.is_set():
            return
        if await self._run(journal.coalesce) == 0:
            await self._room.wait()

    # -------------------------------------------------------------------------------------------------- roots

    async def configure(self, revision: int, roots: Sequence[RootConfig]) -> bool:
        """Keep these roots as all there are; False where a higher revision is known, and nothing was changed.

        A root that is gone is forgotten. One that lies elsewhere now gets a new identity at its next scan.
        """

        def newer(connection: sqlite3.Connection) -> bool:
            found = connection.execute("SELECT revision FROM configuration").fetchone()
            if found is not None and revision < found[0]:
                return False
            connection.execute("INSERT OR REPLACE INTO configuration VALUES (1, ?)", (revision,))
            return True

        return await self._keep_roots(roots, newer)

    async def limit(self, admit: Callable[[RootConfig], RootConfig | None]) -> None:
        """Keep of the roots what ``admit`` leaves of them. The revision stays, so the hub may say the same again."""
        admitted = [admit(config) for config in self._roots.values()]
        if admitted != list(self._roots.values()):
            await self._keep_roots([config for config in admitted if config is not None], lambda _: True)

    async def _keep_roots(self, roots: Sequence[RootConfig], may: Callable[[sqlite3.Connection], bool]) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if not may(connection):
                return False
            for gone in self._roots.keys() - {config.root for config in roots}:
                _forget(connection, gone)
                connection.execute("DELETE FROM root WHERE root = ?", (gone,))
                connection.execute("DELETE FROM wish WHERE root = ?", (gone,))
            for config in roots:
                _keep_config(connection, config, self._roots.get(config.root))
            return True

        kept = await self._run(work)
        if kept:
            self._roots = {config.root: config for config in roots}
            self.unread.set()
        return kept

    def configs(self) -> list[RootConfig]:
        """Return all roots of this node."""
        return list(self._roots.values())

    def indexed(self) -> list[RootConfig]:
        """Return the roots whose objects the hub may know."""
        return [config for config in self._roots.values() if is_indexed(config)]

    def config(self, root: int) -> RootConfig:
        """Return one root. Raises UnknownRoot."""
        try:
            return self._roots[root]
        except KeyError:
            raise UnknownRoot(f"Root {root} is not on this node.") from None

    async def standings(self) -> list[Standing]:
        """Return how every root stands."""
        return await self._run(lambda connection: _standings(connection, list(self._roots)))

    # -------------------------------------------------------------------------------------------------- looks

    async def accept_looks(self, seen: Sequence[Seen]) -> list[Seen]:
        """Take in what looks at single keys found; return those that do not count and must be made again."""
        counted: list[Seen] = []
        again: list[Seen] = []
        for one in seen:
            (counted if one.look.counts(one.key) else again).append(one)
        for one in counted:
            self.looks.accept_key(one.look, one.key)

        def work(connection: sqlite3.Connection) -> None:
            for root in {one.look.root for one in counted}:
                here = [one for one in counted if one.look.root == root]
                for always in (False, True):
                    _take_in(connection, root, [one for one in here if one.always is always], always=always)

        if counted:
            await self._run(work)
        return again

    async def accept_page(
        self, look: Look, generation: int, part: Span, entries: Sequence[Entry], *, step: Step | None
    ) -> Listed:
        """Take in one page of a listing: ``entries`` is all there is in ``part``.

        Nothing is deleted: keys that are known but not listed come back as ``missing``. Where there are none, the scan
        takes this ``step`` in the same transaction; else ``advance`` takes it, later. Where it ``stopped`` early, it takes
        none. Raises Superseded.
        """
        keys, spans = look.overtaken()
        self.looks.accept_span(look, part)

        def work(connection: sqlite3.Connection) -> Listed:
            if journal.head(connection).generation != generation:
                raise Superseded
            known = snapshot.known_between(connection, look.root, part, KNOWN_AT_ONCE)
            stopped = max(known) if len(known) == KNOWN_AT_ONCE else None
            here = entries if stopped is None else [entry for entry in entries if entry.key <= stopped]
            listed = _judge(known, here, keys, spans)
            if listed.doubtful or keys or spans:
                here = [entry for entry in here if entry.key not in keys and not _in_any(spans, entry.key)]
            _change(connection, look.root, known, here)
            if step is not None and not listed.missing and stopped is None:
                _advance(connection, look.root, step)
            return Listed(listed.missing, listed.doubtful, stopped)

        return await self._run(work)

    # -------------------------------------------------------------------------------------------------- scans

    async def begin_scan(self, config: RootConfig, identity: str, spans: Sequence[Span], at: int) -> Scanning:
        """Begin a scan, or go on with one that was cut off: then ``spans`` are ignored.

        Raises UnknownRoot, Superseded (the root lies elsewhere now than ``config`` says).
        """
        root = config.root

        def work(connection: sqlite3.Connection) -> Scanning:
            found = connection.execute("SELECT config FROM root WHERE root = ?", (root,)).fetchone()
            if found is None or _location(_CONFIG.decode(found[0])) != _location(config):
                raise Superseded
            left = connection.execute("SELECT 1 FROM span WHERE root = ?", (root,)).fetchone()
            if left is None:
                connection.executemany(
                    "INSERT INTO span VALUES (?, ?, ?, ?, ?)",
                    [(root, span.low, span.prefix, span.high, span.low) for span in spans],
                )
                connection.execute(
                    "UPDATE root SET scan_started_at = ?, scan_objects = 0, scan_bytes = 0 WHERE root = ?", (at, root)
                )
            connection.execute("UPDATE root SET identity = ?, problem = NULL WHERE root = ?", (identity, root))
            rest = connection.execute("SELECT low, prefix, position, high FROM span WHERE root = ? ORDER BY low", (root,))
            named = tuple((low, Span(prefix, position, high)) for low, prefix, position, high in rest)
            started, objects, size = connection.execute(
                "SELECT scan_started_at, scan_objects, scan_bytes FROM root WHERE root = ?", (root,)
            ).fetchone()
            generation = journal.head(connection).generation
            return Scanning(generation, started or at, named, objects, size, left is not None)

        self.config(root)
        scanning = await self._run(work)
        self._begun[root] += not scanning.resumed
        return scanning

    async def wishes(self) -> list[int]:
        """Return the roots of which a person wants a scan, whatever the hours, that has not ended yet."""
        return await self._run(lambda connection: [root for (root,) in connection.execute("SELECT root FROM wish")])

    async def wish(self, root: int) -> None:
        """Remember that a person wants a scan of a root, whatever the hours, until one is done (``fulfil``)."""
        await self._run(lambda connection: connection.execute("INSERT OR IGNORE INTO wish VALUES (?)", (root,)))

    async def fulfil(self, root: int) -> None:
        """Forget that somebody wants a scan of a root."""
        await self._run(lambda connection: connection.execute("DELETE FROM wish WHERE root = ?", (root,)))

    def begun(self, root: int) -> int:
        """Return how many scans of this root were begun since the agent started; going on with one does not count."""
        return self._begun[root]

    async def advance(self, root: int, generation: int, step: Step) -> None:
        """Take a step of a scan whose missing keys have all been looked at. Raises Superseded."""

        def work(connection: sqlite3.Connection) -> None:
            if journal.head(connection).generation != generation:
                raise Superseded
            _advance(connection, root, step)

        await self._run(work)

    async def finish_scan(self, root: int, generation: int) -> Standing:
        """Note that every span of a scan is done: all is known up to when it began. Raises Superseded."""

        def work(connection: sqlite3.Connection) -> Standing:
            left = connection.execute("SELECT 1 FROM span WHERE root = ?", (root,)).fetchone()
            # Its beginning is forgotten where its spans were: the root lies elsewhere now, or is not indexed any more.
            begun = connection.execute("SELECT scan_started_at FROM root WHERE root = ?", (root,)).fetchone()
            if left is not None or begun is None or begun[0] is None or journal.head(connection).generation != generation:
                raise Superseded
            connection.execute("UPDATE root SET scanned_at = scan_started_at, problem = NULL WHERE root = ?", (root,))
            found = _standings(connection, [root])
            if not found:
                raise Superseded
            return found[0]

        standing = await self._run(work)
        self.changed.set()
        return standing

    async def fail_scan(self, root: int, problem: Problem) -> None:
        """Note why a scan stopped. What is left of it stays, to go on with."""
        body = _ENCODE.encode(problem)
        await self._run(lambda connection: connection.execute("UPDATE root SET problem = ? WHERE root = ?", (body, root)))

    async def identity(self, root: int) -> str | None:
        """Return what the root was when it was first scanned; None where it never was."""

        def work(connection: sqlite3.Connection) -> str | None:
            found = connection.execute("SELECT identity FROM root WHERE root = ?", (root,)).fetchone()
            return found[0] if found is not None else None

        return await self._run(work)

    async def count_below(self, root: int, prefix: str, limit: int) -> int:
        """Count the objects known below a prefix, at most ``limit``."""
        return await self._run(lambda connection: snapshot.count_below(connection, root, prefix, limit))

    async def known(self, root: int, span: Span, *, limit: int = -1) -> dict[str, Known]:
        """Return what is known of a span, in order; the first ``limit`` of it, where that is not negative."""
        return await self._run(lambda connection: snapshot.known_between(connection, root, span, limit))

    async def known_at(self, root: int, key: str) -> Known | None:
        """Return what is known of one key."""
        return (await self._run(lambda connection: snapshot.known_at(connection, root, [key]))).get(key)

    async def recount(self, root: int) -> tuple[Totals, Totals, Position]:
        """Return a root's totals as they are kept, the same worked out again from every row, and the journal's position.

        One pass over one view of the file, 4 to 14 s per million objects (measured), while which others write.
        """

        def work(connection: sqlite3.Connection) -> tuple[Totals, Totals, Position]:
            return snapshot.totals(connection, root), snapshot.recount(connection, root), _position(connection)

        self.config(root)
        return await self._database.look(work)

    async def sums(self, root: int, ranges: Sequence[KeyRange]) -> tuple[list[Totals], Position]:
        """Add these parts of a root up, from every row, at one journal position; as ``recount`` otherwise.

        Where they are all of the root, in order, this is a recount: totals that were kept wrong are put right.
        """

        def work(connection: sqlite3.Connection) -> tuple[list[Totals], Totals, Position]:
            sums = [snapshot.recount(connection, root, one.low, one.high) for one in ranges]
            return sums, snapshot.totals(connection, root), _position(connection)

        self.config(root)
        sums, kept, position = await self._database.look(work)
        if _whole(ranges):
            recounted = snapshot.added(sums)
            if recounted != kept:
                _log.error("Totals of root %d were kept wrong (%s, not %s): put right.", root, kept, recounted)
                await self._run(lambda connection: snapshot.mend_totals(connection, root, kept, recounted))
        return sums, position

    async def repeat(self, root: int, part: KeyRange, limit: int) -> str | None:
        """Write rows that say again what is known of part of a root; return the last key, None where that is the end."""

        def work(connection: sqlite3.Connection) -> str | None:
            known = snapshot.known_between(connection, root, Span("", part.low, part.high), limit)
            journal.append(connection, [Row(Change.PUT, root, key, *content) for key, content in known.items()])
            return max(known) if len(known) == limit else None

        self.config(root)
        return await self._run(work)

    # -------------------------------------------------------------------------------------------------- reading

    def read(self) -> dict[int, RootConfig]:
        """Return the roots whose objects are read, by id."""
        return {root: config for root, config in self._roots.items() if is_read(config)}

    async def able(self, versions: str) -> None:
        """Say which extractors there are, with their versions: what others have read is looked at again, in pieces."""
        await self._run(lambda connection: readout.able(connection, versions))

    async def plan_reading(self, versions: str, *, bulk: Iterable[int], limit: int) -> Plan:
        """Return what is to be read next, at most ``limit`` objects; tell the hub of what is known already.

        Objects that nobody reported are read only in the roots of ``bulk``.
        """
        configs, wanted = self.read(), list(bulk)

        def work(connection: sqlite3.Connection) -> Plan:
            plan, rows = readout.plan(connection, configs, versions, bulk=wanted, limit=limit)
            journal.append(connection, rows)
            return plan

        return await self._run(work)

    async def keep_read(self, found: Sequence[tuple[Unread, Fields]], versions: str) -> None:
        """Keep what was read out of objects, and tell the hub, in one transaction. What is not wanted any more is left out."""

        def work(connection: sqlite3.Connection) -> None:
            # As it is kept, not as it was when the reading began.
            configs = {root: _CONFIG.decode(body) for root, body in connection.execute("SELECT root, config FROM root")}
            made = [
                readout.keep(connection, item, configs[item.root], fields, versions)
                for item, fields in found
                if item.root in configs
            ]
            journal.append(connection, [row for row in made if row is not None])

        await self._run(work)

    async def let_go(self, items: Sequence[Unread]) -> None:
        """Take objects off the list that are not what they were; they come back with their next look."""

        def work(connection: sqlite3.Connection) -> None:
            for item in items:
                readout.let_go(connection, item)

        await self._run(work)

    async def tidy_reading(self) -> bool:
        """Drop some of what was read and belongs to nothing any more; True where there is more of it.

        With a minute or more between calls: only then are objects recognised that have moved meanwhile.
        """
        configs = self.read()
        return await self._run(lambda connection: readout.tidy(connection, configs))

    async def reading_state(self) -> dict[int, tuple[int, int]]:
        """Return of every root that is read how many objects are still to be read, and how many could not be; about."""
        configs = self.read()
        found = await self._run(readout.state)
        return {root: found.get(root, (0, 0)) for root in configs}

    # -------------------------------------------------------------------------------------------------- the hub

    async def settle(self, cursor: Cursor) -> tuple[int, bool]:
        """Agree with the hub on where to go on: (the number of the next row to send, whether a new generation began).

        With a new generation the snapshot is empty: every root must be scanned.
        """

        def work(connection: sqlite3.Connection) -> tuple[int, bool]:
            agreement = journal.agree(connection, cursor)
            if agreement is Agreement.RESUME:
                journal.acknowledged(connection, cursor)
                return cursor.sequence, False
            if agreement is Agreement.FROM_START:
                return 0, False
            journal.begin(connection, max(journal.head(connection).generation, cursor.generation) + 1)
            readout.begin(connection)
            connection.execute("DELETE FROM object")
            connection.execute("DELETE FROM span")
            connection.execute("UPDATE root SET objects = 0, bytes = 0, digest = 0, scanned_at = NULL, scan_started_at = NULL")
            return 0, True

        return await self._run(work)

    async def acknowledged(self, cursor: Cursor) -> bool:
        """Note what the hub has; False where its cursor does not fit."""
        return await self._run(lambda connection: journal.acknowledged(connection, cursor))

    async def outgoing(
        self, after: int, roots: Iterable[int] = (), *, max_bytes: int = BATCH_BYTES
    ) -> tuple[Batch | None, list[Standing]]:
        """Return the next rows to send from number ``after`` on, some ``max_bytes`` of them; None where there are none.

        Where that is up to the journal's end, the standings of ``roots`` at exactly that position come with it.
        """
        wanted = list(roots)

        def work(connection: sqlite3.Connection) -> tuple[Batch | None, list[Standing]]:
            batch = journal.next_batch(connection, after, max_rows=MAX_ROWS, max_bytes=max_bytes)
            more = batch is not None and batch.end < journal.head(connection).sequence
            return batch, [] if more else _standings(connection, wanted)

        return await self._run(work)


def _position(connection: sqlite3.Connection) -> Position:
    now = journal.head(connection)
    return Position(now.generation, now.sequence)


def _whole(ranges: Sequence[KeyRange]) -> bool:
    """Say whether ranges, one after the other, hold every key once."""
    highs = ["", *(one.high for one in ranges)]
    return highs[-1] is None and all(one.low == high for one, high in zip(ranges, highs, strict=False))


def is_indexed(config: RootConfig) -> bool:
    """Say whether the hub may know this root's objects. A ``local`` index stays on the node."""
    return config.level not in {IndexLevel.NONE, IndexLevel.LOCAL}


def problem_of(error: WioError) -> Problem:
    """Return an error as it is kept and sent, within the limits of the wire."""
    problem = error.problem
    return msgspec.structs.replace(problem, message=problem.message[:500], todo=problem.todo[:500])


# ---------------------------------------------------------------------------------------------------- in a transaction


def _keep_config(connection: sqlite3.Connection, config: RootConfig, before: RootConfig | None) -> None:
    connection.execute(
        "INSERT INTO root VALUES (?, ?, NULL, 0, 0, 0, NULL, NULL, 0, 0, NULL) "
        "ON CONFLICT (root) DO UPDATE SET config = excluded.config",
        (config.root, _ENCODE.encode(config)),
    )
    readout.configure(connection, config, before)
    if before is None:
        return
    if _location(before) != _location(config):
        connection.execute(
            "UPDATE root SET identity = NULL, scanned_at = NULL, scan_started_at = NULL WHERE root = ?", (config.root,)
        )
        connection.execute("DELETE FROM span WHERE root = ?", (config.root,))
    if is_indexed(before) and not is_indexed(config):
        _forget(connection, config.root)


def _location(config: RootConfig) -> tuple[str, str, Layout]:
    return config.bucket, config.prefix, config.layout


def _forget(connection: sqlite3.Connection, root: int) -> None:
    snapshot.forget(connection, root)
    connection.execute("DELETE FROM span WHERE root = ?", (root,))
    connection.execute("UPDATE root SET scanned_at = NULL, scan_started_at = NULL, problem = NULL WHERE root = ?", (root,))


def _take_in(connection: sqlite3.Connection, root: int, seen: Sequence[Seen], *, always: bool) -> None:
    if not seen:
        return
    known = snapshot.known_at(connection, root, [one.key for one in seen])
    found = [one.entry for one in seen if one.entry is not None]
    gone = [one.key for one in seen if one.entry is None]
    actors = {one.key: one.actor for one in seen if one.actor}
    asked = {one.key for one in seen if one.asked}
    _change(connection, root, known, found, gone, actors=actors, always=always, asked=asked)


def _change(
    connection: sqlite3.Connection,
    root: int,
    known: dict[str, Known],
    found: Sequence[Entry],
    gone: Sequence[str] = (),
    *,
    actors: dict[str, int] | None = None,
    always: bool = False,
    asked: Collection[str] = (),
) -> None:
    """Work out what changes, and write it to snapshot, totals and journal. Nothing for a root the hub may not know."""
    found_config = connection.execute("SELECT config FROM root WHERE root = ?", (root,)).fetchone()
    if found_config is None:
        return
    config = _CONFIG.decode(found_config[0])
    if not is_indexed(config):
        return
    totals = snapshot.totals(connection, root)
    made = snapshot.difference(root, totals, known, found, gone, actors=actors, always=always, asked=asked)
    rows: tuple[Row, ...] = made.rows
    if rows:
        snapshot.write(connection, rows)
        snapshot.keep_totals(connection, root, made.totals)
        journal.append(connection, rows)
        if is_read(config):
            readout.follow(connection, root, rows, hinted=always)


def _judge(known: dict[str, Known], entries: Sequence[Entry], keys: frozenset[str], spans: tuple[Span, ...]) -> Listed:
    """Say which known keys a page lacks, and where an overtaken look disagrees with what is known."""
    if not known and not keys and not spans:
        return Listed((), ())
    listed = {entry.key for entry in entries}
    missing = [key for key in known if key not in listed]
    doubtful: list[str] = []
    if keys or spans:
        doubtful = [key for key in missing if key in keys or _in_any(spans, key)]
        missing = [key for key in missing if not (key in keys or _in_any(spans, key))]
        doubtful += [
            entry.key
            for entry in entries
            if (entry.key in keys or _in_any(spans, entry.key))
            and known.get(entry.key) != (entry.size, entry.mtime, entry.etag)
        ]
    return Listed(tuple(missing), tuple(doubtful))


def _in_any(spans: tuple[Span, ...], key: str) -> bool:
    return any(span.holds(key) for span in spans)


def _advance(connection: sqlite3.Connection, root: int, step: Step) -> None:
    if step.position is None:
        connection.execute("DELETE FROM span WHERE root = ? AND low = ?", (root, step.span))
    else:
        connection.execute("UPDATE span SET position = ? WHERE root = ? AND low = ?", (step.position, root, step.span))
    connection.execute(
        "UPDATE root SET scan_objects = scan_objects + ?, scan_bytes = scan_bytes + ? WHERE root = ?",
        (step.objects, step.bytes, root),
    )


def _standings(connection: sqlite3.Connection, roots: Sequence[int]) -> list[Standing]:
    sequence = journal.head(connection).sequence
    standings = []
    for root in roots:
        found = connection.execute(
            "SELECT config, objects, bytes, digest, scanned_at, scan_started_at, scan_objects, scan_bytes, problem "
            "FROM root WHERE root = ?",
            (root,),
        ).fetchone()
        if found is None:
            continue
        config, objects, size, digest, scanned, started, scan_objects, scan_bytes, problem = found
        standings.append(
            Standing(
                root,
                _CONFIG.decode(config).name,
                objects,
                size,
                digest,
                sequence,
                scanned,
                started,
                scan_objects,
                scan_bytes,
                _PROBLEM.decode(problem) if problem is not None else None,
            )
        )
    return standings
