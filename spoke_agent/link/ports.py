"""What the link needs from the rest of the agent, as interfaces: so that it can be driven without a storage server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from protocol.messages import (
    CheckRoot,
    Epochs,
    Evict,
    Explain,
    Explained,
    GrantsApplied,
    GrantsRefused,
    KeysOut,
    LinkSigned,
    Mint,
    Minted,
    PlaceWorkspace,
    RootConfig,
    SetGrants,
    SignLink,
)


class Access(Protocol):
    """Who may do what on this node: served by ``spoke_agent.access``. Every coroutine may raise WioError."""

    @property
    def paused(self) -> bool:
        """Whether the owner has cut everybody off."""

    @property
    def warnings(self) -> Sequence[str]:
        """What the owner and the hub should know, one sentence each."""

    async def set_grants(self, request: SetGrants) -> GrantsApplied | GrantsRefused:
        """Make the server agree with a grant set. Is called for one subject at a time, in the order of arrival."""

    async def mint(self, request: Mint) -> Minted:
        """Mint a key."""

    async def sign_link(self, request: SignLink) -> LinkSigned:
        """Presign one request of a link."""

    async def explain(self, request: Explain) -> Explained:
        """Say what the server answers to a subject at a key."""

    async def check_root(self, request: CheckRoot) -> None:
        """Raise if this root may not be made here."""

    async def place_workspace(self, request: PlaceWorkspace) -> None:
        """Make room for a workspace; raise if it may not lie there."""

    async def evict(self, evict: Evict) -> None:
        """Take back everything that wio opened. The link has checked the hub's signature. Fine to repeat."""

    async def epochs(self) -> Sequence[Epochs]:
        """Return what is enforced now, for the hub."""

    def keys_minted_here(self) -> Sequence[KeysOut]:
        """Return whose keys may be out that the hub did not ask for, and until when; nothing where there are none."""

    @property
    def minted_here(self) -> asyncio.Event:
        """Set when a key was minted without the hub: it wants to know. Whoever tells it clears it."""

    def admit(self, root: RootConfig) -> RootConfig | None:
        """Return a root as the owner lets the hub have it, perhaps with a lower index level; None where not at all."""

    async def heard(self) -> None:
        """Note that the hub is there: leases that the owner limits count from its last word."""

    @property
    def caught_up(self) -> asyncio.Event:
        """Set when something was enforced later than it was asked for: the hub wants to know. Whoever tells it clears it."""
