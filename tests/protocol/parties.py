"""Keys, sessions and message types that the protocol's tests share. Nothing here is random: every byte can be repeated."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.identity import new_key, public_bytes
from protocol.messages import (
    AgentMessage,
    Challenge,
    Cursor,
    Hello,
    HubMessage,
    Proof,
    Refused,
    Welcome,
    Wishes,
)
from protocol.session import AgentSession, HubSession, Opened

HUB_KEY = new_key(b"\x01" * 32)
NODE_KEY = new_key(b"\x02" * 32)
JOIN_KEY = new_key(b"\x03" * 32)
HUB_NONCE, NODE_NONCE = b"\x0b" * 32, b"\x0c" * 32
WISHES = Wishes("lab3", "minio")
CURSOR = Cursor(1, 42, b"\x0d" * 32)

FROM_HUB: tuple[type[msgspec.Struct], ...] = (*get_args(HubMessage), Welcome)
FROM_AGENT: tuple[type[msgspec.Struct], ...] = get_args(AgentMessage)
OPENING: tuple[type[msgspec.Struct], ...] = (Hello, Proof)
REPLY: tuple[type[msgspec.Struct], ...] = (Challenge, Refused)


class Pair:
    """Both sides of one session, joined by a wire that a test can look at and cut."""

    def __init__(self, *, join: tuple[Ed25519PrivateKey, Wishes] | None = None) -> None:
        self.agent = AgentSession(node_key=NODE_KEY, hub_key=public_bytes(HUB_KEY), nonce=NODE_NONCE, join=join)
        self.hub = HubSession(hub_key=HUB_KEY, nonce=HUB_NONCE)
        self.wire: list[tuple[str, bytes]] = []

    def to_hub(self, data: bytes) -> list[Any]:
        self.wire.append(("agent", data))
        return self.hub.receive(data)

    def to_agent(self, data: bytes) -> list[Any]:
        self.wire.append(("hub", data))
        return self.agent.receive(data)

    def greet(self) -> Pair:
        """Go as far as the hub's Challenge."""
        assert self.to_hub(self.agent.start()) == []
        return self

    def prove(self) -> Pair:
        """Go as far as the hub's decision."""
        self.greet()
        (challenge,) = self.hub.data_to_send()
        assert self.to_agent(challenge) == []
        (proof,) = self.agent.data_to_send()
        self.proved = self.to_hub(proof)
        return self

    def open(self) -> Pair:
        """Open the session on both sides."""
        self.prove()
        (self.opened,) = self.hub.accept(node=7, name="lab3", cursor=CURSOR)
        assert isinstance(self.opened, Opened)
        (welcome,) = self.hub.data_to_send()
        assert self.to_agent(welcome) == [self.opened]
        return self
