"""docs/protocol.md says what the code does."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from protocol import grants, identity, messages, sealing, session, wire
from protocol.digest import object_number
from protocol.errors import Problem
from protocol.messages import MAX_FRAME, PROTOCOL_VERSION
from protocol.wire import CLOSE_CODE, FIRST_SKIPPABLE, close_reason, closed_because
from tests.protocol.parties import FROM_AGENT, FROM_HUB, OPENING, REPLY

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())[str(PROTOCOL_VERSION)]
MESSAGES = {*FROM_HUB, *FROM_AGENT, *OPENING, *REPLY}


def rows(columns: int) -> list[list[str]]:
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
    return [row for row in found if len(row) == columns]


def fields_of(kind: type[Any]) -> str:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return ", ".join(f"`{field.name}{'' if field.required else '?'}`" for field in info.fields)


def test_every_message_is_in_the_table_with_its_tag_sender_and_fields() -> None:
    said = {row[1]: row for row in rows(4) if row[0].isdigit()}
    assert set(said) == {kind.__name__ for kind in MESSAGES}
    for kind in MESSAGES:
        from_hub, from_agent = kind in {*FROM_HUB, *REPLY}, kind in {*FROM_AGENT, *OPENING}
        sender = "both" if from_hub and from_agent else "hub" if from_hub else "agent"
        assert said[kind.__name__] == [str(kind.__struct_config__.tag), kind.__name__, sender, fields_of(kind)]


def test_every_part_of_a_message_is_in_the_table_with_its_fields() -> None:
    parts: set[type[Any]] = set()

    def collect(info: inspect.Type) -> None:
        for name in ("type", "item_type"):
            if isinstance(inner := getattr(info, name, None), inspect.Type):
                collect(inner)
        for inner in (*getattr(info, "types", ()), *getattr(info, "item_types", ())):
            collect(inner)
        if isinstance(info, inspect.StructType) and info.cls not in parts:
            parts.add(info.cls)
            for field in info.fields:
                collect(field.type)

    for kind in (*MESSAGES, grants.GrantSet):
        collect(inspect.type_info(kind))
    said = {row[0]: row[1] for row in rows(2)}
    wanted = {kind.__name__: fields_of(kind) for kind in parts - MESSAGES}
    assert {name: fields for name, fields in said.items() if name in wanted} == wanted


def test_numbers_and_domain_tags_are_those_of_the_code() -> None:
    bold = [int(number.replace(",", "")) for number in re.findall(r"\*\*([\d,]+)\*\*", TEXT)]
    assert bold == [PROTOCOL_VERSION, MAX_FRAME, CLOSE_CODE, FIRST_SKIPPABLE]
    tags = {
        value
        for module in (grants, identity, sealing, session)
        for name, value in vars(module).items()
        if name.endswith("_TAG") and isinstance(value, bytes)
    }
    said = {tag.encode() + b"\0" for tag in re.findall(r'"(wio [^"\\]*)\\0"', TEXT)}
    assert tags | {b"wio join string\0"} == said
    assert f"{session._TO_HUB.decode()}` or `{session._TO_AGENT.decode()}" in TEXT
    assert f"{wire.OVERHEAD} are signature and sequence" in TEXT


@pytest.mark.parametrize(
    ("what", "kind", "field"),
    [
        ("`versions`", messages.Hello, "versions"),
        ("`rows` of Events", messages.Events, "rows"),
        ("`rows` of Accesses, `roots` of Configure, `groups`", messages.Accesses, "rows"),
        ("`rows` of Accesses, `roots` of Configure, `groups`", messages.Configure, "roots"),
        ("`rows` of Accesses, `roots` of Configure, `groups`", grants.GrantSet, "groups"),
        ("`epochs`, `states`, `grants`", messages.Welcome, "epochs"),
        ("`epochs`, `states`, `grants`", messages.Epochs, "states"),
        ("`epochs`, `states`, `grants`", grants.GrantSet, "grants"),
        ("`keys` of KeysOut", messages.KeysOut, "keys"),
        ("`endpoints`", messages.Report, "endpoints"),
        ("`probes`, `ceiling`", messages.Report, "probes"),
        ("`probes`, `ceiling`", messages.Report, "ceiling"),
        ("`warnings`", messages.Health, "warnings"),
        ("`proofs`", messages.GrantsApplied, "proofs"),
        ("`refusals`", messages.GrantsRefused, "refusals"),
        ("`places` of a Narrowing", grants.Narrowing, "places"),
        ("`sealed`", messages.SealedCredential, "sealed"),
        ("`body` of a SignedGrantSet", grants.SignedGrantSet, "body"),
        ("`message` and `todo` of a Problem", Problem, "todo"),
    ],
)
def test_the_limits_of_lists_are_those_of_the_code(what: str, kind: type[Any], field: str) -> None:
    (limit,) = (row[1] for row in rows(2) if row[0] == what)
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    (typ,) = (f.type for f in info.fields if f.name == field)
    numbers = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", limit)]
    low, high = (numbers[0], numbers[1]) if len(numbers) == 2 else (None, numbers[0])
    assert (getattr(typ, "min_length", None) or None, getattr(typ, "max_length", None)) == (low, high)


def test_the_bytes_shown_are_those_recorded() -> None:
    shown = dict(re.findall(r"`([0-9a-f]{6,})` is (\w+)", TEXT))
    assert set(shown.values()) == {"Done", "Scan"}
    for data, name in shown.items():
        assert any(record["hex"] == data and record["message"] == name for record in VECTORS["messages"])


def test_a_second_hand_following_the_text_gets_the_recorded_signatures_and_hashes() -> None:
    """Written from docs/protocol.md alone: nothing of ``protocol`` but public_key is used."""
    pack = msgspec.msgpack.encode
    hello, challenge, proof, welcome, done, _ = (bytes.fromhex(data) for _, data in VECTORS["session"])
    tag, version, hub_key, nonce, signature = msgspec.msgpack.decode(challenge)
    transcript = hashlib.sha256(hello + pack([tag, version, hub_key, nonce, bytes(64)])).digest()
    hub = identity.public_key(hub_key)
    hub.verify(signature, b"wio handshake v1 hub\0" + transcript)
    _, node_signature, (join_key, join_signature, wishes) = msgspec.msgpack.decode(proof)
    wishes = pack(wishes) + join_key
    node = identity.public_key(msgspec.msgpack.decode(hello)[2])
    node.verify(node_signature, b"wio handshake v1 node\0" + transcript + wishes)
    identity.public_key(join_key).verify(join_signature, b"wio handshake v1 join\0" + transcript + wishes)
    session_id = hashlib.sha256(b"wio handshake v1 session\0" + transcript + wishes).digest()
    assert msgspec.msgpack.decode(welcome[72:])[3] == session_id
    hub.verify(welcome[:64], b"wio frame v1\0" + session_id + b"hub>agent" + bytes(8) + welcome[72:])
    node.verify(done[:64], b"wio frame v1\0" + session_id + b"agent>hub" + bytes(8) + done[72:])

    body, signature = msgspec.msgpack.decode(bytes.fromhex(VECTORS["signed"]["grant_set"]))
    hub.verify(signature, b"wio grant set v1\0" + body)
    node_id, (kind, subject, _), _, granted, _, groups, under = msgspec.msgpack.decode(body)
    order = sorted(granted, key=lambda g: (g[1], g[2], g[3], g[0], g[4] or 0))
    content = pack([node_id, kind, subject, order, sorted(groups), under])
    assert hashlib.sha256(content).hexdigest() == VECTORS["signed"]["content_hash"]

    running = bytes(32)
    for row in ([1, 5, "a", 1, 2, "e", 0, b""], [2, 5, "a", 0, 0, "", 0, b""]):
        running = hashlib.sha256(running + pack(row)).digest()
    assert running.hex() == VECTORS["signed"]["running_hash"]

    text = "17:alice/scans/ä.txt10:1764000000000000001:abc".encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % 2**63
    assert (
        number == VECTORS["signed"]["object_number"] == object_number("alice/scans/ä.txt", 10, 1_764_000_000_000_000_001, "abc")
    )

    sealed, signature, expires = msgspec.msgpack.decode(bytes.fromhex(VECTORS["signed"]["sealed"]))
    client = bytes.fromhex(VECTORS["signed"]["client_public"])
    node.verify(signature, b"wio credential origin v1\0" + pack([[7, 12, 99, client], sealed, expires]))
    clear = pack(["AKIA", "secret", "token", expires, "https://lab3.example:9000", "us-east-1"])
    assert len(sealed) == 32 + len(clear) + 16


def test_a_close_carries_as_much_of_the_reason_as_fits_and_is_read_again() -> None:
    problem = Problem("bad-message", "é" * 200)
    reason = close_reason(problem)
    assert len(reason.encode()) <= 123
    back = closed_because(CLOSE_CODE, reason)
    assert back is not None
    assert (back.code, back.message) == ("bad-message", "é" * len(back.message))
    assert close_reason(Problem("bad-message", "\ud800 is odd.")) == "bad-message: ? is odd."
    assert closed_because(1000, reason) is None
    assert closed_because(CLOSE_CODE, "no colon") is None
