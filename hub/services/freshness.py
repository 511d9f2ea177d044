"""How fresh the hub's view of every node and root is: from what agents say of themselves, kept across restarts.

A root is fresh at the moment at which its agent says that no place in it is still to be looked at, and no row of its journal
is still on its way: then everything the agent knew is in the catalogue. What is kept in the database is for nodes that are
away when the hub starts; the others say it anew within seconds.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import kept
from hub.db.database import Database
from hub.db.roots import RootRow
from hub.services.ports import Clock
from protocol.api import RootView
from protocol.messages import Health, Progress, RootActivity, RootState
from protocol.names import NodeId

MICRO: Final = 1_000_000
WRITE_EVERY_S: Final = 15.0
PREFIX: Final = "fresh."
MAX_ROOTS: Final = 1_000


class _Root(msgspec.Struct, frozen=True, array_like=True):
    """A root as last heard of. Times in Unix microseconds, 0 for never."""

    state: RootState
    fresh_at: int = 0
    interval: int = 0


class _Node(msgspec.Struct, frozen=True, array_like=True):
    """A node as last heard of. ``growing_since`` 0: its pending rows do not grow."""

    heard_at: int
    fresh_at: int = 0
    health: Health | None = None
    growing_since: int = 0
    roots: dict[int, _Root] = {}


_NODE: Final = msgspec.msgpack.Decoder(_Node)


_PROGRESS: Final = msgspec.msgpack.Decoder(Progress)


class Online(Protocol):
    """Which agents are connected."""

    def online(self, node: NodeId) -> bool:
        """Say whether this node's agent is connected now."""


class Freshness:
    """Keeps it. ``load`` once before anything is asked; ``run`` writes it down now and then."""

    def __init__(self, *, database: Database, agents: Online, clock: Clock) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._nodes: dict[int, _Node] = {}
        self._heard: set[int] = set()
        self._changed: set[int] = set()

    # -------------------------------------------------------------------------------------------------- what agents say

    def heard(self, node: NodeId, health: Health) -> None:
        """Take in what an agent says of itself. Roots it says nothing of are as they were."""
        now = self._clock.now()
        before = self._nodes.get(node, _Node(now))
        roots = dict(before.roots) if not health.roots else {}
        for state in health.roots[:MAX_ROOTS]:
            old = before.roots.get(state.root)
            fresh = not state.dirty and not health.pending_rows
            planned = state.next_scan_at - state.scanned_at
            steady = state.activity is RootActivity.IDLE and state.scanned_at > 0 and planned > 0
            roots[state.root] = _Root(
                state,
                now if fresh else old.fresh_at if old else 0,
                planned if steady else old.interval if old else 0,
            )
        fresh_at = before.fresh_at if health.pending_rows or health.dirty else now
        self._nodes[node] = _Node(
            now, fresh_at, msgspec.structs.replace(health, roots=()), _growing(before, health, now), roots
        )
        self._heard.add(node)
        self._changed.add(node)

    def forget(self, node: NodeId) -> None:
        """Forget a node that was evicted."""
        self._nodes.pop(node, None)
        self._changed.discard(node)

    # -------------------------------------------------------------------------------------------------- what is known

    def online(self, node: NodeId) -> bool:
        """Say whether this node's agent is connected now."""
        return self._agents.online(node)

    def heard_since_start(self, node: NodeId) -> bool:
        """Say whether this node has said how it is since the hub's start."""
        return node in self._heard

    def health(self, node: NodeId) -> Health | None:
        """Return the last Health of this node, without its roots."""
        found = self._nodes.get(node)
        return None if found is None else found.health

    def fresh_at(self, node: NodeId) -> int | None:
        """Return when this node last said that everything it knows is here, Unix microseconds."""
        found = self._nodes.get(node)
        return (found.fresh_at or None) if found is not None else None

    def heard_at(self, node: NodeId) -> int | None:
        """Return when this node last said how it is, Unix microseconds."""
        found = self._nodes.get(node)
        return (found.heard_at or None) if found is not None else None

    def growing_since(self, node: NodeId) -> int | None:
        """Return since when this node's pending rows have grown and never shrunk, Unix microseconds."""
        found = self._nodes.get(node)
        return (found.growing_since or None) if found is not None else None

    def age_s(self, node: NodeId) -> float | None:
        """Return how old the view of a node is, in seconds; None: never fresh."""
        return self._age(self.fresh_at(node))

    def root_age_s(self, node: NodeId, root: int) -> float | None:
        """Return how old the view of a root is, in seconds; None: never fresh."""
        found = self._root(node, root)
        return None if found is None else self._age(found.fresh_at or None)

    def state(self, node: NodeId, root: int) -> RootState | None:
        """Return what the agent last said of a root."""
        found = self._root(node, root)
        return None if found is None else found.state

    def interval(self, node: NodeId, root: int) -> int:
        """Return the time between the scans of a root as its agent plans them, in microseconds; 0: unknown."""
        found = self._root(node, root)
        return 0 if found is None else found.interval

    def view(self, node: NodeId, root: int, name: str, *, drifted: bool, problem: str = "") -> RootView:
        """Return how fresh a root is, as people see it; ``name`` is ``node/root``."""
        state = self.state(node, root)
        if state is None:
            return RootView(name, None, None, None, None, drifted=drifted, problem=problem)
        return RootView(
            name,
            state.activity,
            self.root_age_s(node, root),
            state.scanned_at or None,
            state.next_scan_at or None,
            state.dirty,
            state.unread,
            state.unreadable,
            drifted,
            problem,
        )

    def _root(self, node: NodeId, root: int) -> _Root | None:
        found = self._nodes.get(node)
        return None if found is None else found.roots.get(root)

    def _age(self, at: int | None) -> float | None:
        return None if at is None else max(self._clock.now() - at, 0) / MICRO

    # -------------------------------------------------------------------------------------------------- kept

    async def load(self) -> None:
        """Read what was known before the hub's start; what cannot be read is not known."""
        async with self._database.read() as connection:
            found = await kept.starting(connection, PREFIX)
        for name, value in found.items():
            try:
                self._nodes.setdefault(int(name.removeprefix(PREFIX)), _NODE.decode(value))
            except (msgspec.MsgspecError, ValueError):
                continue

    async def step(self) -> None:
        """Write down what has changed since the last time, in one transaction."""
        if not self._changed:
            return
        changed, self._changed = self._changed, set()
        values = {f"{PREFIX}{node}": msgspec.msgpack.encode(self._nodes[node]) for node in changed if node in self._nodes}

        async def write(connection: AsyncConnection) -> None:
            await kept.put(connection, values)

        try:
            await self._database.run_write(write)
        except BaseException:
            self._changed |= changed
            raise

    async def run(self) -> None:
        """Write it down now and then, and when the hub stops."""
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY_S)
                await self.step()
        finally:
            await asyncio.shield(self.step())


def view_of(freshness: Freshness, root: RootRow) -> RootView:
    """Return how fresh a root is, as people see it."""
    progress = None if root.scan is None else _PROGRESS.decode(root.scan)
    problem = "" if progress is None or progress.problem is None else progress.problem.message
    name = f"{root.node}/{root.name}"
    return freshness.view(NodeId(root.node_id), root.id, name, drifted=root.drifted_at is not None, problem=problem)


def _growing(before: _Node, health: Health, now: int) -> int:
    """Say since when rows have become more and never fewer; 0: they have not."""
    last = before.health.pending_rows if before.health is not None else 0
    if not health.pending_rows or health.pending_rows < last:
        return 0
    return before.growing_since or (now if health.pending_rows > last else 0)
