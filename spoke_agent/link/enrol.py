"""Joining a hub: one connection with the one-use join key, which makes this agent's key known there."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.identity import JoinString
from protocol.messages import Welcome, Wishes
from spoke_agent.link.line import HANDSHAKE_S, address_of, open_line


async def enrol(
    join: JoinString,
    node_key: Ed25519PrivateKey,
    wishes: Wishes,
    *,
    nonce: bytes,
    insecure: bool = False,
    handshake_s: float = HANDSHAKE_S,
) -> Welcome:
    """Make ``node_key`` known to the hub that made the join string, and return its Welcome. ``nonce``: 32 random bytes.

    May be repeated with the same key, should the answer be lost. Raises BadSetting (an address that is not encrypted),
    HubUnreachable, HubKeyMismatch, or what the hub refuses with: JoinStringUsed, BadJoinString, NameTaken, BadName, TooMany …
    """
    async with open_line(
        address_of(join.hub_url, insecure=insecure),
        node_key=node_key,
        hub_key=join.hub_key,
        nonce=nonce,
        join=(join.key, wishes),
        handshake_s=handshake_s,
    ) as line:
        return line.welcome
