"""May this person do this with this workspace, and why.

One rule decides every question about a workspace: what somebody holds there is the strongest of what they own, were
given, everyone was given, and a public root gives. The answer always carries its reason, for receipts, ``wio why`` and
error messages.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.grants import Permission

_RANK: Final = {Permission.DROP: 0, Permission.READ: 1, Permission.WRITE: 2, Permission.MANAGE: 3}
_ENOUGH: Final = {
    Permission.DROP: frozenset({Permission.DROP, Permission.WRITE, Permission.MANAGE}),
    Permission.READ: frozenset({Permission.READ, Permission.WRITE, Permission.MANAGE}),
    Permission.WRITE: frozenset({Permission.WRITE, Permission.MANAGE}),
    Permission.MANAGE: frozenset({Permission.MANAGE}),
}
"""What each want is satisfied by. Dropping is writing without seeing: reading is no part of it, nor it of reading."""


class Held(msgspec.Struct, frozen=True):
    """What somebody holds in one workspace, from each source; expired grants are left out before this."""

    owner: bool = False
    granted: Permission | None = None
    everyone: Permission | None = None
    public_root: bool = False

    @property
    def sources(self) -> tuple[tuple[Permission, str], ...]:
        """Each permission held and why, strongest first; of equal ones the most personal first."""
        found: list[tuple[Permission, str]] = []
        if self.owner:
            found.append((Permission.MANAGE, "owns it"))
        if self.granted is not None:
            found.append((self.granted, f"was given {self.granted} on it"))
        if self.everyone is not None:
            found.append((self.everyone, f"it is shared with everyone for {self.everyone}"))
        if self.public_root:
            found.append((Permission.READ, "it lies in a public root"))
        return tuple(sorted(found, key=lambda one: -_RANK[one[0]]))

    @property
    def strongest(self) -> Permission | None:
        """The strongest permission held; None where nothing is."""
        return self.sources[0][0] if self.sources else None


class Allowed(msgspec.Struct, frozen=True):
    """Yes: by which permission, and where that comes from."""

    permission: Permission
    because: str


class Denied(msgspec.Struct, frozen=True):
    """No. ``known`` is False where this person may not even learn that the workspace is there."""

    reason: str
    known: bool


def decide(held: Held, want: Permission) -> Allowed | Denied:
    """Say whether somebody who holds this may do what ``want`` stands for."""
    for permission, because in held.sources:
        if permission in _ENOUGH[want]:
            return Allowed(permission, because)
    if held.strongest is None:
        return Denied("nobody gave access to it", known=False)
    return Denied(f"{held.sources[0][1]}, which does not include {want}", known=True)
