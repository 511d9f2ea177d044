"""Kinds of storage node, each with a way to act on its server from outside: as its owner, and with keys it handed out.

``bench`` is what the suite in ``test_node.py`` runs on, once for each kind in ``KINDS``. What a kind cannot do its ``can``
says; a test that needs it asserts the refusal instead.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from deploy.programs import provide
from deploy.running import Minio
from protocol.errors import StorageUnreachable
from protocol.grants import Grant, Permission
from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage.connection import Connection, Query, Reply
from spoke_agent.storage.joining import make_agent_user, remove_agent_user
from spoke_agent.storage.minio import MinioNode
from spoke_agent.storage.node import Credential, Holder, HolderKind, StorageNode
from spoke_agent.storage.posix.exports import Export
from spoke_agent.storage.posix.gateway import free_port
from spoke_agent.storage.posix.posix import PosixNode, trust
from spoke_agent.storage.posix.serving import Serving
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

REGION: Final = "us-east-1"


def clock() -> int:
    return time.time_ns() // 1000


class Can(msgspec.Struct, frozen=True):
    """What a kind of node can do that another cannot. A directory node declares the same in its probe table."""

    tokens: bool = True
    """Its keys have a session token."""
    buckets: bool = True
    """It makes buckets for workspaces (bucket layout)."""
    reads_reported: bool = True
    """It hears of reads, and of refused calls, not only of writes."""
    keys_as_files: bool = False
    """A key and a folder of the same name exclude each other, as in any file system."""
    names_apart: bool = False
    """Who may list one folder of a bucket can in no way list another."""
    folders_are_keys: bool = True
    """An object whose name ends in a slash is listed like any other."""
    tags: bool = True
    """Its objects have tags."""


class Bench:
    """A node under test and its server."""

    can = Can()

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

    async def drop_bucket(self, name: str) -> None:
        """Remove an empty bucket as the server's owner."""
        await self.s3.drop_bucket(name)

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


class DirectoryBench(Bench):
    """A directory node; its owner makes buckets by serving another directory of ``tree``."""

    can = Can(
        tokens=False,
        buckets=False,
        reads_reported=False,
        keys_as_files=True,
        names_apart=True,
        folders_are_keys=False,
        tags=False,
    )

    def __init__(self, node: PosixNode, connection: Connection, owner: Key, tree: Path) -> None:
        super().__init__(node, connection, owner)
        self.posix = node
        self.tree = tree

    async def bucket(self, name: str | None = None) -> str:
        name = name or f"b{os.urandom(8).hex()}"
        (self.tree / name).mkdir()
        await self.posix.serve(Export(name, str(self.tree / name)))
        return name

    async def drop_bucket(self, name: str) -> None:
        await self.posix.unserve(name)
        (self.tree / name).rename(self.tree / f"was-{name}")  # kept, so that no new one gets its inode


class Made(msgspec.Struct):
    """What a directory node is made of: a second one made of the same is the same node after a restart."""

    folder: Path
    serving: Serving
    key: Key
    master: bytes
    exports: tuple[Export, ...] = ()

    def node(self, outlive_s: float = 0) -> PosixNode:
        return PosixNode(
            self.folder,
            self.exports,
            self.serving,
            outlive_s=outlive_s,
            key=self.key,
            master=self.master,
            clock=clock,
            pause=asyncio.sleep,
            chance=os.urandom,
        )


def made(folder: Path, **serving: object) -> Made:
    os.environ["WIO_VERSITYGW"] = str(provide("versitygw"))
    how = msgspec.structs.replace(Serving("127.0.0.1", free_port("127.0.0.1")), **serving)
    return Made(folder / "gateway", how, Key(f"wio{os.urandom(8).hex()}", os.urandom(30).hex()), os.urandom(32))


@asynccontextmanager
async def directory_bench(folder: Path, **serving: object) -> AsyncIterator[DirectoryBench]:
    tree = folder / f"tree-{os.urandom(4).hex()}"
    tree.mkdir(parents=True)
    node_of = made(folder / f"state-{tree.name[5:]}", **serving)
    node, owner = node_of.node(), node_of.key
    connection = Connection(node._connection.url, region=REGION, clock=clock, trust=trust(node_of.serving))
    await node.open()
    await connection.open()
    try:
        yield DirectoryBench(node, connection, owner, tree)
    finally:
        await node.leave()
        await node.close()
        await connection.close()


def _minio(minio: Minio, _: Path) -> AbstractAsyncContextManager[Bench]:
    return minio_bench(minio)


def _directory(_: Minio, folder: Path) -> AbstractAsyncContextManager[Bench]:
    return directory_bench(folder)


KINDS: Final[dict[str, Callable[[Minio, Path], AbstractAsyncContextManager[Bench]]]] = {
    "minio": _minio,
    "directory": _directory,
}


@pytest.fixture(scope="module", params=KINDS)
async def bench(request: pytest.FixtureRequest, minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with KINDS[request.param](minio, tmp_path_factory.mktemp("directory")) as it:
        yield it
