"""Share and unshare, and the receipts that say what became of it on the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, grants, groups, nodes, past, people, standings
from hub.db.database import Database
from hub.db.grant_sets import SetBrief
from hub.db.grants import GrantRow, Listed
from hub.db.standings import Standing
from hub.domain.access import waits_for
from hub.services.audit import Audit
from hub.services.changes import Changes, Touched, Work
from hub.services.grantsets import EVERYONE, At, GrantSets, living
from hub.services.ports import Actor, Chance, Clock
from hub.services.reach import require
from hub.services.settling import Settling
from protocol.api import NewShare, Share, ShareChange
from protocol.errors import BadInput, BadLifetime, UnknownGroup, UnknownShare, UnknownUser
from protocol.grants import GrantSet, Permission, Receipt, Subject, SubjectKind
from protocol.messages import Epochs
from protocol.names import NodeId, shown

PUBLIC: Final = "public"
"""How people write everyone."""
_FARTHEST: Final = 7_258_118_400_000_000
"""Unix microseconds: the protocol's last moment, 2200."""


Wither = Callable[[int], Awaitable[tuple[Receipt, ...]]]


async def no_links(workspace: int) -> tuple[Receipt, ...]:
    """Stand in where there are no links."""
    del workspace
    return ()


class _Refused(msgspec.Struct, frozen=True):
    """A grant that the node does not want, what was given before, and the node's reason."""

    grant: GrantRow
    before: GrantRow | None
    reason: str


class Sharing:
    """Who a workspace is open to."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        sets: GrantSets,
        settling: Settling,
        wither: Wither = no_links,
    ) -> None:
        """``wither`` ends the links on a workspace that lean on access which is no more (``Links.wither``)."""
        self._wither = wither
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._sets = sets
        self._settling = settling
        self._changes = Changes(database=database, clock=clock, chance=chance, sets=sets)

    async def settle(self, node: NodeId, epochs: Epochs) -> None:
        """Bring a node that just connected to what is wanted of it (``Settling.settle``)."""
        await self._settling.settle(node, epochs)

    # -------------------------------------------------------------------------------------------------- looking

    async def shares(self, actor: Actor, owner: str, name: str) -> list[Share]:
        """List who a workspace is shared with now. Raises UnknownWorkspace, NoGrant."""
        now = self._clock.now()
        async with self._database.read() as connection:
            standing = await self._managed(connection, actor, owner, name)
            listed = await grants.of_workspace(connection, standing.id)
            sets = {(one.subject_kind, one.subject_id): one for one in await grant_sets.of_node(connection, standing.node_id)}
            unconfirmed = await self._unconfirmed(connection, standing)
            shares = []
            for one in listed:
                if one.grant.expires_at is not None and one.grant.expires_at <= now:
                    continue
                reason = await self._trouble(connection, standing, one, sets, unconfirmed)
                shares.append(_shown(one, reason))
        return shares

    async def _trouble(
        self,
        connection: AsyncConnection,
        standing: Standing,
        one: Listed,
        sets: dict[tuple[str, int], SetBrief],
        unconfirmed: str,
    ) -> str:
        """Say why the node does not agree with a grant by now; empty where it does, or will before it can matter."""
        if unconfirmed and one.grant.created_at < (standing.unconfirmed_since or 0):
            return unconfirmed
        briefs = [sets.get((one.grant.subject_kind, one.grant.subject_id))]
        if one.subject.kind is SubjectKind.GROUP:
            members = await groups.member_sets(connection, standing.node_id, one.subject.id)
            briefs += [sets.get((SubjectKind.PERSON, member.user_id)) for member in members]
        for brief in briefs:
            if brief is not None and (reason := await self._disagrees(connection, standing, one.grant, brief)):
                who = f"{brief.name}: " if brief.name and brief.subject_kind != one.grant.subject_kind else ""
                return who + reason
        return ""

    async def _disagrees(self, connection: AsyncConnection, standing: Standing, grant: GrantRow, brief: SetBrief) -> str:
        if brief.stale and not living(brief, self._clock.now()):
            return ""
        if brief.refused is not None:
            subject = grant_sets.subject_of(brief.subject_kind, brief.subject_id, brief.name)
            body = await grant_sets.body(connection, standing.node_id, subject)
            opened = msgspec.msgpack.decode(body, type=GrantSet).grants if body else ()
            enforced = {one.permission for one in opened if one.workspace == standing.id}
            # Where its owner lets people read only, the hub has made a set for reading of what they were given.
            less = enforced == {Permission.READ} and grant.permission != Permission.READ and standing.archived_at is None
            if brief.applied_epoch < brief.epoch or not enforced or less:
                return brief.refused
        return f"{standing.node} has not confirmed it yet." if brief.applied_epoch < brief.epoch else ""

    async def _unconfirmed(self, connection: AsyncConnection, standing: Standing) -> str:
        """Say that older shares wait for the node's owner; empty where they do not."""
        if standing.unconfirmed_since is None:
            return ""
        node = await nodes.by_id(connection, standing.node_id)
        told = waits_for(f"the owner of {standing.node}" if node is None else node.owner)
        return f"{told[0].upper()}{told[1:]}."

    async def _managed(self, connection: AsyncConnection, actor: Actor, owner: str, name: str) -> Standing:
        found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        return require(actor, found.get((owner, name)), Permission.MANAGE, f"{owner}/{name}")[0]

    async def _subject(self, connection: AsyncConnection, who: str) -> Subject:
        """Read ``public``, ``@group`` or a user name. Raises UnknownUser, UnknownGroup."""
        if who == PUBLIC:
            return EVERYONE
        if who.startswith("@"):
            group = await groups.by_name(connection, who[1:])
            if group is None:
                raise UnknownGroup(f"There is no group {shown(who)}.", todo="wio group ls shows them.")
            return group.subject
        user = await people.by_name(connection, who)
        if user is None or user.disabled_at is not None:
            raise UnknownUser(f"There is nobody called {shown(who)}.", todo="User names are lower case; public is everyone.")
        return Subject(SubjectKind.PERSON, user.id, user.username)

    # -------------------------------------------------------------------------------------------------- changing

    async def share(
        self, actor: Actor, owner: str, name: str, who: str, new: NewShare, *, also: Work[None] | None = None
    ) -> ShareChange:
        """Share a workspace, or change what a share allows; ``also`` is done in the same transaction.

        What the node refuses is taken back, where it refuses all of it: the receipts say so, and nothing is half done. Raises
        UnknownWorkspace, NoGrant, UnknownUser, UnknownGroup, BadLifetime, BadInput.
        """
        if new.until is not None and not self._clock.now() < new.until <= _FARTHEST:
            raise BadLifetime("A share cannot end in the past.", todo="Leave --until out, or give a date to come.")

        async def look(connection: AsyncConnection) -> tuple[Standing, Subject]:
            return await self._managed(connection, actor, owner, name), await self._subject(connection, who)

        standing, subject = await self._database.run_read(look)
        _check_sense(standing, subject, new.permission)
        grant = self._grant(actor, standing, subject, new)

        async def change(connection: AsyncConnection) -> GrantRow | None:
            # Looked at again: who may share, and what was shared, may have changed while this waited for its turn.
            await self._managed(connection, actor, owner, name)
            if await self._subject(connection, who) != subject:
                raise UnknownUser(f"There is no {shown(who)} any more.")
            before = await grants.find(connection, standing.id, subject.kind, subject.id)
            await past.end_grant(connection, standing.id, subject.kind, subject.id, at=grant.created_at)
            await grants.put(connection, grant)
            until = None if new.until is None else str(new.until)
            await self._record(connection, actor, "share", standing, subject, permission=new.permission, until=until)
            if also is not None:
                await also(connection)
            return before

        async with self._changes.making(_touches(standing, subject, new.permission), change) as made:
            before, refused = made.result, made.refused
        if refused:
            await self._take_back(actor, standing, subject, _Refused(grant, before, made.receipts[0].reason))
        living_before = _living_grant(before, grant.created_at)
        return ShareChange(
            workspace=f"{standing.owner}/{standing.name}",
            who=who,
            before=Permission(living_before.permission) if living_before else None,
            after=_permission(living_before) if refused else new.permission,
            since=living_before.created_at if living_before else None,
            receipts=made.receipts,
        )

    def _grant(self, actor: Actor, standing: Standing, subject: Subject, new: NewShare) -> GrantRow:
        return GrantRow(
            id=self._chance.new_id(),
            workspace_id=standing.id,
            subject_kind=str(subject.kind),
            subject_id=subject.id,
            permission=str(new.permission),
            expires_at=new.until,
            by_id=actor.id,
            created_at=self._clock.now(),
        )

    async def _take_back(self, actor: Actor, standing: Standing, subject: Subject, refused: _Refused) -> None:
        """Put back what was given before, here and on the node, after the node refused; not what was given since."""

        async def change(connection: AsyncConnection) -> None:
            now = await grants.find(connection, standing.id, subject.kind, subject.id)
            before = refused.before
            if now is not None and now.id == refused.grant.id:
                if before is None:
                    await grants.remove(connection, standing.id, subject.kind, subject.id)
                else:
                    await grants.put(connection, before)
                    await past.restore_grant(connection, before)
            await self._record(connection, actor, "share.refused", standing, subject, reason=refused.reason)

        async with self._changes.making(_touches(standing, subject, refused.grant.permission, told=False), change):
            pass

    async def unshare(self, actor: Actor, owner: str, name: str, who: str) -> ShareChange:
        """Take a share back, and with it the links that lean on it: each has a receipt too.

        Raises UnknownWorkspace, NoGrant, UnknownUser, UnknownShare.
        """

        async def look(connection: AsyncConnection) -> tuple[Standing, Subject]:
            standing = await self._managed(connection, actor, owner, name)
            return standing, await self._shared_with(connection, standing, who)

        standing, subject = await self._database.run_read(look)

        async def change(connection: AsyncConnection) -> GrantRow:
            await self._managed(connection, actor, owner, name)
            now = self._clock.now()
            found = await grants.find(connection, standing.id, subject.kind, subject.id)
            before = _living_grant(found, now)
            if before is None:
                raise UnknownShare(f"{standing.owner}/{standing.name} is not shared with {who}.")
            await past.end_grant(connection, standing.id, subject.kind, subject.id, at=now)
            await grants.remove(connection, standing.id, subject.kind, subject.id)
            await self._record(connection, actor, "unshare", standing, subject, permission=before.permission)
            return before

        async with self._changes.making(_touches(standing, subject), change) as made:
            before = made.result
        return ShareChange(
            workspace=f"{standing.owner}/{standing.name}",
            who=who,
            before=Permission(before.permission),
            after=None,
            since=before.created_at,
            receipts=made.receipts,
            links=await self._wither(standing.id),
        )

    async def _shared_with(self, connection: AsyncConnection, standing: Standing, who: str) -> Subject:
        """Read ``who`` where something is to be taken from them: somebody whose account was ended counts too."""
        user = None if who == PUBLIC or who.startswith("@") else await people.by_name(connection, who)
        if user is None:
            return await self._subject(connection, who)
        if user.id == standing.owner_id:
            raise UnknownShare(f"{who} owns {standing.name}: that is no share and cannot be taken back.")
        return Subject(SubjectKind.PERSON, user.id, user.username)

    async def _record(
        self,
        connection: AsyncConnection,
        actor: Actor,
        action: str,
        standing: Standing,
        subject: Subject,
        **detail: str | None,
    ) -> None:
        target = f"{standing.owner}/{standing.name}"
        told = {"who": subject.name, **detail}
        await self._audit.record(connection, actor, action, target, node=standing.node_id, workspace=standing.id, **told)


def _touches(standing: Standing, subject: Subject, permission: str | None = None, *, told: bool = True) -> Work[list[Touched]]:
    """Say whom a share touches: of a group each member where each has a folder of their own, before or after."""

    async def touches(connection: AsyncConnection) -> list[Touched]:
        before = await grants.find(connection, standing.id, subject.kind, subject.id)
        each = Permission.DROP in {permission, None if before is None else before.permission}
        return [Touched(At(NodeId(standing.node_id), standing.node), subject, standing.id, told, each)]

    return touches


def _shown(one: Listed, reason: str) -> Share:
    return Share(
        who=PUBLIC if one.subject.kind is SubjectKind.EVERYONE else one.subject.name,
        permission=Permission(one.grant.permission),
        since=one.grant.created_at,
        until=one.grant.expires_at,
        by=one.by,
        applied=not reason,
        reason=reason,
    )


def _check_sense(standing: Standing, subject: Subject, permission: Permission) -> None:
    if permission is Permission.TIDY:
        raise BadInput(
            "tidy is what writing becomes while a quota is exceeded; it cannot be given.",
            todo="Give read, drop, write or manage.",
        )
    if subject.kind is SubjectKind.PERSON and subject.id == standing.owner_id:
        raise BadInput(f"{subject.name} owns {standing.owner}/{standing.name} and may do everything in it already.")
    if subject.kind is SubjectKind.EVERYONE and permission in {Permission.DROP, Permission.MANAGE}:
        reason = "each dropper needs a folder of their own" if permission is Permission.DROP else "somebody has to decide"
        raise BadInput(f"{permission} cannot be given to everyone: {reason}.", todo="Give read or write, or name people.")


def _living_grant(grant: GrantRow | None, now: int) -> GrantRow | None:
    return grant if grant is not None and (grant.expires_at is None or grant.expires_at > now) else None


def _permission(grant: GrantRow | None) -> Permission | None:
    return None if grant is None else Permission(grant.permission)
