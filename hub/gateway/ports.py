"""What the gateway needs of the services, as interfaces: a session can be tested without a database behind it."""

from __future__ import annotations

from typing import Protocol

from protocol.messages import Accesses, Ack, Cursor, Epochs, EpochState, Events, Health, KeysOut, Nak, Progress, Report
from protocol.names import NodeId
from protocol.session import Proved


class Admitted(Protocol):
    """A node that may open its session (``services.enrolment``)."""

    @property
    def node(self) -> NodeId:
        """Its id."""

    @property
    def name(self) -> str:
        """Its name, for people."""

    @property
    def epochs(self) -> tuple[EpochState, ...]:
        """What is wanted of it."""


class Enrolling(Protocol):
    """Who may come in, and what they say of themselves."""

    async def admit(self, proved: Proved, address: str) -> Admitted:
        """Decide on a node that has proved its key. Raises what it is refused with."""

    async def report(self, node: NodeId, report: Report) -> bool:
        """Keep what a node is."""

    async def health(self, node: NodeId, health: Health) -> None:
        """Keep how a node is."""

    async def seen(self, node: NodeId) -> None:
        """Note that a node was here until now."""


class FindingEvicted(Protocol):
    """Which nodes are to be told that they are not wanted."""

    async def find(self, node_key: bytes) -> Admitted | None:
        """Return the evicted node with this key."""


class Configuring(Protocol):
    """Tells a node its roots."""

    async def configure(self, node: NodeId) -> None:
        """Send them, and wait for the answer."""


class Settles(Protocol):
    """Sends the grant sets that differ."""

    async def settle(self, node: NodeId, epochs: Epochs) -> None:
        """Take one part of what a node says it enforces; after the last, bring it to what is wanted."""

    async def recheck(self, node: NodeId) -> None:
        """Ask a node again about every set that it has: its owner has changed the ceiling."""


class HearingOfKeys(Protocol):
    """Notes keys that were minted without this hub."""

    async def keys_out(self, node: NodeId, told: KeysOut) -> None:
        """Note them, and send what has become of those persons' grants."""


class Ingesting(Protocol):
    """Takes the journal (``services.ingest``)."""

    async def cursor(self, node: NodeId) -> Cursor:
        """Return how far a node's journal is here."""

    async def apply(self, node: NodeId, events: Events) -> Ack | Nak:
        """Take rows in. Raises a child of LinkBroken where the agent is at fault."""

    async def progress(self, node: NodeId, progress: Progress) -> Nak | None:
        """Take in how far a scan is. Raises as ``apply``."""

    async def accesses(self, node: NodeId, accesses: Accesses) -> None:
        """Take in who read and wrote what."""
