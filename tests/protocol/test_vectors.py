"""The recorded bytes of every version: what was once on the wire is read for ever, and written as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.digest import combine, object_number, run_on
from protocol.grants import SignedGrantSet, content_hash, open_set
from protocol.identity import JoinString, SignedAssertion, open_assertion, public_bytes
from protocol.messages import PROTOCOL_VERSION, Change, Done, Row, Scan, SealedCredential
from protocol.sealing import ClearCredential, Context, client_key, open_sealed
from protocol.session import Opened, Proved, Received
from protocol.wire import decode_agent, decode_hub, decode_opening, decode_reply, encode
from tests.protocol.parties import (
    CURSOR,
    FROM_AGENT,
    FROM_HUB,
    HUB_KEY,
    JOIN_KEY,
    NODE_KEY,
    OPENING,
    REPLY,
    WISHES,
    Pair,
)
from tests.protocol.record_vectors import plain

ALL: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
NEWEST = ALL[str(PROTOCOL_VERSION)]
RECORDS = [(version, record) for version, entry in ALL.items() for record in entry["messages"]]
DECODERS = [(FROM_HUB, decode_hub), (FROM_AGENT, decode_agent), (OPENING, decode_opening), (REPLY, decode_reply)]


@pytest.mark.parametrize(("version", "record"), RECORDS, ids=[f"{v}-{r['message']}-{n}" for n, (v, r) in enumerate(RECORDS)])
def test_recorded_bytes_give_the_recorded_message_and_back(version: str, record: dict[str, Any]) -> None:
    data = bytes.fromhex(record["hex"])
    read = False
    for kinds, decode in DECODERS:
        if record["message"] in {kind.__name__ for kind in kinds}:
            message = decode(data)
            assert type(message).__name__ == record["message"]
            for name, value in record["fields"].items():
                assert plain(getattr(message, name)) == value
            if version == str(PROTOCOL_VERSION):
                assert encode(message) == data
            read = True
    assert read


def test_every_message_of_this_version_has_been_recorded() -> None:
    kinds = {kind.__name__ for kinds, _ in DECODERS for kind in kinds}
    assert {record["message"] for record in NEWEST["messages"]} == kinds


def test_no_tag_is_used_twice() -> None:
    tags = [kind.__struct_config__.tag for kind in {kind for kinds, _ in DECODERS for kind in kinds}]
    assert len(tags) == len(set(tags))
    assert all(0 < tag < 128 for tag in tags)


def test_a_recorded_enrolment_runs_again_byte_for_byte_on_both_sides() -> None:
    hello, challenge, proof, welcome, done, scan = (bytes.fromhex(data) for _, data in NEWEST["session"])
    pair = Pair(join=(JOIN_KEY, WISHES))
    assert pair.agent.start() == hello
    assert pair.hub.receive(hello) == []
    assert pair.hub.data_to_send() == [challenge]
    assert pair.agent.receive(challenge) == []
    assert pair.agent.data_to_send() == [proof]
    (proved,) = pair.hub.receive(proof)
    assert isinstance(proved, Proved)
    assert (proved.node_key, proved.enrolment and proved.enrolment.wishes) == (public_bytes(NODE_KEY), WISHES)
    assert isinstance(pair.hub.accept(node=7, name="lab3", cursor=CURSOR)[0], Opened)
    assert pair.hub.data_to_send() == [welcome]
    (opened,) = pair.agent.receive(welcome)
    assert isinstance(opened, Opened)
    assert pair.agent.send(Done(3)) == done
    assert pair.hub.receive(done) == [Received(Done(3))]
    assert pair.hub.send(Scan(4, 5000, 5)) == scan
    assert pair.agent.receive(scan) == [Received(Scan(4, 5000, 5))]


def test_what_was_signed_and_sealed_once_still_opens() -> None:
    signed = NEWEST["signed"]
    grant_set = msgspec.msgpack.decode(bytes.fromhex(signed["grant_set"]), type=SignedGrantSet)
    opened = open_set(HUB_KEY.public_key(), grant_set)
    assert (opened.node, opened.epoch, len(opened.grants)) == (7, 4, 2)
    assert content_hash(opened).hex() == signed["content_hash"]
    assertion = msgspec.msgpack.decode(bytes.fromhex(signed["assertion"]), type=SignedAssertion)
    assert open_assertion(HUB_KEY.public_key(), assertion, node=7, now=1_764_000_100).username == "bob"
    join = JoinString.parse(signed["join_string"], 1_764_000_000)
    assert (join.hub_url, join.hub_key, join.encode()) == (
        "https://hub.example:8443",
        public_bytes(HUB_KEY),
        signed["join_string"],
    )
    client = X25519PrivateKey.from_private_bytes(b"\x04" * 32)
    assert client_key(client).hex() == signed["client_public"]
    sealed = msgspec.msgpack.decode(bytes.fromhex(signed["sealed"]), type=SealedCredential)
    context = Context(7, 12, 99, client_key(client))
    assert open_sealed(client, bytes.fromhex(signed["node_public"]), context, sealed) == ClearCredential(
        "AKIA", "secret", "token", 1_764_003_600, "https://lab3.example:9000", "us-east-1"
    )


def test_hashes_and_digests_are_what_they_were() -> None:
    signed = NEWEST["signed"]
    rows = (Row(Change.PUT, 5, "a", 1, 2, "e"), Row(Change.DELETE, 5, "a"))
    assert run_on(bytes(32), rows).hex() == signed["running_hash"]
    number = object_number("alice/scans/ä.txt", 10, 1_764_000_000_000_000_001, "abc")
    assert number == signed["object_number"]
    assert combine(0, added=(number, number)) == signed["combined"]
