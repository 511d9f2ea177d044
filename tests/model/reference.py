"""What people may do, said again from the documents alone: the reference that the real thing is held against.

Written from 1-mission, 4-storage and docs/, knowing nothing of the hub's or the agent's code. Pure: values in, values out; time
is passed in, in seconds. *Facts* are what the hub has been told. What the storage server is made to allow is worked out from
the facts that its agent has, and what stands above them: the owner's pause and ceiling.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

READ, WRITE, DROP, MANAGE, TIDY = "read", "write", "drop", "manage", "tidy"
PUBLIC = "public"
RANK = {DROP: 0, READ: 1, TIDY: 2, WRITE: 3, MANAGE: 4}
MIB = 1 << 20


class Op(enum.StrEnum):
    """What is tried with a key. ``OWN`` puts into the folder that a person who may only drop has of their own."""

    GET = "GET"
    LIST = "LIST"
    PUT = "PUT"
    DELETE = "DELETE"
    OWN = "OWN"


OPS: dict[str, frozenset[Op]] = {
    READ: frozenset({Op.GET, Op.LIST}),
    TIDY: frozenset({Op.GET, Op.LIST, Op.DELETE}),
    DROP: frozenset({Op.OWN}),
    WRITE: frozenset(Op),
    MANAGE: frozenset(Op),
}
NOTHING: frozenset[Op] = frozenset()


@dataclass(frozen=True)
class Root:
    """``layout`` as in 4-storage. ``public``: everyone may read all of it."""

    name: str
    bucket: str
    prefix: str
    layout: str
    public: bool = False
    managed: bool = True

    def place(self, folder: str) -> Place:
        """Return where a workspace lies whose folder in this root is ``user/name`` (or, unmanaged, a folder that is there)."""
        if self.layout == "bucket":
            return Place(self.name, f"{self.bucket}--{folder.replace('/', '--')}", "")
        return Place(self.name, self.bucket, f"{self.prefix}{folder}/")


@dataclass(frozen=True)
class Place:
    """Somewhere on the storage server where a workspace is or was."""

    root: str
    bucket: str
    prefix: str


@dataclass(frozen=True)
class Given:
    """A share. ``until``: Unix seconds, None for ever."""

    permission: str
    until: float | None = None

    def lives(self, now: float) -> bool:
        return self.until is None or now < self.until


@dataclass
class Workspace:
    """``shares``: by user name, ``@group`` or ``public``."""

    owner: str
    name: str
    place: Place
    archived: bool = False
    described: bool = False
    shares: dict[str, Given] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass
class Quota:
    """A hard limit in bytes. ``target``: a user, ``(user, root)``, a root, or a workspace's number."""

    kind: str
    target: object
    hard: int
    over: bool = False


def exceeded(used: int, hard: int, *, before: bool) -> bool:
    """From the moment on that nothing fits any more, until 1 % and at least 1 MiB is free; half of a small limit."""
    return used >= (hard - min(max(hard // 100, MIB), hard // 2) if before else hard)


@dataclass
class Facts:
    """Everything the hub was told."""

    roots: dict[str, Root]
    groups: dict[str, set[str]] = field(default_factory=dict)
    workspaces: dict[int, Workspace] = field(default_factory=dict)
    quotas: dict[tuple[str, object], Quota] = field(default_factory=dict)

    def at(self, place: Place) -> Workspace | None:
        return next((one for one in self.workspaces.values() if one.place == place), None)

    def counts(self, quota: Quota, number: int) -> bool:
        """Say whether a quota counts a workspace. The workspace's owner is charged."""
        one = self.workspaces[number]
        match quota.kind:
            case "user":
                return quota.target == one.owner
            case "user-root":
                return quota.target == (one.owner, one.place.root)
            case "root":
                return quota.target == one.place.root
            case _:
                return quota.target == number

    def full(self, number: int) -> bool:
        return any(quota.over and self.counts(quota, number) for quota in self.quotas.values())

    # ---------------------------------------------------------------------------------- what somebody holds

    def held(self, who: str, number: int, now: float) -> Iterator[str]:
        """Yield each permission somebody holds in a workspace, from every source."""
        one = self.workspaces[number]
        if one.owner == who:
            yield MANAGE
        for whom, given in one.shares.items():
            inside = whom in {who, PUBLIC} or (whom.startswith("@") and who in self.groups.get(whom[1:], ()))
            if inside and given.lives(now):
                yield given.permission
        if self.roots[one.place.root].public:
            yield READ

    def knows(self, who: str, number: int, now: float) -> bool:
        return any(True for _ in self.held(who, number, now))

    def shown(self, who: str, number: int, now: float) -> str | None:
        """Return the permission that a list of workspaces shows: the strongest, and in an archived one what is left of it."""
        found = sorted(self.held(who, number, now), key=RANK.__getitem__)
        if not found:
            return None
        if self.workspaces[number].archived:
            return READ if RANK[found[-1]] >= RANK[READ] else None
        return found[-1]

    def manages(self, who: str, number: int, now: float) -> bool:
        return MANAGE in self.held(who, number, now)

    def reads(self, who: str, number: int, now: float) -> bool:
        return any(RANK[one] >= RANK[READ] for one in self.held(who, number, now))

    # ---------------------------------------------------------------------------------- what a key does

    def opens(self, who: str, place: Place, now: float, *, read_only: bool = False) -> frozenset[Op]:
        """Return what a key of somebody may do at a place, as the storage server is to enforce it."""
        found: set[Op] = set()
        if self.roots[place.root].public and self.roots[place.root].layout == "prefix":
            found |= OPS[READ]  # the whole root, whatever lies where in it
        for number, one in self.workspaces.items():
            if one.place == place:
                full = self.full(number)
                for permission in self.held(who, number, now):
                    found |= OPS[worth] if (worth := _worth(permission, one, full=full, read_only=read_only)) else NOTHING
        return frozenset(found)

    def windows(self) -> Iterator[float]:
        """Yield the moments at which something ends."""
        for one in self.workspaces.values():
            for given in one.shares.values():
                if given.until is not None:
                    yield given.until


def _worth(permission: str, one: Workspace, *, full: bool, read_only: bool) -> str | None:
    if one.archived or read_only:
        return None if permission == DROP else READ
    if full:
        return {READ: READ, DROP: None}.get(permission, TIDY)
    return permission
