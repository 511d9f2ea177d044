"""What changes in files, as it comes in: ``GET /changes``. Answered from the catalogue's own order of changes, tombstones too.

A caller says after which change, and waits a while for the next. What it may not read is not there: every look asks again
what this person may read. The position is encrypted, since the bare number would tell how much happens elsewhere.

A change that another one of the same file has overtaken is told once, as the newer one. A removal is known until the next
completed scan of its root: whoever stays away for longer lists anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue
from hub.db.catalogue import Changed
from hub.db.database import Database
from hub.services.ports import Actor, Reach, Readable
from hub.services.searching import unknown_roots
from protocol.api import Changes, FileChange
from protocol.errors import BadCursor, BadInput, BadMessage, TooMany
from protocol.identity import from_text, to_text
from protocol.names import shown

MOST: Final = 1000
LONGEST_S: Final = 25.0
"""Shorter than what proxies allow an answer to take."""
LOOK_S: Final = 1.0
"""How long a change made by another process stays unnoticed at most."""
FAR: Final = 1_000_000
"""Changes on the whole hub that are looked through for one answer: some two seconds."""
WATCHERS: Final = 50
"""Requests of one person that may wait at the same time."""
_BLOCK: Final = struct.Struct(">QQ")
"""Revision and person: together one block of the cipher."""


class Watching:
    """``cursor_key``: 32 secret bytes. ``pause`` waits so many seconds; ``now`` is a monotonic clock in seconds."""

    def __init__(
        self,
        *,
        database: Database,
        reach: Reach,
        cursor_key: bytes,
        now: Callable[[], float] | None = None,
        wait: Callable[[Awaitable[object], float], Awaitable[object]] = asyncio.wait_for,
    ) -> None:
        self._database = database
        self._reach = reach
        self._cipher = Cipher(algorithms.AES256(cursor_key), modes.ECB())  # noqa: S305  - one block each, no two alike
        self._now = now
        self._wait = wait
        self._stirred = asyncio.Event()
        self._waiting: Counter[int] = Counter()

    def stirred(self) -> None:
        """Say that the catalogue has changed."""
        self._stirred.set()
        self._stirred = asyncio.Event()

    async def changes(
        self, actor: Actor, path: str | None = None, after: str | None = None, limit: int = 200, wait_s: float = LONGEST_S
    ) -> Changes:
        """Return what changed after a position, or wait for it; without one, the position of now.

        ``path`` is a workspace, a folder or a file; None: everything this person may read. Raises BadCursor, BadName,
        UnknownWorkspace, NoGrant, BadInput for a workspace whose files the hub does not know, TooMany.
        """
        newest, _ = await self._look(actor, path, None, 0)
        if after is None:
            return Changes((), self._sealed(newest, actor), more=False)
        position = self._opened(after, actor)
        if self._waiting[actor.id] >= WATCHERS:
            raise TooMany(f"{WATCHERS} requests of yours wait for changes already.", todo="End some of them.")
        self._waiting[actor.id] += 1
        try:
            return await self._next(actor, path, position, max(1, min(limit, MOST)), max(0.0, min(wait_s, LONGEST_S)))
        finally:
            self._waiting[actor.id] -= 1
            if not self._waiting[actor.id]:
                del self._waiting[actor.id]

    async def _next(self, actor: Actor, path: str | None, position: int, limit: int, wait_s: float) -> Changes:
        clock = self._now or asyncio.get_running_loop().time
        until = clock() + wait_s
        while True:
            stirred = self._stirred
            newest, found = await self._look(actor, path, position, limit + 1)
            if found or clock() >= until:
                more = len(found) > limit
                found = found[:limit]
                last = found[-1][0] if more else max(newest, position)
                return Changes(tuple(change for _, change in found), self._sealed(last, actor), more=more)
            position = max(position, newest)
            await self._stir(stirred, min(LOOK_S, max(until - clock(), 0.0)))

    async def _stir(self, stirred: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await self._wait(stirred.wait(), seconds)

    async def _look(
        self, actor: Actor, path: str | None, after: int | None, limit: int
    ) -> tuple[int, list[tuple[int, FileChange]]]:
        """Return the newest revision there is, and what changed after ``after`` that this person may read."""
        rest = ""
        if path is None:
            places: Sequence[Readable] = await self._reach.readable(actor)
        else:
            where, rest = await self._reach.resolve(actor, path)
            places = (where,)

        async def look(connection: AsyncConnection) -> tuple[int, list[Changed]]:
            hidden = await unknown_roots(connection)
            if path is not None and places[0].root_id in hidden:
                raise BadInput(
                    f"The hub is not told which files {shown(path)} holds, so it cannot say what changes.",
                    todo="wio mc ls lists it from storage.",
                )
            newest = await catalogue.newest_revision(connection)
            if after is None or newest <= after:
                return newest, []
            if newest - after > FAR:
                raise BadCursor("Too much has happened since that position.", todo="Begin without one, and list anew.")
            shown_ids = [int(one.id) for one in places if one.root_id not in hidden]
            below = places[0].prefix + rest if path is not None and rest else ""
            return newest, await catalogue.changed(connection, shown_ids, (after, newest), below=below, limit=limit)

        newest, rows = await self._database.run_read(look)
        there = {int(one.id): one for one in places}
        return newest, [(row.revision, _change(row, there[row.workspace_id])) for row in rows]

    # -------------------------------------------------------------------------------------------------- positions

    def _sealed(self, revision: int, actor: Actor) -> str:
        encryptor = self._cipher.encryptor()
        return to_text(encryptor.update(_BLOCK.pack(revision, actor.id)) + encryptor.finalize())

    def _opened(self, after: str, actor: Actor) -> int:
        try:
            raw = from_text(after)
            decryptor = self._cipher.decryptor()
            revision, person = _BLOCK.unpack(decryptor.update(raw) + decryptor.finalize())
        except (BadMessage, struct.error, ValueError):
            person, revision = 0, 0
        if person != actor.id:
            raise BadCursor("That position was not made by this hub for you.", todo="Begin without one.")
        return int(revision)


def _change(row: Changed, where: Readable) -> FileChange:
    name = f"{where.owner}/{where.name}/{row.key[len(where.prefix) :]}"
    if row.gone:
        return FileChange(name, gone=True, size=0, modified_at=None, etag="", node=where.node)
    return FileChange(name, gone=False, size=row.size, modified_at=row.mtime // 1000, etag=row.etag, node=where.node)
