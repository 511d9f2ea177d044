"""An agent's access on a real MinIO: the agent's own least-privilege user, as ``join`` makes it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.running import Minio
from protocol.errors import StorageUnreachable
from protocol.grants import Grant, GrantSet, Narrowing, Permission, Subject, sign_set
from protocol.identity import public_bytes, to_text
from protocol.messages import GrantsApplied, GrantsRefused, IndexLevel, Mint, RootConfig, SetGrants
from protocol.names import Layout, Place
from spoke_agent.access.access import Access
from spoke_agent.access.state import NodeSettings, Secrets, StateDirectory, StorageSettings
from spoke_agent.agent import clock
from spoke_agent.storage.connection import Query, Reply
from spoke_agent.storage.joining import make_agent_user, remove_agent_user
from spoke_agent.storage.minio import MinioNode
from spoke_agent.storage.node import Credential
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key
from tests.spoke_agent.access.bench import HUB, NODE, minting


class Real:
    """A state directory, a node on the real server, and what people see with their keys, also while no agent runs."""

    def __init__(self, path: Path, server: Minio) -> None:
        self.server = server
        self.owner = Key(server.user, server.password)
        self.label = f"t{os.urandom(4).hex()}"
        self.bucket = f"access-{os.urandom(4).hex()}"
        self.seeds = Secrets(os.urandom(32), os.urandom(32))
        self.state = StateDirectory(path)
        self.numbers = iter(range(1, 10_000_000))
        self.ahead_s = 0
        """How far the agent's clock is ahead of the server's and the hub's."""

    async def join(self) -> None:
        self.user = await self._make_user()
        self.state.prepare()
        storage = StorageSettings("minio", self.server.url, self.user.access_key, (self.server.url,), self.label)
        self.state.keep_settings(NodeSettings("http://hub", to_text(public_bytes(HUB)), "lab3", storage, NODE))
        self.state.keep_secrets(self.seeds)
        self.outside = self._node()
        await self.outside.open()
        self.admin = S3(self.outside._connection, self.owner)

    async def _make_user(self) -> Key:
        end = time.monotonic() + 20
        while True:  # a MinIO says that it is ready before it manages users
            try:
                return await make_agent_user(self.server.url, self.owner, self.label, region="us-east-1", clock=clock)
            except StorageUnreachable:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)

    def now(self) -> int:
        return clock() + self.ahead_s * 1_000_000

    def _node(self) -> MinioNode:
        return MinioNode(
            self.server.url,
            key=self.user,
            master=self.seeds.master,
            node=self.label,
            clock=clock,
            pause=asyncio.sleep,
            chance=os.urandom,
        )

    async def start(self) -> None:
        self.node = self._node()
        await self.node.open()
        self.access = Access(self.state, self.node, self.root, clock=self.now, chance=os.urandom)
        await self.access.open()
        await self.access.verify_once()

    async def stop(self) -> None:
        await self.access.close()
        await self.node.close()

    async def leave(self) -> None:
        await self.node.leave()
        await self.stop()
        await self.outside.close()
        await remove_agent_user(self.server.url, self.owner, self.label, region="us-east-1", clock=clock)

    def root(self, number: int) -> RootConfig:
        return RootConfig(number, "data", self.bucket, "", Layout.PREFIX, IndexLevel.NAMES)

    def grant(self, prefix: str, permission: Permission = Permission.READ, expires: int | None = None) -> Grant:
        return Grant(len(prefix) + 1, self.bucket, prefix, permission, expires)

    async def set(
        self, subject: Subject, epoch: int, *grants: Grant, lease_s: int = 86_400, groups: tuple[int, ...] = ()
    ) -> GrantsApplied | GrantsRefused:
        lease = clock() // 1_000_000 + lease_s
        signed = sign_set(HUB, GrantSet(NODE, subject, epoch, grants, lease, groups))
        return await self.access.set_grants(SetGrants(next(self.numbers), 5000, signed))

    async def key(self, subject: Subject, epoch: int, narrowing: Narrowing = Narrowing()) -> Credential:  # noqa: B008 - frozen
        clear = await minting(
            self.access, self.seeds.node_key, Mint(next(self.numbers), 5000, subject, epoch, bytes(32), 3600, narrowing)
        )
        return Credential(clear.access_key, clear.secret_key, clear.session_token, clear.expires)

    async def ask(
        self, key: Credential | Key, method: str, path: str, query: Query = (), body: bytes = b"", **headers: str
    ) -> Reply:
        """Send any request with a key, and return what the server answers."""
        if isinstance(key, Credential):
            key = Key(key.access_key, key.secret_key, key.session_token)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.outside._connection.ask(key, method, path, query, body, headers=named)

    async def status(
        self, key: Credential | Key, method: str, path: str, query: Query = (), body: bytes = b"", **headers: str
    ) -> int:
        return (await self.ask(key, method, path, query, body, **headers)).status

    async def opens(self, key: Credential, prefix: str, permission: Permission = Permission.READ) -> bool:
        """Say what the server answers, at the file ``a.txt`` of a folder."""
        answered = await self.outside.attempt(key, permission, Place(self.bucket, prefix), f"{prefix}a.txt")
        assert answered.status in {200, 204, 404, 403}, answered
        return answered.status != 403


@pytest.fixture
async def real(tmp_path: Path, minio: Minio) -> AsyncIterator[Real]:
    made = Real(tmp_path / "state", minio)
    await made.join()
    await made.start()
    await made.admin.make_bucket(made.bucket)
    yield made
    await made.leave()
