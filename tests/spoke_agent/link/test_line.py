"""Addresses, joining, and how long to wait."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import (
    BadSetting,
    BadSignature,
    Conflict,
    HubKeyMismatch,
    HubUnreachable,
    JoinStringUsed,
    NameTaken,
    Problem,
    UnknownPeer,
    WioError,
)
from protocol.identity import JoinString, public_bytes
from protocol.messages import Wishes
from protocol.session import Proved
from protocol.wire import CLOSE_CODE, close_reason, closed_because
from spoke_agent.link.backoff import Backoff
from spoke_agent.link.enrol import enrol
from spoke_agent.link.line import address_of
from tests.spoke_agent.link.conftest import NODE, SmallHub


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://hub.example.org", "wss://hub.example.org/agent/v1"),
        ("https://hub.example.org/", "wss://hub.example.org/agent/v1"),
        ("https://example.org:8443/wio/", "wss://example.org:8443/wio/agent/v1"),
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/agent/v1"),
        ("http://127.9.9.9:8000", "ws://127.9.9.9:8000/agent/v1"),
        ("http://localhost:8000", "ws://localhost:8000/agent/v1"),
        ("http://[::1]:8000", "ws://[::1]:8000/agent/v1"),
    ],
)
def test_a_hubs_address_becomes_a_websockets(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize("url", ["http://hub.example.org", "http://192.168.0.4:8000", "http://127.0.0.1.example.org"])
def test_plain_text_over_a_network_needs_the_owners_word(url: str) -> None:
    with pytest.raises(BadSetting, match="not encrypted") as raised:
        address_of(url)
    assert "--insecure" in raised.value.todo
    assert address_of(url, insecure=True).startswith("ws://")


@pytest.mark.parametrize("url", ["", "hub", "ftp://hub", "javascript:alert(1)", "https://", "http://[::1"])
def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    with pytest.raises(BadSetting, match="is not the http or https address"):
        address_of(url, insecure=True)


# ---------------------------------------------------------------------------------------------------- why it ended


@pytest.mark.parametrize("message", ["Gone: for good.", "ü" * 500, "", "\udcff lone", "a" * 119], ids=ascii)
def test_the_reason_a_connection_was_closed_for_fits_and_keeps_its_code(message: str) -> None:
    reason = close_reason(Problem("conflict", message))
    assert len(reason.encode()) <= 123
    problem = closed_because(CLOSE_CODE, reason)
    assert problem is not None
    assert problem.code == "conflict"
    assert message.startswith(problem.message.replace("?", "\udcff"))


@pytest.mark.parametrize(("code", "reason"), [(1000, "conflict: no"), (4000, "nothing of the kind"), (1011, "")])
def test_a_close_that_gives_no_reason_of_ours_is_just_an_end(code: int, reason: str) -> None:
    assert closed_because(code, reason) is None


# ---------------------------------------------------------------------------------------------------- joining


@dataclass
class Invited:
    hub: SmallHub
    join: JoinString
    used_by: bytes = b""

    def decide(self, proved: Proved) -> WioError | None:
        """What a hub does with a join string."""
        if proved.enrolment is None or proved.enrolment.join_key != public_bytes(self.join.key):
            return UnknownPeer("No such node.")
        if proved.enrolment.wishes.name == "taken":
            return NameTaken("There is a node taken already.", todo="Choose another name.")
        if self.used_by not in {b"", proved.node_key}:
            return JoinStringUsed("This join string has been used.")
        self.used_by = proved.node_key
        return None


@pytest.fixture
def invited(hub: SmallHub) -> Invited:
    made = Invited(hub, JoinString(hub.url, public_bytes(hub.key), os.urandom(32), 2_000_000_000))

    def refuse(proved: Proved) -> object:
        error = made.decide(proved)
        return error.problem if error is not None else None

    hub.refuse = refuse  # type: ignore[assignment]  # a Problem or None
    return made


async def test_joining_makes_the_key_known_and_may_be_repeated_with_that_key_only(invited: Invited) -> None:
    key = Ed25519PrivateKey.generate()
    for _ in range(2):
        welcome = await enrol(invited.join, key, Wishes("lab3", "minio"), nonce=os.urandom(32))
        assert (welcome.node, welcome.name) == (NODE, "lab3")
    assert invited.used_by == public_bytes(key)
    with pytest.raises(JoinStringUsed):
        await enrol(invited.join, Ed25519PrivateKey.generate(), Wishes("lab4", "minio"), nonce=os.urandom(32))


async def test_what_the_hub_refuses_a_join_with_keeps_its_code_and_its_advice(invited: Invited) -> None:
    with pytest.raises(NameTaken) as raised:
        await enrol(invited.join, Ed25519PrivateKey.generate(), Wishes("taken", "minio"), nonce=os.urandom(32))
    assert raised.value.todo == "Choose another name."


async def test_a_join_string_of_another_hub_proves_nothing_to_this_one(hub: SmallHub) -> None:
    join = JoinString(hub.url, public_bytes(Ed25519PrivateKey.generate()), os.urandom(32), 2_000_000_000)
    with pytest.raises(HubKeyMismatch):
        await enrol(join, Ed25519PrivateKey.generate(), Wishes("lab3", "minio"), nonce=os.urandom(32))
    assert not hub.proved


async def test_joining_a_hub_that_is_away_says_so(hub: SmallHub) -> None:
    join = JoinString(hub.url, public_bytes(hub.key), os.urandom(32), 2_000_000_000)
    await hub.stop()
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        await enrol(join, Ed25519PrivateKey.generate(), Wishes("lab3", "minio"), nonce=os.urandom(32))


# ---------------------------------------------------------------------------------------------------- waiting


def test_waiting_doubles_from_a_tenth_of_a_second_to_four_and_begins_anew_after_a_good_session() -> None:
    away = HubUnreachable("away")
    longest, shortest = Backoff(lambda: 0.999999), Backoff(lambda: 0.0)
    waits = [longest.next(away) for _ in range(9)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0, 4.0], rel=1e-3)
    assert [shortest.next(away) for _ in range(3)] == pytest.approx([0.05, 0.1, 0.2])
    longest.held(3.0)
    assert longest.next(away) == pytest.approx(4.0, rel=1e-3), "a session that did not hold changes nothing"
    longest.held(11.0)
    assert longest.next(away) == pytest.approx(0.1, rel=1e-3)


def test_a_try_that_took_long_is_followed_at_once_but_never_without_a_pause() -> None:
    backoff = Backoff(lambda: 0.5)
    for _ in range(8):
        backoff.next(HubUnreachable("away"))
    assert backoff.next(HubUnreachable("away"), spent_s=10.0) == pytest.approx(0.05)
    assert backoff.next(HubUnreachable("away"), spent_s=1.0) == pytest.approx(2.0)


def test_where_trying_hardly_helps_it_is_seldom_tried() -> None:
    for error in (UnknownPeer("who?"), Conflict("replaced"), HubKeyMismatch("another")):
        assert 30.0 <= Backoff(lambda: 0.0).next(error, spent_s=100.0) <= 60.0


def test_after_a_frame_that_was_spoilt_on_the_way_the_next_session_is_soon() -> None:
    backoff = Backoff(lambda: 0.0)
    spoilt = BadSignature("A frame is not signed by the peer's key.")
    assert backoff.next(spoilt, opened=True) < 1.0
    assert backoff.next(spoilt) >= 30.0  # in a handshake it says that the hub is another one
    assert [backoff.next(spoilt, opened=True) for _ in range(20)][-1] == pytest.approx(2.0)  # ever less often, all the same
