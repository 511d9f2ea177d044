"""Folders and searches: what a person may read, found in the catalogue and in the search index.

Nothing about a file that a person may not read gets into an answer: every query is limited to the workspaces that
``ports.Reach`` gives, places that are named in a query mean something only within them, and so do counts.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue
from hub.db.database import Database
from hub.db.tables import nodes, roots
from hub.domain.alarms import is_behind
from hub.domain.paths import readings
from hub.services.ports import Actor, Clock, Reach, Readable
from protocol.api import FacetCount, FileEntry, Hit, Listing, NodeState, NodeView, SearchPage
from protocol.errors import BadCursor, BadInput, BadMessage, BadName, UnknownPath
from protocol.identity import from_text, to_text
from protocol.messages import Health, IndexLevel, Progress, RootActivity, RootState, ScanState
from protocol.names import NodeId, shown
from search.engine import Asked, Engine, FacetKind, Sort, Tally
from search.query import Place, PlaceField, PlaceScope, Query, bind_places, parse, places

MAX_LIMIT: Final = 1000
FACET_SIZE: Final = 20
_WIDE: Final = 10_000
"""Values of a facet asked of the engine where several become one: the roots of a node, the workspaces of an owner."""
_MICROSECOND: Final = 1_000_000
_MAC: Final = 16

FACETS: Final = {
    "ext": FacetKind.EXTENSION,
    "node": FacetKind.ROOT,
    "owner": FacetKind.WORKSPACE,
    "workspace": FacetKind.WORKSPACE,
    "type": FacetKind.TYPE,
    "tag": FacetKind.TAG,
}
"""What a search can count by, and what the engine counts for it."""
_AS_COUNTED: Final = frozenset({"ext", "type", "tag"})
"""Facets whose values the engine gives as people know them; those of the others are ids."""

Position = tuple[float | int | str, ...]
_POSITION: Final = msgspec.msgpack.Decoder(Position)
_ENCODE: Final = msgspec.msgpack.Encoder()
_HEALTH: Final = msgspec.msgpack.Decoder(Health)
_PROGRESS: Final = msgspec.msgpack.Decoder(Progress)
_UNKNOWN: Final = {str(IndexLevel.NONE), str(IndexLevel.LOCAL)}
"""Levels at which the hub knows nothing that could be old."""


class Watching(Protocol):
    """How fresh the hub's view of nodes and roots is (``services.freshness``)."""

    def online(self, node: NodeId) -> bool:
        """Say whether its agent is connected."""

    def fresh_at(self, node: NodeId) -> int | None:
        """Return when it last had nothing left to say, Unix microseconds."""

    def health(self, node: NodeId) -> Health | None:
        """Return the last Health."""

    def heard_at(self, node: NodeId) -> int | None:
        """Return when it last said how it is, Unix microseconds."""

    def root_age_s(self, node: NodeId, root: int) -> float | None:
        """Return how old the view of a root is, in seconds; None: never fresh."""

    def state(self, node: NodeId, root: int) -> RootState | None:
        """Return what the agent last said of a root."""


class Searching:
    """``cursor_key`` makes page cursors that cannot be forged: 32 secret bytes. ``stopwatch`` gives seconds."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        reach: Reach,
        agents: Watching,
        clock: Clock,
        cursor_key: bytes,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._database = database
        self._engine = engine
        self._reach = reach
        self._agents = agents
        self._clock = clock
        self._cursor_key = cursor_key
        self._stopwatch = stopwatch

    # -------------------------------------------------------------------------------------------------- folders

    async def files(self, actor: Actor, path: str, after: str | None = None, limit: int = 200) -> Listing:
        """List one level of a workspace, or the one file at ``path``. ``after`` is what the page before ended with.

        Raises BadName, BadCursor, UnknownWorkspace, NoGrant, or UnknownPath where nothing lies there.
        """
        where, rest = await self._reach.resolve(actor, path)
        limit = max(1, min(limit, MAX_LIMIT))
        folder = rest if not rest or rest.endswith("/") else rest + "/"
        prefix = where.prefix + folder
        start = prefix if after is None else _start(prefix, after)
        async with self._database.read() as connection:
            hidden = where.root_id in await unknown_roots(connection)
            lines = [] if hidden else await catalogue.level(connection, where.id, prefix, start, limit + 1)
            file = None
            if rest and rest != folder and not lines and after is None and not hidden:
                found = await catalogue.stored(connection, [(where.root_id, where.prefix + rest)])
                file = next((one for one in found.values() if not one.gone and one.workspace_id == where.id), None)
            views = await self._views(connection, [where])
        base = f"{where.owner}/{where.name}/"
        if file is not None:
            entry = FileEntry(base + rest, file.size, file.mtime // 1000, file.etag)
            return Listing(base + rest, (entry,), None, views)
        if not lines and rest and after is None:
            raise UnknownPath(f"Nothing lies at {shown(base + rest)}.")
        shown_lines = lines[:limit]
        entries = tuple(
            FileEntry(
                base + folder + line.name,
                line.size,
                line.mtime // 1000,
                line.etag,
                folder=line.name.endswith("/"),
                objects=line.objects,
            )
            for line in shown_lines
        )
        return Listing(base + folder, entries, shown_lines[-1].name if len(lines) > limit else None, views)

    # -------------------------------------------------------------------------------------------------- searches

    async def search(
        self,
        actor: Actor,
        *,
        q: str,
        sort: Sort = Sort.RELEVANCE,
        limit: int = 50,
        cursor: str | None = None,
        facets: Iterable[str] = (),
    ) -> SearchPage:
        """Search everything this person may read.

        Raises BadQuery with the column, BadCursor for one that was not made for this search, BadInput for an unknown facet.
        """
        began = self._stopwatch()
        wanted = tuple(dict.fromkeys(facets))
        for name in wanted:
            if name not in FACETS:
                raise BadInput(f"There is no facet {shown(name)}.", todo=f"The facets are {', '.join(FACETS)}.")
        query = parse(q, self._clock.now())
        after = None if cursor is None else self._opened(cursor, actor, q, sort)
        readable = {one.id: one for one in await self._reach.readable(actor)}
        async with self._database.read() as connection:
            query = await self._bound(connection, query, readable.values(), actor)
            views = await self._views(connection, readable.values())
            hidden = await unknown_roots(connection)
        limit = max(1, min(limit, MAX_LIMIT))
        page = await self._engine.search(
            Asked(
                query=query,
                workspaces=frozenset(one.id for one in readable.values() if one.root_id not in hidden),
                sort=sort,
                limit=limit,
                after=after,
                facets=frozenset(FACETS[name] for name in wanted),
                facet_size=FACET_SIZE if set(wanted) <= _AS_COUNTED else _WIDE,
            )
        )
        hits = tuple(
            Hit(
                path=f"{where.owner}/{where.name}/{found.document.path}",
                size=found.document.size,
                modified_at=found.document.mtime // 1000,
                node=where.node,
                owner=where.owner,
                score=found.score,
            )
            for found in page.hits
            for where in (readable[found.document.workspace],)  # type: ignore[index]  # the engine's ids are plain integers
        )
        return SearchPage(
            hits=hits,
            total=page.total,
            bytes=page.bytes,
            facets={name: _facet(name, page.facets.get(FACETS[name], ()), readable.values()) for name in wanted},
            cursor=self._sealed(page.hits[-1].position, actor, q, sort) if len(page.hits) == limit else None,
            nodes=views,
            took_ms=round((self._stopwatch() - began) * 1000, 3),
        )

    async def _bound(self, connection: AsyncConnection, query: Query, readable: Iterable[Readable], actor: Actor) -> Query:
        """Turn the places a query names into workspaces. Roots' names are looked up only where one is asked for."""
        named = places(query)
        if not named:
            return query
        candidates = list(readable)
        names: dict[int, str] = {}
        if any(place.field is PlaceField.ROOT for place in named):
            ids = {one.root_id for one in candidates}
            found = await connection.execute(select(roots.c.id, roots.c.name).where(roots.c.id.in_(ids)))
            names = {row.id: row.name for row in found}
        return resolve_places(query, candidates, username=actor.username, roots=names)

    # -------------------------------------------------------------------------------------------------- cursors

    def _sealed(self, position: Position, actor: Actor, q: str, sort: Sort) -> str:
        body = _ENCODE.encode(position)
        return to_text(self._mac(body, actor, q, sort) + body)

    def _opened(self, cursor: str, actor: Actor, q: str, sort: Sort) -> Position:
        wrong = BadCursor("That page cursor was not made by this hub for this search.", todo="Search again without it.")
        try:
            raw = from_text(cursor)
        except BadMessage:
            raise wrong from None
        mac, body = raw[:_MAC], raw[_MAC:]
        if not hmac.compare_digest(mac, self._mac(body, actor, q, sort)):
            raise wrong
        return _POSITION.decode(body)

    def _mac(self, body: bytes, actor: Actor, q: str, sort: Sort) -> bytes:
        """Bind a position to the person, the query and the order: it means nothing anywhere else."""
        signed = b"wio page cursor v1\0" + _ENCODE.encode((actor.id, q, str(sort), body))
        return hmac.digest(self._cursor_key, signed, hashlib.sha256)[:_MAC]

    # -------------------------------------------------------------------------------------------------- freshness

    async def _views(self, connection: AsyncConnection, about: Iterable[Readable]) -> tuple[NodeView, ...]:
        """Say of each node how old what is known of it is, and which of the roots asked about are not up to date."""
        names: dict[NodeId, str] = {}
        rooms: set[int] = set()
        for one in about:
            names[one.node_id] = one.node
            rooms.add(one.root_id)
        if not names:
            return ()
        last = await connection.execute(select(nodes.c.id, nodes.c.health, nodes.c.seen_at).where(nodes.c.id.in_(names)))
        kept = {row.id: (row.health, row.seen_at) for row in last}
        found = await connection.execute(
            select(roots.c.id, roots.c.node_id, roots.c.name, roots.c.level, roots.c.scan, roots.c.drifted_at)
            .where(roots.c.node_id.in_(names), roots.c.retired_at.is_(None))
            .order_by(roots.c.name)
        )
        scanning: set[int] = set()
        behind: defaultdict[int, list[str]] = defaultdict(list)
        for row in found:
            state = self._agents.state(row.node_id, row.id)
            if self._is_scanned(row.scan, state):
                scanning.add(row.node_id)
            if (
                row.id in rooms
                and state is not None
                and is_behind(
                    online=self._agents.online(row.node_id),
                    age_s=self._agents.root_age_s(row.node_id, row.id),
                    activity=state.activity,
                    drifted=row.drifted_at is not None,
                    indexed=row.level not in _UNKNOWN,
                )
            ):
                behind[row.node_id].append(f"{names[row.node_id]}/{row.name}")
        return tuple(
            self._view(node, name, *kept.get(node, (None, None)), scanning=node in scanning, behind=tuple(behind[node]))
            for node, name in sorted(names.items(), key=lambda one: one[1])
        )

    @staticmethod
    def _is_scanned(scan: bytes | None, state: RootState | None) -> bool:
        if state is not None:
            return state.activity is RootActivity.SCANNING
        return scan is not None and _PROGRESS.decode(scan).state is ScanState.RUNNING

    def _view(
        self,
        node: NodeId,
        name: str,
        kept: bytes | None,
        seen_at: int | None,
        *,
        scanning: bool,
        behind: tuple[str, ...],
    ) -> NodeView:
        health = self._agents.health(node) or (None if kept is None else _HEALTH.decode(kept))
        pending = 0 if health is None else health.pending_rows + health.dirty
        fresh = self._agents.fresh_at(node)
        if fresh is None and health is not None and not pending:
            fresh = seen_at  # from before the hub's start
        age = None if fresh is None else max(self._clock.now() - fresh, 0) / _MICROSECOND
        state = NodeState.ONLINE if self._agents.online(node) else NodeState.OFFLINE
        seen = max(seen_at or 0, self._agents.heard_at(node) or 0) or None
        return NodeView(name, state, age, pending, scanning, behind, seen)


async def unknown_roots(connection: AsyncConnection) -> set[int]:
    """Return the roots of which the hub may know nothing: what it knew before is on its way out (``services.levels``)."""
    return set(await connection.scalars(select(roots.c.id).where(roots.c.level.in_(_UNKNOWN))))


# ---------------------------------------------------------------------------------------------------- pure


def resolve_places(query: Query, readable: Sequence[Readable], *, username: str, roots: dict[int, str]) -> Query:
    """Turn the places in a query into ids of readable workspaces; stars and question marks may stand for characters.

    A place that is not there, and one that this person may not read, are the same: nothing lies in it. ``username`` is who
    asks, for ``in:`` paths of one's own; ``roots`` are the names of the readable workspaces' roots, by id.
    """

    def resolve(place: Place) -> PlaceScope:
        value = place.value.strip("/")
        match place.field:
            case PlaceField.IN:
                return _scope(value, readable, username)
            case PlaceField.OWNER:
                wanted = username if value == "me" else value
                return _all(one for one in readable if _matches(one.owner, wanted))
            case PlaceField.NODE:
                return _all(one for one in readable if _matches(one.node, value))
            case PlaceField.WORKSPACE:
                return _all(one for one in readable if _either(one.owner, one.name, value))
            case PlaceField.ROOT:
                return _all(one for one in readable if _either(one.node, roots.get(one.root_id, ""), value))

    return bind_places(query, resolve)


def _scope(value: str, readable: Sequence[Readable], username: str) -> PlaceScope:
    try:
        possible = readings(value, username)
    except BadName:
        return PlaceScope(frozenset())
    for reading in possible:
        for one in readable:
            if (one.owner, one.name) == (reading.owner, reading.name):
                return PlaceScope(frozenset({int(one.id)}), reading.rest)
    return PlaceScope(frozenset())


def _all(found: Iterable[Readable]) -> PlaceScope:
    return PlaceScope(frozenset(int(one.id) for one in found))


def _matches(name: str, wanted: str) -> bool:
    wanted = wanted.lower()  # names are lower case
    return fnmatch.fnmatchcase(name, wanted.replace("[", "[[]")) if "*" in wanted or "?" in wanted else name == wanted


def _either(above: str, name: str, wanted: str) -> bool:
    return _matches(f"{above}/{name}" if "/" in wanted else name, wanted)


def _start(prefix: str, after: str) -> str:
    """Return the first key that may follow a line of a listing."""
    name = after.removesuffix("/")
    if "/" in name or "\0" in after or not after:
        raise BadCursor(f"{shown(after)} is no line of this folder.", todo="List it again from the start.")
    return catalogue.after_folder(prefix + after) if after.endswith("/") else catalogue.after_key(prefix + after)


def _facet(name: str, tallies: Sequence[Tally], readable: Iterable[Readable]) -> tuple[FacetCount, ...]:
    """Return what the engine counted by id as counts by name, largest first."""
    called: dict[str, str] = {}
    for one in readable:
        match name:
            case "node":
                called[str(one.root_id)] = one.node
            case "owner":
                called[str(one.id)] = one.owner
            case "workspace":
                called[str(one.id)] = f"{one.owner}/{one.name}"
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for tally in tallies:
        both = counts[tally.value if name in _AS_COUNTED else called[tally.value]]
        both[0] += tally.count
        both[1] += tally.bytes
    ranked = sorted(counts.items(), key=lambda one: (-one[1][0], one[0]))
    return tuple(FacetCount(value, *both) for value, both in ranked[:FACET_SIZE])
