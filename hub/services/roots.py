"""Roots: the places on a node inside which wio manages everything."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import nodes, roles
from hub.db import roots as rows
from hub.db.database import Database
from hub.db.nodes import NodeRow
from hub.db.roles import Role
from hub.db.roots import RootRow
from hub.domain.roots import NotLaid, Territory, choose_layout, first_overlap, names_warning
from hub.services.audit import Audit
from hub.services.freshness import Freshness, view_of
from hub.services.grantsets import EVERYONE, At, GrantSets
from hub.services.ports import Actor, Agents, Chance, Clock
from protocol.api import NewRoot, Root, RootKind, ScanStatus
from protocol.errors import BadInput, NameTaken, NodeOffline, NotAllowed, Overlap, UnknownNode, UnknownRoot, WioError
from protocol.hours import check_hours
from protocol.messages import CheckRoot, Configure, Finding, Progress, Report, RootConfig, Scan
from protocol.names import NodeId, RootId, check_bucket, check_name, check_prefix, shown

_LOG: Final = logging.getLogger("wio.hub.roots")
DEADLINE_S: Final = 10.0
FASTEST: Final = 2**31 - 1
"""Objects a second: what the database's column holds."""

Searchable = Callable[[RootId], Awaitable[int]]
"""How many objects of a root a search finds by now."""


class Roots:
    """All roots of this hub."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        sets: GrantSets,
        searchable: Searchable,
        freshness: Freshness | None = None,
    ) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._sets = sets
        self._searchable = searchable
        self._freshness = freshness

    # -------------------------------------------------------------------------------------------------- for people

    async def create(self, actor: Actor, new: NewRoot) -> Root:
        """Make a root on a node of one's own.

        Raises as ``planned``, DeadlinePassed, and what its agent says: RootMissing, OverCeiling …
        """
        node, config = await self.planned(actor, new)
        node_id = NodeId(node.id)
        await self._agents.ask(node_id, lambda request, deadline: CheckRoot(request, deadline, config), deadline_s=DEADLINE_S)
        await self._make(actor, node, config, new.kind)
        return await self.show(actor, node.name, new.name)

    async def planned(self, actor: Actor, new: NewRoot) -> tuple[NodeRow, RootConfig]:
        """Return a root as it would be made, and its node; makes nothing.

        Raises BadName, BadInput (the layout cannot be), UnknownNode, NotAllowed, NameTaken, Overlap, NodeOffline.
        """
        check_name(new.name, "root")
        check_pace(new.pace)
        check_hours(new.quiet)
        bucket = check_bucket(new.bucket)
        prefix = check_prefix(new.prefix if not new.prefix or new.prefix.endswith("/") else new.prefix + "/")
        async with self._database.read() as connection:
            node = await nodes.by_name(connection, new.node)
            there = [] if node is None else await rows.of_node(connection, node.id)
        if node is None or node.evicted_at is not None:
            raise UnknownNode(f"There is no node called {shown(new.node)}.", todo="wio node ls shows them.")
        if node.owner_id != actor.id:
            raise NotAllowed(f"Only {node.owner}, who joined {node.name}, may make roots on it.")
        if not self._agents.online(NodeId(node.id)):
            raise NodeOffline(f"{node.name} is not connected.", todo="Start wio-agent there, then try again.")
        laid = choose_layout(
            new.kind,
            asked=new.layout,
            prefix=prefix,
            isolates_names=_isolates(node),
            accept_visible_names=new.accept_visible_names,
        )
        if isinstance(laid, NotLaid):
            raise BadInput(laid.reason, todo=laid.todo)
        _check_free(new.name, Territory(new.name, laid.layout, bucket, prefix), node, there)
        config = RootConfig(self._chance.new_id(), new.name, bucket, prefix, laid.layout, new.level, new.pace, new.quiet)
        return node, config

    async def _make(self, actor: Actor, node: NodeRow, config: RootConfig, kind: RootKind) -> None:
        """Write the root down, have the agent take it over, and open it where it is public: all of it or nothing."""
        at = At(NodeId(node.id), node.name)
        async with self._sets.turns(node.id, EVERYONE):
            try:
                async with self._database.write() as connection:
                    await nodes.next_revision(connection, node.id)  # holds the node, so that no two roots overlap
                    there = await rows.of_node(connection, node.id)
                    new = Territory(config.name, config.layout, config.bucket, config.prefix)
                    _check_free(config.name, new, node, there)
                    await rows.add(
                        connection,
                        root=config.root,
                        node=node.id,
                        name=config.name,
                        kind=kind,
                        bucket=config.bucket,
                        prefix=config.prefix,
                        layout=config.layout,
                        level=config.level,
                        pace=config.pace,
                        quiet=config.quiet,
                        now=self._clock.now(),
                    )
                    if kind.managed:
                        await roles.replace(connection, config.root, Role.CREATE, [EVERYONE])
                    target = f"{node.name}/{config.name}"
                    place = f"{config.bucket}/{config.prefix}"
                    await self._audit.record(
                        connection, actor, "root.create", target, node=node.id, kind=str(kind), place=place
                    )
                    opened = await self._sets.prepare(connection, at, EVERYONE) if kind.public else []
            except IntegrityError as error:
                raise _taken(node, config.name) from error
            try:
                await self.configure(at.id)
            except WioError as error:
                if not error.retry:
                    await self._take_back(actor, node, config, kind, error)
                    raise
                _LOG.warning("%s gets its new root when it is back: %s", node.name, error.message)
            for one in opened:
                await self._sets.transmit(one)

    async def _take_back(self, actor: Actor, node: NodeRow, config: RootConfig, kind: RootKind, why: WioError) -> None:
        async with self._database.write() as connection:
            await nodes.next_revision(connection, node.id)
            await rows.remove(connection, config.root)
            target = f"{node.name}/{config.name}"
            await self._audit.record(connection, actor, "root.refused", target, node=node.id, reason=why.code)
            if kind.public:
                await self._sets.prepare(connection, At(NodeId(node.id), node.name), EVERYONE)

    async def list(self, actor: Actor) -> builtins.list[Root]:
        """List the roots this person may know of: of other people's unmanaged-private ones only those they have a role in."""
        async with self._database.read() as connection:
            mine = await roles.of_person(connection, actor.id)
            listed = await roles.listed(connection)
            found = await rows.everything(connection)
        return [self._shown(one, listed) for one in found if may_know(actor, one, mine)]

    async def show(self, actor: Actor, node: str, root: str) -> Root:
        """Show one root. Raises UnknownRoot."""
        row = await self.find(actor, node, root)
        async with self._database.read() as connection:
            return self._shown(row, await roles.listed(connection, row.id))

    def _shown(self, row: RootRow, listed: Mapping[tuple[int, Role], tuple[str, ...]]) -> Root:
        root = shown_root(row, listed)
        return root if self._freshness is None else msgspec.structs.replace(root, view=view_of(self._freshness, row))

    async def scan(self, actor: Actor, node: str, root: str) -> ScanStatus:
        """Begin to import or reconcile a root. Raises UnknownRoot, NotAllowed, NodeOffline, DeadlinePassed."""
        row = await self.find(actor, node, root)
        async with self._database.read() as connection:
            mine = await roles.of_person(connection, actor.id)
        if not (actor.admin or row.owner_id == actor.id or (row.id, Role.MANAGE) in mine):
            raise NotAllowed(f"Only {row.owner}, whose node that is, and its managers may scan {node}/{root}.")
        await self._agents.ask(
            NodeId(row.node_id), lambda request, deadline: Scan(request, deadline, row.id), deadline_s=DEADLINE_S
        )
        async with self._database.write() as connection:
            await self._audit.record(connection, actor, "root.scan", f"{row.node}/{row.name}", node=row.node_id)
        return await self.scan_status(actor, node, root)

    async def scan_status(self, actor: Actor, node: str, root: str) -> ScanStatus:
        """Say how far the last scan of a root is. Raises UnknownRoot."""
        row = await self.find(actor, node, root)
        called = f"{row.node}/{row.name}"
        searchable = await self._searchable(RootId(row.id))
        if row.scan is None:
            return ScanStatus(called, None, 0, 0, 0, 0, searchable)
        at = msgspec.msgpack.decode(row.scan, type=Progress)
        problem = at.problem.message if at.problem else ""
        return ScanStatus(called, at.state, at.objects, at.bytes, at.started_at, at.at, searchable, problem)

    async def find(self, actor: Actor, node: str, root: str) -> RootRow:
        """Return a root as it is stored. Raises UnknownRoot where there is none that this person may know of."""
        async with self._database.read() as connection:
            found = await rows.called(connection, root, node)
            mine = await roles.of_person(connection, actor.id)
        if not found or not may_know(actor, found[0], mine):
            raise UnknownRoot(f"There is no root {shown(f'{node}/{root}')}.", todo="wio root ls shows them.")
        return found[0]

    # -------------------------------------------------------------------------------------------------- for the gateway

    async def configure(self, node: NodeId) -> None:
        """Tell a node all of its roots. Raises UnknownNode, NodeOffline, DeadlinePassed, and what the agent says."""

        async def look(connection: AsyncConnection) -> tuple[NodeRow | None, tuple[RootConfig, ...]]:
            row = await nodes.by_id(connection, node)
            return row, tuple(config_of(one) for one in await rows.of_node(connection, node))

        row, configs = await self._database.run_read(look)
        if row is None or row.evicted_at is not None:
            raise UnknownNode("That node is not known any more.")
        revision = row.config_revision
        await self._agents.ask(
            node, lambda request, deadline: Configure(request, deadline, revision, configs), deadline_s=DEADLINE_S
        )


def check_pace(pace: int) -> int:
    """Return a pace as it is; raise BadInput for what is none."""
    if not 0 <= pace <= FASTEST:
        raise BadInput(f"{pace} is no pace.", todo="Objects per second while scanning; 0 for no limit.")
    return pace


def may_know(actor: Actor, root: RootRow, mine: frozenset[tuple[int, Role]] = frozenset()) -> bool:
    """Say whether somebody who has these roles may know of a root."""
    inside = actor.admin or root.owner_id == actor.id or any(one == root.id for one, _ in mine)
    return inside or root.kind is not RootKind.UNMANAGED_PRIVATE


def _check_free(name: str, new: Territory, node: NodeRow, there: builtins.list[RootRow]) -> None:
    if any(one.name == name for one in there):
        raise _taken(node, name)
    other = first_overlap(new, (Territory(one.name, one.layout, one.bucket, one.prefix) for one in there))
    if other is not None:
        raise Overlap(
            f"{new.bucket}/{new.prefix} overlaps root {other.name} of {node.name}, which has {other.bucket}/{other.prefix}.",
            todo="Roots never nest: choose another bucket or prefix.",
        )


def _taken(node: NodeRow, name: str) -> NameTaken:
    return NameTaken(f"{node.name} has a root called {name}.", todo="Choose another name.")


def _isolates(node: NodeRow | RootRow) -> Finding:
    if node.report is None:
        return Finding.UNKNOWN
    return msgspec.msgpack.decode(node.report, type=Report).isolates_names


def config_of(root: RootRow) -> RootConfig:
    """Return a root as its agent is told of it."""
    return RootConfig(root.id, root.name, root.bucket, root.prefix, root.layout, root.level, root.pace, root.quiet)


def shown_root(root: RootRow, listed: Mapping[tuple[int, Role], tuple[str, ...]]) -> Root:
    """Return a root as people see it, with those who have ``listed`` roles in it."""
    warning = names_warning(root.kind, root.layout, root.prefix, _isolates(root))
    return Root(
        id=root.id,
        node=root.node,
        name=root.name,
        owner=root.owner,
        kind=root.kind,
        bucket=root.bucket,
        prefix=root.prefix,
        layout=root.layout,
        level=root.level,
        objects=root.objects,
        bytes=root.size,
        digest=f"{root.digest:016x}",
        warnings=() if warning is None else (warning,),
        created_at=root.created_at,
        creators=listed.get((root.id, Role.CREATE), ()),
        managers=listed.get((root.id, Role.MANAGE), ()),
        pace=root.pace,
        quiet=root.quiet,
    )
