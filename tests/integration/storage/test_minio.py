"""What is true of MinIO-family servers only: the agent's own user, what is left on the server, escapes that must stay shut."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable

import pytest

from deploy.running import Minio
from protocol.errors import AlreadyJoined, NotAllowed, StorageRefused, StorageUnreachable
from protocol.grants import Narrowing, Permission
from protocol.messages import RootConfig
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.admin_cipher import decrypt
from spoke_agent.storage.joining import make_agent_user, remove_agent_user
from spoke_agent.storage.minio import MinioNode
from spoke_agent.storage.node import Call, Credential, Hint, Holder, HolderKind
from spoke_agent.storage.placing import parent_key
from spoke_agent.storage.policy import MAX_BYTES, MAX_SESSION_BYTES, Access, Pattern, document, fingerprint, narrowed
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key

from .conftest import REGION, Bench, clock, grant, joined, minio_bench, root

pytestmark = pytest.mark.real

WRITE = Permission.WRITE


@pytest.fixture(scope="module")
async def own(minio: Minio) -> AsyncIterator[Bench]:
    async with minio_bench(minio) as it:
        yield it


def owner(bench: Bench) -> Admin:
    return Admin(bench.connection, bench.owner)


def node_of(bench: Bench) -> MinioNode:
    assert isinstance(bench.node, MinioNode)
    return bench.node


def key_of(credential: Credential) -> Key:
    return Key(credential.access_key, credential.secret_key, credential.session_token)


async def left_on(bench: Bench) -> dict[str, object]:
    """Everything of a server that wio could leave something in."""
    admin = owner(bench)
    reply = await admin._ask("GET", "get-config-kv", [("key", "audit_webhook")])
    return {
        "users": await admin.users(),
        "policies": {name: fingerprint([text]) for name, text in (await admin.policies()).items()},  # they come in any order
        "settings": decrypt(bench.owner.secret_key, reply.body),
        "buckets": await bench.s3.buckets(),
    }


# ------------------------------------------------------------------------------------------------- the agent's own user


@pytest.mark.parametrize(
    ("method", "call", "query"),
    [
        ("POST", "service", (("action", "restart"), ("type", "2"), ("dry-run", "true"))),
        ("POST", "service", (("action", "restart"),)),
        ("POST", "service", (("action", "stop"),)),
        ("POST", "update", (("updateURL", ""),)),
        ("GET", "export-iam", ()),
        ("GET", "datausageinfo", ()),
        ("PUT", "set-bucket-quota", (("bucket", "a"),)),
        ("GET", "groups", ()),
        ("GET", "trace", (("s3", "true"),)),
        ("GET", "inspect-data", (("volume", "v"), ("file", "f"))),
        ("POST", "profile", (("profilerType", "cpu"),)),
    ],
)
async def test_the_agent_s_user_may_not_do_what_it_has_no_business_with(
    own: Bench, method: str, call: str, query: tuple[tuple[str, str], ...]
) -> None:
    assert await node_of(own)._admin.status(method, call, query) == 403


async def test_the_agent_s_user_looks_at_data_and_changes_none(own: Bench) -> None:
    bucket = await own.bucket()
    await own.put(bucket, "a")
    agent = node_of(own)._s3
    assert await agent.find(bucket, "a") is not None
    assert await agent.exists(bucket, "a")
    for change in (agent.put(bucket, "b", b"x"), agent.delete(bucket, "a"), agent.drop_bucket(bucket)):
        with pytest.raises(StorageRefused, match="AccessDenied"):
            await change
    assert await agent.status("PUT", f"/{bucket}", [("policy", "")], body=b"{}") == 403


async def test_the_owner_s_key_is_needed_to_join_and_a_second_agent_of_that_name_is_refused(minio: Minio) -> None:
    name = f"n{os.urandom(6).hex()}"
    it = {"region": REGION, "clock": clock}
    with pytest.raises(NotAllowed, match="may not manage users"):
        await make_agent_user(minio.url, Key(minio.user, "a-wrong-password"), name, **it)
    first = await joined(minio, name)
    try:
        with pytest.raises(AlreadyJoined, match=name):
            await make_agent_user(minio.url, Key(minio.user, minio.password), name, **it)
        with pytest.raises(NotAllowed):
            await make_agent_user(minio.url, Key(first.access_key, "wrong-secret"), f"{name}x", **it)
        second = await make_agent_user(minio.url, Key(minio.user, minio.password), name, **it, replace=True)
        assert second.access_key == first.access_key
        assert second.secret_key != first.secret_key
    finally:
        assert len(await remove_agent_user(minio.url, Key(minio.user, minio.password), name, **it)) == 1
    assert await remove_agent_user(minio.url, Key(minio.user, minio.password), name, **it) == []


# ------------------------------------------------------------------------------------------------- what is left behind


async def test_leaving_removes_everything_wio_made_and_nothing_else(minio: Minio) -> None:
    name = f"n{os.urandom(6).hex()}"
    async with minio_bench(minio) as other:
        keeper, _ = await other.person(grant(await other.bucket(), ""))
        admin = owner(other)
        await admin.put_policy(f"wio--{name}x--mine", document(frozenset()))
        before = await left_on(other)
        async with minio_bench(minio, name) as bench:
            bucket = before["buckets"][0].name  # type: ignore[index] - a list of buckets
            everyone = await bench.everyone(grant(bucket, "public/"))
            for _ in range(3):
                await bench.person(grant(bucket, "a/"), shared=(everyone,))
            await bench.person(*(grant(bucket, f"p{n}/") for n in range(200)))
            await node_of(bench)._stream.point_at(1)
            await bench.node.probe()
            assert await left_on(other) != before
            removed = await bench.node.leave()
            assert len(removed) == 4 + 6 + 1
            assert all(name in line for line in removed)
        assert await left_on(other) == before
        assert await other.node.get_access(keeper) is not None


async def test_orphans_go_and_holders_that_are_known_stay(minio: Minio) -> None:
    async with minio_bench(minio) as bench:
        bucket = await bench.bucket()
        await bench.put(bucket, "public/a")
        everyone, lost_everyone = await bench.everyone(grant(bucket, "public/")), await bench.everyone(grant(bucket, ""))
        known, key = await bench.person(shared=(everyone, lost_everyone))
        lost, lost_key = await bench.person(grant(bucket, ""))
        removed = await node_of(bench).remove_orphans([known, everyone])
        assert {line.split(" ", 2)[1] for line in removed} == {"storage", "access"}
        assert await bench.status(lost_key, "GET", f"/{bucket}/public/a") == 403
        assert await bench.node.get_access(lost) is None
        assert await bench.node.get_access(lost_everyone) is None
        assert await bench.node.get_access(known) == bench.node.fingerprint([])
        assert await bench.status(key, "GET", f"/{bucket}/public/a") == 200
        assert await node_of(bench).remove_orphans([known, everyone]) == []


# ------------------------------------------------------------------------------------------------- what the server has


async def test_tampering_on_the_server_is_noticed_and_repaired(own: Bench) -> None:
    bucket = await own.bucket()
    wanted = [grant(bucket, "a/")]
    holder, _ = await own.person(*wanted)
    admin, naming = owner(own), node_of(own)._naming
    user, name, expected = naming.user(holder.name), naming.policy(holder.name, 0), own.node.fingerprint(wanted)
    assert await own.node.get_access(holder) == expected

    await admin.put_policy(name, document(frozenset({Pattern(bucket, "", Access.WRITE)})))
    assert await own.node.get_access(holder) != expected
    await own.node.set_access(holder, wanted)
    assert await own.node.get_access(holder) == expected

    for attached in ((name, "readwrite"), ("readwrite",), ()):
        await admin.attach(user, attached)
        assert await own.node.get_access(holder) != expected
        await own.node.set_access(holder, wanted)
    await admin.attach(user, (name,))
    assert await own.node.get_access(holder) == expected

    await admin._done("disable", "PUT", "set-user-status", [("accessKey", user), ("status", "disabled")])
    assert await own.node.get_access(holder) != expected


async def test_a_node_that_was_restarted_knows_nothing_and_goes_on_all_the_same(own: Bench) -> None:
    bucket = await own.bucket()
    await own.put(bucket, "p399/a")
    everyone = await own.everyone(grant(bucket, "public/"))
    holder, credential = await own.person(*(grant(bucket, f"p{n}/") for n in range(400)), shared=(everyone,))
    node_of(own)._parents._held.clear()
    await own.node.set_access(holder, [grant(bucket, f"p{n}/") for n in range(399)])
    assert await own.status(credential, "GET", f"/{bucket}/p399/a") == 403
    node_of(own)._parents._held.clear()
    await own.node.set_access(everyone, [grant(bucket, "p399/")])
    assert await own.status(credential, "GET", f"/{bucket}/p399/a") == 200
    node_of(own)._parents._held.clear()
    await own.node.set_access(holder, [])
    assert await own.node.get_access(holder) == own.node.fingerprint([])
    assert await own.status(credential, "GET", f"/{bucket}/p399/a") == 200


async def test_the_limits_of_policies_are_the_server_s(own: Bench) -> None:
    admin, name = node_of(own)._admin, node_of(own)._naming.policy("limits_of_policies", 0)
    whole = json.loads(document(frozenset({Pattern("lab", "a/", Access.READ)})))
    resources = whole["Statement"][0]["Resource"]
    while len(json.dumps(whole, separators=(",", ":"))) < MAX_BYTES:
        resources.append(f"arn:aws:s3:::lab/{len(resources):020}/*")
    text = json.dumps(whole, separators=(",", ":")).encode()
    await admin.put_policy(name, text)
    assert await admin.policy(name) is not None
    holder, _ = await own.person()
    places = tuple(("lab", f"{'x' * 40}{n:02}/") for n in range(50))
    longest = next(
        Narrowing(places[:count]) for count in range(50, 0, -1) if len(_narrowed(places[:count])) <= MAX_SESSION_BYTES
    )
    assert MAX_SESSION_BYTES - len(_narrowed(longest.places)) < 200
    assert (await own.node.mint(holder, life_s=900, narrowing=longest)).access_key


def _narrowed(places: tuple[tuple[str, str], ...]) -> bytes:
    try:
        return narrowed(Narrowing(places)) or b""
    except Exception:  # noqa: BLE001 - too long is what is being looked for
        return b"x" * (MAX_SESSION_BYTES + 1)


async def test_a_list_of_users_longer_than_one_fragment_can_be_read(own: Bench) -> None:
    admin = node_of(own)._admin
    holders = [(await own.person())[0] for _ in range(120)]
    users = await admin.users()
    names = {node_of(own)._naming.user(holder.name) for holder in holders}
    assert names <= set(users)
    assert all(users[name].enabled and users[name].policies for name in names)
    for holder in holders:
        await own.node.remove(holder)


# ------------------------------------------------------------------------------------------------- escapes


async def test_a_key_cannot_make_itself_permanent_nor_touch_the_server(own: Bench) -> None:
    bucket = await own.bucket()
    for grants in ((), (grant(bucket, "", Permission.MANAGE),)):
        holder, credential = await own.person(*grants)
        person = Admin(own.connection, key_of(credential))
        assert await person.try_service_account(b'{"name":"mine"}') == 403
        parent = parent_key(node_of(own)._parents._master, node_of(own)._naming.user(holder.name))
        assert await Admin(own.connection, parent).try_service_account(b'{"name":"mine"}') == 403
        for method, call in (("GET", "list-users"), ("GET", "list-canned-policies"), ("GET", "info"), ("GET", "config")):
            assert await person.status(method, call) == 403
        await own.node.remove(holder)


async def test_names_of_a_bucket_layout_stay_closed_to_every_forgery(own: Bench) -> None:
    mine, other = await own.bucket(), await own.bucket()
    await own.put(other, "secret/name")
    _, credential = await own.person(grant(mine, "", WRITE))
    person = S3(own.connection, key_of(credential))
    for query, headers in (
        ([("list-type", "2")], {}),
        ([("list-type", "2"), ("prefix", "secret/")], {"prefix": ""}),
        ([("prefix", ""), ("Prefix", ""), ("prefix", "secret/")], {}),
        ([("versions", "")], {"prefix": ""}),
        ([("uploads", "")], {}),
    ):
        assert await person.status("GET", f"/{other}", query, headers) == 403
    copied = await person.status("PUT", f"/{mine}/stolen", (), {"x-amz-copy-source": f"/{other}/secret/name"})
    assert copied == 403
    assert await person.status("GET", f"/{mine}/..%2f{other}/secret/name") in {400, 403, 404}


async def test_a_delete_by_force_ends_at_what_its_person_may_write(own: Bench) -> None:
    bucket = await own.bucket()
    for key in ("mine/a", "other/a", "mine2/a"):
        await own.put(bucket, key)
    _, credential = await own.person(grant(bucket, "mine/", WRITE))
    person = S3(own.connection, key_of(credential))
    for key in ("other/", "", "mine2/", "mine"):
        assert await person.status("DELETE", f"/{bucket}/{key}", (), {"x-minio-force-delete": "true"}) == 403
    for key in ("mine/a", "other/a", "mine2/a"):
        assert await own.s3.exists(bucket, key)


async def test_old_versions_cannot_be_deleted_and_a_deleted_key_is_not_there(own: Bench) -> None:
    bucket = await own.bucket()
    on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert await own.status(own.owner, "PUT", f"/{bucket}", [("versioning", "")], on) == 200
    await own.put(bucket, "ws/a")
    _, credential = await own.person(grant(bucket, "ws/", WRITE))
    put = await own.ask(credential, "PUT", f"/{bucket}/ws/a", (), b"newer")
    version = put.headers["x-amz-version-id"]
    assert await own.status(credential, "DELETE", f"/{bucket}/ws/a", [("versionId", version)]) == 403
    assert await own.status(credential, "DELETE", f"/{bucket}/ws/a") == 204
    for _ in range(2):
        assert await own.node.look(root(bucket), "ws/a") is None
    assert [page async for page in own.node.scan(root(bucket))] == []
    facts = await own.node.probe()
    (line,) = [line for line in facts.probes if line.capability == "versioned-buckets"]
    assert bucket in line.detail or "…" in line.detail


# ------------------------------------------------------------------------------------------------- the audit stream


class Turn:
    """A pause that ends when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, _: float) -> None:
        self.asked.set()
        await self.go.wait()
        self.go.clear()


async def _soon(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not ready():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.005)


async def test_a_server_that_forgot_where_to_send_is_told_again_and_everything_looked_at(
    minio: Minio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoke_agent.storage.stream.ANSWER_S", 0.5)
    async with minio_bench(minio) as bench:
        bucket, turn = await bench.bucket(), Turn()
        node_of(bench)._pause = turn
        hints: list[Hint] = []
        calls: list[Call] = []
        where: RootConfig = root(bucket)
        watching = asyncio.create_task(bench.node.watch(lambda: [where], hints.append, calls.append))
        try:
            await asyncio.wait_for(turn.asked.wait(), 10)
            assert hints == [Hint(7, "", folder=True)], "what was done before it began, nobody heard"
            hints.clear()
            turn.asked.clear()
            turn.go.set()
            await asyncio.wait_for(turn.asked.wait(), 10)
            assert hints == [], "a stream that lives loses nothing"
            assert await owner(bench).drop_config(node_of(bench)._naming.target)
            turn.asked.clear()
            turn.go.set()
            await asyncio.wait_for(turn.asked.wait(), 10)
            assert hints == [Hint(7, "", folder=True)]
            await bench.put(bucket, "a")
            await _soon(lambda: Hint(7, "a") in hints)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert not await owner(bench).drop_config(node_of(bench)._naming.target), "told to send no more"


async def test_a_server_that_was_restarted_is_the_same_and_goes_on_reporting(new_minio: Callable[[str], Minio]) -> None:
    server = new_minio()  # type: ignore[call-arg] - its argument has a default
    async with minio_bench(server) as bench:
        bucket = await bench.bucket()
        await bench.put(bucket, "a")
        holder, credential = await bench.person(grant(bucket))
        identity = await bench.node.check_root(root(bucket))
        hints: list[Hint] = []
        watching = asyncio.create_task(bench.node.watch(lambda: [root(bucket)], hints.append, lambda _: None))
        try:
            await _put_until_heard(bench, bucket, hints)
            server.stop()
            with pytest.raises(StorageUnreachable):
                await bench.node.set_access(holder, [])
            server.start()
            await _again(lambda: bench.node.check_root(root(bucket)))
            assert await bench.node.check_root(root(bucket)) == identity
            assert await bench.status(credential, "GET", f"/{bucket}/a") == 200
            await bench.node.set_access(holder, [])
            assert await bench.status(credential, "GET", f"/{bucket}/a") == 403
            hints.clear()
            await _put_until_heard(bench, bucket, hints)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _again(asking: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await asking()  # type: ignore[misc] - every call of a node can be awaited
            except StorageUnreachable:
                await asyncio.sleep(0.05)
            else:
                return


async def _put_until_heard(bench: Bench, bucket: str, hints: list[Hint]) -> None:
    async with asyncio.timeout(15):
        while not hints:
            await bench.put(bucket, f"k{time.monotonic_ns()}")
            await asyncio.sleep(0.02)


# ------------------------------------------------------------------------------------------------- secrets


async def test_no_error_and_no_repr_shows_a_secret(own: Bench) -> None:
    holder, credential = await own.person()
    node = node_of(own)
    parent = parent_key(node._parents._master, node._naming.user(holder.name))
    secrets = [parent.secret_key, credential.secret_key, credential.session_token, node._admin._key.secret_key]
    await own.node.remove(holder)
    said = [repr(parent), repr(credential), repr(node._admin._key), repr(holder)]
    for failing in (
        own.node.mint(holder, life_s=900, narrowing=None),
        own.node.set_access(holder, []),
        Admin(own.connection, Key(node._admin._key.access_key, "wrong-secret")).users(),
        node._admin.set_config(f"no_such_setting:x auth_token={parent.secret_key}"),
    ):
        with pytest.raises(StorageRefused) as caught:
            await failing
        said += [str(caught.value), caught.value.todo, repr(caught.value)]
    for secret in secrets:
        assert not any(secret in text for text in said)
    assert HolderKind.PERSON in repr(Holder(HolderKind.PERSON, "name"))
