"""The link: one session with the hub after another, for as long as the agent runs.

Nothing is undone when the hub is away or says no: keys that are out keep working within their leases, hints are still
taken and looked at, and the journal waits. Only an eviction that the hub has signed ends the link for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import BadSignature, Evicted, Problem, WioError
from protocol.identity import public_key, verify_eviction
from protocol.messages import (
    Accesses,
    Ack,
    Evict,
    Failed,
    GiveUp,
    Health,
    HubMessage,
    Nak,
    Progress,
    Report,
    RootState,
)
from protocol.session import Received, SkippedUnknown
from spoke_agent.index import accesses
from spoke_agent.index.feed import Feed
from spoke_agent.index.ledger import Ledger, problem_of
from spoke_agent.index.proofs import Proofs
from spoke_agent.index.schedule import Schedule
from spoke_agent.link.backoff import Backoff
from spoke_agent.link.desk import Desk
from spoke_agent.link.line import HANDSHAKE_S, Line, address_of, open_line
from spoke_agent.link.outbox import Lane, Outbox
from spoke_agent.link.ports import Access
from spoke_agent.link.sender import Sender

HEALTH_S: Final = 3.0
LOOK_S: Final = 1.0
"""How long a Health waits for how the roots are."""
SOONEST_S: Final = 0.1
"""Between two Healths: many small scans in a row are told of together."""
ACCESSES_S: Final = 5.0
ACCESSES_ROWS: Final = 500
"""Accesses in one message: 1.2 kB each at the most, so that they fit a frame."""
HEARD_S: Final = 60.0
"""How often it is noted that the hub is there: leases are days, and each note is a write."""
MAX_WARNINGS: Final = 32
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 10.0
"""Between tries to carry out an eviction."""
_LONGEST: Final = 500

_log: Final = logging.getLogger(__name__)


class LinkState(msgspec.Struct, frozen=True):
    """How the link stands. ``since`` is when this session began, in Unix microseconds; None while there is none."""

    since: int | None = None
    node: int = 0
    """The node's id, once the hub has said it."""
    name: str = ""
    problem: Problem | None = None
    """Why there is no session, or why the last one ended."""
    evicted: bool = False
    """The hub has said, and signed, that it does not want this node any more. There will be no other session."""


class Link:
    """Holds the connection to one hub. ``run`` it once."""

    def __init__(
        self,
        *,
        hub_url: str,
        hub_key: bytes,
        node_key: Ed25519PrivateKey,
        access: Access,
        ledger: Ledger,
        schedule: Schedule,
        feed: Feed,
        proofs: Proofs,
        calls: accesses.Accesses,
        report: Callable[[], Report],
        states: Callable[[], Awaitable[tuple[RootState, ...]]] | None = None,
        clock: Callable[[], int],
        now: Callable[[], float],
        chance: Callable[[], float],
        secret: Callable[[int], bytes],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        insecure: bool = False,
        handshake_s: float = HANDSHAKE_S,
        health_s: float = HEALTH_S,
        accesses_s: float = ACCESSES_S,
    ) -> None:
        """Prepare; raises BadSetting for an address that may not be used.

        ``hub_key`` is the pinned public key, 32 bytes. ``report`` gives what the agent is now, ``states`` how fresh its view
        of its roots is. ``clock`` gives Unix microseconds, ``now`` monotonic seconds, ``chance`` numbers from 0 up to 1,
        ``secret`` random bytes. ``pause`` waits between tries.
        """
        self._address = address_of(hub_url, insecure=insecure)
        self._hub_key = hub_key
        self._node_key = node_key
        self._access = access
        self._ledger = ledger
        self._schedule = schedule
        self._feed = feed
        self._calls = calls
        self._make_report = report
        self._look_at_roots = states
        self._roots: tuple[RootState, ...] = ()
        self._looking: asyncio.Future[tuple[RootState, ...]] | None = None
        self._clock = clock
        self._now = now
        self._secret = secret
        self._pause = pause
        self._handshake_s = handshake_s
        self._health_s = health_s
        self._accesses_s = accesses_s
        self._backoff = Backoff(chance)
        self._desk = Desk(access, ledger, schedule, feed, proofs, now=now)
        self._sender = Sender(ledger, schedule, now=now, pause=pause)
        self._stirred = asyncio.Event()
        self._report_due = False
        self._eviction: Evict | None = None
        self.state = LinkState()

    # -------------------------------------------------------------------------------------------------- from the agent

    def progress(self, progress: Progress) -> None:
        """Take what a scan says of itself (``Scanner.report``); it is sent when its turn comes."""
        self._sender.progress(progress)

    def report_changed(self) -> None:
        """Send the report again: something in it is different now."""
        self._report_due = True
        self._stirred.set()

    def health_changed(self) -> None:
        """Send health at once: the agent was paused, or there is another warning."""
        self._stirred.set()

    async def limits_changed(self) -> None:
        """Let go of roots and index levels that the owner's ceiling admits no longer, and tell the hub."""
        await self._desk.readmit()
        self.report_changed()

    # -------------------------------------------------------------------------------------------------- for ever

    async def run(self) -> None:
        """Hold a session, and another after it, until the hub evicts this node: then return, ``state`` says so."""
        try:
            await self._desk.readmit()
            while not self.state.evicted:
                await self._pause(await self.once())
        finally:
            if self._looking is not None:
                self._looking.cancel()
            await self._desk.close()

    async def once(self) -> float:
        """Hold one session, or try to. Return how many seconds to wait before the next."""
        started = self._now()
        held_s = 0.0
        try:
            async with open_line(
                self._address,
                node_key=self._node_key,
                hub_key=self._hub_key,
                nonce=self._secret(32),
                handshake_s=self._handshake_s,
            ) as line:
                welcomed = self._now()
                self.state = LinkState(self._clock(), line.welcome.node, line.welcome.name)
                _log.info("connected to %s as node %s", self._address, line.welcome.name)
                try:
                    await self._session(line)
                finally:
                    held_s = self._now() - welcomed
                    self._desk.hang_up()
        except WioError as error:
            self._note(error)
            if self._eviction is not None:
                self.state = msgspec.structs.replace(self.state, evicted=True)
                await self._carry_out(self._eviction)
                return 0.0
            self._backoff.held(held_s)
            return self._backoff.next(error, spent_s=0.0 if held_s else self._now() - started, opened=held_s > 0)
        raise AssertionError  # pragma: no cover - a session ends by raising

    def _note(self, error: WioError) -> None:
        problem = problem_of(error)
        if self.state.problem is None or self.state.problem.message != problem.message:
            _log.warning("no session with the hub: %s %s", problem.message, problem.todo)
        self.state = msgspec.structs.replace(self.state, since=None, problem=problem)

    # -------------------------------------------------------------------------------------------------- one session

    async def _session(self, line: Line) -> None:
        """Do everything a session is for, side by side; the first part that ends ends all. Raises why."""
        outbox = Outbox()
        self._access.caught_up.clear()
        for epochs in await self._access.epochs():
            outbox.put(Lane.ANSWER, epochs)
        outbox.put(Lane.ANSWER, self._make_report())
        outbox.put(Lane.ANSWER, await self.health_now())
        self._report_due = False
        parts: list[Coroutine[Any, Any, None]] = [
            self._read(line, outbox),  # first: where several end at once it knows best why
            outbox.run(line.send),
            self._sender.run(line.welcome.cursor, lambda message: outbox.sent(Lane.JOURNAL, message)),
            self._tell_health(outbox),
            self._tell_accesses(outbox),
            self._tell_epochs(outbox),
            self._tell_keys(outbox),
            self._keep_leases(),
        ]
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()

    async def _read(self, line: Line, outbox: Outbox) -> None:
        while True:
            for event in await line.receive():
                if isinstance(event, Received):
                    self._take(event.message, line, outbox)  # type: ignore[arg-type]  # an agent's session lets only a hub's messages in
                elif isinstance(event, SkippedUnknown):
                    _log.info("a message of a newer hub was skipped: tag %d", event.tag)

    def _take(self, message: HubMessage, line: Line, outbox: Outbox) -> None:
        """Hand a message to whoever it is for, without waiting. Raises Evicted."""
        match message:
            case Ack() | Nak():
                self._sender.answered(message)
            case Evict():
                self._evict(message, line)
            case GiveUp():
                self._desk.give_up(message.request)
            case Failed():
                _log.warning("the hub says that something failed: %s", message.problem.message[:_LONGEST])
            case _:
                self._desk.take(message, lambda answer: outbox.put(Lane.ANSWER, answer))

    def _evict(self, evict: Evict, line: Line) -> None:
        """End the session for an eviction that the hub signed: raises Evicted. Any other is ignored."""
        try:
            verify_eviction(public_key(self._hub_key), evict, line.welcome.node)
        except BadSignature as unsigned:
            _log.warning("%s", unsigned)
            return
        self._eviction = evict
        raise Evicted("This node was removed from the hub.", todo="wio-agent leave removes what is left of wio here.")

    async def _carry_out(self, evict: Evict) -> None:
        """Take everything back, however long the storage server is away: the hub has said its last word."""
        failures = 0
        while True:
            try:
                await self._access.evict(evict)
            except WioError as problem:
                _log.warning("the eviction could not be carried out yet: %s", problem)
                await self._pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1
            else:
                return

    # -------------------------------------------------------------------------------------------------- now and then

    def health(self) -> Health:
        """Return how the agent is now."""
        warnings = [*self._access.warnings]
        warnings += [str(problem) for problem in (self._feed.problem, self._sender.problem) if problem is not None]
        return Health(
            self._clock(),
            self._ledger.pending,
            self._feed.backlog + sum(self._schedule.doubts(one.root) for one in self._ledger.indexed()),
            self._access.paused,
            tuple(warning[:_LONGEST] for warning in warnings[:MAX_WARNINGS]),
            self._roots,
        )

    async def health_now(self) -> Health:
        """Look at the roots, and return how the agent is.

        A ledger that is busy for longer than LOOK_S holds nothing up: then nothing is said of the roots this time. What is
        said of them is older than the number of rows that wait, so that both at nought mean that all is told.
        """
        self._roots = ()
        if self._look_at_roots is None:
            return self.health()
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look_at_roots())
        await asyncio.wait({self._looking}, timeout=LOOK_S)
        if self._looking.done():
            looked, self._looking = self._looking, None
            try:
                self._roots = looked.result()
            except WioError as error:
                _log.warning("how the roots are cannot be read now: %s", error)
        return self.health()

    async def _tell_health(self, outbox: Outbox) -> None:
        while True:
            try:
                async with asyncio.timeout(self._health_s):
                    await self._stirred.wait()
            except TimeoutError:
                pass
            self._stirred.clear()
            if self._report_due:
                self._report_due = False
                await outbox.sent(Lane.STATE, self._make_report())
            await outbox.sent(Lane.STATE, await self.health_now())
            await asyncio.sleep(SOONEST_S)

    async def _tell_accesses(self, outbox: Outbox) -> None:
        while True:
            await asyncio.sleep(self._accesses_s)
            while rows := self._calls.take(self._clock(), ACCESSES_ROWS):
                await outbox.sent(Lane.STATE, Accesses(tuple(rows)))

    async def _tell_epochs(self, outbox: Outbox) -> None:
        while True:
            await self._access.caught_up.wait()
            self._access.caught_up.clear()
            for epochs in await self._access.epochs():
                await outbox.sent(Lane.ANSWER, epochs)

    async def _tell_keys(self, outbox: Outbox) -> None:
        """Say whose keys are out that were minted without the hub: at the beginning all of them, then whenever one was."""
        while True:
            self._access.minted_here.clear()
            for keys in self._access.keys_minted_here():
                await outbox.sent(Lane.ANSWER, keys)
            await self._access.minted_here.wait()

    async def _keep_leases(self) -> None:
        """Note that the hub is there. That it is, the connection's own pings make sure of."""
        while True:
            try:
                await self._access.heard()
            except WioError as error:
                _log.warning("it could not be noted that the hub is there: %s", error)
            await asyncio.sleep(HEARD_S)
