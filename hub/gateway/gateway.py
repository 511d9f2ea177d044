"""The agents' side of the hub: a session from its first byte to its last.

Reading never waits for work: answers go straight to whoever asked, everything else to one of three tasks per connection.
So a revocation waits behind no import. What an agent may have sent ahead is bounded by the protocol (BATCHES_OUT), and one
that sends more loses its connection.

Nothing is kept for a node before its proof has verified; until then a connection costs one small object, for 10 s at most.
A session in which nothing was heard for SILENCE_S has ended, whatever its socket says: agents send Health more often.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import WebSocket

from hub.gateway import sockets
from hub.gateway.connection import Connection
from hub.gateway.connections import Connections
from hub.gateway.ports import Admitted, Configuring, Enrolling, FindingEvicted, HearingOfKeys, Ingesting, Settles
from hub.gateway.sockets import GONE
from hub.services.ports import Chance, Clock
from protocol.errors import BadMessage, DeadlinePassed, Evicted, Internal, LinkBroken, NodeOffline, Problem, TooMany, WioError
from protocol.identity import sign_eviction
from protocol.messages import (
    BATCHES_OUT,
    HEALTH_EVERY_S,
    Accesses,
    Ack,
    AgentMessage,
    Cursor,
    Epochs,
    Events,
    Health,
    KeysOut,
    Nak,
    Progress,
    Report,
    ScanState,
)
from protocol.session import HubSession, Proved, Received

HANDSHAKE_S: Final = 10.0
"""For all four messages."""
SILENCE_S: Final = 3.0 * HEALTH_EVERY_S
HANDSHAKES: Final = 2_000
"""Connections that may be unproved at once."""
ACCESSES_AHEAD: Final = 16
PARTS_AHEAD: Final = 64
ROOTS: Final = 1_000
"""As many roots as one Configure holds."""
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 10.0

_LOG: Final = logging.getLogger("wio.hub.gateway")


class Gateway:
    """Serves agents' connections. ``address_of`` gives where one comes from, for rate limits and the audit trail."""

    def __init__(
        self,
        *,
        connections: Connections,
        hub_key: Ed25519PrivateKey,
        clock: Clock,
        chance: Chance,
        enrolment: Enrolling,
        evicted: FindingEvicted,
        roots: Configuring,
        settling: Settles,
        ingest: Ingesting,
        keys: HearingOfKeys | None = None,
        address_of: Callable[[WebSocket[Any, Any, Any]], str] = lambda socket: socket.client.host if socket.client else "",
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        handshake_s: float = HANDSHAKE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.connections = connections
        self.hub_key = hub_key
        self.clock = clock
        self.chance = chance
        self.enrolment = enrolment
        self.evicted = evicted
        self.roots = roots
        self.settling = settling
        self.ingest = ingest
        self.keys = keys
        self.pause = pause
        self.silence_s = silence_s
        self._address_of = address_of
        self._handshake_s = handshake_s
        self._unproved = 0

    async def serve(self, socket: WebSocket[Any, Any, Any]) -> None:
        """Serve one connection until it ends; raises nothing of what an agent can cause."""
        try:
            await socket.accept()
            connection = await self._handshake(socket)
            if connection is not None:
                await _Serving(self, connection, socket).run()
        except GONE:
            pass  # gone before, or while, it was told anything

    # -------------------------------------------------------------------------------------------------- handshake

    async def _handshake(self, socket: WebSocket[Any, Any, Any]) -> Connection | None:
        session = HubSession(hub_key=self.hub_key, nonce=self.chance.secret(32))
        self._unproved += 1
        try:
            async with asyncio.timeout(self._handshake_s):
                return await self._shake_hands(session, socket)
        except TimeoutError:
            problem = DeadlinePassed(f"The handshake was not complete within {self._handshake_s:g} s.").problem
        except WioError as error:
            problem = error.problem
        except GONE:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the agent gets an answer and the log the rest
            _LOG.exception("A handshake failed")
            problem = Internal("The hub failed at this; its log has the rest.").problem
        finally:
            self._unproved -= 1
        _LOG.info("An agent was refused: %s", problem.message)
        session.refuse(_within_limits(problem))
        await sockets.close(socket, session.data_to_send(), problem)
        return None

    async def _shake_hands(self, session: HubSession, socket: WebSocket[Any, Any, Any]) -> Connection:
        if self._unproved > HANDSHAKES:
            raise TooMany("Too many agents are connecting at this moment.")
        session.receive(await sockets.read(socket))
        await sockets.send(socket, session.data_to_send())
        (proved,) = session.receive(await sockets.read(socket))
        if not isinstance(proved, Proved):  # pragma: no cover - the session's table has nothing else here
            raise BadMessage("That is no proof.")
        try:
            admitted = await self.enrolment.admit(proved, self._address_of(socket))
        except Evicted:
            gone = await self.evicted.find(proved.node_key)
            if gone is None:
                raise
            return await self._tell_evicted(session, gone, socket)
        cursor = await self.ingest.cursor(admitted.node)
        session.accept(node=admitted.node, name=admitted.name, cursor=cursor, epochs=admitted.epochs)
        await sockets.send(socket, session.data_to_send())
        return self._open(session, admitted)

    def _open(self, session: HubSession, admitted: Admitted) -> Connection:
        node = admitted.node

        def evict() -> Any:
            return sign_eviction(self.hub_key, node, self.clock.now() // 1_000_000)

        return Connection(node, admitted.name, session, evict)

    async def _tell_evicted(self, session: HubSession, gone: Admitted, socket: WebSocket[Any, Any, Any]) -> Connection:
        """Open a session for nothing but the hub's signed word: a Refused, which is not signed, undoes nothing."""
        session.accept(node=gone.node, name=gone.name, cursor=Cursor(0, 0, bytes(32)))
        await sockets.send(socket, session.data_to_send())
        connection = self._open(session, gone)
        connection.end(Evicted(f"{gone.name} was removed from this hub.").problem)
        return connection


class _Serving:
    """One open session: its reader, its writer, and the tasks that do the work."""

    def __init__(self, gateway: Gateway, connection: Connection, socket: WebSocket[Any, Any, Any]) -> None:
        self._gateway = gateway
        self._connection = connection
        self._session = connection._session  # noqa: SLF001 - the connection writes with it, this reads with it
        self._node = connection.node
        self._socket = socket
        self._heard = 0.0
        self._journal: deque[Events | Progress | Accesses] = deque()
        self._batches = 0
        self._accesses = 0
        self._running: dict[int, Progress] = {}
        self._journal_filled = asyncio.Event()
        self._report: Report | None = None
        self._health: Health | None = None
        self._news = asyncio.Event()
        self._epochs: deque[Epochs] = deque()
        self._epochs_filled = asyncio.Event()
        self._limits_changed = asyncio.Event()
        self._keys: deque[KeysOut] = deque()
        self._keys_filled = asyncio.Event()
        self._reported = asyncio.Event()

    async def run(self) -> None:
        connection, gateway = self._connection, self._gateway
        if connection.ended.is_set():
            await sockets.close(self._socket, connection.take_frames(), connection.problem)
            return
        gateway.connections.add(connection)
        _LOG.info("Node %s is connected.", connection.name)
        self._heard = asyncio.get_running_loop().time()
        parts: Sequence[Coroutine[Any, Any, Any]] = (
            self._read(),
            self._write(),
            self._work_off_journal(),
            self._work_off_news(),
            self._settle(),
            self._recheck(),
            self._hear_of_keys(),
            self._configure(),
            self._watch(),
            connection.ended.wait(),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Whoever waits for an answer is told first; everything after this is tidying up.
            connection.end(_why(tasks))
            gateway.connections.remove(connection)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            _LOG.info("Node %s is gone: %s", connection.name, connection.problem.message if connection.problem else "closed")
            await sockets.close(self._socket, connection.take_frames(), connection.problem)
            await self._tried("seen", gateway.enrolment.seen(self._node))

    # -------------------------------------------------------------------------------------------------- bytes

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await sockets.read(self._socket)
            self._heard = loop.time()
            for event in self._session.receive(data):
                if isinstance(event, Received):
                    self._take(event.message)  # type: ignore[arg-type]  # a hub's session lets only an agent's messages in

    async def _write(self) -> None:
        while True:
            await sockets.send(self._socket, await self._connection.next_frames())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._heard + self._gateway.silence_s - loop.time()) > 0:  # noqa: ASYNC110 - a timer, not polling
            await asyncio.sleep(left)
        raise LinkBroken(f"Nothing was heard of the agent for {self._gateway.silence_s:g} s.")

    def _take(self, message: AgentMessage) -> None:
        """Hand a message to whoever works on it, without waiting. Raises BadMessage for an agent that runs too far ahead."""
        match message:
            case Events():
                self._batches += 1
                if self._batches > BATCHES_OUT:
                    raise BadMessage(f"The agent sent more than {BATCHES_OUT} batches ahead of their acknowledgement.")
                self._put(message)
            case Progress():
                self._take_progress(message)
            case Accesses():
                if self._accesses < ACCESSES_AHEAD:
                    self._accesses += 1
                    self._put(message)
            case Health():
                self._health = message
                self._news.set()
            case Report():
                self._report = message
                self._news.set()
            case Epochs() | KeysOut():
                self._take_standing(message)
            case _:
                self._connection.answered(message)

    def _take_standing(self, message: Epochs | KeysOut) -> None:
        if max(len(self._epochs), len(self._keys)) >= PARTS_AHEAD:
            raise BadMessage("The agent says how things stand faster than the hub can compare it.")
        if isinstance(message, Epochs):
            self._epochs.append(message)
            self._epochs_filled.set()
        else:
            self._keys.append(message)
            self._keys_filled.set()

    def _put(self, message: Events | Progress | Accesses) -> None:
        self._journal.append(message)
        self._journal_filled.set()

    def _take_progress(self, progress: Progress) -> None:
        """Keep an end of a scan in its place among the rows; of all else only the newest of each root counts."""
        if progress.state is ScanState.DONE:
            self._running.pop(progress.root, None)
            if len(self._journal) >= ROOTS:
                raise BadMessage("The agent ends more scans than it has roots.")
            self._put(progress)
        elif progress.root in self._running or len(self._running) < ROOTS:
            self._running[progress.root] = progress
            self._journal_filled.set()

    # -------------------------------------------------------------------------------------------------- work

    async def _work_off_journal(self) -> None:
        """Take in rows and scans' progress, in order. What the database cannot do now is tried again: nothing is skipped."""
        while True:
            await self._journal_filled.wait()
            self._journal_filled.clear()
            while self._journal or self._running:
                message = self._journal[0] if self._journal else self._running.pop(next(iter(self._running)))
                answer = await self._until_done(message)
                if self._journal and self._journal[0] is message:
                    self._journal.popleft()
                self._batches -= isinstance(message, Events)
                self._accesses -= isinstance(message, Accesses)
                if answer is not None:
                    self._connection.send(answer)

    async def _ingested(self, message: Events | Progress | Accesses) -> Ack | Nak | None:
        ingest = self._gateway.ingest
        match message:
            case Events():
                return await ingest.apply(self._node, message)
            case Progress():
                return await ingest.progress(self._node, message)
            case Accesses():
                await ingest.accesses(self._node, message)
                return None

    async def _until_done(self, message: Events | Progress | Accesses) -> Ack | Nak | None:
        failures = 0
        while True:
            try:
                return await self._ingested(message)
            except LinkBroken:
                raise  # the agent's fault
            except Exception as error:  # noqa: BLE001 - a full disk, a database that restarts: rows wait, nothing else does
                text = "Rows of node %s cannot be taken in now: %s"
                _LOG.error(text, self._connection.name, type(error).__name__, exc_info=error if failures == 0 else None)
                await self._gateway.pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1

    async def _work_off_news(self) -> None:
        """Keep what the agent says of itself; of several the newest."""
        enrolment = self._gateway.enrolment
        while True:
            await self._news.wait()
            self._news.clear()
            report, self._report = self._report, None
            health, self._health = self._health, None
            if report is not None:
                await self._tried("report", self._report_kept(report))
            if health is not None:
                self._gateway.connections.heard(self._node, health, self._gateway.clock.now())
                await self._tried("health", enrolment.health(self._node, health))

    async def _settle(self) -> None:
        """Bring the agent's grant sets to what they are to be. One that is not reached now is tried again by the service."""
        while True:
            await self._epochs_filled.wait()
            self._epochs_filled.clear()
            while self._epochs:
                epochs = self._epochs.popleft()
                if epochs.last:
                    self._reported.set()
                try:
                    await self._gateway.settling.settle(self._node, epochs)
                except LinkBroken:
                    raise
                except WioError as error:
                    _LOG.warning("Node %s does not agree with what is wanted of it yet: %s", self._connection.name, error)

    async def _report_kept(self, report: Report) -> None:
        if await self._gateway.enrolment.report(self._node, report):
            self._limits_changed.set()

    async def _recheck(self) -> None:
        """Have what a node refuses under a changed ceiling told: it obeys the file at once, and the hub has to know."""
        while True:
            await self._limits_changed.wait()
            self._limits_changed.clear()
            await self._tried("refusals", self._gateway.settling.recheck(self._node))

    async def _hear_of_keys(self) -> None:
        """Note whose keys were minted without this hub. What the database cannot do now is tried again: they count as out."""
        keys, failures = self._gateway.keys, 0
        while keys is not None:
            await self._keys_filled.wait()
            self._keys_filled.clear()
            while self._keys:
                try:
                    await keys.keys_out(self._node, self._keys[0])
                except Exception:  # noqa: BLE001 - a full disk, a database that restarts: it waits, nothing else does
                    _LOG.exception("Whose keys are out on node %s cannot be noted now", self._connection.name)
                    await self._gateway.pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                    failures += 1
                else:
                    self._keys.popleft()
                    failures = 0
        await asyncio.Future()  # nobody wants to know

    async def _configure(self) -> None:
        """Tell the agent its roots, once it has said what it enforces."""
        await self._reported.wait()
        failures = 0
        while True:
            try:
                await self._gateway.roots.configure(self._node)
            except NodeOffline:
                pass  # noted by the others
            except WioError as error:
                _LOG.warning("Node %s could not be told its roots: %s", self._connection.name, error)
                await self._gateway.pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
                failures += 1
                continue
            await asyncio.Future()  # done; the session goes on

    async def _tried(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something whose failure costs no more than old news."""
        try:
            await work
        except Exception:  # noqa: BLE001 - see above
            _LOG.exception("The %s of node %s could not be kept", what, self._connection.name)


def _why(tasks: Sequence[asyncio.Task[Any]]) -> Problem | None:
    """Return why a session ends: what the first of its tasks that failed says; None where the agent has closed it."""
    for task in tasks:
        error = None if not task.done() or task.cancelled() else task.exception()
        if isinstance(error, WioError):
            return error.problem
        if error is not None and not isinstance(error, GONE):
            _LOG.error("A session failed", exc_info=error)
            return LinkBroken("The hub failed at this; its log has the rest.").problem
    return None


def _within_limits(problem: Problem) -> Problem:
    return msgspec.structs.replace(problem, message=problem.message[:500], todo=problem.todo[:500])
