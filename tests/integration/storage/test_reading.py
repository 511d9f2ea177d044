"""Reading pieces of objects and their tags with the agent's own key, which reads nothing else than it is asked for."""

from __future__ import annotations

import os

import pytest

from deploy.running import Minio
from protocol.errors import Conflict, NotAllowed, RootMissing
from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage.joining import agent_policy, renew_policy
from spoke_agent.storage.node import Entry
from spoke_agent.storage.sigv4 import Key
from tests.integration.storage.conftest import REGION, Bench, clock, minio_bench

BODY = bytes(range(256)) * 8


def root_of(bucket: str, prefix: str = "in/") -> RootConfig:
    return RootConfig(7, "root", bucket, prefix, Layout.PREFIX, IndexLevel.METADATA)


async def seen(bench: Bench, root: RootConfig, key: str) -> Entry:
    found = await bench.node.look(root, key)
    assert found is not None
    return found


@pytest.mark.parametrize("key", ["a.bin", "d e/ü+%&'\"<>.txt", "x" * 200 + "/y"])
async def test_pieces_of_an_object_are_read_as_they_lie_there(bench: Bench, key: str) -> None:
    root = root_of(await bench.bucket())
    await bench.put(root.bucket, root.prefix + key, BODY)
    etag = (await seen(bench, root, key)).etag
    assert await bench.node.read(root, key, etag, 0, len(BODY)) == BODY
    assert await bench.node.read(root, key, etag, 5, 3) == BODY[5:8]
    assert await bench.node.read(root, key, "", 5, 3) == BODY[5:8]
    assert await bench.node.read(root, key, etag, len(BODY) - 2, 100) == BODY[-2:]
    assert await bench.node.read(root, key, etag, len(BODY), 1) == b""
    assert await bench.node.read(root, key, etag, 3, 0) == b""


async def test_an_object_that_was_overwritten_or_deleted_meanwhile_is_not_read(bench: Bench) -> None:
    root = root_of(await bench.bucket())
    await bench.put(root.bucket, "in/a", b"old")
    etag = (await seen(bench, root, "a")).etag
    await bench.put(root.bucket, "in/a", b"new")
    with pytest.raises(Conflict):
        await bench.node.read(root, "a", etag, 0, 3)
    await bench.s3.delete(root.bucket, "in/a")
    with pytest.raises(Conflict):
        await bench.node.read(root, "a", etag, 0, 3)
    assert await bench.node.tags(root, "a") == {}


async def test_a_bucket_that_is_gone_is_missing_and_not_a_changed_file(bench: Bench) -> None:
    root = root_of(f"gone{os.urandom(6).hex()}")
    with pytest.raises(RootMissing):
        await bench.node.read(root, "a", "e", 0, 1)
    if bench.can.tags:
        with pytest.raises(RootMissing):
            await bench.node.tags(root, "a")


async def test_tags_are_given_as_they_were_set(bench: Bench) -> None:
    root = root_of(await bench.bucket())
    await bench.put(root.bucket, "in/a", b"x")
    assert await bench.node.tags(root, "a") == {}
    body = (
        b"<Tagging><TagSet><Tag><Key>project</Key><Value>fly brain</Value></Tag>"
        b"<Tag><Key>st</Key><Value>+-=._:/@</Value></Tag></TagSet></Tagging>"
    )
    assert await bench.s3.status("PUT", f"/{root.bucket}/in/a", [("tagging", "")], body=body) == 200
    assert await bench.node.tags(root, "a") == ({"project": "fly brain", "st": "+-=._:/@"} if bench.can.tags else {})


async def test_a_user_that_an_older_agent_was_given_is_refused_until_it_joins_once_more(minio: Minio) -> None:
    name = f"n{os.urandom(6).hex()}"
    owner = Key(minio.user, minio.password)
    async with minio_bench(minio, name) as bench:
        root = root_of(await bench.bucket())
        await bench.put(root.bucket, "in/a", b"x")
        older = agent_policy().replace(b'"s3:GetObjectTagging",', b"")
        assert older != agent_policy()
        admin = bench.node._admin  # type: ignore[attr-defined]
        mine = bench.node._s3._key.access_key  # type: ignore[attr-defined]
        await admin.put_policy(mine, older)
        with pytest.raises(NotAllowed) as refused:
            await bench.node.tags(root, "a")
        assert "wio-agent join" in refused.value.todo
        assert await bench.node.read(root, "a", "", 0, 1) == b"x"
        await renew_policy(minio.url, owner, name, region=REGION, clock=clock)
        assert await bench.node.tags(root, "a") == {}
