"""Who may ask for a key over HTTP on loopback, and the form of the answer: what SDKs call a container's credentials.

The agent's endpoint (for people on a node's machine) and ``wio creds serve`` (for everybody else) decide by these rules. Other
programs on a machine, and web pages in its browsers, can reach such an address too, so nothing but a token is believed; what a
browser adds or a proxy passes on is refused before anything else is read, and so is a name in Host that is not loopback (a
page whose name turned into 127.0.0.1). Pure: headers and addresses come in, errors go out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from protocol.errors import NotAllowed

LIFE_S: Final = 3600
"""How long a key lives. With 900 s or less some SDKs ask again at every request (4-storage)."""
MAX_HEADER: Final = 4096
"""Bytes of one header or of the first line."""
PASSED_ON: Final = ("Origin", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via")
"""What a request made on this machine by a person's own tool never has."""
_PASSED_ON: Final = frozenset(name.lower() for name in PASSED_ON)
_ELSEWHERE: Final = frozenset({"cross-site", "same-site", "same-origin"})
"""What browsers write into Sec-Fetch-Site for anything but an address somebody typed."""


class ContainerKey(msgspec.Struct, frozen=True):
    """The answer, under the names that AWS gave its fields. ``Expiration`` as 2026-01-02T03:04:05Z. ``repr`` has no secret."""

    AccessKeyId: str
    SecretAccessKey: str
    Token: str
    Expiration: str

    def __repr__(self) -> str:
        return f"ContainerKey({self.AccessKeyId})"


def is_loopback(host: str) -> bool:
    """Say whether an address, not a name, is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts(host: str, port: int) -> frozenset[str]:
    """Return what Host may say to a server that listens on this loopback address."""
    own = f"[{host}]" if ":" in host else host
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", own))


def check_caller(headers: Sequence[tuple[str, str]], allowed: Collection[str], peer: str, address: str) -> None:
    """Raise NotAllowed for a request that no tool of a person on this machine would send.

    ``headers`` as they came, repeated ones repeated; ``allowed`` from ``hosts``; ``peer``: the address it came from, empty if
    unknown; ``address``: what is right to ask.
    """
    named = [text.lower() for name, text in headers if name.lower() == "host"]
    if len(named) != 1 or named[0] not in allowed:
        raise NotAllowed("Keys are given at a loopback address only.", todo=f"Ask {address}.")
    names = {name.lower() for name, _ in headers}
    sites = {text.lower() for name, text in headers if name.lower() == "sec-fetch-site"}
    if names & _PASSED_ON or sites & _ELSEWHERE:
        raise NotAllowed("Keys are given to programs on this machine, not to web pages or through proxies.")
    if not is_loopback(peer):
        raise NotAllowed("Keys are given to programs on this machine only.")


def token_of(headers: Sequence[tuple[str, str]]) -> str:
    """Return the one token in Authorization, with ``Bearer`` or bare; empty if there is none, more than one, or odd ones."""
    sent = [text for name, text in headers if name.lower() == "authorization"]
    token = sent[0].removeprefix("Bearer ") if len(sent) == 1 else ""
    return token if token.isascii() and token.isprintable() and " " not in token else ""
