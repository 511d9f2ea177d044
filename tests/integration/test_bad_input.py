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
from deploy.running import free_port, until
from protocol.errors import BadName, NameTaken, UnknownUser, WioError, WrongPassword
from protocol.grants import Permission
from wio.client import Client


def problem(said: Said) -> str:
    """Return the code of the error a command ended with, having checked that a person can read it."""
    assert said.code not in {0, 6}
    assert "Traceback" not in said.out + said.err
    return str(json.loads(said.err.strip().splitlines()[-1])["code"]) if said.err.strip().startswith("{") else said.err


def test_a_wrong_password_is_said_to_be_wrong(rig: Rig) -> None:
    with pytest.raises(WrongPassword, match="password"):
        Client(rig.federation.hub.url).login("alice@lab.example", "not the password")
    with pytest.raises(WrongPassword):  # and nobody learns who has an account
        Client(rig.federation.hub.url).login("nobody@lab.example", "not the password")


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


def test_a_used_join_string_is_refused_and_leaves_the_server_as_it_was(
    new_federation: Callable[..., Federation], tmp_path: Path
) -> None:
    federation = new_federation()
    alice = federation.person("alice")
    invitation = alice.wio("node", "invite", "one", "--json").good().json
    first, server = Agent("one", tmp_path / "one"), federation.server("one")
    join = ("join", "-", "--s3", server.url, "--admin-env")
    first.ask(*join, environment=server.keys, stdin=invitation["join_string"]).good()
    other_server = federation.server("two")
    users_before = sorted(
        str(path.relative_to(other_server.data)) for path in (other_server.data / ".minio.sys/config/iam").rglob("*")
    )
    second = Agent("two", tmp_path / "two").ask(
        *join[:3], other_server.url, join[4], environment=other_server.keys, stdin=invitation["join_string"]
    )
    assert second.code == 1
    assert "used" in second.err
    users_after = sorted(
        str(path.relative_to(other_server.data)) for path in (other_server.data / ".minio.sys/config/iam").rglob("*")
    )
    assert users_after == users_before
    again = first.ask(*join, environment=server.keys, stdin=invitation["join_string"])
    assert again.code == 0, again.err


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux for a small file system of its own")
def test_a_full_disk_is_said_and_nothing_is_half_done(tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    mounted = f"mount -t tmpfs -o size=6m tmpfs {data} && exec "
    as_whom = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    hub = Hub(data)
    hub.command = ["unshare", *as_whom, "--mount", "sh", "-c", mounted + " ".join(hub.command)]
    with hub:
        client = Client(hub.url)
        token = client.register("alice@lab.example", "alice", "a long password").token
        filler = Path(f"/proc/{hub.pid}/root{data}/filler")
        with filler.open("wb", buffering=0) as full:
            while True:
                try:
                    full.write(b"x" * 4096)
                except OSError:
                    break
        alice = Client(hub.url, token)
        codes: list[str] = []

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
