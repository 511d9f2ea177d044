"""Workspaces: make, list, show."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue, grants, roles, standings
from hub.db import roots as root_rows
from hub.db import workspaces as rows
from hub.db.database import Database
from hub.db.grants import GrantRow
from hub.db.roles import Role
from hub.db.roots import RootRow
from hub.db.rows import storable
from hub.db.standings import Standing
from hub.domain.quota import Strain, strained
from hub.domain.roots import nested
from hub.services.audit import Audit
from hub.services.grantsets import EVERYONE, At, GrantSets, Prepared, Refused
from hub.services.ports import Actor, Agents, Chance, Clock
from hub.services.reach import held, reaches, require
from hub.services.roots import may_know
from protocol.api import NewWorkspace, RootKind, Workspace
from protocol.errors import BadInput, NameTaken, NotAllowed, Overlap, UnknownRoot, error_of
from protocol.grants import Permission, Subject, SubjectKind
from protocol.messages import PlaceWorkspace
from protocol.names import Layout, NodeId, RootId, WorkspaceId, check_name, check_prefix, locate, shown, workspace_prefix

DEADLINE_S: Final = 10.0
_LONGEST_DESCRIPTION: Final = 2000


class Workspaces:
    """All workspaces of this hub."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        sets: GrantSets,
        charged: Callable[[], None] = lambda: None,
    ) -> None:
        """``charged`` is called when a workspace has taken up what lay there: its owner is charged for it from then on."""
        self._charged = charged
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
        check_description(new.description)
        async with self._database.read() as connection:
            root = await self._root(connection, actor, new)
            if await rows.taken(connection, actor.id, new.name):
                raise _taken(new.name)
            prefix = await _place(connection, actor, root, new)
        await self._agents.ask(
            NodeId(root.node_id),
            lambda request, deadline: PlaceWorkspace(request, deadline, root.id, prefix),
            deadline_s=DEADLINE_S,
        )
        await self._make(actor, root, prefix, new)
        self._charged()
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
                    if await _place(connection, actor, root, new) != prefix:
                        raise Overlap(f"{shown(prefix)} in {root.node}/{root.name} was just taken.", todo="Try again.")
                    await rows.take_up(connection, root.id, prefix)
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
        mine = await roles.of_person(connection, actor.id)
        if new.root is None:
            found = await root_rows.everything(connection)
            possible = [one for one in found if one.kind.managed is (new.folder is None) and _may_create(actor, one, mine)]
            if not possible:
                raise UnknownRoot(
                    "There is no root that you may make this workspace in.", todo="Ask the owner of a node to make one."
                )
        else:
            node, slash, name = new.root.rpartition("/")
            found = await root_rows.called(connection, name, node if slash else None)
            possible = [one for one in found if may_know(actor, one, mine)]
            if not possible:
                raise UnknownRoot(f"There is no root {shown(new.root)}.", todo="wio root ls shows them.")
        if len(possible) > 1:
            names = ", ".join(f"{one.node}/{one.name}" for one in possible[:10])
            raise BadInput("There are several roots it could be made in.", todo=f"Name one with --root: {names}.")
        root = possible[0]
        if root.kind.managed and new.folder is not None:
            raise BadInput(f"{root.node}/{root.name} chooses its folders itself.", todo="Leave the folder out.")
        if not _may_create(actor, root, mine):
            raise NotAllowed(
                f"Only {root.owner}, whose node that is, may make workspaces in {root.node}/{root.name}, and whom they let.",
                todo=f"Ask {root.owner} to let you: wio root set.",
            )
        if not root.kind.managed and new.folder is None:
            raise BadInput(f"{root.node}/{root.name} holds folders that are there.", todo="Say which one: --folder NAME.")
        return root

    # -------------------------------------------------------------------------------------------------- looking

    async def list(self, actor: Actor, which: str = "all") -> builtins.list[Workspace]:
        """List workspaces: ``mine``, ``shared`` (others gave me something), ``public``, or ``all`` of these. Raises BadInput.

        With ``public`` come those that describe themselves, whosever they are: name, owner and description alone, so that
        people can find them and ask for access. A workspace without a description is shown to nobody that has no right in it.
        """
        if which not in {"mine", "shared", "public", "all"}:
            raise BadInput(f"Workspaces cannot be listed by {shown(which)}.", todo="mine, shared, public or all.")
        async with self._database.read() as connection:
            now = self._clock.now()
            known = await standings.known(connection, actor.id, now)
            described = await standings.described(connection, actor.id, now) if which == "public" else []
        chosen = [one for one in known if held(actor, one).known]
        if which == "mine":
            chosen = [one for one in chosen if one.owner_id == actor.id]
        elif which == "shared":
            chosen = [one for one in chosen if one.owner_id != actor.id and (one.granted is not None or one.groups)]
        elif which == "public":
            there = {one.id for one in chosen}
            chosen = [one for one in chosen if _public(one)] + [one for one in described if one.id not in there]
            chosen.sort(key=lambda one: (one.owner, one.name))
        return [as_seen(actor, one) for one in chosen]

    async def show(self, actor: Actor, owner: str, name: str) -> Workspace:
        """Show one workspace; of one that describes itself no more than that to others. Raises UnknownWorkspace."""
        async with self._database.read() as connection:
            found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        standing = found.get((owner, name))
        if standing is None or not (held(actor, standing).known or standing.description):
            require(actor, standing, Permission.READ, f"{owner}/{name}")
            raise AssertionError  # pragma: no cover - require has raised
        return as_seen(actor, standing)


def check_description(text: str) -> str:
    """Return ``text`` if it may describe a workspace; raise BadInput."""
    if len(text) > _LONGEST_DESCRIPTION:
        raise BadInput(f"A description has at most {_LONGEST_DESCRIPTION} characters.")
    if not storable(text):
        raise BadInput("A description cannot hold NUL or half a character.")
    return text


def _may_create(actor: Actor, root: RootRow, mine: frozenset[tuple[int, Role]]) -> bool:
    return root.owner_id == actor.id or (root.id, Role.CREATE) in mine


async def _place(connection: AsyncConnection, actor: Actor, root: RootRow, new: NewWorkspace) -> str:
    """Return where a new workspace lies in its root's space; raise BadName or Overlap where it cannot.

    In a managed root that is the first free one of ``user/name/``, ``user/name-2/`` …: a renamed workspace stays where it
    is, one that was handed over too, and what somebody else left behind is theirs.
    """
    taken = await rows.prefixes(connection, root.id)
    if new.folder is None or root.owner_id != actor.id:
        taken += [prefix for prefix, owner in await rows.left(connection, root.id) if owner != actor.id]
    if new.folder is not None:
        folder = new.folder if new.folder.endswith("/") else new.folder + "/"
        check_prefix(locate(root.layout, root.bucket, root.prefix, check_prefix(folder)).key)
        _check_free(root, folder, taken)
        return folder
    first = workspace_prefix(root.layout, root.bucket, actor.username, new.name)
    others = {prefix for prefix in taken if prefix.startswith(first[:-1])}
    for number in range(2, 2 + len(others)):
        if first not in others:
            break
        first = workspace_prefix(root.layout, root.bucket, actor.username, f"{new.name}-{number}")
    if root.layout is not Layout.BUCKET:
        _check_free(root, first, taken)
    return first


def _check_free(root: RootRow, prefix: str, taken: builtins.list[str]) -> None:
    other = nested(prefix, taken)
    if other is not None:
        raise Overlap(
            f"{shown(prefix)} overlaps the workspace at {shown(other)} in {root.node}/{root.name}.",
            todo="Workspaces never nest: choose another folder.",
        )


def _taken(name: str) -> NameTaken:
    return NameTaken(f"You have a workspace called {name}.", todo="Choose another name.")


def _public(one: Standing) -> bool:
    return one.everyone is not None or one.kind.public


def as_seen(actor: Actor, one: Standing) -> Workspace:
    """Return a workspace as somebody may see it: who holds nothing in it sees what it is, not where or how large."""
    if not held(actor, one).known:
        return Workspace(
            id=one.id,
            owner=one.owner,
            name=one.name,
            node=one.node,
            root=one.root if one.kind is not RootKind.UNMANAGED_PRIVATE else "",
            bucket="",
            prefix="",
            description=one.description,
            public=False,
            permission=None,
            objects=0,
            bytes=0,
            created_at=one.created_at,
            archived_at=one.archived_at,
        )
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
        archived_at=one.archived_at,
        warnings=tuple(said for said in [strained(f"{one.owner}/{one.name}", Strain(one.strain))] if said),
    )
