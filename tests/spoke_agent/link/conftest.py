"""A hub in small: a real WebSocket server, the real handshake and frames, and a journal that is applied as a hub does."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from protocol.errors import DiskFull, LinkBroken, Pending, Problem, WioError
from protocol.grants import GrantSet, Subject, SubjectKind, sign_set
from protocol.identity import public_bytes
from protocol.messages import (
    Ack,
    AgentMessage,
    Answer,
    Asking,
    CheckRoot,
    Digested,
    Done,
    Epochs,
    EpochState,
    Events,
    Evict,
    Explain,
    Explained,
    Failed,
    Finding,
    GrantsApplied,
    GrantsRefused,
    HubMessage,
    KeysOut,
    Mint,
    Minted,
    Nak,
    PlaceWorkspace,
    Progress,
    Report,
    RootConfig,
    ScanState,
    SealedCredential,
    SetGrants,
    Surveyed,
    Verified,
)
from protocol.session import HubSession, Proved, Received
from spoke_agent.index.accesses import Accesses
from spoke_agent.index.proofs import Proofs
from spoke_agent.link.link import Link
from tests.spoke_agent.index.conftest import Bench, FarHub, MemoryNode, config_of

NODE = 4711
ALICE = Subject(SubjectKind.PERSON, 1, "alice")
BOB = Subject(SubjectKind.PERSON, 2, "bob")


async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        await asyncio.sleep(0.002)


class Session:
    """One agent's connection, as the hub has it."""

    def __init__(self, connection: ServerConnection, session: HubSession) -> None:
        self.connection = connection
        self.session = session
        self.received: list[AgentMessage] = []
        self.broken: WioError | None = None

    async def send(self, message: HubMessage) -> None:
        await self.connection.send(self.session.send(message))

    def abort(self) -> None:
        """What a network does that breaks."""
        self.connection.transport.abort()

    def of(self, kind: type[AgentMessage]) -> list[AgentMessage]:
        return [message for message in self.received if isinstance(message, kind)]


class SmallHub:
    """Listens on one port of 127.0.0.1, also after it was stopped and started again."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.far = FarHub()
        self.port = 0
        self.sessions: list[Session] = []
        self.answers: dict[int, Answer] = {}
        self.digests: list[tuple[Progress, int]] = []
        """What the agent said of a scan that was done, and the digest of what the hub had when it said so."""
        self.proved: list[Proved] = []
        self.refuse: Callable[[Proved], Problem | None] = lambda _: None
        self.on_events: Callable[[Session, Events], list[HubMessage] | None] = lambda _, events: [self.apply(events)]
        """What to answer to rows; None ends the connection."""
        self.attempts = 0
        self._numbers = itertools.count(1)
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> Session:
        return self.sessions[-1]

    async def start(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", self.port, compression=None, max_size=2**20, close_timeout=1)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            for connection in list(self._server.connections):
                connection.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def apply(self, events: Events) -> Ack | Nak:
        fits = self.far.apply(events.generation, events.first, events.rows, events.running)
        return Ack(self.far.cursor) if fits else self.repeated(events)

    def repeated(self, events: Events) -> Ack | Nak:
        """Rows that are there already are acknowledged once more."""
        cursor = self.far.cursor
        if events.generation == cursor.generation and events.first + len(events.rows) <= cursor.sequence:
            return Ack(cursor)
        return Nak(cursor, "That does not follow.")

    async def ask(self, make: Callable[[int, int], Asking], *, deadline_ms: int = 5000, within_s: float = 10.0) -> Answer:
        number = await self.send_request(make, deadline_ms=deadline_ms)
        await until(lambda: number in self.answers, within_s)
        return self.answers[number]

    async def send_request(self, make: Callable[[int, int], Asking], *, deadline_ms: int = 5000) -> int:
        number = next(self._numbers)
        await self.live.send(make(number, deadline_ms))
        return number

    async def _serve(self, connection: ServerConnection) -> None:
        self.attempts += 1
        session = HubSession(hub_key=self.key, nonce=os.urandom(32))
        here = Session(connection, session)
        try:
            while True:
                data = await connection.recv()
                assert isinstance(data, bytes)
                for event in session.receive(data):
                    if isinstance(event, Proved):
                        self.proved.append(event)
                        self._decide(here, event)
                    elif isinstance(event, Received):
                        await self._take(here, event.message)  # type: ignore[arg-type]  # an agent's
                for out in session.data_to_send():
                    await connection.send(out)
        except ConnectionClosed:
            pass
        except LinkBroken as error:
            here.broken = error

    def _decide(self, here: Session, proved: Proved) -> None:
        problem = self.refuse(proved)
        if problem is not None:
            here.session.refuse(problem)
            return
        name = proved.enrolment.wishes.name if proved.enrolment is not None else "lab3"
        here.session.accept(node=NODE, name=name, cursor=self.far.cursor)
        self.sessions.append(here)

    async def _take(self, here: Session, message: AgentMessage) -> None:
        here.received.append(message)
        match message:
            case Events():
                answers = self.on_events(here, message)
                if answers is None:
                    here.abort()
                    return
                for answer in answers:
                    await here.send(answer)
            case Progress(state=ScanState.DONE) if self.far.cursor.sequence == message.sequence:
                self.digests.append((message, self.far.digest(message.root)))
            case (
                Done()
                | Failed()
                | Minted()
                | GrantsApplied()
                | GrantsRefused()
                | Explained()
                | Surveyed()
                | Verified()
                | Digested()
            ):
                self.answers[message.request] = message
            case _:
                pass


class ScriptedAccess:
    """The access side as the link sees it; ``before`` runs first in everything and may wait or raise."""

    def __init__(self) -> None:
        self.paused = False
        self.warnings: list[str] = []
        self.log: list[tuple[str, object]] = []
        self.finished: list[tuple[str, object]] = []
        self.evicted: list[Evict] = []
        self.caught_up = asyncio.Event()
        self.minted_here = asyncio.Event()
        self.keys: list[KeysOut] = []
        self.admit: Callable[[RootConfig], RootConfig | None] = lambda root: root
        self.times_heard = 0
        self.epoch = 1
        self.before: Callable[[object], AsyncIterator[None] | object] = lambda _: None

    async def _do(self, request: object) -> None:
        self.log.append((type(request).__name__, request))
        waits = self.before(request)
        if asyncio.iscoroutine(waits):
            await waits
        self.finished.append((type(request).__name__, request))

    async def set_grants(self, request: SetGrants) -> GrantsApplied | GrantsRefused:
        await self._do(request)
        return GrantsApplied(request.request, ALICE, 1, 5, 0, ())

    async def mint(self, request: Mint) -> Minted:
        await self._do(request)
        if request.epoch > 1:
            raise Pending("The grants of that epoch have not come yet.")
        return Minted(request.request, SealedCredential(b"sealed", bytes(64), 5))

    async def explain(self, request: Explain) -> Explained:
        await self._do(request)
        return Explained(request.request, 1, "policy", 0)

    async def check_root(self, request: CheckRoot) -> None:
        await self._do(request)

    async def place_workspace(self, request: PlaceWorkspace) -> None:
        await self._do(request)

    async def evict(self, evict: Evict) -> None:
        self.evicted.append(evict)
        await self._do(evict)

    async def epochs(self) -> list[Epochs]:
        return [Epochs((EpochState(ALICE, self.epoch, bytes(32)),))]

    def keys_minted_here(self) -> list[KeysOut]:
        return self.keys

    async def heard(self) -> None:
        self.times_heard += 1
        raise DiskFull("Nothing of this may end a session.")


class Agent:
    """A link on a bench, with the loops that an agent runs. Waits between tries are noted and cut short."""

    def __init__(self, bench: Bench, hub: SmallHub) -> None:
        self.bench = bench
        self.hub = hub
        self.access = ScriptedAccess()
        self.node_key = Ed25519PrivateKey.generate()
        self.calls = Accesses(lambda holder: 7 if holder else 0)
        self.waits: list[float] = []
        self.longest_wait = 0.02
        self.options: dict[str, object] = {}
        self.chance = random.Random(5).random  # noqa: S311 - repeatable on purpose
        self._tasks: list[asyncio.Task[None]] = []

    async def _pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(min(seconds, self.longest_wait))

    def report(self) -> Report:
        return Report("0.1", "minio", "MinIO 2025", ("http://127.0.0.1:9000",), "us-east-1", Finding.YES, ())

    def make(self) -> Link:
        values: dict[str, object] = {
            "hub_url": self.hub.url,
            "hub_key": public_bytes(self.hub.key),
            "node_key": self.node_key,
            "access": self.access,
            "ledger": self.bench.ledger,
            "schedule": self.bench.schedule,
            "feed": self.bench.feed,
            "proofs": Proofs(
                self.bench.node,  # type: ignore[arg-type]  # the part that the index uses
                self.bench.ledger,
                self.bench.scanner,
                clock=lambda: time.time_ns() // 1000,
                pause=self._pause,
            ),
            "calls": self.calls,
            "report": self.report,
            "clock": lambda: time.time_ns() // 1000,
            "now": time.monotonic,
            "chance": self.chance,
            "secret": os.urandom,
            "pause": self._pause,
            **self.options,
        }
        self.link = Link(**values)  # type: ignore[arg-type]  # the test says which
        self.bench.report = self.link.progress
        return self.link

    def start(self) -> None:
        link = self.make()
        loops = (link.run(), self.bench.schedule.run(), self.bench.feed.run())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    @property
    def running(self) -> asyncio.Task[None]:
        return self._tasks[0]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def online(self) -> None:
        await until(lambda: self.link.state.since is not None and self.hub.sessions)

    async def caught_up(self, root: int = 1) -> None:
        """Wait until the hub has all that storage has."""
        there = self.bench.node.objects[root]
        await until(
            lambda: (
                self.bench.ledger.pending == 0
                and {key for at, key in self.hub.far.entries if at == root} == set(there)
                and not self.bench.feed.backlog
            )
        )
        self.bench.hub = self.hub.far
        await self.bench.check(root)


def set_for(subject: Subject, epoch: int, key: Ed25519PrivateKey) -> Callable[[int, int], Asking]:
    signed = sign_set(key, GrantSet(NODE, subject, epoch, (), 2_000_000_000))
    return lambda request, deadline_ms: SetGrants(request, deadline_ms, signed)


def mint_for(subject: Subject, epoch: int = 1) -> Callable[[int, int], Asking]:
    return lambda request, deadline_ms: Mint(request, deadline_ms, subject, epoch, bytes(32), 3600)


class Cutter:
    """A network between agent and hub: forwards, and breaks after so many bytes from the agent, or from the hub."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts: list[tuple[int | None, int | None]] = []
        """For each connection to come: bytes from the agent and from the hub until it breaks; None for never."""
        self.broken = 0
        self.slow = False
        """Whether it lets through only some megabytes a second, and holds little."""

    async def start(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=64 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        from_agent, from_hub = self.cuts.pop(0) if self.cuts else (None, None)
        writers = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(back)
            done, rest = await asyncio.wait(
                [
                    asyncio.create_task(self._copy(reader, back, from_agent)),
                    asyncio.create_task(self._copy(there, writer, from_hub)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for one in rest:
                one.cancel()
            await asyncio.gather(*done, *rest, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            for one in writers:
                one.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while data := await reader.read(65_536):
            if left is not None:
                data, left = data[:left], left - len(data)
            writer.write(data)
            await writer.drain()
            if self.slow:
                await asyncio.sleep(0.01)
            if left is not None and left <= 0:
                self.broken += 1
                return


@pytest.fixture
async def hub() -> AsyncIterator[SmallHub]:
    made = SmallHub()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def agent(tmp_path: Path, hub: SmallHub) -> AsyncIterator[Agent]:
    node = MemoryNode(page=100)
    node.make_root(1)
    bench = Bench(tmp_path / "index.sqlite", node)
    await bench.start()
    await bench.ledger.configure(1, [config_of(1)])
    made = Agent(bench, hub)
    yield made
    await made.stop()
    await bench.stop()


@pytest.fixture
async def cutter(hub: SmallHub, agent: Agent) -> AsyncIterator[Cutter]:
    made = Cutter(hub.port)
    await made.start()
    yield made
    await agent.stop()
    await made.stop()
