"""Kinds of storage node, each with a way to act on its server from outside: as its owner, and with keys it handed out.

``bench`` is what the suite in ``test_node.py`` runs on. A second kind of node is a second function in ``KINDS``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import pytest

from deploy.running import Minio
from protocol.errors import StorageUnreachable
from protocol.grants import Grant, Permission
from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage.connection import Connection, Query, Reply
from spoke_agent.storage.joining import make_agent_user, remove_agent_user
from spoke_agent.storage.minio import MinioNode
from spoke_agent.storage.node import Credential, Holder, HolderKind, StorageNode
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

REGION: Final = "us-east-1"


def clock() -> int:
    return time.time_ns() // 1000


class Bench:
    """A node under test and its server."""

    def __init__(self, node: StorageNode, connection: Connection, owner: Key) -> None:
        self.node = node
        self.connection = connection
        self.owner = owner
        self.s3 = S3(connection, owner)

    async def bucket(self, name: str | None = None) -> str:
        """Make a bucket as the server's owner."""
        name = name or f"b{os.urandom(8).hex()}"
        await self.s3.make_bucket(name)
        return name

    async def put(self, bucket: str, key: str, body: bytes = b"body") -> None:
        await self.s3.put(bucket, key, body)

    async def ask(
        self, credential: Credential | Key, method: str, path: str, query: Query = (), body: bytes = b"", **headers: str
    ) -> Reply:
        key = credential
        if isinstance(credential, Credential):
            key = Key(credential.access_key, credential.secret_key, credential.session_token)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.connection.ask(key, method, path, query, body, headers=named)

    async def status(self, credential: Credential | Key, method: str, path: str, query: Query = (), body: bytes = b"") -> int:
        return (await self.ask(credential, method, path, query, body)).status

    async def person(self, *grants: Grant, shared: tuple[Holder, ...] = ()) -> tuple[Holder, Credential]:
        """Make a person with a key."""
        holder = Holder(HolderKind.PERSON, os.urandom(16).hex())
        await self.node.create(holder, grants, shared)
        return holder, await self.node.mint(holder, life_s=900, narrowing=None)

    async def everyone(self, *grants: Grant) -> Holder:
        holder = Holder(HolderKind.SHARED, os.urandom(16).hex())
        await self.node.create(holder, grants, ())
        return holder


def grant(bucket: str, prefix: str = "", permission: Permission = Permission.READ) -> Grant:
    return Grant(1, bucket, prefix, permission)


def root(bucket: str, prefix: str = "", layout: Layout = Layout.PREFIX) -> RootConfig:
    return RootConfig(7, "root", bucket, prefix, layout, IndexLevel.METADATA)


async def joined(minio: Minio, name: str, *, replace: bool = False) -> Key:
    """Make an agent's user, as soon as the server knows its own users."""
    owner = Key(minio.user, minio.password)
    async with asyncio.timeout(20):
        while True:
            try:
                return await make_agent_user(minio.url, owner, name, region=REGION, clock=clock, replace=replace)
            except StorageUnreachable:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def minio_bench(minio: Minio, name: str = "") -> AsyncIterator[Bench]:
    name = name or f"n{os.urandom(6).hex()}"
    key = await joined(minio, name)
    owner, master = Key(minio.user, minio.password), os.urandom(32)
    node = MinioNode(minio.url, key=key, master=master, node=name, clock=clock, pause=asyncio.sleep, chance=os.urandom)
    connection = Connection(minio.url, region=REGION, clock=clock)
    await node.open()
    await connection.open()
    try:
        yield Bench(node, connection, owner)
    finally:
        await node.leave()
        await node.close()
        await connection.close()
        await remove_agent_user(minio.url, owner, name, region=REGION, clock=clock)


KINDS: Final[dict[str, Callable[[Minio], AbstractAsyncContextManager[Bench]]]] = {"minio": minio_bench}


@pytest.fixture(scope="module", params=KINDS)
async def bench(request: pytest.FixtureRequest, minio: Minio) -> AsyncIterator[Bench]:
    async with KINDS[request.param](minio) as it:
        yield it
