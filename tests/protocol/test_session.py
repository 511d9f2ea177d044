"""Every row of the session's table, from both sides, and every way to break it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from protocol.errors import (
    BadMessage,
    BadSequence,
    BadSignature,
    HubKeyMismatch,
    LinkBroken,
    Problem,
    VersionMismatch,
)
from protocol.identity import new_key, public_bytes
from protocol.messages import (
    MAX_FRAME,
    PROTOCOL_VERSION,
    Ack,
    Challenge,
    Change,
    Done,
    Enrolment,
    EpochState,
    Events,
    Health,
    Hello,
    Proof,
    Refused,
    Row,
    Scan,
    Welcome,
    Wishes,
)
from protocol.session import (
    VERSIONS,
    AgentSession,
    HubSession,
    Opened,
    Proved,
    Received,
    RefusedByHub,
    SkippedUnknown,
    State,
)
from protocol.wire import decode_opening, decode_reply, encode
from tests.protocol.parties import CURSOR, HUB_KEY, HUB_NONCE, JOIN_KEY, NODE_KEY, NODE_NONCE, WISHES, Pair
from tests.protocol.record_vectors import BOB

SCAN = Scan(1, 5000, 5)
PROBLEM = Problem("evicted", "This node was removed from the hub.")
Session = AgentSession | HubSession


def breaks(session: Session, data: bytes, kind: type[LinkBroken]) -> None:
    """Check that ``data`` ends the session for ever with this kind of error."""
    with pytest.raises(LinkBroken) as caught:
        session.receive(data)
    assert type(caught.value) is kind
    assert session.state is State.CLOSED
    with pytest.raises(LinkBroken, match="closed"):
        session.receive(data)


# ---------------------------------------------------------------------------------------------------- the straight path


def test_a_known_node_opens_a_session_and_both_sides_agree_on_what_was_said(pair: Pair) -> None:
    assert (pair.agent.state, pair.hub.state) == (State.START, State.START)
    pair.greet()
    assert (pair.agent.state, pair.hub.state) == (State.CHALLENGE, State.PROOF)
    (challenge,) = pair.hub.data_to_send()
    assert pair.to_agent(challenge) == []
    assert pair.agent.state is State.WELCOME
    (proof,) = pair.agent.data_to_send()
    assert pair.to_hub(proof) == [Proved(public_bytes(NODE_KEY), None)]
    assert pair.hub.state is State.DECIDING
    epochs = (EpochState(BOB, 4, bytes(32)),)
    (opened,) = pair.hub.accept(node=7, name="lab3", cursor=CURSOR, epochs=epochs)
    (welcome,) = pair.hub.data_to_send()
    assert pair.to_agent(welcome) == [opened]
    assert isinstance(opened, Opened)
    assert (opened.version, opened.welcome.node, opened.welcome.epochs) == (PROTOCOL_VERSION, 7, epochs)
    assert len(opened.welcome.session) == 32
    assert (pair.agent.state, pair.hub.state) == (State.OPEN, State.OPEN)


def test_an_enrolment_carries_the_join_keys_proof_and_the_owners_wishes(joining: Pair) -> None:
    joining.open()
    (proved,) = joining.proved
    assert isinstance(proved, Proved)
    assert proved.enrolment is not None
    assert (proved.enrolment.join_key, proved.enrolment.wishes) == (public_bytes(JOIN_KEY), WISHES)


def test_messages_go_both_ways_in_order_as_many_as_one_likes(pair: Pair) -> None:
    pair.open()
    for n in range(300):
        assert pair.to_hub(pair.agent.send(Done(n))) == [Received(Done(n))]
        assert pair.to_agent(pair.hub.send(Ack(CURSOR))) == [Received(Ack(CURSOR))]
    assert pair.agent.data_to_send() == []


def test_a_message_that_a_newer_peer_may_send_is_skipped_and_counted(pair: Pair) -> None:
    pair.open()
    newer = msgspec.msgpack.encode([130, "something new"])
    assert pair.agent.receive(pair.hub._frame(newer)) == [SkippedUnknown(130)]
    assert pair.hub.receive(pair.agent._frame(newer)) == [SkippedUnknown(130)]
    assert pair.to_hub(pair.agent.send(Done(1))) == [Received(Done(1))]
    assert pair.to_agent(pair.hub.send(SCAN)) == [Received(SCAN)]


def test_two_sessions_of_the_same_keys_never_have_the_same_id() -> None:
    other = AgentSession(node_key=NODE_KEY, hub_key=public_bytes(HUB_KEY), nonce=b"\x77" * 32)
    pair, again = Pair().open(), Pair()
    again.agent = other
    again.open()
    assert pair.opened.welcome.session != again.opened.welcome.session
    breaks(again.hub, pair.agent.send(Done(1)), BadSignature)


# ---------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize("reach", [lambda p: p, Pair.greet, Pair.prove])
def test_the_hub_may_refuse_at_any_time_before_the_session_is_open(pair: Pair, reach: Callable[[Pair], Pair]) -> None:
    reach(pair)
    pair.hub.data_to_send()
    pair.hub.refuse(PROBLEM)
    assert pair.hub.state is State.CLOSED
    (refused,) = pair.hub.data_to_send()
    assert decode_reply(refused) == Refused(PROBLEM)
    if pair.agent.state is State.START:
        pair.agent.start()
    assert pair.agent.receive(refused) == [RefusedByHub(PROBLEM)]
    assert pair.agent.state is State.CLOSED
    with pytest.raises(LinkBroken):
        pair.hub.accept(node=7, name="lab3", cursor=CURSOR)


def test_a_session_that_broke_can_still_tell_the_peer_why(pair: Pair) -> None:
    breaks(pair.hub, b"nonsense", BadMessage)
    pair.hub.refuse(PROBLEM)
    pair.agent.start()
    assert pair.agent.receive(pair.hub.data_to_send()[0]) == [RefusedByHub(PROBLEM)]


def test_an_open_session_cannot_be_refused_any_more(pair: Pair) -> None:
    pair.open()
    with pytest.raises(LinkBroken, match="open"):
        pair.hub.refuse(PROBLEM)
    assert pair.hub.state is State.OPEN
    breaks(pair.agent, encode(Refused(PROBLEM)), BadMessage if len(encode(Refused(PROBLEM))) <= 72 else BadSignature)


# ---------------------------------------------------------------------------------------------------- own mistakes


def test_calls_that_do_not_fit_the_state_are_refused(pair: Pair) -> None:
    for call in (
        lambda: pair.agent.send(Done(1)),
        lambda: pair.hub.send(SCAN),
        lambda: pair.hub.accept(node=7, name="lab3", cursor=CURSOR),
    ):
        with pytest.raises(LinkBroken):
            call()
    pair.agent.start()
    with pytest.raises(LinkBroken, match="started"):
        pair.agent.start()
    assert pair.agent.state is State.CHALLENGE


def test_an_agent_that_has_not_begun_takes_nothing(pair: Pair) -> None:
    breaks(pair.agent, encode(Refused(PROBLEM)), LinkBroken)


def test_a_hub_that_is_still_deciding_takes_nothing(pair: Pair) -> None:
    pair.prove()
    breaks(pair.hub, encode(Proof(bytes(64))), LinkBroken)


# ---------------------------------------------------------------------------------------------------- versions


def test_the_highest_version_in_common_is_chosen() -> None:
    for offered, spoken, chosen in (((1, 2, 3), (2, 3, 4), 3), ((5, 1), (1,), 1)):
        agent = AgentSession(node_key=NODE_KEY, hub_key=public_bytes(HUB_KEY), nonce=NODE_NONCE, versions=offered)
        hub = HubSession(hub_key=HUB_KEY, nonce=HUB_NONCE, versions=spoken)
        hub.receive(agent.start())
        (challenge,) = hub.data_to_send()
        agent.receive(challenge)
        hub.receive(agent.data_to_send()[0])
        (opened,) = hub.accept(node=1, name="n", cursor=CURSOR)
        assert isinstance(opened, Opened)
        assert opened.version == chosen
        assert agent.receive(hub.data_to_send()[0]) == [opened]


def test_no_version_in_common_says_which_ones_there_are(pair: Pair) -> None:
    hello = encode(Hello((7, 8), public_bytes(NODE_KEY), NODE_NONCE))
    with pytest.raises(VersionMismatch, match=f"7, 8, this hub {PROTOCOL_VERSION}") as caught:
        pair.hub.receive(hello)
    assert caught.value.todo
    assert pair.hub.state is State.CLOSED


def test_a_hub_cannot_choose_a_version_that_was_not_offered(pair: Pair) -> None:
    challenge = challenge_of(pair)
    breaks(pair.agent, encode(msgspec.structs.replace(challenge, version=2)), VersionMismatch)


def test_versions_offered_cannot_be_taken_out_on_the_way() -> None:
    agent = AgentSession(node_key=NODE_KEY, hub_key=public_bytes(HUB_KEY), nonce=NODE_NONCE, versions=(1, 2))
    hub = HubSession(hub_key=HUB_KEY, nonce=HUB_NONCE, versions=(1, 2))
    hello = decode_opening(agent.start())
    assert isinstance(hello, Hello)
    hub.receive(encode(msgspec.structs.replace(hello, versions=(1,))))
    breaks(agent, hub.data_to_send()[0], BadSignature)


def test_this_build_speaks_its_own_version() -> None:
    assert VERSIONS[-1] == PROTOCOL_VERSION


# ---------------------------------------------------------------------------------------------------- the handshake


def challenge_of(pair: Pair) -> Challenge:
    pair.greet()
    challenge = decode_reply(pair.hub.data_to_send()[0])
    assert isinstance(challenge, Challenge)
    return challenge


def test_a_hub_with_another_key_than_the_pinned_one_is_not_spoken_to() -> None:
    pair = Pair()
    pair.hub = HubSession(hub_key=new_key(b"\x66" * 32), nonce=HUB_NONCE)
    pair.greet()
    with pytest.raises(HubKeyMismatch) as caught:
        pair.agent.receive(pair.hub.data_to_send()[0])
    assert caught.value.todo
    assert pair.agent.data_to_send() == []
    assert pair.agent.state is State.CLOSED


@pytest.mark.parametrize("field", ["nonce", "signature"])
def test_a_challenge_changed_on_the_way_does_not_verify(pair: Pair, field: str) -> None:
    challenge = challenge_of(pair)
    flipped = bytes([getattr(challenge, field)[0] ^ 1]) + getattr(challenge, field)[1:]
    breaks(pair.agent, encode(msgspec.structs.replace(challenge, **{field: flipped})), BadSignature)


def test_a_challenge_of_another_handshake_does_not_verify(pair: Pair) -> None:
    old = challenge_of(Pair())
    pair.agent = AgentSession(node_key=NODE_KEY, hub_key=public_bytes(HUB_KEY), nonce=b"\x55" * 32)
    pair.greet()
    breaks(pair.agent, encode(old), BadSignature)


def proof_of(pair: Pair) -> Proof:
    pair.greet()
    pair.to_agent(pair.hub.data_to_send()[0])
    proof = decode_opening(pair.agent.data_to_send()[0])
    assert isinstance(proof, Proof)
    return proof


def test_a_node_that_does_not_hold_its_key_is_not_let_in(pair: Pair) -> None:
    proof = proof_of(pair)
    forged = bytes([proof.signature[0] ^ 1]) + proof.signature[1:]
    breaks(pair.hub, encode(Proof(forged)), BadSignature)


def test_a_proof_of_another_handshake_is_worth_nothing(pair: Pair) -> None:
    old = proof_of(Pair())
    pair.hub = HubSession(hub_key=HUB_KEY, nonce=b"\x44" * 32)
    pair.greet()
    breaks(pair.hub, encode(old), BadSignature)


def test_a_join_key_that_is_not_held_or_other_wishes_are_refused(joining: Pair) -> None:
    proof = proof_of(joining)
    assert proof.enrolment is not None
    other = public_bytes(new_key(b"\x70" * 32))
    for enrolment in (
        Enrolment(other, proof.enrolment.signature, WISHES),
        Enrolment(proof.enrolment.join_key, proof.enrolment.signature, Wishes("another", "minio")),
        Enrolment(proof.enrolment.join_key, bytes(64), WISHES),
    ):
        pair = Pair(join=(JOIN_KEY, WISHES))
        pair.greet()
        breaks(pair.hub, encode(Proof(proof.signature, enrolment)), BadSignature)


def test_an_enrolment_cannot_be_taken_off_or_put_onto_a_proof(pair: Pair, joining: Pair) -> None:
    enrolling, known = proof_of(joining), proof_of(pair)
    breaks(joining.hub, encode(Proof(enrolling.signature)), BadSignature)
    breaks(pair.hub, encode(Proof(known.signature, enrolling.enrolment)), BadSignature)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encode(Proof(bytes(64))),
        encode(Done(1)),
        bytes(MAX_FRAME + 1),
        b"\x91" * 5000,
        msgspec.msgpack.encode([1, [], bytes(32), bytes(32)]),
        msgspec.msgpack.encode([1, [1] * 17, bytes(32), bytes(32)]),
        msgspec.msgpack.encode([1, [1], bytes(31), bytes(32)]),
        msgspec.msgpack.encode([200, 1]),
    ],
)
def test_anything_but_a_hello_first_ends_the_session(pair: Pair, data: bytes) -> None:
    breaks(pair.hub, data, BadMessage)
    assert pair.hub.data_to_send() == []


def test_a_second_hello_ends_the_session(pair: Pair) -> None:
    pair.greet()
    breaks(pair.hub, pair.wire[0][1], BadMessage)


@pytest.mark.parametrize("data", [b"", b"\xc1", encode(Done(1)), encode(SCAN), bytes(MAX_FRAME + 1)])
def test_anything_but_a_challenge_or_a_refusal_ends_the_session(pair: Pair, data: bytes) -> None:
    pair.agent.start()
    breaks(pair.agent, data, BadMessage)


def test_a_second_challenge_ends_the_session(pair: Pair) -> None:
    challenge = challenge_of(pair)
    assert pair.agent.receive(encode(challenge)) == []
    breaks(pair.agent, encode(challenge), BadMessage)


def test_the_first_frame_has_to_be_the_welcome_of_this_session(pair: Pair) -> None:
    for first in (
        encode(SCAN),
        msgspec.msgpack.encode([130, 1]),
        encode(Welcome(7, "lab3", bytes(32), CURSOR)),
    ):
        pair = Pair().prove()
        breaks(pair.agent, pair.hub._frame(first), BadMessage)


def test_a_welcome_that_the_hub_did_not_sign_opens_nothing(pair: Pair) -> None:
    pair.prove()
    pair.hub.accept(node=7, name="lab3", cursor=CURSOR)
    (welcome,) = pair.hub.data_to_send()
    breaks(pair.agent, bytes([welcome[0] ^ 1]) + welcome[1:], BadSignature)


def test_a_frame_before_the_welcome_ends_the_session(pair: Pair) -> None:
    pair.prove()
    pair.hub.accept(node=7, name="lab3", cursor=CURSOR)
    pair.hub.data_to_send()
    breaks(pair.agent, pair.hub.send(SCAN), BadMessage)


def test_a_second_welcome_ends_the_session(pair: Pair) -> None:
    pair.open()
    breaks(pair.agent, pair.hub._frame(encode(pair.opened.welcome)), BadMessage)


# ---------------------------------------------------------------------------------------------------- frames


def sides(pair: Pair) -> list[tuple[Session, list[bytes]]]:
    """Return each receiving side with three frames for it, in order."""
    return [
        (pair.hub, [pair.agent.send(Done(n)) for n in range(3)]),
        (pair.agent, [pair.hub.send(SCAN) for _ in range(3)]),
    ]


@pytest.mark.parametrize("side", [0, 1])
def test_a_repeated_skipped_or_swapped_frame_ends_the_session(side: int) -> None:
    for order in ([0, 0], [1], [0, 2], [2, 1]):
        session, frames = sides(Pair().open())[side]
        for n in order[:-1] if order[0] == 0 else []:
            session.receive(frames[n])
        breaks(session, frames[order[-1] if order[0] == 0 else order[0]], BadSequence)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("at", [0, 63, 64, 71, 72, -1])
def test_one_bit_changed_anywhere_in_a_frame_ends_the_session(side: int, at: int) -> None:
    session, (frame, *_) = sides(Pair().open())[side]
    changed = bytearray(frame)
    changed[at] ^= 4
    breaks(session, bytes(changed), BadSignature)


@pytest.mark.parametrize("side", [0, 1])
def test_a_frame_cut_short_or_made_longer_ends_the_session(side: int) -> None:
    for change, kind in (
        (lambda f: f[:-1], BadSignature),
        (lambda f: f + b"\0", BadSignature),
        (lambda f: f[:72], BadMessage),
        (lambda f: f[:10], BadMessage),
        (lambda _: b"", BadMessage),
        (lambda f: f + bytes(MAX_FRAME), BadMessage),
    ):
        session, (frame, *_) = sides(Pair().open())[side]
        breaks(session, change(frame), kind)


def test_a_frame_sent_back_to_its_sender_is_not_taken(pair: Pair) -> None:
    pair.open()
    breaks(pair.agent, pair.agent.send(Done(1)), BadSignature)
    breaks(pair.hub, pair.hub.send(SCAN), BadSignature)


def test_a_message_of_the_wrong_side_or_with_an_unknown_tag_ends_the_session() -> None:
    for payload in (encode(SCAN), msgspec.msgpack.encode([99, 1]), b"\xc1", encode(Hello((1,), bytes(32), bytes(32)))):
        pair = Pair().open()
        breaks(pair.hub, pair.agent._frame(payload), BadMessage)
    for payload in (encode(Done(1)), msgspec.msgpack.encode([99, 1]), b"\xc1"):
        pair = Pair().open()
        breaks(pair.agent, pair.hub._frame(payload), BadMessage)


def test_a_frame_may_be_as_large_as_the_limit_and_not_larger(pair: Pair) -> None:
    pair.open()
    row = Row(Change.PUT, 1, "k" * 1000)
    large = Events(1, 0, (row,) * 1030, bytes(32))
    frame = pair.agent.send(large)
    assert MAX_FRAME - 20_000 < len(frame) <= MAX_FRAME
    assert pair.to_hub(frame) == [Received(large)]
    with pytest.raises(BadMessage, match="does not fit"):
        pair.agent.send(Events(1, 0, (row,) * 1100, bytes(32)))
    # What could not be sent has used no sequence number.
    assert pair.to_hub(pair.agent.send(Health(0, 0, 0, paused=False))) == [Received(Health(0, 0, 0, paused=False))]
