"""Journals in: rows of agents become entries of the catalogue, exactly once and in order.

A batch's rows, the totals they change and the node's cursor go in with one transaction; then the agent is told. Batches of
several nodes that come while a transaction runs share the next one, so a thousand quiet agents cost no more than a busy one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import accesses as access_rows
from hub.db import catalogue, journals
from hub.db.catalogue import Address
from hub.db.database import Database
from hub.db.rows import storable
from hub.services.batches import Sheet, Verdict, folders_above, judge, no_journals
from hub.services.ports import Clock
from protocol.digest import EMPTY_RUN, combine, object_number, run_on
from protocol.errors import BadMessage, Internal
from protocol.fields import unpack
from protocol.messages import Accesses, Ack, Change, Cursor, Events, Nak, Progress, Row, ScanState
from protocol.names import NodeId
from protocol.wire import encode

log: Final = logging.getLogger("wio.hub.ingest")

TOGETHER: Final = 8000
"""Rows from which on a transaction takes no further batch: about 0.2 s of work."""
BREATH: Final = 500
"""Rows worked on before other tasks get their turn: some 3 ms, so that an import delays no revocation."""
ANEW_EVERY_US: Final = 600_000_000
"""How often one node is asked at most to start its journal anew because nothing else brings the catalogue back to it."""

_Outcome: TypeAlias = Ack | Nak | None


class _Waiting(msgspec.Struct):
    node: NodeId
    what: Events | Progress
    done: asyncio.Future[_Outcome]
    at: int


class Ingest:
    """What the gateway hands on. Messages of one node must come one after the other: await each."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
        indexed: Callable[[], int] = lambda: 0,
        moved: Callable[[set[int], int], None] = lambda _roots, _at: None,
        applied: Callable[[int], None] = lambda _: None,
        drifted: Callable[[], None] = lambda: None,
    ) -> None:
        """Call ``changed`` when the search index has something to do; ``indexed`` says up to which revision it is.

        ``moved`` is told which roots' totals have moved, and when (Unix microseconds); ``applied`` how many rows were taken in;
        ``drifted`` is called when the catalogue of some root turns out not to be what its agent has.
        """
        self._database = database
        self._clock = clock
        self._changed = changed
        self._indexed = indexed
        self._moved = moved
        self._waiting: deque[_Waiting] = deque()
        self._work: asyncio.Task[None] | None = None
        self._held: dict[tuple[int, int], Progress] = {}
        self._anew: dict[int, int] = {}
        self._hopeless: set[int] = set()
        self.drifts: dict[int, str] = {}
        """Roots whose catalogue did not equal what the agent has, and how; cleared by the next scan that agrees."""
        self.accesses_dropped = 0
        """Accesses that could not be true: of keys or times that cannot be."""
        self._accessing = asyncio.Lock()
        self._applied = applied
        self._drifted = drifted

    @property
    def waiting(self) -> int:
        """Messages that wait for the database."""
        return len(self._waiting)

    def lag_us(self, now: int) -> int:
        """Return for how long the oldest of them has waited, in microseconds."""
        return max(now - self._waiting[0].at, 0) if self._waiting else 0

    async def cursor(self, node: NodeId) -> Cursor:
        """Return how far this node's journal is in the catalogue, for a session that begins."""
        for at in [at for at in self._held if at[0] == node]:
            del self._held[at]  # its positions belong to the session before
        async with self._database.read() as connection:
            return await journals.cursor(connection, node)

    async def apply(self, node: NodeId, events: Events) -> Ack | Nak:
        """Put a batch into the catalogue. Raises BadMessage, which ends the connection, for another node's root."""
        outcome = await self._enqueue(node, events)
        if outcome is None:
            raise Internal("A batch of journal rows had no outcome.")
        return outcome

    async def progress(self, node: NodeId, progress: Progress) -> Nak | None:
        """Note how far a scan is; at its end compare digests, forget tombstones, and drop what the scan did not find.

        Returns a Nak that makes the agent start its journal anew where nothing else helps. Raises BadMessage.
        """
        outcome = await self._enqueue(node, progress)
        return outcome if isinstance(outcome, Nak) else None

    def settled(self, root: int) -> None:
        """Say that the catalogue of a root equals what its agent has, after all."""
        self.drifts.pop(root, None)
        self._hopeless.discard(root)

    def begin_anew(self, root: int) -> None:
        """Let the agent start its journal anew if the next scan of this root still finds a difference."""
        self._hopeless.add(root)

    async def accesses(self, node: NodeId, accesses: Accesses) -> None:
        """Keep attributed accesses. Raises BadMessage, which ends the connection, for another node's root."""
        latest = self._clock.now() + access_rows.MINUTE
        rows = [one for one in accesses.rows if one.first_at <= one.last_at <= latest and storable(one.key + one.operation)]
        self.accesses_dropped += len(accesses.rows) - len(rows)

        async def keep(connection: AsyncConnection) -> bool:
            there = await journals.nodes_of(connection, {one.root for one in rows})
            if any(there.get(one.root, node) != node for one in rows):
                return False
            known = [one for one in rows if one.root in there]
            homes = await catalogue.homes(connection, folders_above(access_rows.keys(known)))
            await access_rows.add(connection, [(one, _home(homes, one.root, one.key)) for one in known])
            return True

        async with self._accessing:
            if not await self._database.run_write(keep):
                raise _not_yours()

    # -------------------------------------------------------------------------------------------------- in turn

    async def _enqueue(self, node: NodeId, what: Events | Progress) -> _Outcome:
        done: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(node, what, done, self._clock.now()))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._work_off())
        return await done

    async def _work_off(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                await self._settle(group)
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
                if len(group) == 1:
                    _end(group[0], error)
                    continue
                for one in group:  # one of them may be at fault: each by itself
                    try:
                        await self._settle([one])
                    except Exception as alone:  # noqa: BLE001 - as above
                        _end(one, alone)

    def _next_group(self) -> list[_Waiting]:
        """Take what goes into one transaction: of each node at most one message, so that each sees the one before."""
        group: dict[int, _Waiting] = {}
        rows = 0
        while self._waiting and rows < TOGETHER and self._waiting[0].node not in group:
            one = self._waiting.popleft()
            rows += len(one.what.rows) if isinstance(one.what, Events) else 1
            group[one.node] = one
        return list(group.values())

    async def _settle(self, group: Sequence[_Waiting]) -> None:
        held = dict(self._held)
        async with self._database.write() as connection:
            sheet = Sheet(connection, self._clock.now())
            outcomes = await self._together(sheet, group, held)
            await sheet.flush()
        self._held = held
        for one, outcome in zip(group, outcomes, strict=True):
            _end(one, outcome)
        rows = sum(
            len(one.what.rows)
            for one, outcome in zip(group, outcomes, strict=True)
            if isinstance(one.what, Events) and isinstance(outcome, Ack)
        )
        if rows:
            self._applied(rows)
        for text in sheet.drifts.values():
            log.warning("%s", text)
        for root in sheet.agreed:
            self.drifts.pop(root, None)
        self.drifts |= sheet.drifts
        if sheet.drifts:
            self._drifted()
        if sheet.touched:
            self._changed()
        if sheet.moved:
            self._moved(sheet.moved, sheet.now)

    # -------------------------------------------------------------------------------------------------- one transaction

    async def _together(
        self, sheet: Sheet, group: Sequence[_Waiting], held: dict[tuple[int, int], Progress]
    ) -> list[_Outcome | BadMessage]:
        named = {one.what.root for one in group if isinstance(one.what, Progress)}
        for one in group:
            if isinstance(one.what, Events):
                named |= {row.root for row in one.what.rows}
        await sheet.open(named, {one.node for one in group})
        outcomes: list[_Outcome | BadMessage] = []
        verdicts = [await self._judged(sheet, one) for one in group]
        await sheet.load([row for one in verdicts if isinstance(one, Verdict) for row in one.rows])
        for one, verdict in zip(group, verdicts, strict=True):
            if isinstance(verdict, Verdict):
                outcomes.append(await self._take(sheet, one.node, verdict, held))
            elif isinstance(verdict, Progress):
                outcomes.append(await self._progress(sheet, one.node, verdict, held))
            else:
                outcomes.append(verdict)
        return outcomes

    async def _judged(self, sheet: Sheet, one: _Waiting) -> Verdict | Progress | Ack | Nak | BadMessage | None:
        """Say what becomes of one message; a batch that fits moves the node's cursor on the sheet."""
        if isinstance(one.what, Progress):
            return one.what if sheet.owns(one.node, one.what.root) else _not_yours()
        if not all(sheet.owns(one.node, root) for root in {row.root for row in one.what.rows}):
            return _not_yours()
        if (wrong := _wrong(one.what.rows)) is not None:
            return wrong
        verdict = judge(sheet.cursor(one.node), one.what)
        if not isinstance(verdict, Verdict):
            return verdict
        running = verdict.before.running
        for piece in _pieces(verdict.rows):
            running = run_on(running, piece)
            await asyncio.sleep(0)
        if running != one.what.running:
            return Nak(no_journals(verdict.before), "The running hash of these rows is another one: start a new generation.")
        sheet.move(one.node, verdict.after)
        return verdict

    async def _take(self, sheet: Sheet, node: NodeId, verdict: Verdict, held: dict[tuple[int, int], Progress]) -> Ack | Nak:
        """Put the rows of a batch on the sheet; stop where a scan ended, to compare."""
        generation, position = verdict.after.generation, verdict.before.sequence
        if verdict.fresh:
            for at in [at for at, one in held.items() if at[0] == node and one.generation != generation]:
                del held[at]  # its positions belong to the generation before
        answer: Ack | Nak = Ack(verdict.after)
        rows = verdict.rows
        while True:
            stops = [one.sequence for at, one in held.items() if at[0] == node and one.sequence <= verdict.after.sequence]
            stop = max(min(stops, default=verdict.after.sequence), position)
            for piece in _pieces(rows[: stop - position]):
                sheet.take(piece, generation)
                await asyncio.sleep(0)
            rows, position = rows[stop - position :], stop
            for at in [at for at, one in held.items() if at[0] == node and one.sequence <= stop]:
                faulty = await self._compare(sheet, node, held.pop(at), Cursor(generation, stop, b""))
                answer = faulty or answer
            if not rows:
                return answer

    async def _progress(
        self, sheet: Sheet, node: NodeId, progress: Progress, held: dict[tuple[int, int], Progress]
    ) -> Nak | None:
        if sheet.ignores(progress.root):
            return None
        at, cursor = (node, progress.root), sheet.cursor(node)
        held.pop(at, None)
        if progress.state is not ScanState.DONE:
            sheet.scans[progress.root] = encode(progress)
            return None
        if 0 < progress.generation < cursor.generation:
            return None  # it was said of a journal that is no more
        if progress.generation > cursor.generation and progress.sequence == 0:
            # A new journal without a row: the root is empty, and no batch will come to say so.
            cursor = Cursor(progress.generation, 0, EMPTY_RUN)
            sheet.move(node, cursor)
        if (max(progress.generation, cursor.generation), progress.sequence) > (cursor.generation, cursor.sequence):
            # The rows are still on their way: for people the scan is not done before they are in.
            held[at] = progress
            sheet.scans[progress.root] = encode(msgspec.structs.replace(progress, state=ScanState.RUNNING))
            return None
        return await self._compare(sheet, node, progress, cursor)

    async def _compare(self, sheet: Sheet, node: NodeId, progress: Progress, cursor: Cursor) -> Nak | None:
        """At the end of a scan: the catalogue must equal what the agent has, at the same position of the journal."""
        root = sheet.roots[progress.root]
        sheet.scans[root.id] = encode(progress)
        if progress.sequence != cursor.sequence:
            return None  # rows have come in since: nothing to compare with
        if await self._agrees(sheet, progress, cursor.generation):
            return None
        text = (
            f"The catalogue of root {root.id} holds {root.objects} objects (digest {root.digest:016x}), its agent says "
            f"{progress.objects} ({progress.digest:016x}) at row {cursor.sequence} of generation {cursor.generation}."
        )
        sheet.drifts[root.id] = text
        now = self._clock.now()
        if root.id not in self._hopeless or now - self._anew.get(node, -ANEW_EVERY_US) < ANEW_EVERY_US:
            return None
        self._anew[node] = now
        self._hopeless.discard(root.id)
        log.warning("Root %d could not be repaired by ranges: its node starts its journal anew.", root.id)
        return Nak(no_journals(sheet.cursor(node)), "The catalogue is not what it should be: start a new generation.")

    async def _agrees(self, sheet: Sheet, progress: Progress, generation: int) -> bool:
        """Say whether the catalogue equals what the agent has; if so the root is settled up to here."""
        root = sheet.roots[progress.root]
        if root.generation < generation:
            await self._drop_unconfirmed(sheet, progress, generation)
        if (root.objects, root.digest) != (progress.objects, progress.digest):
            return False
        sheet.agreed.add(root.id)
        await sheet.flush()
        await catalogue.purge(sheet.connection, root.id, self._indexed())
        return True

    async def _drop_unconfirmed(self, sheet: Sheet, progress: Progress, generation: int) -> None:
        """Drop what this generation's scan has not found, if that makes the catalogue equal to what the agent has."""
        await sheet.flush()
        root = sheet.roots[progress.root]
        old = await catalogue.unconfirmed(sheet.connection, root.id, generation)
        digest = root.digest
        for piece in _pieces(old):
            digest = combine(digest, removed=(object_number(one.key, *one.content) for one in piece))
            await asyncio.sleep(0)
        if digest != progress.digest:
            return
        for piece in _pieces(old):
            await sheet.drop(piece, generation)
        root.generation = generation


_T = TypeVar("_T")


def _pieces(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(rows), BREATH):
        yield rows[start : start + BREATH]


def _home(homes: dict[Address, int], root: int, key: str) -> int:
    """Return the workspace a key belongs to, given those that lie at folders above it; 0 for none."""
    above = key[: key.rfind("/") + 1]
    while above:
        if (root, above) in homes:
            return homes[root, above]
        above = above[: above.rfind("/", 0, -1) + 1]
    return 0


def _wrong(rows: Sequence[Row]) -> BadMessage | None:
    """Return what no agent may say, where some row says it."""
    try:
        for row in rows:
            if "\0" in row.etag:
                return BadMessage("A journal row's etag holds NUL.")
            if row.fields:
                unpack(row.fields)
            elif row.change is Change.FIELDS:
                return BadMessage("A journal row says what was read out of an object, and holds nothing.")
    except BadMessage as error:
        return error
    return None


def _not_yours() -> BadMessage:
    return BadMessage("The agent speaks of a root of another node.")


def _end(one: _Waiting, outcome: _Outcome | Exception) -> None:
    if one.done.done():
        return  # whoever waited is gone
    if isinstance(outcome, Exception):
        one.done.set_exception(outcome)
    else:
        one.done.set_result(outcome)
