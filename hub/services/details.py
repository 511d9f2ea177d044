"""One file with what was read out of it, and the files that could not be read."""

from __future__ import annotations

from typing import Final

from hub.db import catalogue, fields, roles
from hub.db.database import Database
from hub.db.roles import Role
from hub.services.batches import known_at
from hub.services.ports import Actor, Reach
from hub.services.roots import Roots
from hub.services.searching import unknown_roots
from protocol.api import FileDetails, Unreadable
from protocol.errors import NotAllowed, UnknownPath
from protocol.fields import Fields, unpack
from protocol.messages import IndexLevel
from protocol.names import shown

MAX_LIMIT: Final = 1000
PIECE: Final = 100
"""Rows read at once: each may have 64 kB."""


class Details:
    """What the hub knows of single files."""

    def __init__(self, *, database: Database, reach: Reach, roots: Roots) -> None:
        self._database = database
        self._reach = reach
        self._roots = roots

    async def file(self, actor: Actor, path: str) -> FileDetails:
        """Show one file to somebody who may read it.

        Raises BadName, UnknownWorkspace, NoGrant, or UnknownPath where no file lies there.
        """
        where, rest = await self._reach.resolve(actor, path)
        address = (where.root_id, where.prefix + rest)
        async with self._database.read() as connection:
            entry = None
            if rest and where.root_id not in await unknown_roots(connection):
                entry = (await catalogue.stored(connection, [address])).get(address)
            if entry is None or entry.gone or entry.workspace_id != where.id:
                raise UnknownPath(
                    f"No file lies at {shown(f'{where.owner}/{where.name}/{rest}')}.", todo="wio ls shows what is there."
                )
            row = (await fields.stored(connection, [address])).get(address)
            level = await catalogue.level_of_root(connection, where.root_id)
        found = Fields()
        if row is not None and row.content == entry.content and level in {IndexLevel.METADATA, IndexLevel.CONTENT}:
            found = unpack(known_at(level, row.body)[0])
        return FileDetails(
            f"{where.owner}/{where.name}/{rest}",
            entry.size,
            entry.mtime // 1000,
            entry.etag,
            where.node,
            found.kind,
            dict(found.values),
            found.tags,
            found.text,
            found.problem,
        )

    async def unreadable(self, actor: Actor, node: str, root: str, after: str = "", limit: int = 200) -> list[Unreadable]:
        """List files of a root that could not be read, or not as a whole; ``after`` is the key that the page before ended with.

        For whoever may change the root. Raises UnknownRoot, NotAllowed.
        """
        row = await self._roots.find(actor, node, root)
        called = f"{row.node}/{row.name}"
        async with self._database.read() as connection:
            mine = await roles.of_person(connection, actor.id)
        if not (actor.admin or row.owner_id == actor.id or (row.id, Role.MANAGE) in mine):
            raise NotAllowed(f"Only {row.owner}, whose node that is, and the managers of {called} may see what it cannot read.")
        left = max(1, min(limit, MAX_LIMIT))
        listed: list[Unreadable] = []
        if row.level not in {IndexLevel.METADATA, IndexLevel.CONTENT} or "\0" in after:
            return listed
        async with self._database.read() as connection:
            while left > 0:
                found = await fields.unreadable(connection, row.id, after, min(left, PIECE))
                for one in found:
                    read = unpack(one.body)
                    listed.append(Unreadable(called, one.key, read.kind, read.problem))
                if len(found) < min(left, PIECE):
                    break
                left -= len(found)
                after = found[-1].key
        return listed
