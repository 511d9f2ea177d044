"""What is true of directory nodes only: traps of their gateway, each tried with a key that the node handed out; its life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from protocol.errors import StorageUnreachable
from protocol.grants import Narrowing, Permission
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.node import Credential, Holder, HolderKind
from spoke_agent.storage.posix.exports import Export
from spoke_agent.storage.posix.posix import PosixNode
from spoke_agent.storage.posix.serving import Owner
from spoke_agent.storage.sigv4 import Key

from .conftest import REGION, DirectoryBench, Made, clock, directory_bench, grant, made

pytestmark = pytest.mark.real

WRITE, READ, MANAGE = Permission.WRITE, Permission.READ, Permission.MANAGE
SECRET = b"what nobody but alice may see"


@pytest.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DirectoryBench]:
    async with directory_bench(tmp_path_factory.mktemp("own")) as it:
        yield it


class Cell:
    """Bob, who may write in ``mine/`` and read ``shown/`` of a bucket that also holds ``theirs/``; and another bucket."""

    def __init__(self, bench: DirectoryBench) -> None:
        self.bench = bench

    async def lock_up(self) -> Cell:
        bench = self.bench
        self.bucket, self.other = await bench.bucket(), await bench.bucket()
        for bucket, key in ((self.bucket, "theirs/a"), (self.bucket, "mine-too/a"), (self.other, "a")):
            self.path(bucket, key).parent.mkdir(exist_ok=True)
            self.path(bucket, key).write_bytes(SECRET)
        for key in ("mine/a", "shown/a"):
            await bench.put(self.bucket, key, b"bob's")
        self.holder, self.key = await bench.person(grant(self.bucket, "mine/", MANAGE), grant(self.bucket, "shown/"))
        self.before = self.seen()
        return self

    def path(self, bucket: str, key: str = "") -> Path:
        return self.bench.tree / bucket / key

    def seen(self) -> dict[str, bytes]:
        """Return every file that is not bob's, with what is in it."""
        return {
            str(path.relative_to(self.bench.tree)): path.read_bytes()
            for bucket in (self.bucket, self.other)
            for path in sorted(self.path(bucket).rglob("*"))
            if path.is_file() and not path.is_relative_to(self.path(self.bucket, "mine")) and ".sgwtmp" not in path.parts
        }

    async def tries(self, method: str, path: str, query: object = (), body: bytes = b"", **headers: str) -> int:
        return (await self.bench.ask(self.key, method, path, query, body, **headers)).status  # type: ignore[arg-type]


@pytest.fixture
async def bob(own: DirectoryBench) -> AsyncIterator[Cell]:
    cell = await Cell(own).lock_up()
    yield cell
    assert cell.seen() == cell.before
    assert await own.node.get_access(cell.holder) == own.node.fingerprint(
        [grant(cell.bucket, "mine/", MANAGE), grant(cell.bucket, "shown/")]
    )
    assert await cell.tries("GET", f"/{cell.bucket}/mine/a") == 200


def client(bench: DirectoryBench, key: Credential) -> object:
    return boto3.client(
        "s3",
        endpoint_url=bench.connection.url,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 1}),
    )


# ------------------------------------------------------------------------------------------------------ escapes


async def test_no_spelling_of_a_name_leads_out_of_what_was_granted(bob: Cell) -> None:
    bucket, other = bob.bucket, bob.other
    for path in (
        f"/{bucket}/theirs/a",
        f"/{bucket}/mine/../theirs/a",
        f"/{bucket}/mine/./../theirs/a",
        f"/{bucket}/mine//../theirs/a",
        f"/{bucket}/mine/../../{other}/a",
        f"/{bucket}/../{other}/a",
        f"/{bucket}/mine-too/a",
        f"/{bucket}/mine/../meta/acl",
        f"/{bucket}/mine/%2e%2e/theirs/a",
        f"/{bucket}/mine/..\\theirs/a",
        f"/{other}/a",
    ):
        for method, body in (("GET", b""), ("HEAD", b""), ("PUT", b"mine now"), ("DELETE", b"")):
            status = await bob.tries(method, path, (), body)
            assert 400 <= status < 500 or (".." not in path and "%" in path) or "\\" in path, (method, path, status)
    # what is odd but lies within is bob's to have
    for name in ("%2e%2e", "..\\theirs"):
        assert not (bob.path(bucket, "mine") / name / "a").exists() or (bob.path(bucket, "mine") / name / "a").is_file()


async def test_raw_requests_with_encoded_dots_lead_nowhere(bob: Cell) -> None:
    import aiohttp  # noqa: PLC0415 - of this test alone
    from yarl import URL  # noqa: PLC0415

    s3 = client(bob.bench, bob.key)
    link = s3.generate_presigned_url("get_object", Params={"Bucket": bob.bucket, "Key": "mine/a"})  # type: ignore[attr-defined]
    async with aiohttp.ClientSession() as session:

        async def status(url: str) -> int:
            async with session.get(URL(url, encoded=True)) as answer:
                assert SECRET not in await answer.read()
                return answer.status

        assert await status(link) == 200
        for spelled in ("mine/../theirs/a", "mine/%2e%2e/theirs/a", "mine%2f..%2ftheirs/a", "mine/..%2ftheirs/a", "theirs/a"):
            assert await status(link.replace("mine/a", spelled)) in {400, 403, 404}
        for doubled in ("&prefix=mine/&prefix=theirs/", "&X-Amz-Expires=99999", "&versionId=null"):
            assert await status(link + doubled) in {400, 403}


async def test_nobody_lists_another_folder_however_it_is_asked_for(bob: Cell) -> None:
    where = f"/{bob.bucket}"
    for query, headers in (
        ([("list-type", "2")], {}),
        ([("list-type", "2"), ("prefix", "theirs/")], {}),
        ([("list-type", "2"), ("prefix", "theirs/")], {"prefix": "mine/"}),
        ([("list-type", "2"), ("Prefix", "mine/"), ("prefix", "theirs/")], {}),
        ([("list-type", "2"), ("prefix", "mine")], {}),
        ([("list-type", "2"), ("prefix", "")], {"x-forwarded-for": "127.0.0.1"}),
        ([("prefix", "theirs/")], {}),
        ([("versions", ""), ("prefix", "mine/")], {}),
        ([("uploads", ""), ("prefix", "mine/")], {}),
        ([("policy", "")], {}),
        ([("acl", "")], {}),
        ([("policyStatus", "")], {}),
    ):
        reply = await bob.bench.connection.ask(
            Key(bob.key.access_key, bob.key.secret_key), "GET", where, query, headers=headers
        )
        assert b"theirs/" not in reply.body.replace(b"<Prefix>theirs/</Prefix>", b""), query
        assert reply.status in {400, 403, 404}, (query, headers, reply.status)
    doubled = [("list-type", "2"), ("prefix", "theirs/"), ("prefix", "mine/")]
    reply = await bob.bench.ask(bob.key, "GET", where, doubled)
    assert b"theirs/" not in reply.body  # the one that is asked about is the one that is listed
    # what is within may be spelled with dots; nothing outside comes of it
    reply = await bob.bench.ask(bob.key, "GET", where, [("list-type", "2"), ("prefix", "mine/../theirs/")])
    assert SECRET not in reply.body
    assert b"<Key>" not in reply.body


async def test_nothing_is_copied_from_where_one_may_not_read(bob: Cell) -> None:
    for source in (
        f"/{bob.bucket}/theirs/a",
        f"{bob.bucket}/theirs/a",
        f"{bob.bucket}%2Ftheirs%2Fa",
        f"/{bob.bucket}/mine/../theirs/a",
        f"/{bob.bucket}/mine/%2e%2e/theirs/a",
        f"/{bob.bucket}/theirs/a?versionId=null",
        f"/{bob.other}/a",
        f"/{bob.bucket}/mine/../../{bob.other}/a",
    ):
        assert await bob.tries("PUT", f"/{bob.bucket}/mine/stolen", x_amz_copy_source=source) in range(400, 500), source
        begun = await bob.bench.ask(bob.key, "POST", f"/{bob.bucket}/mine/parts", [("uploads", "")])
        upload = begun.body.decode().partition("<UploadId>")[2].partition("<")[0]
        query = [("partNumber", "1"), ("uploadId", upload)]
        status = await bob.tries("PUT", f"/{bob.bucket}/mine/parts", query, x_amz_copy_source=source)
        assert status in range(400, 500), source
        assert await bob.tries("DELETE", f"/{bob.bucket}/mine/parts", [("uploadId", upload)]) == 204
    assert not bob.path(bob.bucket, "mine/stolen").exists()
    # and nothing is copied to where one may not write
    mine = f"/{bob.bucket}/mine/a"
    for target in (f"/{bob.bucket}/theirs/b", f"/{bob.other}/b", f"/{bob.bucket}/shown/a"):
        assert await bob.tries("PUT", target, x_amz_copy_source=mine) == 403


async def test_a_copy_between_one_s_own_folders_works(own: DirectoryBench) -> None:
    one, other = await own.bucket(), await own.bucket()
    await own.put(one, "a/x", b"body")
    _, key = await own.person(grant(one, "a/"), grant(other, "b/", WRITE))
    assert await own.ask(key, "PUT", f"/{other}/b/x", x_amz_copy_source=f"/{one}/a/x")
    assert (own.tree / other / "b" / "x").read_bytes() == b"body"


async def test_deleting_many_ends_at_what_one_may_write(bob: Cell) -> None:
    import base64  # noqa: PLC0415 - of this one request
    import hashlib  # noqa: PLC0415

    names = ("theirs/a", "mine/../theirs/a", "shown/a", "mine/./../shown/a", "../" + bob.other + "/a", "meta/acl")
    inside = "".join(f"<Object><Key>{name}</Key></Object>" for name in names)
    body = f"<Delete>{inside}</Delete>".encode()
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    answer = await bob.bench.ask(bob.key, "POST", f"/{bob.bucket}", [("delete", "")], body, content_md5=digest)
    assert b"<Deleted>" not in answer.body
    assert (bob.bench.posix.gateway.sidecar / bob.bucket / "meta" / "acl").exists()


async def test_the_gateway_s_own_files_are_nobody_s_even_in_a_whole_directory(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    _, key = await own.person(grant(bucket, "", MANAGE))
    assert await own.status(key, "PUT", f"/{bucket}/a", (), b"x") == 200
    names = ("meta/acl", "meta/policy", "meta/x/y", "meta", "./meta/acl", "a/../meta/acl", "meta//acl", ".sgwtmp/x", ".sgwtmp")
    for name in (*names, "folder/meta/etag", "folder/meta/etag/x", "folder/meta/X-Amz-Meta", "x/y/meta/content-type"):
        assert await own.status(key, "PUT", f"/{bucket}/{name}", (), b"{}") in {400, 403}, name
        begun = await own.ask(key, "POST", f"/{bucket}/{name}", [("uploads", "")])
        assert begun.status in {400, 403}, name
        assert await own.status(key, "PUT", f"/{bucket}/{name}", (), b"") in {400, 403}
        assert (await own.ask(key, "PUT", f"/{bucket}/{name}", x_amz_copy_source=f"/{bucket}/a")).status in {400, 403}, name
    for name in names:
        assert await own.status(key, "GET", f"/{bucket}/{name}") in {400, 403}, name
    # folders of that name are people's own
    assert await own.status(key, "PUT", f"/{bucket}/folder/meta/notes.txt", (), b"x") == 200
    assert await own.status(key, "GET", f"/{bucket}", [("list-type", "2")]) == 200
    assert await own.node.look(_root(bucket), "folder/meta/notes.txt") is not None


async def test_files_from_outside_that_are_named_like_the_gateway_s_notes_break_no_listing(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    names = ("y/meta/etag", "y/meta/notes.txt", "z/meta/content-type/q", "meta/cors", "meta/notes.txt")
    for name in names:
        path = own.tree / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    _, key = await own.person(grant(bucket, "", MANAGE))
    assert {entry.key async for page in own.node.scan(_root(bucket)) for entry in page} >= set(names[:3])
    await own.posix._tree.tended()
    listed = await own.ask(key, "GET", f"/{bucket}", [("list-type", "2")])
    assert listed.status == 200
    assert listed.body.count(b"<Key>") == len(names)
    assert await own.status(key, "GET", f"/{bucket}/y/meta/etag") == 200
    assert await own.status(key, "PUT", f"/{bucket}/y/new", (), b"x") == 200
    assert await own.status(key, "HEAD", f"/{bucket}") == 200


async def test_a_key_changes_nothing_of_the_bucket_nor_of_the_gateway(bob: Cell) -> None:
    policy = b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::'
    policy += f'{bob.bucket}/*"}}]}}'.encode()
    where = f"/{bob.bucket}"
    for query, body in (
        ([("policy", "")], policy),
        ([("acl", "")], b""),
        ([("versioning", "")], b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
        ([("ownershipControls", "")], b"<OwnershipControls/>"),
        ([("cors", "")], b"<CORSConfiguration/>"),
        ([("tagging", "")], b"<Tagging><TagSet/></Tagging>"),
        ([("object-lock", "")], b"<ObjectLockConfiguration/>"),
        ([("website", "")], b"<WebsiteConfiguration/>"),
        ([], b""),
    ):
        assert await bob.tries("PUT", where, query, body) in range(400, 500), query
        assert await bob.tries("DELETE", where, query) in range(400, 500), query
    assert await bob.tries("PUT", "/a-new-bucket-of-bobs") in range(400, 500)
    for path in (
        "/create-user",
        "/list-users",
        "/delete-user",
        "/update-user",
        "/change-bucket-owner",
        f"/{bob.bucket}/create",
    ):
        for key in (Key(bob.key.access_key, bob.key.secret_key), bob.bench.owner):
            reply = await bob.bench.connection.ask(key, "PATCH", path, [("access", bob.key.access_key)], b"<Account/>")
            assert not reply.ok, path  # not even with the agent's own key, where people come
    reply = await bob.bench.posix._local.ask(Key(bob.key.access_key, bob.key.secret_key), "PATCH", "/list-users")
    assert reply.status == 403
    buckets = await bob.bench.ask(bob.key, "GET", "/")
    assert bob.other.encode() not in buckets.body
    for headers in ({"x_amz_acl": "public-read-write"}, {"x_amz_grant_full_control": f"id={bob.key.access_key}"}):
        await bob.bench.ask(bob.key, "PUT", f"{where}/mine/open", (), b"x", **headers)
    nobody = Key("nobody", "no-secret-at-all")
    assert await bob.bench.status(nobody, "GET", f"{where}/mine/open") == 403


async def test_links_out_and_pipes_are_served_to_nobody_once_they_are_found(own: DirectoryBench, tmp_path: Path) -> None:
    bucket = await own.bucket()
    folder, out = own.tree / bucket / "ws", tmp_path / "outside"
    out.mkdir()
    (out / "secret").write_bytes(SECRET)
    await own.put(bucket, "ws/a", b"x")
    _, key = await own.person(grant(bucket, "ws/", WRITE))
    (folder / "file").symlink_to(out / "secret")
    (folder / "folder").symlink_to(out, target_is_directory=True)
    os.mkfifo(folder / "pipe")
    assert [entry.key async for page in own.node.scan(_root(bucket)) for entry in page] == ["ws/a"]
    await _until(lambda: len(own.posix._tree.refused(bucket)) == 3)
    if own.posix._refusing is not None:
        await own.posix._refusing
    async with asyncio.timeout(10):
        for name in ("file", "folder/secret", "pipe"):
            assert await own.status(key, "GET", f"/{bucket}/ws/{name}") == 403, name
            assert await own.status(key, "PUT", f"/{bucket}/ws/{name}", (), b"x") == 403, name
            assert await own.status(key, "DELETE", f"/{bucket}/ws/{name}") == 403, name
    assert (out / "secret").read_bytes() == SECRET
    assert await own.status(key, "GET", f"/{bucket}/ws/a") == 200


# ------------------------------------------------------------------------------------------------------ keys and their end


async def test_a_presigned_link_ends_with_the_access_it_was_made_with(own: DirectoryBench) -> None:
    import urllib.request  # noqa: PLC0415 - of this test alone

    bucket = await own.bucket()
    await own.put(bucket, "ws/a", b"x")
    holder, key = await own.person(grant(bucket, "ws/"))
    link = client(own, key).generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "ws/a"})  # type: ignore[attr-defined]

    def status() -> int:
        try:
            with urllib.request.urlopen(link, timeout=10) as answer:  # noqa: S310 - a link of our own gateway
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert await asyncio.to_thread(status) == 200
    await own.node.set_access(holder, [])
    assert await asyncio.to_thread(status) == 403
    await own.node.set_access(holder, [grant(bucket, "ws/")])
    assert await asyncio.to_thread(status) == 200
    await own.node.remove(holder)
    assert await asyncio.to_thread(status) == 403


async def test_an_account_ends_on_time_by_the_agent_s_clock_and_so_it_does_after_a_restart(tmp_path: Path) -> None:
    ahead = 0

    def now() -> int:  # of those who end accounts: requests are signed by the real time
        return clock() + ahead * 1_000_000

    it, tree = made(tmp_path), tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"x")
    it.exports = (Export("tree", str(tree)),)
    node = it.node()
    node._accounts._clock = now
    holder = _holder()
    await node.open()
    await node.create(holder, [grant("tree")], ())
    first = await node.mint(holder, life_s=900, narrowing=None)
    second = await node.mint(holder, life_s=1800, narrowing=Narrowing(read_only=True))
    assert [await _status(it, key) for key in (first, second)] == [200, 200]
    ahead = 901
    assert await node._accounts.expire_once() > 0
    assert [await _status(it, key) for key in (first, second)] == [403, 200]
    assert await node._accounts._admin.names() == [second.access_key]
    await node.close()
    with pytest.raises(StorageUnreachable):
        await _status(it, second)

    again = it.node()
    again._accounts._clock = now
    await again.open()
    assert [await _status(it, key) for key in (first, second)] == [403, 200]
    assert await _status(it, second, "PUT") == 403  # as narrow as it was
    assert await again.get_access(holder) == again.fingerprint([grant("tree")])
    await again.close()

    ahead = 1801
    last = it.node()
    last._accounts._clock = now
    await last.open()
    assert [await _status(it, key) for key in (first, second)] == [403, 403]
    assert await last._accounts._admin.names() == []
    third = await last.mint(holder, life_s=900, narrowing=None)
    assert await _status(it, third) == 200
    await last.leave()
    await last.close()


async def test_what_was_changed_while_no_gateway_ran_holds_when_one_does(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    await own.put(bucket, "ws/a", b"x")
    holder, key = await own.person(grant(bucket, "ws/"))
    gone, dead = await own.person(grant(bucket, "ws/"))
    await own.posix.gateway.stop()
    await own.node.set_access(holder, [])
    await own.node.remove(gone)
    await own.posix.gateway.start()
    assert await own.status(key, "GET", f"/{bucket}/ws/a") == 403
    assert await own.status(dead, "GET", f"/{bucket}/ws/a") == 403
    await own.node.set_access(holder, [grant(bucket, "ws/")])
    assert await own.status(key, "GET", f"/{bucket}/ws/a") == 200


async def test_a_policy_file_that_was_damaged_opens_nothing_is_noticed_and_made_good(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    await own.put(bucket, "ws/a", b"x")
    await own.put(bucket, "other/a", b"x")
    wanted = [grant(bucket, "ws/")]
    holder, key = await own.person(*wanted)
    path = own.posix.gateway.sidecar / bucket / "meta" / "policy"
    good = path.read_bytes()
    wide = good.replace(b"/ws/*", b"/*")
    for damaged, opens in ((b"garbage", False), (b"", False), (b"{}", False), (wide, True), (None, False)):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        assert (await own.status(key, "GET", f"/{bucket}/ws/a") == 200) == opens, damaged
        assert await own.node.get_access(holder) != own.node.fingerprint(wanted)
        await own.node.set_access(holder, wanted)
        assert path.read_bytes() == good
        assert await own.node.get_access(holder) == own.node.fingerprint(wanted)
        assert await own.status(key, "GET", f"/{bucket}/ws/a") == 200
        assert await own.status(key, "GET", f"/{bucket}/other/a") == 403


async def test_nobody_remembers_a_holder_and_it_is_gone(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    await own.put(bucket, "a", b"x")
    kept, key = await own.person(grant(bucket))
    lost, lost_key = await own.person(grant(bucket))
    await own.posix._accounts._admin.create("WIOSTRANGER", "a-secret-of-some-length")
    removed = await own.node.remove_orphans([kept])
    assert any(lost.name in line for line in removed)
    assert any("WIOSTRANGER" in line for line in removed)
    assert await own.node.get_access(lost) is None
    assert await own.status(lost_key, "GET", f"/{bucket}/a") == 403
    assert await own.status(key, "GET", f"/{bucket}/a") == 200
    assert await own.node.remove_orphans([kept]) == []


# ------------------------------------------------------------------------------------------------------ its life


async def test_a_gateway_that_is_killed_is_back_with_everything_it_had(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    await own.put(bucket, "ws/a", b"x")
    _, key = await own.person(grant(bucket, "ws/", WRITE))
    for number in (1, 0):  # the gateway, then its keeper
        starts, pids = own.posix.gateway.starts, _pids(own.posix)
        os.kill(pids[number], signal.SIGKILL)
        await _until(lambda starts=starts: own.posix.gateway.starts > starts)
        assert not own.posix.gateway.problem
        assert _gone(pids[1])
        assert await own.status(key, "GET", f"/{bucket}/ws/a") == 200
        assert await own.status(key, "PUT", f"/{bucket}/ws/b", (), b"x") == 200
    assert (await own.node.started() or 0) > clock() - 60_000_000


async def test_no_gateway_outlives_an_agent_that_was_killed_for_longer_than_it_may(tmp_path: Path) -> None:
    it, tree = made(tmp_path), tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"x")
    it.exports = (Export("tree", str(tree)),)
    holder = _holder()
    node = it.node()
    await node.open()
    await node.create(holder, [grant("tree")], ())
    key = await node.mint(holder, life_s=900, narrowing=None)
    await node.close()
    for outlive_s in (0.0, 1.5):
        agent = _agent(it, outlive_s)
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == "open\n"
            pids = _pids_at(it.folder)
            assert await _status(it, key) == 200
        finally:
            _kill(agent)
        killed = time.monotonic()
        if outlive_s:
            assert await _status(it, key) == 200
        await _until(lambda pids=pids: all(map(_gone, pids)))
        assert outlive_s - 0.1 <= time.monotonic() - killed < outlive_s + 5
        with pytest.raises(StorageUnreachable):
            await _status(it, key)


async def test_a_new_agent_takes_over_from_a_gateway_that_still_runs(tmp_path: Path) -> None:
    it, tree = made(tmp_path), tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"x")
    it.exports = (Export("tree", str(tree)),)
    agent = _agent(it, 60)
    assert agent.stdout is not None
    assert agent.stdout.readline() == "open\n"
    pids = _pids_at(it.folder)
    _kill(agent)
    node = it.node()
    await node.open()
    try:
        assert not node.gateway.problem
        assert all(map(_gone, pids))
        holder = _holder()
        await node.create(holder, [grant("tree")], ())
        assert await _status(it, await node.mint(holder, life_s=900, narrowing=None)) == 200
    finally:
        await node.leave()
        await node.close()


async def test_a_port_that_somebody_has_is_said_and_used_once_it_is_free(tmp_path: Path) -> None:
    it = made(tmp_path)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", it.serving.port))
        squatter.listen()
        node = it.node()
        await node.open()
        try:
            with pytest.raises(StorageUnreachable, match=f"listens on 127.0.0.1:{it.serving.port} already"):
                await node.started()
            squatter.close()
            await _until(lambda: not node.gateway.problem)
            assert await node.started()
        finally:
            await node.leave()
            await node.close()


async def test_an_agent_without_any_rights_of_root_serves_what_it_may_read_and_says_what_it_cannot(tmp_path: Path) -> None:
    it, tree = made(tmp_path, owner=Owner(12345, 12345)), tmp_path / "tree"
    (tree / "shut").mkdir(parents=True)
    (tree / "a").write_bytes(b"x")
    (tree / "shut" / "b").write_bytes(b"x")
    (tree / "shut").chmod(0o000)
    it.exports = (Export("tree", str(tree)),)
    agent = _agent(it, 0, plain=True)
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "open\n"
        lines = dict(line.rstrip("\n").split("\t") for line in iter(agent.stdout.readline, "end\n"))
    finally:
        _kill(agent)
        (tree / "shut").chmod(0o700)
    assert lines["GET a"] == "200"
    assert lines["GET shut/b"] in {"403", "404", "500"}
    assert lines["PUT c"] == "500"  # it cannot give files away, and that is what it was told to do
    assert lines["owner-of-files"].startswith("no Files cannot be given to 12345:12345")
    assert lines["live-policies"].startswith("yes")
    assert not (tree / "c").exists()


async def test_people_s_files_get_the_owner_and_modes_that_the_node_s_owner_chose(tmp_path: Path) -> None:
    uid = 12345 if os.geteuid() == 0 else os.geteuid()
    gid = 23456 if os.geteuid() == 0 else os.getegid()
    async with directory_bench(tmp_path, owner=Owner(uid, gid), file_mode=0o640, dir_mode=0o2750 & 0o777) as bench:
        bucket = await bench.bucket()
        _, key = await bench.person(grant(bucket, "ws/", WRITE))
        (bench.tree / bucket / "ws").mkdir()
        (bench.tree / bucket / "ws" / "foreign").write_bytes(b"as it was")
        before = (bench.tree / bucket / "ws" / "foreign").stat()
        s3 = client(bench, key)
        await asyncio.to_thread(s3.put_object, Bucket=bucket, Key="ws/new/file", Body=b"x" * 10_000)  # type: ignore[attr-defined]
        for path, mode in (("ws/new/file", 0o640), ("ws/new", 0o750)):
            found = (bench.tree / bucket / path).stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (uid, gid, mode), path
        assert (bench.tree / bucket / "ws" / "foreign").stat() == before
        facts = await bench.node.probe()
        (line,) = [line for line in facts.probes if line.capability == "owner-of-files"]
        assert f"{uid}:{gid} with mode 0640" in line.detail


async def test_people_s_tools_work_with_keys_that_have_no_session_token(own: DirectoryBench, tmp_path: Path) -> None:
    bucket = await own.bucket()
    _, key = await own.person(grant(bucket, "ws/", WRITE))
    s3 = client(own, key)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20 << 20))

    def work() -> None:
        s3.upload_file(str(big), bucket, "ws/big")  # type: ignore[attr-defined]
        s3.download_file(bucket, "ws/big", str(tmp_path / "back"))  # type: ignore[attr-defined]
        names = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix="ws/")["Contents"]]  # type: ignore[attr-defined]
        assert names == ["ws/big"]
        with pytest.raises(ClientError, match="Access Denied"):
            s3.list_objects_v2(Bucket=bucket)  # type: ignore[attr-defined]

    await asyncio.to_thread(work)
    assert (tmp_path / "back").read_bytes() == big.read_bytes() == (own.tree / bucket / "ws" / "big").read_bytes()


async def test_it_is_served_with_tls_and_the_agent_trusts_its_own_certificate_alone(tmp_path: Path) -> None:
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    made_with = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    where = ("-subj", "/CN=lab.example", "-keyout", private, "-out", certificate)
    await asyncio.to_thread(subprocess.run, [*made_with, *where], check=True, capture_output=True)
    async with directory_bench(tmp_path, certificate=str(certificate), certificate_key=str(private)) as bench:
        bucket = await bench.bucket()
        await bench.put(bucket, "a", b"x")
        _, key = await bench.person(grant(bucket))
        assert bench.connection.url.startswith("https://")
        assert await bench.status(key, "GET", f"/{bucket}/a") == 200
        stranger = Connection(bench.connection.url, region=REGION, clock=clock)
        await stranger.open()
        try:
            with pytest.raises(StorageUnreachable, match="not trusted"):
                await stranger.ask(bench.owner, "GET", "/")
        finally:
            await stranger.close()


async def test_uploads_that_have_no_end_are_ended(own: DirectoryBench) -> None:
    bucket = await own.bucket()
    _, key = await own.person(grant(bucket, "ws/", WRITE))
    begun = await own.ask(key, "POST", f"/{bucket}/ws/big", [("uploads", "")])
    upload = begun.body.decode().partition("<UploadId>")[2].partition("<")[0]
    query = [("partNumber", "1"), ("uploadId", upload)]
    assert await own.status(key, "PUT", f"/{bucket}/ws/big", query, b"part") == 200
    from protocol.names import Place  # noqa: PLC0415 - of this test alone

    assert await own.node.end_uploads([Place(bucket, "ws/")], begun_before=clock() - 60_000_000) == 0
    assert await own.node.end_uploads([Place(bucket, "else/")], begun_before=clock() + 60_000_000) == 0
    assert await own.node.end_uploads([Place(bucket, "ws/")], begun_before=clock() + 60_000_000) == 1
    assert await own.status(key, "PUT", f"/{bucket}/ws/big", query, b"part") == 404


# ------------------------------------------------------------------------------------------------------ around it


def _root(bucket: str, prefix: str = "") -> object:
    from .conftest import root  # noqa: PLC0415

    return root(bucket, prefix)


def _holder() -> Holder:
    return Holder(HolderKind.PERSON, os.urandom(16).hex())


async def _status(it: Made, key: Credential, method: str = "GET") -> int:
    connection = Connection(f"http://127.0.0.1:{it.serving.port}", region=REGION, clock=clock)
    await connection.open()
    try:
        body = b"x" if method == "PUT" else b""
        return (await connection.ask(Key(key.access_key, key.secret_key), method, "/tree/a", (), body)).status
    finally:
        await connection.close()


def _pids(node: PosixNode) -> tuple[int, int]:
    return _pids_at(node.gateway.folder)


def _pids_at(folder: Path) -> tuple[int, int]:
    keeper, gateway = (folder / "keeper.lock").read_text().split()
    return int(keeper), int(gateway)


def _gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


async def _until(ready: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


_AGENT = """
import asyncio, os, pickle, sys
from protocol.grants import Permission
from spoke_agent.storage.node import Holder, HolderKind
from spoke_agent.storage.sigv4 import Key
from tests.integration.storage.conftest import Made, grant
it, outlive_s = pickle.loads(bytes.fromhex(sys.argv[1]))
async def main():
    node = Made(*it).node(outlive_s=outlive_s)
    await node.open()
    assert not node.gateway.problem, node.gateway.problem
    print("open", flush=True)
    if len(sys.argv) > 2:
        await tried(node)
    await asyncio.Event().wait()

async def tried(node):
    holder = Holder(HolderKind.PERSON, os.urandom(16).hex())
    await node.create(holder, [grant("tree", "", Permission.WRITE)], ())
    minted = await node.mint(holder, life_s=900, narrowing=None)
    key = Key(minted.access_key, minted.secret_key)
    for method, name in (("GET", "a"), ("GET", "shut/b"), ("PUT", "c")):
        reply = await node._connection.ask(key, method, f"/tree/{name}", (), b"x" if method == "PUT" else b"")
        print(f"{method} {name}\t{reply.status}", flush=True)
    for line in (await node.probe()).probes:
        print(f"{line.capability}\t{line.found} {line.detail}", flush=True)
    print("end", flush=True)

asyncio.run(main())
"""


def _agent(it: Made, outlive_s: float, *, plain: bool = False) -> subprocess.Popen[str]:
    """A process with an open node, to be killed. ``plain``: without any right of root, and it says what it tried."""
    import pickle  # noqa: PLC0415 - between this test and itself

    fields = (it.folder, it.serving, it.key, it.master, it.exports)
    words = pickle.dumps((fields, outlive_s)).hex()
    here = Path(__file__).parents[3]
    become = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if plain and os.geteuid() == 0 else ()
    tried = ("tried",) if plain else ()
    return subprocess.Popen(
        [*become, sys.executable, "-c", _AGENT, words, *tried],
        stdout=subprocess.PIPE,
        text=True,
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(here)},
    )


def _kill(agent: subprocess.Popen[str]) -> None:
    agent.kill()
    agent.communicate()


async def test_a_state_directory_may_have_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    async with directory_bench(tmp_path / ("long" * 30)) as bench:
        assert len(bench.node.gateway.admin) > 108  # type: ignore[attr-defined]  # what this kind of node has
        bucket = await bench.bucket()
        await bench.put(bucket, "ws/a")
        _, key = await bench.person(grant(bucket, "ws/"))
        assert await bench.status(key, "GET", f"/{bucket}/ws/a") == 200
