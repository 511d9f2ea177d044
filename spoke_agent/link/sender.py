"""Sending the journal: a few batches on their way at once, what is acknowledged is trimmed, what does not fit is sent again.

How scans go is told in between. That a scan is done is only said where the hub has been sent every row there is: its
digest then speaks of exactly the position the hub stands at. What was said last is said again in every session, so a lost
connection loses none of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from protocol.errors import LinkBroken, WioError
from protocol.messages import Ack, AgentMessage, Cursor, Events, Nak, Progress, ScanState
from spoke_agent.index.journal import Batch
from spoke_agent.index.ledger import BATCH_BYTES, Ledger, Standing
from spoke_agent.index.schedule import Schedule

IN_FLIGHT: Final = 4
"""Batches sent and not acknowledged: enough to keep a hub busy that is 50 ms away, and 3 MB in its memory."""
PATIENCE_S: Final = 60.0
"""After so long without an acknowledgement the session is taken to be broken."""
SLOW_S: Final = 0.1
"""A batch that takes longer than this to go out was too large for the line."""
LEAST_BYTES: Final = 50_000
FIRST_DELAY_S: Final = 0.1
LAST_DELAY_S: Final = 4.0

T = TypeVar("T")
Send = Callable[[AgentMessage], Awaitable[None]]


class Flight:
    """Which rows are on their way: pure bookkeeping of one session."""

    def __init__(self, start: int) -> None:
        self.next = start
        """The number of the next row to send."""
        self._ends: deque[int] = deque()

    @property
    def full(self) -> bool:
        """Whether an acknowledgement must come before the next batch."""
        return len(self._ends) >= IN_FLIGHT

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._ends

    def sent(self, end: int) -> None:
        """Note that every row before ``end`` has been sent."""
        self._ends.append(end)
        self.next = end

    def arrived(self, sequence: int) -> None:
        """Note that the hub has every row before ``sequence``."""
        while self._ends and self._ends[0] <= sequence:
            self._ends.popleft()

    def restart(self, at: int) -> None:
        """Go back (or ahead) to a row: whatever was on its way does not count."""
        self._ends.clear()
        self.next = at


class Sender:
    """Sends the journal and the scans' progress. Lives as long as the agent; ``run`` is one session."""

    def __init__(
        self,
        ledger: Ledger,
        schedule: Schedule,
        *,
        now: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``now`` is a monotonic clock in seconds."""
        self._ledger = ledger
        self._schedule = schedule
        self._now = now
        self._pause = pause
        self._patience_s = patience_s
        self._heard_at = 0.0
        self._batch_bytes = LEAST_BYTES
        self._answers: deque[Ack | Nak] = deque()
        self._done: dict[int, Progress] = {}
        self._other: dict[int, Progress] = {}
        self._said: dict[int, Progress] = {}
        self.problem: WioError | None = None
        """Why the journal cannot be read or trimmed at the moment."""

    # -------------------------------------------------------------------------------------------------- news

    def progress(self, progress: Progress) -> None:
        """Take what a scan says of itself. Of several sayings that wait the last one counts, but no end is passed over."""
        if progress.state is ScanState.DONE:
            self._done[progress.root] = progress
            self._other.pop(progress.root, None)
        else:
            self._other[progress.root] = progress
        self._ledger.changed.set()

    def answered(self, answer: Ack | Nak) -> None:
        """Take the hub's word on what was sent; the work is done where the journal is sent."""
        if self._answers and type(self._answers[-1]) is type(answer):
            self._answers.pop()  # the newer one says it all
        self._answers.append(answer)
        self._ledger.changed.set()

    # -------------------------------------------------------------------------------------------------- one session

    async def run(self, cursor: Cursor, send: Send) -> None:
        """Agree with the hub where to go on, then send for ever. Raises LinkBroken, or what ``send`` raised."""
        self._answers.clear()
        flight = Flight(await self._settled(cursor))
        self._heard_at = self._now()
        refused = 0
        while True:
            self._ledger.changed.clear()
            while self._answers:
                self._heard_at = self._now()
                answer = self._answers.popleft()
                if isinstance(answer, Ack) and await self._trimmed(answer.cursor, flight):
                    refused = 0
                else:
                    await self._go_back(answer.cursor, flight, refused)
                    refused += 1
            if not await self.step(flight, send):
                await self._wait(flight)

    async def step(self, flight: Flight, send: Send) -> bool:
        """Send one batch, if there is one and room for it, and what is to be said of scans. False: there is nothing to do."""
        self._forget_gone()
        batch: Batch | None = None
        standings: list[Standing] = []
        if not flight.full:
            batch, standings = await self._tried(
                lambda: self._ledger.outgoing(flight.next, tuple(self._done), max_bytes=self._batch_bytes)
            )
        if batch is not None:
            if flight.empty:
                self._heard_at = self._now()
            flight.sent(batch.end)
            started = self._now()
            await send(Events(batch.generation, batch.first, batch.rows, batch.running))
            # Answers wait behind a batch that is going out: on a slow line batches are small.
            slow = self._now() - started > SLOW_S
            self._batch_bytes = max(self._batch_bytes // 2, LEAST_BYTES) if slow else min(self._batch_bytes * 2, BATCH_BYTES)
        for standing in standings:
            await self._say_done(standing, send)
        for root in self._other.keys() - self._done.keys():
            self._said[root] = self._other.pop(root)
            await send(self._said[root])
        return batch is not None

    async def _wait(self, flight: Flight) -> None:
        """Wait for anything new. Raises LinkBroken if the hub is silent about what it was sent."""
        left = None if flight.empty else self._heard_at + self._patience_s - self._now()
        try:
            async with asyncio.timeout(left) as limit:
                await self._ledger.changed.wait()
        except TimeoutError:
            if not limit.expired():  # pragma: no cover - waiting raises no other
                raise
            raise LinkBroken(f"The hub has not acknowledged what it was sent for {self._patience_s:g} s.") from None

    # -------------------------------------------------------------------------------------------------- the journal

    async def _go_back(self, cursor: Cursor, flight: Flight, refused: int) -> None:
        """Start again from where the hub says it is. It may be unable to do better now, and refuses all that is under way."""
        await self._pause(min(FIRST_DELAY_S * 2**refused, LAST_DELAY_S))
        newest = next((answer.cursor for answer in reversed(self._answers)), cursor)
        self._answers.clear()
        flight.restart(await self._settled(newest))

    async def _settled(self, cursor: Cursor) -> int:
        start, new = await self._tried(lambda: self._ledger.settle(cursor))
        if new:
            # What was said is of the generation before; every root is scanned again and says so.
            self._done.clear()
            self._other.clear()
            self._schedule.request_all()
        for root, progress in self._said.items():
            if not new and root not in self._done and root not in self._other:
                self.progress(progress)
        self._said.clear()
        return start

    async def _trimmed(self, cursor: Cursor, flight: Flight) -> bool:
        """Take an acknowledgement; False where it does not fit. One of a generation before is old news."""
        if cursor.generation < self._ledger.generation:
            return True
        fits = await self._tried(lambda: self._ledger.acknowledged(cursor))
        if fits:
            flight.arrived(cursor.sequence)
        return fits

    async def _tried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work`` on the ledger returns, trying again for as long as it cannot be done: a full disk, a lock."""
        failures = 0
        while True:
            try:
                result = await work()
            except WioError as error:
                self.problem = error
                await self._pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1
            else:
                self.problem = None
                return result

    # -------------------------------------------------------------------------------------------------- scans

    def _forget_gone(self) -> None:
        """Forget what waits to be said of roots that are not on this node any more."""
        if self._done or self._other:
            here = {config.root for config in self._ledger.configs()}
            for told in (self._done, self._other, self._said):
                for root in told.keys() - here:
                    del told[root]

    async def _say_done(self, standing: Standing, send: Send) -> None:
        progress = self._done.pop(standing.root, None)
        if progress is None or standing.scanned_at is None:  # it lies elsewhere now, or a new generation has begun
            return
        self._said[standing.root] = progress
        await send(
            msgspec.structs.replace(
                progress,
                objects=standing.objects,
                bytes=standing.bytes,
                sequence=standing.sequence,
                digest=standing.digest,
                generation=self._ledger.generation,
            )
        )
