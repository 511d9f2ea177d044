"""Joining and leaving, with the real program on a MinIO of the test's own: the server is afterwards as it was before."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.running import Minio
from protocol.grants import Grant, GrantSet, Permission, Subject, SubjectKind, sign_set
from protocol.messages import Configure, Done, GrantsApplied, IndexLevel, PlaceWorkspace, RootConfig, SetGrants
from protocol.names import Layout
from spoke_agent.agent import clock
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.admin_cipher import decrypt
from spoke_agent.storage.connection import Connection
from spoke_agent.storage.policy import fingerprint
from spoke_agent.storage.s3 import S3
from spoke_agent.storage.sigv4 import Key
from tests.spoke_agent.link.conftest import NODE, SmallHub
from tests.spoke_agent.test_cli import Node, eventually, reads

pytestmark = pytest.mark.real

EVERYONE = Subject(SubjectKind.EVERYONE, 0, "everyone")
PROBES = 3
"""When joining, when starting, and once more for the owner."""
STAFF = Subject(SubjectKind.GROUP, 31, "@staff")
THEIRS = (
    b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::theirs/*"]}]}'
)


class Server:
    """A MinIO as its owner sees it."""

    def __init__(self, server: Minio) -> None:
        self.minio = server
        self.owner = Key(server.user, server.password)
        self.connection = Connection(server.url, region="us-east-1", clock=clock)
        self.admin = Admin(self.connection, self.owner)
        self.s3 = S3(self.connection, self.owner)

    async def configuration(self) -> dict[str, Any]:
        """Return everything of a server that is not data: what a careful owner would compare."""
        config = await self.admin._ask("GET", "config")
        buckets = [bucket.name for bucket in await self.s3.buckets()]
        asked = (
            "policy",
            "versioning",
            "notification",
            "lifecycle",
            "tagging",
            "encryption",
            "object-lock",
            "replication",
            "cors",
        )
        return {
            "settings": sorted(decrypt(self.owner.secret_key, config.body).decode().splitlines()),
            "users": await self.admin.users(),
            "policies": {name: fingerprint([text]) for name, text in (await self.admin.policies()).items()},
            "groups": (await self.admin._ask("GET", "groups")).body,
            "service accounts": await self._decrypted("list-access-keys-bulk", [("listType", "svcacc-only"), ("all", "true")]),
            "mappings": await self._decrypted("idp/builtin/policy-entities", []),
            "targets": (await self.admin.info()).deployment,
            "files": sorted(
                str(path.relative_to(self.minio.data)) for path in (self.minio.data / ".minio.sys/config/iam").rglob("*")
            ),
            "buckets": {name: [(await self._of(name, what)) for what in asked] for name in buckets},
        }

    async def at_rest(self) -> dict[str, Any]:
        """Return the same once no probe of a running agent is under way."""
        async with asyncio.timeout(30):
            while True:
                found = await self.configuration()
                if "probe" not in str(found).replace("wio-probe-*", ""):
                    return found
                await asyncio.sleep(0.1)

    async def _decrypted(self, call: str, query: list[tuple[str, str]]) -> Any:
        reply = await self.admin._ask("GET", call, query)
        assert reply.status == 200, (call, reply)
        return {k: v for k, v in json.loads(decrypt(self.owner.secret_key, reply.body)).items() if k != "timestamp"}

    async def _of(self, bucket: str, what: str) -> Any:
        reply = await self.connection.ask(self.owner, "GET", f"/{bucket}", [(what, "")])
        return reply.status, reply.code or reply.body


@pytest.fixture
async def server(new_minio: Callable[[str], Minio]) -> AsyncIterator[Server]:
    made = Server(new_minio("server"))
    await made.connection.open()
    yield made
    await made.connection.close()


@pytest.fixture
async def hub() -> AsyncIterator[SmallHub]:
    made = SmallHub()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def node(tmp_path: Path, server: Server, hub: SmallHub) -> AsyncIterator[Node]:
    made = Node(tmp_path / "state", server.minio, hub)
    await server.s3.make_bucket(made.bucket)
    await server.s3.put(made.bucket, "scans/a.txt", b"body")
    yield made
    await made.stop()


async def lived_in(node: Node) -> None:
    """Everything an agent does on a server: shares of every kind, keys, a workspace's bucket, a scan, a pause."""
    root, other = (
        RootConfig(5, "data", node.bucket, "", Layout.PREFIX, IndexLevel.NAMES),
        RootConfig(6, "homes", node.bucket, "", Layout.BUCKET, IndexLevel.NAMES),
    )
    assert isinstance(await node.hub.ask(lambda n, ms: Configure(n, ms, 1, (root, other))), Done)
    assert isinstance(await node.hub.ask(lambda n, ms: PlaceWorkspace(n, ms, 6, "bob--scans/")), Done)
    for subject in (EVERYONE, STAFF):
        grants = (Grant(9, node.bucket, f"{subject.kind}/", Permission.READ),)
        signed = sign_set(node.hub.key, GrantSet(NODE, subject, 1, grants, clock() // 1_000_000 + 86_400))
        assert isinstance(await node.hub.ask(lambda n, ms, signed=signed: SetGrants(n, ms, signed)), GrantsApplied)
    many = [Grant(n + 10, node.bucket, f"w{n}/", Permission.WRITE) for n in range(200)]
    assert isinstance(await node.share(1, Grant(8, node.bucket, "scans/", Permission.READ), *many), GrantsApplied)
    assert (await node.ask("import", "data")).code == 0
    assert (await node.ask("pause")).code == 0
    assert (await node.ask("resume")).code == 0
    assert (await node.ask("probe")).code == 0


@pytest.mark.parametrize("killed", [True, False])
async def test_after_leaving_the_server_s_configuration_is_what_it_was_before_joining(
    server: Server, node: Node, killed: bool
) -> None:
    # What the owner has there already, named to be mistaken for wio's.
    await server.admin.put_policy("wio--lab3x--mine", THEIRS)
    await server.admin.put_user("wio--lab33--somebody", "a-secret-of-theirs")
    await server.admin.attach("wio--lab33--somebody", ("wio--lab3x--mine",))
    await server.admin.set_config('audit_webhook:theirs endpoint="http://127.0.0.1:9/x" batch_size=1')
    before = await server.configuration()

    assert (await node.join()).code == 0
    await node.start()
    await lived_in(node)
    key = await node.key(1)
    assert reads(key, node.bucket, "scans/a.txt")
    assert await server.configuration() != before
    await node.hub.stop()
    await node.end(signal.SIGKILL if killed else signal.SIGTERM)

    with_agent = await server.at_rest()
    for wrong in (
        {"MINIO_ROOT_USER": server.owner.access_key, "MINIO_ROOT_PASSWORD": "not the password"},
        {"MINIO_ROOT_USER": "wio--lab33--somebody", "MINIO_ROOT_PASSWORD": "a-secret-of-theirs"},
        {"MINIO_ROOT_USER": "nobody-here", "MINIO_ROOT_PASSWORD": "not a password"},
    ):
        said = await node.ask("leave", "--yes", "--admin-env", "--json", environment=wrong)
        assert (said.code, json.loads(said.err)["code"]) == (4, "not-allowed")
        assert "nothing was changed" in said.err
    assert await server.configuration() == with_agent, "a wrong key changes nothing, not even half of it"
    assert reads(key, node.bucket, "scans/a.txt")
    assert (node.state / "node.key").exists()

    left = await node.ask("leave", "--yes", "--admin-env", environment=server.minio.keys)
    assert left.code == 0, left.err
    after = await server.configuration()
    made = f"{node.bucket}--bob--scans"
    assert after["buckets"].pop(made)[0] == before["buckets"][node.bucket][0], "a workspace's bucket is data: it stays"
    assert before.pop("files") == [file for file in after["files"] if "/iam/sts" not in file]
    short = {Path(file).parts[4] for file in after.pop("files") if "/iam/sts/" in file}
    assert key.access_key not in short
    assert len(short) <= 2 * PROBES, "the server's record of keys of probes alone, whose users are long gone: 15 minutes"
    assert after == before
    assert not reads(key, node.bucket, "scans/a.txt")
    assert (await server.s3.get(node.bucket, "scans/a.txt")) == b"body"


# ------------------------------------------------------------------------------------------------ two on one server


@pytest.fixture
async def second(tmp_path: Path, server: Server, node: Node) -> AsyncIterator[Node]:
    """Another node of another hub, for the same server and the same bucket."""
    hub = SmallHub()
    await hub.start()
    made = Node(tmp_path / "second", server.minio, hub)
    made.bucket = node.bucket
    yield made
    await made.stop()
    await hub.stop()


async def join(node: Node, name: str, *words: str) -> Any:
    options = ("join", "-", "--s3", node.server.url, "--admin-env", "--name", name, *words)
    return await node.ask(*options, stdin=node.invitation(), environment=node.server.keys)


async def test_a_second_node_of_the_same_name_is_refused_and_one_of_another_name_lives_beside_it(
    server: Server, node: Node, second: Node
) -> None:
    assert (await join(node, "lab3")).code == 0
    await node.start()
    alone = await server.at_rest()
    same = await join(second, "lab3", "--json")
    assert (same.code, json.loads(same.err)["code"]) == (1, "already-joined")
    assert await server.at_rest() == alone
    assert second.hub.attempts == 0, "the join string was not used"

    other = await join(second, "lab4")
    assert other.code == 0, other.err
    assert "node lab3 of wio" in other.out
    await second.start()
    grant = Grant(9, node.bucket, "scans/", Permission.READ)
    await node.share(1, grant)
    await second.share(1, grant)
    first_key, second_key = await node.key(1), await second.key(1)
    assert [reads(key, node.bucket, "scans/a.txt") for key in (first_key, second_key)] == [True, True]
    await second.share(2)
    assert [reads(key, node.bucket, "scans/a.txt") for key in (first_key, second_key)] == [True, False]
    await second.share(3, grant)
    await node.share(2)
    assert [reads(key, node.bucket, "scans/a.txt") for key in (first_key, second_key)] == [False, True]
    await node.share(3, grant)
    await second.end()
    assert (await second.ask("leave", "--yes", "--admin-env", environment=server.minio.keys)).code == 0
    assert [reads(key, node.bucket, "scans/a.txt") for key in (first_key, second_key)] == [True, False]
    now = await server.configuration()
    assert {name: now[name] for name in now if name != "files"}.keys() == alone.keys() - {"files"}
    assert not any("lab4" in str(part) for part in now.values())
    assert any("audit_webhook:wio--lab3 " in line for line in now["settings"])


async def test_who_takes_the_place_of_a_lost_agent_ends_its_keys_and_the_old_one_can_do_nothing_more(
    node: Node, second: Node
) -> None:
    assert (await join(node, "lab3")).code == 0
    await node.start()
    await node.share(1, Grant(9, node.bucket, "scans/", Permission.READ))
    key = await node.key(1)
    assert (await join(second, "lab3", "--replace")).code == 0
    await second.start()

    async def dead() -> bool:
        return not await asyncio.to_thread(reads, key, node.bucket, "scans/a.txt")

    await eventually(dead, 20)
    answer = await node.share(2, Grant(9, node.bucket, "", Permission.WRITE))
    assert not isinstance(answer, GrantsApplied)
    assert await dead()
