"""Share and unshare, and the receipts that say what became of it on the node."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, grants, people, standings
from hub.db.database import Database
from hub.db.grant_sets import SetBrief
from hub.db.grants import GrantRow, Listed
from hub.db.standings import Standing
from hub.services.audit import Audit
from hub.services.grantsets import EVERYONE, At, GrantSets, Prepared, living
from hub.services.ports import Actor, Chance, Clock
from hub.services.reach import require
from hub.services.settling import Settling
from protocol.api import NewShare, Share, ShareChange
from protocol.errors import BadInput, BadLifetime, UnknownShare, UnknownUser
from protocol.grants import GrantSet, Permission, Receipt, ReceiptState, Subject, SubjectKind
from protocol.messages import Epochs
from protocol.names import NodeId, shown

PUBLIC: Final = "public"
"""How people write everyone."""
_FARTHEST: Final = 7_258_118_400_000_000
"""Unix microseconds: the protocol's last moment, 2200."""


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
    ) -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._sets = sets
        self._settling = settling

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
            shares = []
            for one in listed:
                if one.grant.expires_at is not None and one.grant.expires_at <= now:
                    continue
                brief = sets.get((one.grant.subject_kind, one.grant.subject_id))
                shares.append(await self._share(connection, standing, one, brief))
        return shares

    async def _share(self, connection: AsyncConnection, standing: Standing, one: Listed, brief: SetBrief | None) -> Share:
        reason = await self._trouble(connection, standing, one, brief)
        return Share(
            who=one.username or PUBLIC,
            permission=Permission(one.grant.permission),
            since=one.grant.created_at,
            until=one.grant.expires_at,
            by=one.by,
            applied=not reason,
            reason=reason,
        )

    async def _trouble(self, connection: AsyncConnection, standing: Standing, one: Listed, brief: SetBrief | None) -> str:
        """Say why the node does not agree with a grant by now; empty where it does, or will before it can matter."""
        if brief is None or (brief.stale and not living(brief, self._clock.now())):
            return ""
        if brief.refused is not None:
            subject = Subject(SubjectKind(one.grant.subject_kind), one.grant.subject_id, one.username or PUBLIC)
            body = await grant_sets.body(connection, standing.node_id, subject)
            enforced = {grant.workspace for grant in msgspec.msgpack.decode(body, type=GrantSet).grants} if body else set()
            if brief.applied_epoch < brief.epoch or standing.id not in enforced:
                return brief.refused
        return f"{standing.node} has not confirmed it yet." if brief.applied_epoch < brief.epoch else ""

    async def _managed(self, connection: AsyncConnection, actor: Actor, owner: str, name: str) -> Standing:
        found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        return require(actor, found.get((owner, name)), Permission.MANAGE, f"{owner}/{name}")[0]

    async def _subject(self, connection: AsyncConnection, who: str) -> Subject:
        """Read ``public``, ``@group`` or a user name. Raises UnknownUser."""
        if who == PUBLIC:
            return EVERYONE
        if who.startswith("@"):
            raise UnknownUser(f"There is no group {shown(who)}: this hub has no groups yet.", todo="Name people one by one.")
        user = await people.by_name(connection, who)
        if user is None or user.disabled_at is not None:
            raise UnknownUser(f"There is nobody called {shown(who)}.", todo="User names are lower case; public is everyone.")
        return Subject(SubjectKind.PERSON, user.id, user.username)

    # -------------------------------------------------------------------------------------------------- changing

    async def share(self, actor: Actor, owner: str, name: str, who: str, new: NewShare) -> ShareChange:
        """Share a workspace, or change what a share allows.

        What the node refuses is taken back: the receipt says so, and nothing is half done. Raises UnknownWorkspace,
        NoGrant, UnknownUser, BadLifetime, BadInput.
        """
        if new.until is not None and not self._clock.now() < new.until <= _FARTHEST:
            raise BadLifetime("A share cannot end in the past.", todo="Leave --until out, or give a date to come.")

        async def look(connection: AsyncConnection) -> tuple[Standing, Subject]:
            return await self._managed(connection, actor, owner, name), await self._subject(connection, who)

        standing, subject = await self._database.run_read(look)
        _check_sense(standing, subject, new.permission)
        node = At(NodeId(standing.node_id), standing.node)
        grant = self._grant(actor, standing, subject, new)

        async def change(connection: AsyncConnection) -> tuple[GrantRow | None, Prepared]:
            # Looked at again: who may share, and what was shared, may have changed while this waited for its turn.
            await self._managed(connection, actor, owner, name)
            before = await grants.find(connection, standing.id, subject.kind, subject.id)
            await grants.put(connection, grant)
            until = None if new.until is None else str(new.until)
            await self._record(connection, actor, "share", standing, subject, permission=new.permission, until=until)
            [prepared] = await self._sets.prepare(connection, node, subject, workspace=standing.id, with_receipt=True)
            return before, prepared

        async with self._sets.turns(node.id, subject):
            before, prepared = await self._database.run_write(change)
            receipt = await self._sets.deliver(prepared)
            if receipt.state is ReceiptState.REFUSED:
                await self._take_back(actor, standing, prepared, before, receipt)
        living_before = _living_grant(before, grant.created_at)
        return ShareChange(
            workspace=f"{standing.owner}/{standing.name}",
            who=who,
            before=Permission(living_before.permission) if living_before else None,
            after=_permission(living_before) if receipt.state is ReceiptState.REFUSED else new.permission,
            since=living_before.created_at if living_before else None,
            receipts=(receipt,),
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

    async def _take_back(
        self, actor: Actor, standing: Standing, prepared: Prepared, before: GrantRow | None, receipt: Receipt
    ) -> None:
        """Put back what was given before, here and on the node, after the node refused."""
        subject = prepared.subject
        async with self._database.write() as connection:
            if before is None:
                await grants.remove(connection, standing.id, subject.kind, subject.id)
            else:
                await grants.put(connection, before)
            await self._record(connection, actor, "share.refused", standing, subject, reason=receipt.reason)
            again = await self._sets.prepare(connection, prepared.node, subject)
        for one in again:
            await self._sets.transmit(one)

    async def unshare(self, actor: Actor, owner: str, name: str, who: str) -> ShareChange:
        """Take a share back. Raises UnknownWorkspace, NoGrant, UnknownUser, UnknownShare."""

        async def look(connection: AsyncConnection) -> tuple[Standing, Subject]:
            standing = await self._managed(connection, actor, owner, name)
            return standing, await self._shared_with(connection, standing, who)

        standing, subject = await self._database.run_read(look)
        node = At(NodeId(standing.node_id), standing.node)

        async def change(connection: AsyncConnection) -> tuple[GrantRow, Prepared]:
            await self._managed(connection, actor, owner, name)
            found = await grants.find(connection, standing.id, subject.kind, subject.id)
            before = _living_grant(found, self._clock.now())
            if before is None:
                raise UnknownShare(f"{standing.owner}/{standing.name} is not shared with {who}.")
            await grants.remove(connection, standing.id, subject.kind, subject.id)
            await self._record(connection, actor, "unshare", standing, subject, permission=before.permission)
            [prepared] = await self._sets.prepare(connection, node, subject, workspace=standing.id, with_receipt=True)
            return before, prepared

        async with self._sets.turns(node.id, subject):
            before, prepared = await self._database.run_write(change)
            receipt = await self._sets.deliver(prepared)
        return ShareChange(
            workspace=f"{standing.owner}/{standing.name}",
            who=who,
            before=Permission(before.permission),
            after=None,
            since=before.created_at,
            receipts=(receipt,),
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


def _check_sense(standing: Standing, subject: Subject, permission: Permission) -> None:
    if subject.kind is SubjectKind.PERSON and subject.id == standing.owner_id:
        raise BadInput(f"{subject.name} owns {standing.owner}/{standing.name} and may do everything in it already.")
    if subject.kind is SubjectKind.EVERYONE and permission in {Permission.DROP, Permission.MANAGE}:
        reason = "each dropper needs a folder of their own" if permission is Permission.DROP else "somebody has to decide"
        raise BadInput(f"{permission} cannot be given to everyone: {reason}.", todo="Give read or write, or name people.")


def _living_grant(grant: GrantRow | None, now: int) -> GrantRow | None:
    return grant if grant is not None and (grant.expires_at is None or grant.expires_at > now) else None


def _permission(grant: GrantRow | None) -> Permission | None:
    return None if grant is None else Permission(grant.permission)
