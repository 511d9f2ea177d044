"""A real gateway behind a real uvicorn on loopback, with stand-ins for the services behind it, and a real agent's session."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import uvicorn
import websockets
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar
from websockets.asyncio.client import ClientConnection

from hub.gateway.connections import Connections
from hub.gateway.gateway import Gateway
from hub.gateway.route import agent_route
from protocol.digest import EMPTY_RUN
from protocol.errors import BadMessage, Evicted, UnknownPeer, WioError
from protocol.identity import new_key, public_bytes
from protocol.messages import (
    MAX_FRAME,
    Accesses,
    Ack,
    AgentMessage,
    Cursor,
    Epochs,
    EpochState,
    Events,
    Health,
    KeysOut,
    Nak,
    Progress,
    Report,
)
from protocol.names import NodeId
from protocol.session import AgentSession, Event, Opened, Proved, Received, RefusedByHub

DEADLINE_S = 10.0


class Node(msgspec.Struct, frozen=True):
    node: NodeId
    name: str
    epochs: tuple[EpochState, ...] = ()


class Services:
    """Everything behind the gateway: remembers what came, and does what a test says."""

    def __init__(self) -> None:
        self.known: dict[bytes, Node] = {}
        self.evicted: dict[bytes, Node] = {}
        self.came: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.fault: Callable[[str], None] = lambda _: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.held = asyncio.Event()
        self.applied: list[Events] = []

    def _note(self, what: str, value: Any) -> None:
        self.came.put_nowait((what, value))
        self.fault(what)

    async def admit(self, proved: Proved, address: str) -> Node:
        self._note("admit", address)
        if proved.node_key in self.evicted:
            raise Evicted("gone")
        if proved.node_key not in self.known:
            raise UnknownPeer("This hub does not know this node.")
        return self.known[proved.node_key]

    async def find(self, node_key: bytes) -> Node | None:
        return self.evicted.get(node_key)

    async def report(self, node: NodeId, report: Report) -> bool:
        self._note("report", (node, report))
        return "another ceiling" in report.ceiling

    async def recheck(self, node: NodeId) -> None:
        self._note("recheck", node)

    async def health(self, node: NodeId, health: Health) -> None:
        self._note("health", (node, health))

    async def seen(self, node: NodeId) -> None:
        self._note("seen", node)

    async def configure(self, node: NodeId) -> None:
        self._note("configure", node)

    async def settle(self, node: NodeId, epochs: Epochs) -> None:
        self._note("settle", (node, epochs))

    async def cursor(self, node: NodeId) -> Cursor:
        del node
        return Cursor(3, 7, EMPTY_RUN)

    async def _pass_the_gate(self) -> None:
        self.held.set()
        await self.gate.wait()

    async def apply(self, node: NodeId, events: Events) -> Ack | Nak:
        await self._pass_the_gate()
        self._note("events", (node, events))
        self.applied.append(events)
        return Ack(Cursor(events.generation, events.first + len(events.rows), events.running))

    async def progress(self, node: NodeId, progress: Progress) -> Nak | None:
        await self._pass_the_gate()
        self._note("progress", (node, progress))
        return None

    async def accesses(self, node: NodeId, accesses: Accesses) -> None:
        self._note("accesses", (node, accesses))

    async def keys_out(self, node: NodeId, told: KeysOut) -> None:
        self._note("keys", (node, told))

    async def until(self, what: str) -> Any:
        """Wait for a call of this kind; calls of other kinds before it are passed over."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                name, value = await self.came.get()
                if name == what:
                    return value


class Clock:
    def now(self) -> int:
        return time.time_ns() // 1000


class Chance:
    def new_id(self) -> int:
        return 1 + secrets.randbelow(2**53 - 1)

    def secret(self, size: int) -> bytes:
        return secrets.token_bytes(size)


class Peer:
    """An agent's side of one connection: the real session over a real WebSocket."""

    def __init__(self, socket: ClientConnection, session: AgentSession) -> None:
        self.socket = socket
        self.session = session

    async def event(self) -> Event:
        """Return the hub's next event; what the session wants to send goes out meanwhile."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                data = await self.socket.recv()
                assert isinstance(data, bytes)
                events = self.session.receive(data)
                for out in self.session.data_to_send():
                    await self.socket.send(out)
                if events:
                    return events[0]

    async def message(self) -> Any:
        event = await self.event()
        assert isinstance(event, Received)
        return event.message

    async def send(self, *messages: AgentMessage) -> None:
        for message in messages:
            await self.socket.send(self.session.send(message))

    async def closed(self) -> tuple[int, str]:
        """Wait for the end and return the close code and reason; messages before it are passed over."""
        async with asyncio.timeout(DEADLINE_S):
            return await _closed(self.socket)


async def _closed(socket: ClientConnection) -> tuple[int, str]:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code or 0, socket.close_reason or ""


class Hub:
    """A gateway on loopback."""

    def __init__(self, gateway: Gateway, services: Services, port: int) -> None:
        self.gateway = gateway
        self.connections = gateway.connections
        self.services = services
        self.url = f"ws://127.0.0.1:{port}/agent/v1"

    def known(self, name: str = "lab3") -> tuple[Ed25519PrivateKey, NodeId]:
        key = new_key(secrets.token_bytes(32))
        node = NodeId(1 + secrets.randbelow(2**50))
        self.services.known[public_bytes(key)] = Node(node, name)
        return key, node

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[ClientConnection]:
        async with websockets.connect(self.url, max_size=2 * MAX_FRAME, close_timeout=1, compression=None) as socket:
            yield socket

    async def ended(self, first: bytes | str | None = None) -> tuple[int, str]:
        """Connect, send this or nothing, and return the close code and reason."""
        async with asyncio.timeout(DEADLINE_S), self.socket() as socket:
            if first is not None:
                await socket.send(first)
            return await _closed(socket)

    @asynccontextmanager
    async def dialled(self, key: Ed25519PrivateKey, **options: Any) -> AsyncIterator[Peer]:
        """Connect and say hello."""
        async with self.socket() as socket:
            hub_key = public_bytes(self.gateway.hub_key)
            session = AgentSession(node_key=key, hub_key=hub_key, nonce=secrets.token_bytes(32), **options)
            peer = Peer(socket, session)
            await socket.send(session.start())
            yield peer

    @asynccontextmanager
    async def agent(self, key: Ed25519PrivateKey) -> AsyncIterator[Peer]:
        """Open a session."""
        async with self.dialled(key) as peer:
            opened = await peer.event()
            assert isinstance(opened, Opened), opened
            async with asyncio.timeout(DEADLINE_S):
                while not self.connections.online(NodeId(opened.welcome.node)):  # noqa: ASYNC110 - nothing says so
                    await asyncio.sleep(0)
            yield peer

    async def refused(self, key: Ed25519PrivateKey) -> str:
        async with self.dialled(key) as peer:
            event = await peer.event()
            assert isinstance(event, RefusedByHub), event
            return event.problem.code


@asynccontextmanager
async def _served(**options: Any) -> AsyncIterator[Hub]:
    services = Services()
    gateway = Gateway(
        connections=Connections(),
        hub_key=new_key(secrets.token_bytes(32)),
        clock=Clock(),
        chance=Chance(),
        enrolment=services,
        evicted=services,
        roots=services,
        settling=services,
        ingest=services,
        keys=services,
        **options,
    )
    app = Litestar([agent_route()], openapi_config=None, logging_config=None)
    app.state.gateway = gateway
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn and litestar name the same types differently
        port=0,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=2 * MAX_FRAME,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_config=None,
    )
    server = uvicorn.Server(config)
    server.config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Hub(gateway, services, port)
    finally:
        gateway.connections.close(BadMessage("the test is over").problem)
        server.should_exit = True
        await server.shutdown()


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with _served() as served:
        yield served


@pytest.fixture
def new_hub() -> Callable[..., Any]:
    """Serve a gateway with options of one's own: ``async with new_hub(silence_s=0.2) as hub``."""
    return _served


@pytest.fixture
def coded() -> Callable[[Awaitable[Any]], Awaitable[str]]:
    """Await something that must raise, and return its code."""

    async def code(work: Awaitable[Any]) -> str:
        try:
            await asyncio.wait_for(work, DEADLINE_S)
        except WioError as error:
            return error.code
        raise AssertionError("nothing was raised")

    return code
