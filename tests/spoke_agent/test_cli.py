"""``wio-agent`` as its owner uses it: the real program, a real MinIO, and a hub in small."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from deploy.running import Minio, free_port
from protocol.errors import JoinStringUsed, Problem
from protocol.grants import Grant, GrantSet, Permission, Subject, SubjectKind, sign_set
from protocol.identity import JoinString, public_bytes
from protocol.messages import Configure, Done, GrantsApplied, IndexLevel, Mint, Minted, Report, RootConfig, SetGrants
from protocol.names import Layout
from protocol.sealing import ClearCredential, Context, client_key, open_sealed
from protocol.session import Proved
from tests.spoke_agent.link.conftest import NODE, SmallHub, until

PROGRAM = Path(sys.executable).with_name("wio-agent")
BOB = Subject(SubjectKind.PERSON, 2, "bob")
pytestmark = pytest.mark.real


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Node:
    """One state directory, and the agent that may run on it."""

    def __init__(self, state: Path, server: Minio, hub: SmallHub) -> None:
        self.state = state
        self.server = server
        self.hub = hub
        self.bucket = f"cli-{os.urandom(4).hex()}"
        self.process: asyncio.subprocess.Process | None = None
        self.log = state.with_name(state.name + ".log")

    def invitation(self, expires: int = 4_000_000_000) -> str:
        return JoinString(self.hub.url, public_bytes(self.hub.key), os.urandom(32), expires).encode()

    async def ask(self, *words: str, stdin: str = "", environment: dict[str, str] | None = None) -> Said:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MINIO_", "MC_HOST_"))}
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=inherited | {"WIO_AGENT_STATE": str(self.state)} | (environment or {}),
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def join(self, *words: str, string: str | None = None, url: str | None = None) -> Said:
        string = string if string is not None else self.invitation()
        options = ("--admin-env", "--name", "lab3", *words)
        return await self.ask("join", "-", "--s3", url or self.server.url, *options, stdin=string, environment=self.server.keys)

    async def start(self) -> None:
        sessions = len(self.hub.sessions)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                PROGRAM, "run", env=os.environ | {"WIO_AGENT_STATE": str(self.state)}, stderr=log
            )
        await until(lambda: len(self.hub.sessions) > sessions and self.hub.live.received, 20)

    async def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            code = await asyncio.wait_for(self.process.wait(), 20)
        except TimeoutError:
            raise AssertionError(f"it did not stop: {self.log.read_text()}") from None
        self.process = None
        return code

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self.ask("leave", "--yes", "--admin-env", environment=self.server.keys)

    # ---------------------------------------------------------------------------------------- what the hub does

    async def share(self, epoch: int, *grants: Grant) -> object:
        signed = sign_set(self.hub.key, GrantSet(NODE, BOB, epoch, grants, int(time.time()) + 86_400))
        return await self.hub.ask(lambda number, deadline: SetGrants(number, deadline, signed))

    async def key(self, epoch: int) -> ClearCredential:
        private = X25519PrivateKey.generate()
        minted = await self.hub.ask(lambda n, ms: Mint(n, ms, BOB, epoch, client_key(private), 3600))
        assert isinstance(minted, Minted), minted
        context = Context(NODE, BOB.id, minted.request, client_key(private))
        return open_sealed(private, self.hub.proved[-1].node_key, context, minted.credential)


def s3(url: str, access_key: str, secret_key: str, token: str | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=token,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 0}),
    )


def reads(key: ClearCredential, bucket: str, name: str) -> bool:
    client = s3(key.endpoint, key.access_key, key.secret_key, key.session_token)
    try:
        client.get_object(Bucket=bucket, Key=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    finally:
        client.close()
    return True


def users(server: Minio) -> list[str]:
    """Every user and policy on the server, as it lies on its disk."""
    return sorted(str(path) for path in (server.data / ".minio.sys/config/iam").rglob("*") if "wio--" in str(path))


@pytest.fixture
async def hub() -> AsyncIterator[SmallHub]:
    made = SmallHub()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def node(tmp_path: Path, minio: Minio, hub: SmallHub) -> AsyncIterator[Node]:
    made = Node(tmp_path / "state", minio, hub)
    yield made
    await made.stop()


# ------------------------------------------------------------------------------------------------ joining


async def test_joining_shows_what_the_server_can_do_and_again_it_changes_nothing(node: Node) -> None:
    first = await node.join()
    assert first.code == 0, first.err
    assert "lab3 has joined" in first.out
    assert "capability" in first.out
    assert "wio-agent run" in first.out
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in node.state.iterdir()} == {0o600}
    key = (node.state / "node.key").read_bytes()
    again = await node.join("--json")
    assert again.code == 0, again.err
    assert (again.json["again"], again.json["made"], again.json["node"]) == (True, [], NODE)
    assert (node.state / "node.key").read_bytes() == key
    assert len(node.hub.proved) == 1, "the second string was not used"
    settings = (node.state / "node.json").read_text()
    assert node.server.password not in settings
    assert node.server.password not in key.decode()


async def test_without_a_storage_server_the_join_string_is_not_used(node: Node) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    said = await node.join("--json", url=nobody)
    assert said.code == 5
    assert json.loads(said.err)["code"] == "storage-unreachable"
    assert node.hub.attempts == 0


async def test_a_hub_that_refuses_leaves_the_server_and_this_machine_as_they_were(node: Node) -> None:
    def refuse(_: Proved) -> Problem:
        return JoinStringUsed("That join string was used by another node.").problem

    before = users(node.server)
    node.hub.refuse = refuse
    said = await node.join()
    assert (said.code, said.out) == (1, "")
    assert "was used by another node" in said.err
    assert users(node.server) == before
    assert not (node.state / "node.key").exists()
    node.hub.refuse = lambda _: None
    assert (await node.join()).code == 0


async def test_a_hub_that_is_away_costs_nothing_and_joining_goes_on_later_with_the_same_key(node: Node) -> None:
    string, before = node.invitation(), users(node.server)
    await node.hub.stop()
    said = await node.join(string=string)
    assert said.code == 5
    assert users(node.server) == before
    key = json.loads((node.state / "node.key").read_text())["node_seed"]
    await node.hub.start()
    assert (await node.join(string=string)).code == 0
    assert json.loads((node.state / "node.key").read_text())["node_seed"] == key


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://169.254.169.254"])
async def test_an_address_that_can_be_no_storage_server_is_refused_before_anything_is_sent(url: str, node: Node) -> None:
    said = await node.join("--json", url=url)
    assert said.code == 2
    assert json.loads(said.err)["code"] == "bad-endpoint"
    assert node.hub.attempts == 0


@pytest.mark.parametrize("spoil", [lambda s: s[:-9], lambda _: ""])
async def test_a_spoiled_join_string_is_said_to_be_one(spoil: Callable[[str], str], node: Node) -> None:
    said = await node.join(string=spoil(node.invitation()))
    assert said.code == 2
    assert "Traceback" not in said.err
    assert node.hub.attempts == 0


async def test_a_wrong_admin_key_is_refused_and_no_key_at_all_is_asked_for(node: Node) -> None:
    words = ("join", "-", "--s3", node.server.url, "--name", "lab3", "--json")
    wrong = {"MINIO_ROOT_USER": node.server.user, "MINIO_ROOT_PASSWORD": "not the password"}
    said = await node.ask(*words, "--admin-env", stdin=node.invitation(), environment=wrong)
    assert said.code == 4, said.err
    assert "not the password" not in said.err
    said = await node.ask(*words, "--admin-env", stdin=node.invitation())
    assert (said.code, json.loads(said.err)["code"]) == (2, "bad-setting")
    said = await node.ask(*words, stdin=node.invitation())
    assert (said.code, json.loads(said.err)["code"]) == (2, "bad-setting")


async def test_mcs_own_variable_for_the_server_serves_as_admin_key(node: Node) -> None:
    host = {"MC_HOST_lab": f"http://{node.server.user}:{node.server.password}@{node.server.host}"}
    said = await node.ask(
        "join", "-", "--s3", node.server.url, "--name", "lab3", "--admin-env", stdin=node.invitation(), environment=host
    )
    assert said.code == 0, said.err


async def test_a_directory_of_one_hub_is_not_given_to_another(node: Node) -> None:
    assert (await node.join()).code == 0
    other = JoinString("http://127.0.0.1:9", os.urandom(32), os.urandom(32), 4_000_000_000)
    other = JoinString(other.hub_url, public_bytes(SmallHub().key), other.seed, other.expires)
    said = await node.join("--json", string=other.encode())
    assert (said.code, json.loads(said.err)["code"]) == (1, "already-joined")


# ------------------------------------------------------------------------------------------------ running


@pytest.fixture
async def running(node: Node) -> Node:
    """A node that runs, with a root of three files, and bob who may read them."""
    owner = s3(node.server.url, node.server.user, node.server.password)
    bucket = node.bucket
    owner.create_bucket(Bucket=bucket)
    for name in ("scans/a.txt", "scans/b.txt", "plans/c.txt"):
        owner.put_object(Bucket=bucket, Key=name, Body=b"body")
    owner.close()
    joined = await node.join()
    assert joined.code == 0, joined.err
    await node.start()
    root = RootConfig(5, "data", bucket, "", Layout.PREFIX, IndexLevel.NAMES)
    assert isinstance(await node.hub.ask(lambda n, ms: Configure(n, ms, 1, (root,))), Done)
    return node


async def test_a_key_works_a_revoke_kills_it_and_the_owner_sees_both(running: Node) -> None:
    bucket = running.bucket
    granted = await running.share(1, Grant(9, bucket, "scans/", Permission.READ))
    assert isinstance(granted, GrantsApplied)
    key = await running.key(1)
    assert reads(key, bucket, "scans/a.txt")
    assert not reads(key, bucket, "plans/c.txt")
    [line] = (await running.ask("grants", "--json")).json
    assert (line["subject"], line["place"], line["permission"]) == ("bob", f"{bucket}/scans/", "read")
    assert (line["keys_out"], line["enforced"]) == (1, True)
    [shown] = (await running.ask("keys", "--json")).json
    assert (shown["person"], shown["access_key"]) == ("bob", key.access_key)
    revoked = await running.share(2)
    assert isinstance(revoked, GrantsApplied)
    assert [(proof.status, proof.expected) for proof in revoked.proofs] == [(403, True)]
    assert not reads(key, bucket, "scans/a.txt")
    assert "Nobody can reach anything" in (await running.ask("grants")).out


async def test_pause_cuts_off_through_a_kill_and_without_an_agent_and_resume_lets_in_again(running: Node) -> None:
    bucket = running.bucket
    await running.share(1, Grant(9, bucket, "scans/", Permission.READ))
    key = await running.key(1)
    assert (await running.ask("pause")).code == 0
    assert not reads(key, bucket, "scans/a.txt")
    assert (await running.ask("status", "--json")).json["paused"]
    await running.end(signal.SIGKILL)
    assert (await running.ask("resume", "--json")).json["problems"] == []
    assert reads(key, bucket, "scans/a.txt")
    assert (await running.ask("pause", "--json")).json["paused"]
    assert not reads(key, bucket, "scans/a.txt")
    await running.start()
    assert not reads(key, bucket, "scans/a.txt")
    assert (await running.ask("resume")).code == 0
    assert reads(key, bucket, "scans/a.txt")


async def test_the_agent_stops_when_it_is_told_to_and_logs_lines_without_secrets(running: Node) -> None:
    await running.share(1, Grant(9, running.bucket, "scans/", Permission.READ))
    minted = await running.key(1)
    assert await running.end(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert lines[-1]["message"] == "stopped"
    log, keys = running.log.read_text(), json.loads((running.state / "node.key").read_text())
    for secret in (minted.secret_key, minted.session_token, keys["node_seed"], keys["master"], keys["storage_secret"]):
        assert secret not in log
    assert not (running.state / "control.sock").exists()


async def test_a_second_agent_and_a_second_join_on_the_same_directory_are_refused(running: Node) -> None:
    said = await running.ask("run")
    assert said.code == 1
    assert "Another wio-agent uses" in said.err
    assert (await running.join("--json")).code == 1


async def test_a_root_is_counted_scanned_and_compared_with_an_agent_and_without(running: Node) -> None:
    counted = (await running.ask("import", "data", "--dry-run", "--json")).json
    assert (counted["objects"], counted["bytes"]) == (3, 12)
    done = await running.ask("import", "data", "--json")
    assert done.code == 0, done.err
    assert (done.json["objects"], done.json["scanning"]) == (3, False)
    await until(lambda: len(running.hub.far.entries) == 3)
    verified = await running.ask("verify")
    assert verified.code == 0
    assert "the same as in storage" in verified.out
    await running.end()
    owner = s3(running.server.url, running.server.user, running.server.password)
    owner.put_object(Bucket=running.bucket, Key="new.txt", Body=b"x")
    owner.close()
    differs = await running.ask("verify", "data")
    assert (differs.code, "DIFFERENT" in differs.out) == (1, True)
    scanned = await running.ask("scan", "data", "--json")
    assert scanned.json["objects"] == 4, scanned.err
    assert (await running.ask("verify", "data")).code == 0
    assert (await running.ask("scan", "nowhere", "--json")).code == 3


async def test_leaving_removes_what_wio_made_and_nothing_else(running: Node) -> None:
    bucket = running.bucket
    await running.share(1, Grant(9, bucket, "scans/", Permission.READ))
    key = await running.key(1)
    keys = running.server.keys
    # Tests share the server: what counts is what this node has made there.
    node = json.loads((running.state / "node.json").read_text())["storage"]["access_key"].rpartition("--")[0]
    assert any(node in path for path in users(running.server))
    refused = await running.ask("leave", "--yes", "--admin-env", "--json", environment=keys)
    assert (refused.code, json.loads(refused.err)["code"]) == (1, "already-joined"), "while an agent runs"
    await running.end()
    left = await running.ask("leave", "--yes", "--admin-env", environment=keys)
    assert left.code == 0, left.err
    assert "Your data is as it was" in left.out
    assert [path for path in users(running.server) if node in path] == []
    assert not reads(key, bucket, "scans/a.txt")
    assert list(running.state.iterdir()) == []
    owner = s3(running.server.url, running.server.user, running.server.password)
    assert owner.list_objects_v2(Bucket=bucket)["KeyCount"] == 3
    owner.close()
    assert (await running.ask("status", "--json")).code == 3


async def test_the_ceiling_is_checked_in_words_and_an_edit_counts_at_once(running: Node) -> None:
    bucket = running.bucket
    await running.share(1, Grant(9, bucket, "scans/", Permission.READ))
    key = await running.key(1)
    said = await running.ask("ceiling", "check")
    assert (said.code, "is good" in said.out, "cuts none of the grants" in said.out) == (0, True, True)
    (running.state / "ceiling.toml").write_text('places = ["elsewhere"]\n')
    began = time.monotonic()

    async def closed() -> bool:
        return not await asyncio.to_thread(reads, key, bucket, "scans/a.txt")

    await eventually(closed)
    assert time.monotonic() - began < 5 + 2, "five seconds, and what a busy machine takes for itself"
    await until(lambda: any("Only in elsewhere." in report.ceiling for report in running.hub.live.of(Report)))
    said = await running.ask("ceiling", "check", "--json")
    assert [(cut["subject"], cut["workspace"]) for cut in said.json["cuts"]] == [("bob", 9)]
    assert (said.json["lines"][0]["number"], said.json["lines"][0]["setting"]) == (1, "places")
    (running.state / "ceiling.toml").write_text('places = "elsewhere"\n')
    said = await running.ask("ceiling", "check", "--json")
    assert (said.code, json.loads(said.err)["code"]) == (2, "bad-setting")


async def test_limits_are_edited_in_the_owner_s_editor_and_count_only_when_they_are_good(running: Node) -> None:
    bucket, file = running.bucket, running.state / "ceiling.toml"
    await running.share(1, Grant(9, bucket, "scans/", Permission.WRITE))
    key = await running.key(1)
    before = file.read_text()
    editor = running.state.with_name("editor")

    async def edit(body: str) -> Said:
        editor.write_text(f"#!{sys.executable}\nimport pathlib, sys\nfile = pathlib.Path(sys.argv[1])\n{body}\n")
        editor.chmod(0o700)
        return await running.ask("ceiling", "edit", environment={"VISUAL": str(editor)})

    assert "Nothing was changed" in (await edit("pass")).out
    bad = await edit("file.write_text('places = [')")
    assert (bad.code, "is not TOML" in bad.err) == (2, True)
    failed = await edit("sys.exit(1)")
    assert (failed.code, "did not do its work" in failed.err) == (2, True)
    assert file.read_text() == before
    good = await edit("file.write_text(file.read_text() + 'places = [\"elsewhere\"]')")
    assert good.code == 0, good.err
    assert "cuts 1 of the grants" in good.out
    assert "bob: The owner of this node does not let wio into" in good.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "# What this machine allows at most." in file.read_text(), "the comments stay"

    async def closed() -> bool:
        return not await asyncio.to_thread(reads, key, bucket, "scans/a.txt")

    await eventually(closed, 7)


async def test_the_budget_says_what_everybody_costs_the_server(running: Node) -> None:
    grants = [Grant(n + 1, running.bucket, f"w{n}/", Permission.READ) for n in range(160)]
    assert isinstance(await running.share(1, *grants), GrantsApplied)
    [line] = (await running.ask("grants", "--budget", "--json")).json
    assert (line["subject"], line["grants"], line["patterns"], line["policies"]) == ("bob", 160, 160, 2)
    assert "160 of 600" in (await running.ask("grants")).out


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < end, "it never came to hold"
        await asyncio.sleep(0.1)
