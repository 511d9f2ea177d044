"""Mutated bytes to both sides: whatever a peer sends, only a child of LinkBroken comes out, and the session ends for ever.

Two kinds of peer: one that does not hold the key (its frames are bent on the way) and one that does (what it signs is bent).
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import BadJoinString, BadMessage, BadName, LinkBroken
from protocol.grants import _SET_TAG, GrantSet, SignedGrantSet, open_set
from protocol.identity import JoinString, _checksum
from protocol.messages import Done, Scan
from protocol.session import VERSIONS, AgentSession, HubSession, State
from protocol.wire import Skipped, decode_agent, decode_hub, decode_opening, decode_reply, encode
from tests.protocol.parties import HUB_KEY, JOIN_KEY, WISHES, Pair
from tests.protocol.record_vectors import SET

ROUNDS = int(os.environ.get("WIO_FUZZ", "4000"))
"""Rounds of each test here."""

pytestmark = pytest.mark.fuzz

RECORDED = json.loads(Path(__file__).with_name("vectors.json").read_text())
PAYLOADS = [bytes.fromhex(record["hex"]) for entry in RECORDED.values() for record in entry["messages"]]
FRAMES = [bytes.fromhex(data) for _, data in RECORDED["1"]["session"]]
# Bytes at which msgpack changes its mind about what follows.
TURNS = bytes((0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE0), 0xE0, 0xFF))


def bent(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return ``data`` with one to four things wrong with it."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(9):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + chance.randbytes(chance.randint(1, 8)) + data[at:]
            case 2:
                data = data[:at] + data[at + chance.randint(1, 8) :]
            case 3:
                other = chance.choice(others)
                data = data[:at] + other[chance.randrange(len(other) + 1) :]
            case 4:
                data = data[:at] + b"\x91" * chance.choice((1, 100, 3000)) + data[at:]
            case 5:
                data = data[:at] + bytes(chance.choice((1, 64, 300))) + data[at:]
            case 6:
                data = data[:at] + bytes([chance.choice(TURNS)]) + data[at + 1 :]
            case 7 if at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
            case _:
                data = data[:at] + data[at // 2 : at] + data[at:]
    return data


def fresh(session: Any) -> Any:
    """Return a session in the same state that shares nothing that changes."""
    other = copy.copy(session)
    other._out = []
    return other


def outcome(session: AgentSession | HubSession, data: bytes, seed: str) -> str:
    before = session.state
    broken: LinkBroken | None = None
    try:
        session.receive(data)
    except LinkBroken as error:
        broken = error
    except BaseException as error:  # this is what must not happen
        raise AssertionError(seed) from error
    if broken is None:
        assert session.state is not before or before is State.OPEN, seed
        return "taken"
    assert session.state is State.CLOSED, seed
    assert len(broken.message) < 300, seed
    return type(broken).__name__


def stages() -> dict[str, Any]:
    """Return one session in every state that can receive, by name."""
    greeted, proved, opened = (
        Pair(join=(JOIN_KEY, WISHES)).greet(),
        Pair(join=(JOIN_KEY, WISHES)).prove(),
        Pair(join=(JOIN_KEY, WISHES)).open(),
    )
    return {
        "hub START": HubSession(hub_key=HUB_KEY, nonce=bytes(32)),
        "hub PROOF": greeted.hub,
        "hub DECIDING": proved.hub,
        "hub OPEN": opened.hub,
        "agent CHALLENGE": greeted.agent,
        "agent WELCOME": proved.agent,
        "agent OPEN": opened.agent,
    }


@pytest.mark.parametrize("stage", stages())
def test_a_stranger_on_the_wire_can_only_end_the_session(stage: str) -> None:
    session, chance = stages()[stage], random.Random(stage)  # noqa: S311 - to repeat a test, not to keep a secret
    seen = set()
    for n in range(max(ROUNDS // 7, 100)):
        data = bent(chance, chance.choice(FRAMES), FRAMES + PAYLOADS)
        if data in FRAMES:  # bent back to what it was
            continue
        seen.add(outcome(fresh(session), data, f"{stage}, round {n}: {data[:200].hex()}"))
    assert seen - {"taken"}
    if stage.endswith(("OPEN", "DECIDING")):
        assert "taken" not in seen


@pytest.mark.parametrize("side", ["hub", "agent"])
def test_a_peer_that_holds_its_key_can_say_anything_and_still_only_end_the_session(side: str) -> None:
    pair = Pair().open()
    sender, receiver = (pair.agent, pair.hub) if side == "hub" else (pair.hub, pair.agent)
    chance = random.Random(side)  # noqa: S311 - see above
    seen = set()
    for n in range(ROUNDS):
        payload = bent(chance, chance.choice(PAYLOADS), PAYLOADS)
        frame = fresh(sender)._frame(payload)
        seen.add(outcome(fresh(receiver), frame, f"{side}, round {n}: {payload[:200].hex()}"))
    assert seen == {"taken", "BadMessage"}
    message = Done(1) if side == "hub" else Scan(1, 1, 1)
    assert len(receiver.receive(sender.send(message))) == 1  # none of it has touched the session they were copied from


@pytest.mark.parametrize("decode", [decode_agent, decode_hub, decode_opening, decode_reply])
def test_bent_messages_are_bad_or_read_as_something_that_can_be_sent_again(decode: Callable[[bytes], Any]) -> None:
    chance = random.Random(decode.__name__)  # noqa: S311 - see above
    taken = 0
    for _ in range(ROUNDS):
        payload = bent(chance, chance.choice(PAYLOADS), PAYLOADS)
        try:
            message = decode(payload)
        except BadMessage:
            continue
        taken += 1
        assert isinstance(message, Skipped) or decode(encode(message)) == message, payload.hex()
    assert taken


def test_a_bent_grant_set_that_the_hub_signed_is_a_set_or_refused() -> None:
    chance, hub = random.Random(5), HUB_KEY.public_key()  # noqa: S311 - see above
    body = encode(SET)
    for _ in range(ROUNDS):
        changed = bent(chance, body, PAYLOADS)
        try:
            opened = open_set(hub, SignedGrantSet(changed, HUB_KEY.sign(_SET_TAG + changed)))
        except (BadMessage, BadName):
            continue
        assert isinstance(opened, GrantSet)


def test_a_bent_join_string_is_refused_even_with_a_right_checksum() -> None:
    chance = random.Random(6)  # noqa: S311 - see above
    good = RECORDED["1"]["signed"]["join_string"]
    body = good.rpartition(".")[0].encode()
    for _ in range(ROUNDS):
        text = bent(chance, body, [body]).decode("latin-1")
        for candidate in (text, f"{text}.{_checksum(text)}"):
            with contextlib.suppress(BadJoinString):
                JoinString.parse(candidate, 1_764_000_000)


def test_this_build_has_recorded_its_versions() -> None:
    assert {str(version) for version in VERSIONS} <= set(RECORDED)
