"""Both clients over a real connection: the same calls, and the audit trail as it comes in."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from protocol.api import AuditEntry, Group, Member, QuotaKind
from protocol.errors import BadName, HubUnreachable, NoGrant
from protocol.grants import Permission
from protocol.messages import IndexLevel
from tests.wio.standins import RecordedHub
from wio import calls
from wio.client import AsyncClient, Client

MRI = Group(9, "mri", "", "alice", (Member("alice", True, 1),), 1)
LINES = [msgspec.json.encode(AuditEntry(number, 1, "alice", "share", "alice/scans", "x" * 500)) for number in range(2000)]


def test_every_call_is_a_method_of_both_clients() -> None:
    made = {
        name
        for name, one in inspect.getmembers(calls, inspect.isfunction)
        if one.__annotations__.get("return", "")[:4] == "Call"
    }
    assert len(made) > 40
    for client in (Client, AsyncClient):
        assert {name for name in made if not hasattr(client, name)} == set()


async def test_the_asynchronous_client_asks_the_same(hub: RecordedHub) -> None:
    hub.on("GET", "/groups/mri", MRI)
    async with AsyncClient(hub.url, "t") as client:
        assert await client.group("@mri") == MRI
    with Client(hub.url, "t") as waiting:
        assert waiting.group("mri") == MRI
    assert hub.asked[0] == hub.asked[1]


async def test_the_audit_trail_arrives_whole_in_both_clients(hub: RecordedHub) -> None:
    hub.on("GET", "/audit", b"\n".join(LINES))  # the last line without its end
    with Client(hub.url, "t") as client:
        assert list(client.audit_lines(workspace="alice/scans")) == LINES
    async with AsyncClient(hub.url, "t") as client:
        assert [line async for line in client.audit_lines()] == LINES
    assert [one.query for one in hub.asked] == ["format=jsonl&workspace=alice%2Fscans", "format=jsonl"]


async def test_a_refusal_instead_of_the_audit_trail_is_the_hubs_own_error(hub: RecordedHub) -> None:
    hub.on("GET", "/audit", NoGrant("You may not."))
    with Client(hub.url, "t") as client, pytest.raises(NoGrant):
        list(client.audit_lines())
    async with AsyncClient(hub.url, "t") as client:
        with pytest.raises(NoGrant):
            [line async for line in client.audit_lines()]


@pytest.fixture
def cut_short() -> Iterator[str]:
    """A hub whose answer ends in the middle."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + LINES[0] + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(20)


async def test_an_audit_trail_that_breaks_off_is_an_error_and_not_a_short_one(cut_short: str) -> None:
    got = []
    with Client(cut_short, "t") as client, pytest.raises(HubUnreachable):
        got += list(client.audit_lines())
    async with AsyncClient(cut_short, "t") as asynchronous:
        with pytest.raises(HubUnreachable):
            got += [line async for line in asynchronous.audit_lines()]
    assert got == []


def test_what_is_left_out_of_a_change_is_not_sent() -> None:
    assert calls.change_root("lab3", "homes", level=IndexLevel.NONE).content == b'{"level":"none"}'
    assert calls.change_root("lab3", "homes", creators=()).content == b'{"creators":[]}'
    assert calls.change_workspace("scans", archived=False).content == b'{"archived":false}'
    assert calls.hand_over("scans", "bob").content == b'{"to":"bob","keep":null}'
    assert calls.set_quota(QuotaKind.USER, "alice", hard=10).content == b'{"kind":"user","of":"alice","soft":null,"hard":10}'


def test_access_is_asked_for_somebody_elses_workspace_only() -> None:
    assert calls.request_access("alice/scans/", Permission.WRITE).content == (
        b'{"workspace":"alice/scans","permission":"write","message":""}'
    )
    for name in ("scans", "alice/scans/sub", "", "/"):
        with pytest.raises(BadName):
            calls.request_access(name)
