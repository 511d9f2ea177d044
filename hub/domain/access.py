"""May this person do this with this workspace, and why.

One rule decides every question about a workspace: what somebody holds there is the strongest of what they own, were
given, everyone was given, and a public root gives. The answer always carries its reason, for receipts, ``wio why`` and
error messages.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.grants import Permission

_RANK: Final = {Permission.DROP: 0, Permission.READ: 1, Permission.TIDY: 2, Permission.WRITE: 3, Permission.MANAGE: 4}
_ENOUGH: Final = {
    Permission.DROP: frozenset({Permission.DROP, Permission.WRITE, Permission.MANAGE}),
    Permission.READ: frozenset({Permission.READ, Permission.TIDY, Permission.WRITE, Permission.MANAGE}),
    Permission.TIDY: frozenset({Permission.TIDY, Permission.WRITE, Permission.MANAGE}),
    Permission.WRITE: frozenset({Permission.WRITE, Permission.MANAGE}),
    Permission.MANAGE: frozenset({Permission.MANAGE}),
}
"""What each want is satisfied by. Dropping is writing without seeing: reading is no part of it, nor it of reading."""
_CHANGES: Final = frozenset({Permission.TIDY, Permission.DROP, Permission.WRITE})


def left_of(permission: Permission, *, archived: bool) -> Permission | None:
    """Return what a permission is worth; None for nothing. In an archived workspace everybody, its owner too, only reads."""
    if archived:
        return Permission.READ if permission.reads else None
    return permission


def covers(has: Permission, want: Permission) -> bool:
    """Say whether who has the one permission may do all that the other stands for."""
    return has in _ENOUGH[want]


def waits_for(whom: str) -> str:
    """Say why something that this hub knows is not sent to a node, after a backup of the hub was restored."""
    return f"it waits for confirmation by {whom}, because this hub came back from a backup"


class Held(msgspec.Struct, frozen=True):
    """What somebody holds in one workspace, from each source; expired grants are left out before this."""

    owner: bool = False
    granted: Permission | None = None
    everyone: Permission | None = None
    public_root: bool = False
    groups: tuple[tuple[str, Permission], ...] = ()
    """Name (without @) and permission of each group that this person is in and that was given something."""
    archived: bool = False

    @property
    def sources(self) -> tuple[tuple[Permission, str], ...]:
        """Each permission held and why, strongest first; of equal ones the most personal first."""
        found: list[tuple[Permission, str]] = []
        if self.owner:
            found.append((Permission.MANAGE, "owns it"))
        if self.granted is not None:
            found.append((self.granted, f"was given {self.granted} on it"))
        found += [(permission, f"is in @{group}, which was given {permission}") for group, permission in self.groups]
        if self.everyone is not None:
            found.append((self.everyone, f"it is shared with everyone for {self.everyone}"))
        if self.public_root:
            found.append((Permission.READ, "it lies in a public root"))
        return tuple(sorted(found, key=lambda one: -_RANK[one[0]]))

    @property
    def strongest(self) -> Permission | None:
        """The strongest permission held, as far as it is worth something now; None where nothing is."""
        return left_of(self.sources[0][0], archived=self.archived) if self.sources else None

    @property
    def known(self) -> bool:
        """Whether this person may know of the workspace."""
        return bool(self.sources)


class Allowed(msgspec.Struct, frozen=True):
    """Yes: by which permission, and where that comes from."""

    permission: Permission
    because: str


class Denied(msgspec.Struct, frozen=True):
    """No. ``known`` is False where this person may not even learn that the workspace is there."""

    reason: str
    known: bool


def decide(held: Held, want: Permission) -> Allowed | Denied:
    """Say whether somebody who holds this may do what ``want`` stands for.

    An archived workspace is managed as before: shared, taken back, opened again.
    """
    for permission, because in held.sources:
        if permission in _ENOUGH[want]:
            if held.archived and want in _CHANGES:
                return Denied("it is archived, so everybody can only read it", known=True)
            return Allowed(permission, because)
    if not held.known:
        return Denied("nobody gave access to it", known=False)
    return Denied(f"{held.sources[0][1]}, which does not include {want}", known=True)
