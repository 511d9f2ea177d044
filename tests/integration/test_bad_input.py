"""What goes wrong in ordinary life: a clear error with a code, and nothing half done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.rig import NODE, Rig, fetch_key
from deploy.federation import Agent, Federation, Hub, Said
from deploy.running import Minio, free_port, until
from protocol.errors import BadName, NameTaken, UnknownUser, WioError, WrongPassword
from protocol.grants import Permission
from wio.client import Client


def problem(said: Said) -> str:
    """Return the code of the error a command ended with, having checked that a person can read it."""
    assert said.code not in {0, 6}
    assert "Traceback" not in said.out + said.err
    return str(json.loads(said.err.strip().splitlines()[-1])["code"]) if said.err.strip().startswith("{") else said.err


def test_a_wrong_password_is_said_to_be_wrong(rig: Rig) -> None:
    with Client(rig.federation.hub.url) as client:
        with pytest.raises(WrongPassword, match="password"):
            client.login("alice@lab.example", "not the password")
        with pytest.raises(WrongPassword):  # and nobody learns who has an account
            client.login("nobody@lab.example", "not the password")


@pytest.mark.parametrize("name", ["a*b", "../x", "a/b", "", ".", "Ümlaut", "x" * 41, "a--b", "me", "${x}", "a\x1b[31m", "a b"])
def test_a_workspace_name_that_a_policy_or_a_shell_reads_as_syntax_is_refused(rig: Rig, name: str) -> None:
    before = {one.name for one in rig.alice.workspaces("mine")}
    with pytest.raises(BadName):
        rig.alice.create_workspace(name)
    assert {one.name for one in rig.alice.workspaces("mine")} == before


def test_a_name_that_is_taken_is_refused(rig: Rig) -> None:
    rig.alice.create_workspace("taken")
    with pytest.raises(NameTaken):
        rig.alice.create_workspace("taken")


def test_sharing_with_somebody_unknown_changes_nothing(rig: Rig) -> None:
    rig.alice.create_workspace("unshared")
    with pytest.raises(UnknownUser, match="zoe"):
        rig.alice.share("unshared", "zoe", Permission.READ)
    assert rig.alice.shares("unshared") == []


def test_joining_without_a_storage_server_there_spends_no_join_string(rig: Rig, tmp_path: Path) -> None:
    alice = rig.federation.people["alice"]
    invitation = alice.wio("node", "invite", "later", "--json").good().json
    agent = Agent("later", tmp_path / "state")
    nobody = f"http://127.0.0.1:{free_port()}"
    said = agent.ask("join", "-", "--s3", nobody, "--admin-env", environment=rig.server.keys, stdin=invitation["join_string"])
    assert said.code == 5
    assert nobody in said.err
    assert "Traceback" not in said.err
    assert {node.name for node in rig.alice.nodes()} == {NODE}


def people_on(server: Minio) -> set[str]:
    """Return what the server has of users, policies and who has which."""
    kept = server.data / ".minio.sys/config/iam"
    return {str(path.relative_to(kept)) for part in ("users", "policies", "policydb") for path in (kept / part).rglob("*.json")}


def test_a_used_join_string_is_refused_and_leaves_the_server_as_it_was(
    new_federation: Callable[..., Federation], tmp_path: Path
) -> None:
    federation = new_federation()
    alice = federation.person("alice")
    string = alice.wio("node", "invite", "one", "--json").good().json["join_string"]
    first, server, other = Agent("one", tmp_path / "one"), federation.server("one"), federation.server("two")

    def join(agent: Agent, to: Minio) -> Said:
        return agent.ask("join", "-", "--s3", to.url, "--admin-env", environment=to.keys, stdin=string)

    join(first, server).good()
    assert people_on(server)  # so that an empty answer below means something
    assert people_on(other) == set()
    refused = join(Agent("two", tmp_path / "two"), other)
    assert refused.code == 1
    assert "used" in refused.err
    assert people_on(other) == set()
    before = people_on(server)
    assert join(first, server).code == 0  # the same node may say it again
    assert people_on(server) == before


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux for a small file system of its own")
def test_a_full_disk_is_said_and_nothing_is_half_done(tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    mounted = f"mount -t tmpfs -o size=6m tmpfs {data} && exec "
    as_whom = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    hub = Hub(data)
    hub.command = ["unshare", *as_whom, "--mount", "sh", "-c", mounted + " ".join(hub.command)]
    with hub, Client(hub.url) as stranger:
        token = stranger.register("alice@lab.example", "alice", "a long password").token
        filler = Path(f"/proc/{hub.pid}/root{data}/filler")
        with filler.open("wb", buffering=0) as full:
            while True:
                try:
                    full.write(b"x" * 4096)
                except OSError:
                    break
        codes: list[str] = []
        with Client(hub.url, token) as alice:

            def refused() -> bool:
                try:
                    alice.invite(f"node-{len(codes)}")
                except WioError as error:
                    codes.append(error.code)
                    return error.code == "disk-full"
                codes.append("")
                return False

            until("the full disk is noticed", refused, seconds=30)
            assert set(codes) <= {"", "disk-full"}
            filler.unlink()
            until("it works again by itself", lambda: not refused(), seconds=30)


def test_a_key_for_a_place_of_nobodys_is_refused_by_name(rig: Rig) -> None:
    with pytest.raises(WioError) as refused:
        fetch_key(rig.bob, "alice/no-such-place")
    assert refused.value.code == "unknown-workspace"
