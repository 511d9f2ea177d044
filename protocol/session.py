"""Handshake and signed frames as a sans-I/O state machine, for both sides.

    side    state        receives      does                                            next
    ------  -----------  ------------  ----------------------------------------------  ---------
    agent   START        (start)       sends Hello                                     CHALLENGE
    agent   CHALLENGE    Challenge     checks version, pinned hub key, signature;      WELCOME
                                       sends Proof
    agent   WELCOME      a frame       checks that it is Welcome for this session;     OPEN
                                       event Opened
    agent   either of    Refused       event RefusedByHub                              CLOSED
            the two
    hub     START        Hello         chooses a version, sends Challenge              PROOF
    hub     PROOF        Proof         checks the signatures; event Proved             DECIDING
    hub     DECIDING     (accept)      sends Welcome, the first frame; event Opened    OPEN
    hub     any before   (refuse)      sends Refused                                   CLOSED
            OPEN
    either  OPEN         a frame       checks signature, sequence and payload;         OPEN
                                       event Received or SkippedUnknown
    either  any          anything      raises one of LinkBroken's children             CLOSED
                         else

No input or output, no clock, no randomness: bytes in, events and bytes out. The drivers (``hub.gateway``,
``spoke_agent.link``) move the bytes and nothing else. docs/protocol.md has the bytes themselves.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import BadMessage, BadSequence, BadSignature, HubKeyMismatch, LinkBroken, Problem, VersionMismatch
from protocol.identity import public_bytes, public_key
from protocol.messages import (
    MAX_FRAME,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    AgentMessage,
    Challenge,
    Cursor,
    Enrolment,
    EpochState,
    Hello,
    HubMessage,
    Proof,
    Refused,
    Welcome,
    Wishes,
)
from protocol.wire import Skipped, decode_agent, decode_hub, decode_opening, decode_reply, encode

VERSIONS: Final = tuple(range(OLDEST_VERSION, PROTOCOL_VERSION + 1))
"""The versions this build speaks."""

_HUB_TAG: Final = b"wio handshake v1 hub\0"
_NODE_TAG: Final = b"wio handshake v1 node\0"
_JOIN_TAG: Final = b"wio handshake v1 join\0"
_SESSION_TAG: Final = b"wio handshake v1 session\0"
_FRAME_TAG: Final = b"wio frame v1\0"
_TO_HUB: Final = b"agent>hub"
_TO_AGENT: Final = b"hub>agent"
_HEAD: Final = 72


class State(enum.Enum):
    """Where a session stands; the table above says how it gets there."""

    START = "start"
    CHALLENGE = "challenge"
    PROOF = "proof"
    WELCOME = "welcome"
    DECIDING = "deciding"
    OPEN = "open"
    CLOSED = "closed"


class Proved(msgspec.Struct, frozen=True):
    """The peer holds this node key (and the join key, when enrolling). The hub now accepts or refuses."""

    node_key: bytes
    enrolment: Enrolment | None


class Opened(msgspec.Struct, frozen=True):
    """The session is open."""

    welcome: Welcome
    version: int


class Received(msgspec.Struct, frozen=True):
    """A message of an open session."""

    message: HubMessage | AgentMessage


class SkippedUnknown(msgspec.Struct, frozen=True):
    """A message of a newer peer that may be ignored."""

    tag: int


class RefusedByHub(msgspec.Struct, frozen=True):
    """The hub does not want this session. Not signed: advice for a person, nothing is undone on its word."""

    problem: Problem


Event = Proved | Opened | Received | SkippedUnknown | RefusedByHub


class _Session:
    """What both sides share: the outbox, signing, counting, and closing for ever at the first violation."""

    def __init__(self, key: Ed25519PrivateKey, outward: bytes, inward: bytes) -> None:
        self.state = State.START
        self._key = key
        self._peer: Ed25519PublicKey | None = None
        self._outward = outward
        self._inward = inward
        self._session = b""
        self._sent = 0
        self._received = 0
        self._out: list[bytes] = []

    def receive(self, data: bytes) -> list[Event]:
        """Take one WebSocket message. Raises a child of LinkBroken, after which the session is closed for ever."""
        try:
            return self._receive(data)
        except LinkBroken:
            self.state = State.CLOSED
            raise

    def _receive(self, data: bytes) -> list[Event]:
        raise NotImplementedError  # pragma: no cover - both sides have their own

    def data_to_send(self) -> list[bytes]:
        """Return the WebSocket messages that wait to be sent, and forget them."""
        out, self._out = self._out, []
        return out

    def _frame(self, payload: bytes) -> bytes:
        head = self._sent.to_bytes(8, "big")
        signature = self._key.sign(_FRAME_TAG + self._session + self._outward + head + payload)
        self._sent += 1
        return signature + head + payload

    def _payload(self, data: bytes) -> bytes:
        if len(data) > MAX_FRAME:
            raise BadMessage(f"A frame of {len(data)} bytes is over the limit of {MAX_FRAME}.")
        if len(data) <= _HEAD:
            raise BadMessage(f"A frame of {len(data)} bytes is too short.")
        signature, head, payload = data[:64], data[64:_HEAD], data[_HEAD:]
        if self._peer is None:
            raise BadMessage("A frame came before the handshake.")  # pragma: no cover - no state leads here
        _verify(self._peer, signature, _FRAME_TAG + self._session + self._inward + head + payload, "A frame")
        if int.from_bytes(head, "big") != self._received:
            raise BadSequence(f"Frame {int.from_bytes(head, 'big')} came where {self._received} was due.")
        self._received += 1
        return payload

    def _need_open(self) -> None:
        if self.state is not State.OPEN:
            raise LinkBroken(f"The session is {self.state.value}, not open.")


class AgentSession(_Session):
    """The agent's side. ``hub_key`` is the pinned public key; ``join`` is the join key and the wishes when enrolling."""

    def __init__(
        self,
        *,
        node_key: Ed25519PrivateKey,
        hub_key: bytes,
        nonce: bytes,
        join: tuple[Ed25519PrivateKey, Wishes] | None = None,
        versions: tuple[int, ...] = VERSIONS,
    ) -> None:
        super().__init__(node_key, _TO_HUB, _TO_AGENT)
        self._hub_key = hub_key
        self._join = join
        self._hello = Hello(versions, public_bytes(node_key), nonce)
        self._version = 0

    def start(self) -> bytes:
        """Return the first WebSocket message."""
        if self.state is not State.START:
            raise LinkBroken("The session has been started.")
        self.state = State.CHALLENGE
        return encode(self._hello)

    def send(self, message: AgentMessage) -> bytes:
        """Return the WebSocket message that carries ``message``."""
        self._need_open()
        return self._frame(encode(message))

    def _receive(self, data: bytes) -> list[Event]:
        if self.state is State.CHALLENGE:
            return self._challenged(data)
        if self.state is State.WELCOME:
            return self._welcomed(data)
        self._need_open()
        message = decode_hub(self._payload(data))
        if isinstance(message, Skipped):
            return [SkippedUnknown(message.tag)]
        if isinstance(message, Welcome):
            raise BadMessage("A second Welcome came.")
        return [Received(message)]

    def _challenged(self, data: bytes) -> list[Event]:
        challenge = decode_reply(data)
        if isinstance(challenge, Refused):
            self.state = State.CLOSED
            return [RefusedByHub(challenge.problem)]
        if challenge.hub_key != self._hub_key:
            raise HubKeyMismatch(
                "The hub answers with another key than the one pinned when this node joined.",
                todo="If the hub was set up anew, join again; else somebody is in between.",
            )
        if challenge.version not in self._hello.versions:
            raise VersionMismatch(f"The hub chose protocol version {challenge.version}, which this agent does not speak.")
        self._peer = public_key(challenge.hub_key)
        transcript = _transcript(self._hello, challenge)
        _verify(self._peer, challenge.signature, _HUB_TAG + transcript, "The hub's challenge")
        self._version = challenge.version
        enrolment = None
        wishes = b""
        if self._join is not None:
            join_key, wish = self._join
            wishes = encode(wish) + public_bytes(join_key)
            enrolment = Enrolment(public_bytes(join_key), join_key.sign(_JOIN_TAG + transcript + wishes), wish)
        self._session = _session_id(transcript, wishes)
        self._out.append(encode(Proof(self._key.sign(_NODE_TAG + transcript + wishes), enrolment)))
        self.state = State.WELCOME
        return []

    def _welcomed(self, data: bytes) -> list[Event]:
        if len(data) > _HEAD and data[64:_HEAD] == bytes(8):
            welcome = decode_hub(self._payload(data))
            if not isinstance(welcome, Welcome) or welcome.session != self._session:
                raise BadMessage("The hub's first frame is not the Welcome of this session.")
            self.state = State.OPEN
            return [Opened(welcome, self._version)]
        refused = decode_reply(data)
        if not isinstance(refused, Refused):
            raise BadMessage("A second Challenge came.")
        self.state = State.CLOSED
        return [RefusedByHub(refused.problem)]


class HubSession(_Session):
    """The hub's side. Nothing is kept per node before the proof has verified."""

    def __init__(self, *, hub_key: Ed25519PrivateKey, nonce: bytes, versions: tuple[int, ...] = VERSIONS) -> None:
        super().__init__(hub_key, _TO_AGENT, _TO_HUB)
        self._nonce = nonce
        self._versions = versions
        self._version = 0
        self._transcript = b""

    def accept(self, *, node: int, name: str, cursor: Cursor, epochs: tuple[EpochState, ...] = ()) -> list[Event]:
        """Open the session for this node; queues the Welcome."""
        if self.state is not State.DECIDING:
            raise LinkBroken(f"The session is {self.state.value}: there is nothing to accept.")
        welcome = Welcome(node, name, self._session, cursor, epochs)
        self._out.append(self._frame(encode(welcome)))
        self.state = State.OPEN
        return [Opened(welcome, self._version)]

    def refuse(self, problem: Problem) -> None:
        """End a session that is not open yet; queues the reason."""
        if self.state is State.OPEN:
            raise LinkBroken("The session is open: it cannot be refused any more.")
        self._out.append(encode(Refused(problem)))
        self.state = State.CLOSED

    def send(self, message: HubMessage) -> bytes:
        """Return the WebSocket message that carries ``message``."""
        self._need_open()
        return self._frame(encode(message))

    def _receive(self, data: bytes) -> list[Event]:
        if self.state is State.START:
            return self._greeted(data)
        if self.state is State.PROOF:
            return self._proved(data)
        self._need_open()
        message = decode_agent(self._payload(data))
        return [SkippedUnknown(message.tag) if isinstance(message, Skipped) else Received(message)]

    def _greeted(self, data: bytes) -> list[Event]:
        hello = decode_opening(data)
        if not isinstance(hello, Hello):
            raise BadMessage("The first message is not a Hello.")
        common = set(hello.versions) & set(self._versions)
        if not common:
            raise VersionMismatch(
                f"The agent speaks protocol versions {_list(hello.versions)}, this hub {_list(self._versions)}.",
                todo="Update the older of the two.",
            )
        self._version = max(common)
        self._peer = public_key(hello.node_key)
        unsigned = Challenge(self._version, public_bytes(self._key), self._nonce, bytes(64))
        self._transcript = _transcript(hello, unsigned)
        signature = self._key.sign(_HUB_TAG + self._transcript)
        self._out.append(encode(msgspec.structs.replace(unsigned, signature=signature)))
        self._node_key = hello.node_key
        self.state = State.PROOF
        return []

    def _proved(self, data: bytes) -> list[Event]:
        proof = decode_opening(data)
        if not isinstance(proof, Proof):
            raise BadMessage("A second Hello came.")
        wishes = b""
        if proof.enrolment is not None:
            enrolment = proof.enrolment
            wishes = encode(enrolment.wishes) + enrolment.join_key
            signed = _JOIN_TAG + self._transcript + wishes
            _verify(public_key(enrolment.join_key), enrolment.signature, signed, "The join key's proof")
        _verify(public_key(self._node_key), proof.signature, _NODE_TAG + self._transcript + wishes, "The node's proof")
        self._session = _session_id(self._transcript, wishes)
        self.state = State.DECIDING
        return [Proved(self._node_key, proof.enrolment)]


def _transcript(hello: Hello, challenge: Challenge) -> bytes:
    """Return 32 bytes that bind everything both sides have said: versions offered and chosen, keys, nonces."""
    unsigned = msgspec.structs.replace(challenge, signature=bytes(64))
    return hashlib.sha256(encode(hello) + encode(unsigned)).digest()


def _session_id(transcript: bytes, wishes: bytes) -> bytes:
    return hashlib.sha256(_SESSION_TAG + transcript + wishes).digest()


def _verify(key: Ed25519PublicKey, signature: bytes, signed: bytes, what: str) -> None:
    try:
        key.verify(signature, signed)
    except InvalidSignature as error:
        raise BadSignature(f"{what} is not signed by the peer's key.") from error


def _list(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))
