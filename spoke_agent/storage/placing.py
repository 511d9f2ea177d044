"""The names wio gives to things on a storage server, and the secrets of its users. Pure.

Every name begins with ``wio--{node}--``. A node's name never holds ``--``, so no node's names begin with another's, and
``leave`` finds exactly what is its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from protocol.errors import Internal
from protocol.names import SEPARATOR, shown
from spoke_agent.storage.sigv4 import Key

AGENT: Final = "agent"
"""Stands where the name of a holder else stands; too short to be one."""

PROBE_BUCKETS: Final = "wio-probe-"
"""What buckets made for a probe begin with."""

_HOLDER = re.compile(r"[A-Za-z0-9_]{8,64}\Z")
_SECRET_TAG: Final = b"wio storage user v1\0"
_TOKEN_TAG: Final = b"wio audit token v1\0"


class Naming:
    """Names on the server of one node."""

    def __init__(self, node: str) -> None:
        self.start = f"wio{SEPARATOR}{node}{SEPARATOR}"
        self.target = f"audit_webhook:wio{SEPARATOR}{node}"
        """The setting that makes the server send its audit events here."""
        self.probe_target = f"{self.target}{SEPARATOR}probe"
        self.probe_start = f"{PROBE_BUCKETS}{hashlib.sha256(node.encode()).hexdigest()[:8]}-"

    def user(self, holder: str) -> str:
        """Return the access key of a holder."""
        if holder != AGENT and not _HOLDER.match(holder):
            raise Internal(f"{shown(holder)} cannot be the name of a holder.")
        return self.start + holder

    def holder(self, name: str) -> str:
        """Return the holder behind a user's or policy's name; empty if it is none of this node's."""
        return name[len(self.start) :].partition(SEPARATOR)[0] if name.startswith(self.start) else ""

    def policy(self, holder: str, number: int) -> str:
        """Return the name of a holder's policy."""
        return f"{self.user(holder)}{SEPARATOR}{number}"


def is_agent(user: str) -> bool:
    """Say whether a storage user is the agent's own of some node."""
    parts = user.split(SEPARATOR)
    return len(parts) == 3 and parts[0] == "wio" and parts[2] == AGENT  # noqa: PLR2004 - wio--{node}--agent


def parent_key(master: bytes, user: str) -> Key:
    """Derive the key of a storage user from the node's master key: 240 bits, letters, digits, ``-`` and ``_`` only.

    S3 tools take those without quoting (mc fails at ``:``), and the servers' limit is 40 characters.
    """
    secret = hmac.digest(master, _SECRET_TAG + user.encode(), "sha256")
    return Key(user, base64.urlsafe_b64encode(secret).decode()[:40])


def audit_token(master: bytes) -> str:
    """Derive what the server has to show when it delivers audit events."""
    return hmac.digest(master, _TOKEN_TAG, "sha256").hex()
