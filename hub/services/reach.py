"""What a person may read, and what a path means to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import standings
from hub.db.database import Database
from hub.db.standings import Standing
from hub.domain.access import Denied, Held, decide, waits_for
from hub.domain.compile import entrance
from hub.domain.paths import readings
from hub.services.ports import Actor, Clock, Readable
from protocol.errors import NoGrant, NotAllowed, UnknownWorkspace
from protocol.grants import Permission
from protocol.names import NodeId, Place, RootId, WorkspaceId, locate, shown

_KEPT: Final = 500
"""People whose answer is kept."""


def held(actor: Actor, standing: Standing) -> Held:
    """Return what somebody holds in a workspace; without what its node's owner has yet to confirm."""
    return _held(actor, standing, standing.unconfirmed_since or 0)


def given(actor: Actor, standing: Standing) -> Held:
    """Return what somebody was given of a workspace by all that this hub knows, confirmed or not, archived or not."""
    return msgspec.structs.replace(_held(actor, standing, 0), archived=False)


def _held(actor: Actor, standing: Standing, since: int) -> Held:
    return Held(
        owner=standing.owner_id == actor.id,
        granted=standing.granted if (standing.granted_since or 0) >= since else None,
        everyone=standing.everyone if (standing.everyone_since or 0) >= since else None,
        public_root=standing.kind.public,
        groups=tuple((one.group, one.permission) for one in standing.groups if one.since >= since),
        archived=standing.archived_at is not None,
    )


def require(actor: Actor, standing: Standing | None, want: Permission, called: str) -> tuple[Standing, Permission]:
    """Return the workspace and the strongest permission held, if ``want`` is held.

    Raises UnknownWorkspace where there is none or none that this person may know of, in the same words; NoGrant; NotAllowed
    where they would hold it, had the node's owner confirmed what this hub knew before it came back from a backup.
    """
    if standing is not None:
        holds = held(actor, standing)
        decision = decide(holds, want)
        if not isinstance(decision, Denied):
            return standing, holds.strongest or decision.permission
        if standing.unconfirmed_since is not None and not isinstance(decide(_held(actor, standing, 0), want), Denied):
            raise waiting(f"{standing.owner}/{standing.name}", standing.node)
        if decision.known:
            raise NoGrant(
                f"{actor.username} may not {_DOES[want]} {standing.owner}/{standing.name}: {decision.reason}.",
                todo=f"Ask {standing.owner} to share it with {actor.username}.",
            )
    raise UnknownWorkspace(f"There is no workspace {shown(called)}, or none that you may use.", todo="wio w ls shows yours.")


def waiting(called: str, node: str) -> NotAllowed:
    """Return the error for what a node's owner has yet to confirm."""
    return NotAllowed(
        f"What you may do in {called} cannot be used now: {waits_for(f'the owner of {node}')}.",
        todo=f"Ask them, or an admin, to confirm it: wio node confirm {node}.",
    )


def reaches(actor: Actor, standing: Standing) -> tuple[Permission | None, Place]:
    """Return the strongest permission somebody holds in a workspace, and where on its node they get in with it."""
    strongest = held(actor, standing).strongest
    place = locate(standing.layout, standing.bucket, standing.root_prefix, standing.prefix)
    return strongest, place if strongest is None else entrance(place, strongest, actor.username)


_DOES: Final = {
    Permission.READ: "read",
    Permission.TIDY: "delete from",
    Permission.DROP: "drop files into",
    Permission.WRITE: "write to",
    Permission.MANAGE: "manage",
}


class _Kept(msgspec.Struct, frozen=True):
    version: int
    until: int | None
    readable: tuple[Readable, ...]


class People:
    """Serves ``ports.Reach``."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    async def readable(self, actor: Actor) -> Sequence[Readable]:
        """Return every workspace whose files this person may list and read now.

        The answer is kept until anybody's access changes (a counter in the database says so, to all workers) or one of
        the grants in it runs out.
        """
        now = self._clock.now()
        kept = self._kept.get(actor.id)

        async def look(connection: AsyncConnection) -> tuple[int, list[Standing] | None]:
            version = await standings.version(connection)
            if kept is not None and kept.version == version and (kept.until is None or now < kept.until):
                return version, None
            return version, await standings.known(connection, actor.id, now)

        version, known = await self._database.run_read(look)
        if kept is not None and known is None:
            return kept.readable
        known = known or []
        readable = tuple(_readable(one) for one in known if not isinstance(decide(held(actor, one), Permission.READ), Denied))
        ends = [until for one in known for until in _ends(one) if until is not None]
        self._kept[actor.id] = _Kept(version, min(ends, default=None), readable)
        self._kept.move_to_end(actor.id)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return readable

    async def resolve(self, actor: Actor, path: str) -> tuple[Readable, str]:
        """Split ``workspace/…`` or ``owner/workspace/…`` into a workspace and the path below it.

        Raises BadName, UnknownWorkspace where there is none that this person may know of, NoGrant where it may not be read.
        """
        possible = readings(path, actor.username)
        names = [(one.owner, one.name) for one in possible]
        found = await self._database.run_read(
            lambda connection: standings.named(connection, actor.id, names, self._clock.now())
        )
        for one in possible:
            standing = found.get((one.owner, one.name))
            if standing is not None:
                return _readable(require(actor, standing, Permission.READ, path)[0]), one.rest
        return _readable(require(actor, None, Permission.READ, path)[0]), ""


def _ends(one: Standing) -> list[int | None]:
    return [one.granted_until, one.everyone_until, *(through.until for through in one.groups)]


def _readable(one: Standing) -> Readable:
    return Readable(
        id=WorkspaceId(one.id),
        owner=one.owner,
        name=one.name,
        node_id=NodeId(one.node_id),
        node=one.node,
        root_id=RootId(one.root_id),
        prefix=one.prefix,
    )
