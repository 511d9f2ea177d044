"""Workspaces: make, list, show."""

from __future__ import annotations

import builtins
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue, grants, standings
from hub.db import roots as root_rows
from hub.db import workspaces as rows
from hub.db.database import Database
from hub.db.grants import GrantRow
from hub.db.roots import RootRow
from hub.db.rows import storable
from hub.db.standings import Standing
from hub.domain.roots import nested
from hub.services.audit import Audit
from hub.services.grantsets import EVERYONE, At, GrantSets, Prepared, Refused
from hub.services.ports import Actor, Agents, Chance, Clock
from hub.services.reach import held, reaches, require
from hub.services.roots import may_know
from protocol.api import NewWorkspace, Workspace
from protocol.errors import BadInput, NameTaken, NotAllowed, Overlap, UnknownRoot, error_of
from protocol.grants import Permission, Subject, SubjectKind
from protocol.messages import PlaceWorkspace
from protocol.names import Layout, NodeId, RootId, WorkspaceId, check_name, check_prefix, locate, shown, workspace_prefix

DEADLINE_S: Final = 10.0
_LONGEST_DESCRIPTION: Final = 2000


class Workspaces:
    """All workspaces of this hub."""

    def __init__(
        self, *, database: Database, agents: Agents, clock: Clock, chance: Chance, audit: Audit, sets: GrantSets
    ) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._sets = sets

    # -------------------------------------------------------------------------------------------------- making

    async def create(self, actor: Actor, new: NewWorkspace) -> Workspace:
        """Make a workspace: on the node, in the catalogue and in the owner's grants, or nothing of it.

        Raises BadName, BadInput, UnknownRoot, NotAllowed, NameTaken, Overlap, NodeOffline, DeadlinePassed, and what the
        node says.
        """
        check_name(new.name, "workspace")
        if len(new.description) > _LONGEST_DESCRIPTION:
            raise BadInput(f"A description has at most {_LONGEST_DESCRIPTION} characters.")
        if not storable(new.description):
            raise BadInput("A description cannot hold NUL or half a character.")
        async with self._database.read() as connection:
            root = await self._root(connection, actor, new)
            prefix = _prefix(actor, root, new)
            if await rows.taken(connection, actor.id, new.name):
                raise _taken(new.name)
            await _check_free(connection, root, prefix)
        await self._agents.ask(
            NodeId(root.node_id),
            lambda request, deadline: PlaceWorkspace(request, deadline, root.id, prefix),
            deadline_s=DEADLINE_S,
        )
        await self._make(actor, root, prefix, new)
        return await self.show(actor, actor.username, new.name)

    async def _make(self, actor: Actor, root: RootRow, prefix: str, new: NewWorkspace) -> None:
        workspace = WorkspaceId(self._chance.new_id())
        node = At(NodeId(root.node_id), root.node)
        owner = Subject(SubjectKind.PERSON, actor.id, actor.username)
        subjects = (EVERYONE, owner) if new.public or root.kind.public else (owner,)
        target = f"{actor.username}/{new.name}"
        async with self._sets.turns(node.id, *subjects):
            try:
                async with self._database.write() as connection:
                    now = self._clock.now()
                    if not await root_rows.lock(connection, root.id):
                        raise UnknownRoot(f"{root.node}/{root.name} is gone.")
                    await _check_free(connection, root, prefix)
                    await rows.add(
                        connection,
                        workspace=workspace,
                        root=root.id,
                        owner=actor.id,
                        name=new.name,
                        prefix=prefix,
                        description=new.description,
                        now=now,
                    )
                    if new.public:
                        read = str(Permission.READ)
                        kind = str(SubjectKind.EVERYONE)
                        grant = GrantRow(self._chance.new_id(), workspace, kind, 0, read, None, actor.id, now)
                        await grants.put(connection, grant)
                    found = await catalogue.assign(connection, RootId(root.id), prefix, workspace)
                    await self._audit.record(
                        connection,
                        actor,
                        "workspace.create",
                        target,
                        node=node.id,
                        workspace=workspace,
                        root=f"{root.node}/{root.name}",
                        public=new.public,
                        objects=found,
                    )
                    prepared = await self._sets.prepare(connection, node, *subjects, workspace=workspace)
            except IntegrityError as error:
                raise _taken(new.name) from error
            await self._open(actor, root, prepared, workspace=workspace, prefix=prefix, target=target)

    async def _open(
        self,
        actor: Actor,
        root: RootRow,
        prepared: builtins.list[Prepared],
        *,
        workspace: WorkspaceId,
        prefix: str,
        target: str,
    ) -> None:
        """Have the node take over the grants; take the workspace back if it does not want to."""
        for one in prepared:
            _, outcome = await self._sets.transmit(one)
            if not isinstance(outcome, Refused):
                continue
            async with self._database.write() as connection:
                await catalogue.assign(connection, RootId(root.id), prefix, WorkspaceId(0))
                await rows.remove(connection, workspace)
                await self._audit.record(
                    connection, actor, "workspace.refused", target, node=root.node_id, reason=outcome.problem.code
                )
                again = await self._sets.prepare(connection, one.node, *(done.subject for done in prepared))
            for done in again:
                await self._sets.transmit(done)
            raise error_of(outcome.problem)

    async def _root(self, connection: AsyncConnection, actor: Actor, new: NewWorkspace) -> RootRow:
        """Find the root that is meant, and see that this person may make this kind of workspace in it."""
        if new.root is None:
            possible = [one for one in await root_rows.everything(connection) if _fits(actor, one, new)]
            if not possible:
                raise UnknownRoot(
                    "There is no root that you may make this workspace in.", todo="Ask the owner of a node to make one."
                )
        else:
            node, slash, name = new.root.rpartition("/")
            found = await root_rows.called(connection, name, node if slash else None)
            possible = [one for one in found if may_know(actor, one)]
            if not possible:
                raise UnknownRoot(f"There is no root {shown(new.root)}.", todo="wio root ls shows them.")
        if len(possible) > 1:
            names = ", ".join(f"{one.node}/{one.name}" for one in possible[:10])
            raise BadInput("There are several roots it could be made in.", todo=f"Name one with --root: {names}.")
        root = possible[0]
        if root.kind.managed and new.folder is not None:
            raise BadInput(f"{root.node}/{root.name} chooses its folders itself.", todo="Leave the folder out.")
        if not root.kind.managed and root.owner_id != actor.id:
            raise NotAllowed(f"Only {root.owner}, whose node that is, may make workspaces in {root.node}/{root.name}.")
        if not root.kind.managed and new.folder is None:
            raise BadInput(f"{root.node}/{root.name} holds folders that are there.", todo="Say which one: --folder NAME.")
        return root

    # -------------------------------------------------------------------------------------------------- looking

    async def list(self, actor: Actor, which: str = "all") -> builtins.list[Workspace]:
        """List workspaces: ``mine``, ``shared`` (others gave me something), ``public``, or ``all``. Raises BadInput."""
        if which not in {"mine", "shared", "public", "all"}:
            raise BadInput(f"Workspaces cannot be listed by {shown(which)}.", todo="mine, shared, public or all.")
        async with self._database.read() as connection:
            known = await standings.known(connection, actor.id, self._clock.now())
        chosen = [one for one in known if held(actor, one).strongest is not None]
        if which == "mine":
            chosen = [one for one in chosen if one.owner_id == actor.id]
        elif which == "shared":
            chosen = [one for one in chosen if one.owner_id != actor.id and one.granted is not None]
        elif which == "public":
            chosen = [one for one in chosen if _public(one)]
        return [_shown(actor, one) for one in chosen]

    async def show(self, actor: Actor, owner: str, name: str) -> Workspace:
        """Show one workspace. Raises UnknownWorkspace."""
        async with self._database.read() as connection:
            found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        standing = found.get((owner, name))
        if standing is None or held(actor, standing).strongest is None:
            require(actor, None, Permission.READ, f"{owner}/{name}")
            raise AssertionError  # pragma: no cover - require has raised
        return _shown(actor, standing)


def _fits(actor: Actor, root: RootRow, new: NewWorkspace) -> bool:
    if new.folder is None:
        return root.kind.managed
    return not root.kind.managed and root.owner_id == actor.id


def _prefix(actor: Actor, root: RootRow, new: NewWorkspace) -> str:
    if new.folder is None:
        return workspace_prefix(root.layout, root.bucket, actor.username, new.name)
    folder = new.folder if new.folder.endswith("/") else new.folder + "/"
    check_prefix(locate(root.layout, root.bucket, root.prefix, check_prefix(folder)).key)
    return folder


async def _check_free(connection: AsyncConnection, root: RootRow, prefix: str) -> None:
    if root.kind.managed and root.layout is Layout.BUCKET:
        return  # a bucket of its own; the database keeps two of the same apart
    other = nested(prefix, await rows.prefixes(connection, root.id))
    if other is not None:
        raise Overlap(
            f"{shown(prefix)} overlaps the workspace at {shown(other)} in {root.node}/{root.name}.",
            todo="Workspaces never nest: choose another folder.",
        )


def _taken(name: str) -> NameTaken:
    return NameTaken(f"You have a workspace called {name}.", todo="Choose another name.")


def _public(one: Standing) -> bool:
    return one.everyone is not None or one.kind.public


def _shown(actor: Actor, one: Standing) -> Workspace:
    permission, place = reaches(actor, one)
    return Workspace(
        id=one.id,
        owner=one.owner,
        name=one.name,
        node=one.node,
        root=one.root,
        bucket=place.bucket,
        prefix=place.key,
        description=one.description,
        public=_public(one),
        permission=permission,
        objects=one.objects,
        bytes=one.size,
        created_at=one.created_at,
    )
