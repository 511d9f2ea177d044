"""What the services need from outside, as interfaces: so that they import neither the gateway nor a clock.

``gateway`` serves ``Agents``; ``app`` passes in the clock and the randomness; tests pass in their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from protocol.errors import Problem
from protocol.messages import Answer, Asking
from protocol.names import NodeId, RootId, UserId, WorkspaceId


class Actor(msgspec.Struct, frozen=True):
    """Who asks: a person with a good token, and from where (for the audit trail)."""

    id: UserId
    username: str
    admin: bool
    address: str = ""


class Readable(msgspec.Struct, frozen=True):
    """A workspace that somebody may list and read. ``prefix`` is in its root's own space and ends in ``/``."""

    id: WorkspaceId
    owner: str
    name: str
    node_id: NodeId
    node: str
    root_id: RootId
    prefix: str


class Reach(Protocol):
    """What a person may read: served by the services for people, used by searching."""

    async def readable(self, actor: Actor) -> Sequence[Readable]:
        """Return every workspace whose files this person may list and read now."""

    async def resolve(self, actor: Actor, path: str) -> tuple[Readable, str]:
        """Split ``workspace/…`` or ``owner/workspace/…`` into a workspace and the path below it.

        Raises UnknownWorkspace where there is none that this person may know of, NoGrant where it may not be read.
        """


class Agents(Protocol):
    """The connected agents."""

    def online(self, node: NodeId) -> bool:
        """Say whether this node's agent is connected now."""

    async def ask(self, node: NodeId, make: Callable[[int, int], Asking], *, deadline_s: float) -> Answer:
        """Send the request that ``make(request, deadline_ms)`` builds, and return its answer.

        Raises NodeOffline at once if the agent is not connected or its connection breaks meanwhile, DeadlinePassed, and
        for an answer of Failed the error it carries. GrantsRefused is returned, not raised.
        """

    async def end(self, node: NodeId, problem: Problem) -> None:
        """End this node's connection, if there is one, with a reason."""


class Clock(Protocol):
    """The time, passed in so that tests can move it."""

    def now(self) -> int:
        """Return the time in Unix microseconds."""


class Chance(Protocol):
    """Randomness, passed in so that tests can repeat it."""

    def new_id(self) -> int:
        """Return a random id: 1 to 2**53 - 1."""

    def secret(self, size: int) -> bytes:
        """Return ``size`` random bytes fit for keys."""
