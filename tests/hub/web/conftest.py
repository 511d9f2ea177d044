"""A whole hub on loopback, with real SQLite and a real index, and an agent that says yes to everything."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
import uvicorn
import websockets
from litestar import Litestar
from websockets.asyncio.client import ClientConnection

from hub.app import create_app
from hub.serve import listen, server_config
from hub.settings import Settings, read_settings
from protocol.api import NewAccount
from protocol.grants import open_set
from protocol.identity import JoinString, new_key, public_key
from protocol.messages import (
    Counted,
    Epochs,
    Explain,
    Explained,
    Finding,
    GrantsApplied,
    Health,
    LinkSigned,
    Mint,
    Minted,
    ProbeLine,
    Progress,
    Report,
    Scan,
    ScanState,
    SealedCredential,
    SetGrants,
    SignLink,
    Sum,
    Survey,
    Surveyed,
    Verified,
    Verify,
    Wishes,
)
from protocol.messages import Done as Carried
from protocol.session import AgentSession, Opened, Received

PASSWORD: Final = "correct horse battery"


class Ticking:
    """The real time, as tests need the real thing to expire nothing."""

    def now(self) -> int:
        return time.time_ns() // 1000


class Dice:
    """Randomness that can be repeated."""

    def __init__(self) -> None:
        self._random = random.Random(11)  # noqa: S311 - tests repeat themselves

    def new_id(self) -> int:
        return self._random.randint(1, 2**53 - 1)

    def secret(self, size: int) -> bytes:
        return self._random.randbytes(size)


class Running:
    """A hub that serves."""

    def __init__(self, app: Litestar, settings: Settings, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        self._server = server
        self._serving = serving
        self.app = app
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.port}"
        self.http = httpx.AsyncClient(base_url=f"{self.url}/api/v1", timeout=30, trust_env=False)

    async def stop(self) -> None:
        """End serving, and wait for the end."""
        self._server.should_exit = True
        await self._serving

    async def register(self, username: str) -> dict[str, str]:
        """Make an account; return the headers that carry its token."""
        body = {"email": f"{username}@lab.example", "username": username, "password": PASSWORD}
        answer = await self.http.post("/accounts", json=body)
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    async def admin(self, username: str) -> dict[str, str]:
        """Make an account as the operator does, and sign in; return the headers."""
        email = f"{username}@lab.example"
        await self.app.state.services.accounts.create(NewAccount(email, username, PASSWORD), admin=True)
        answer = await self.http.post("/sessions", json={"email": email, "password": PASSWORD})
        return {"Authorization": f"Bearer {answer.json()['token']}"}


@contextlib.asynccontextmanager
async def _running(data: Path, **environment: str) -> AsyncIterator[Running]:
    """Serve a hub on a free port for the length of the block."""
    async with contextlib.AsyncExitStack() as stack:
        bound = stack.enter_context(listen("127.0.0.1", 0))
        settings = read_settings({"WIO_DATA": str(data), "WIO_PORT": str(bound.getsockname()[1]), **environment})
        app = create_app(settings, clock=Ticking(), chance=Dice())
        await stack.enter_async_context(app.lifespan())
        server = uvicorn.Server(server_config(app))
        serving = asyncio.create_task(server._serve(sockets=[bound]))  # its own signal handling would end pytest
        hub = Running(app, settings, server, serving)
        try:
            async with asyncio.timeout(10):
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.005)
            yield hub
        finally:
            await hub.http.aclose()
            await hub.stop()


class YesAgent:
    """An agent that carries out whatever it is asked, at once, without a storage server."""

    def __init__(self, socket: ClientConnection, session: AgentSession, hub_key: bytes, node: int) -> None:
        self._socket = socket
        self._session = session
        self._hub_key = public_key(hub_key)
        self.node = node
        self.holds: dict[int, Sum] = {}
        """What it says there is in each root; elsewhere nothing."""
        self.at = (0, 0)
        """Its journal's generation and sequence."""

    async def say(self, message: Any) -> None:
        await self._socket.send(self._session.send(message))

    async def run(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for data in self._socket:
                assert isinstance(data, bytes)
                for event in self._session.receive(data):
                    if isinstance(event, Received):
                        await self._answer(event.message)

    async def _answer(self, message: Any) -> None:
        now = time.time_ns() // 1000
        if isinstance(message, SetGrants):
            subject = open_set(self._hub_key, message.grant_set)
            await self.say(GrantsApplied(message.request, subject.subject, subject.epoch, now, 0, ()))
        elif isinstance(message, Mint):
            await self.say(Minted(message.request, SealedCredential(b"sealed", bytes(64), now // 1_000_000 + message.life_s)))
        elif isinstance(message, SignLink):
            await self.say(
                LinkSigned(message.request, SealedCredential(b"sealed", bytes(64), now // 1_000_000 + message.life_s))
            )
        elif isinstance(message, Survey):
            await self.say(Surveyed(message.request, 0, 0, (), (), 1, 1))
        elif isinstance(message, Verify):
            held, none = self.holds.get(message.root, Sum(0, 0, 0)), Counted("unknown", 0)
            await self.say(Verified(message.request, held, held, held, *self.at, none, none, none))
        elif isinstance(message, Explain):
            await self.say(Explained(message.request, 1, "everything is open", 0))
        elif hasattr(message, "request"):
            await self.say(Carried(message.request))
            if isinstance(message, Scan):
                await self.say(Progress(message.root, ScanState.DONE, 0, 0, now, now))


@contextlib.asynccontextmanager
async def _joined(hub: Running, owner: dict[str, str], name: str) -> AsyncIterator[YesAgent]:
    """Invite and join a node whose agent says yes, for the length of the block."""
    answer = await hub.http.post("/invitations", json={"name": name}, headers=owner)
    join = JoinString.parse(answer.json()["join_string"], int(time.time()))
    node_key = new_key(name.encode().ljust(32, b"\0"))
    wishes = Wishes(name, "minio")
    session = AgentSession(node_key=node_key, hub_key=join.hub_key, nonce=bytes(32), join=(join.key, wishes))
    address = f"ws://127.0.0.1:{hub.settings.port}/agent/v1"
    async with websockets.connect(address, max_size=2**20, compression=None, proxy=None) as socket:
        await socket.send(session.start())
        opened: Opened | None = None
        while opened is None:
            data = await asyncio.wait_for(socket.recv(decode=False), 10)
            for event in session.receive(data):
                assert isinstance(event, Opened), event
                opened = event
            for out in session.data_to_send():
                await socket.send(out)
        agent = YesAgent(socket, session, join.hub_key, opened.welcome.node)
        await agent.say(Epochs(()))
        probes = (ProbeLine("assume-role", Finding.YES, "mints short-lived keys"),)
        await agent.say(Report("0.1", "minio", "MinIO", ("http://127.0.0.1:9",), "us-east-1", Finding.YES, probes))
        await agent.say(Health(time.time_ns() // 1000, 0, 0, paused=False))
        work = asyncio.create_task(agent.run())
        async with asyncio.timeout(10):
            while (await hub.http.get(f"/nodes/{name}", headers=owner)).json()["server"] != "MinIO":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        try:
            yield agent
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


@pytest.fixture(scope="session")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A hub that tests share; each registers people of its own."""
    started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold() -> None:  # opened and closed in one task, which a fixture's two halves are not
        async with _running(tmp_path_factory.mktemp("web") / "hub") as hub:
            started.set_result(hub)
            await over.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait({started, holding}, return_when=asyncio.FIRST_COMPLETED)
    if holding.done():
        await holding
    yield await started
    over.set()
    await holding


@pytest.fixture
def running() -> Any:
    """Serve a hub of a test's own: ``async with running(data, NAME=value) as hub``."""
    return _running


@pytest.fixture
def joined() -> Any:
    """Join a node whose agent says yes: ``async with joined(hub, owner, name) as agent``."""
    return _joined


@pytest.fixture(scope="session")
async def alice(hub: Running) -> dict[str, str]:
    """The headers of somebody signed in."""
    return await hub.register("alice")


@pytest.fixture
def strict_problem() -> type[msgspec.Struct]:
    """``Problem`` as nothing but itself: an answer with more in it would not be one."""

    class StrictProblem(msgspec.Struct, forbid_unknown_fields=True):
        code: str
        message: str
        todo: str
        retry: bool
        column: int | None

    return StrictProblem
