"""Presigned links: one file, opened to whoever has the address, for a time.

A link is a subject of its own on its node, so that revoking it touches nothing else, and it leans on who made it: the node
allows it what both may do, at every moment. So whatever ends its maker's access ends it in the same step; here that is made
final a moment later (``wither``). The agent signs the link and seals it; this hub relays what it cannot read.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, standings
from hub.db import links as rows
from hub.db.database import Database
from hub.db.grant_sets import LINK_OF
from hub.db.links import LinkRow
from hub.db.standings import Reached, Standing
from hub.domain.access import Denied, decide
from hub.domain.paths import Reading, readings
from hub.domain.quota import Strain
from hub.services.audit import HUB, Audit
from hub.services.credentials import read_client_key
from hub.services.grantsets import EVERYONE, Applied, At, GrantSets, Prepared, Wish, stale_lease
from hub.services.ports import Actor, Agents, Chance, Clock
from hub.services.reach import given, held, reaches, require, waiting
from protocol.api import Link, LinkMade, LinkRevoked, NewLink
from protocol.errors import (
    BadInput,
    BadLifetime,
    BadMessage,
    Internal,
    NodeOffline,
    NoGrant,
    NotFound,
    OverCeiling,
    OverQuota,
    Pending,
    TooMany,
    UnknownWorkspace,
    WioError,
    error_of,
)
from protocol.grants import Permission, Receipt, Subject, SubjectKind
from protocol.identity import to_text
from protocol.messages import LinkSigned, Report, SignLink
from protocol.names import NodeId, UserId, check_key, locate, shown

DEADLINE_S: Final = 10.0
EVERY_S: Final = 30.0
"""How often it is looked whether links have lost what they lean on, though nobody changed who may do what: shares end too."""
LOOK_S: Final = 1.0
"""How soon after such a change."""
MOST: Final = 200
"""Living links of one person: each is a user of its own on the storage server."""
LISTED: Final = 1000
KEPT_S: Final = 30 * 86_400
"""How long a link is remembered after its end; its node has forgotten it by then."""
_AT_ONCE: Final = 8
_MICROSECOND: Final = 1_000_000
_SLACK_S: Final = 30
"""Clocks of hub and node may differ by so much before keys are thought to be gone too soon."""
_TRIES: Final = 3


class _Wanted(msgspec.Struct, frozen=True):
    """A link that may be made. ``key`` in the workspace; ``bucket`` and ``place`` on the node."""

    reached: Reached
    report: Report
    path: str
    key: str
    bucket: str
    place: str

    @property
    def standing(self) -> Standing:
        """The workspace."""
        return self.reached.standing

    @property
    def node(self) -> At:
        """The node."""
        return At(NodeId(self.standing.node_id), self.standing.node)


class _Moved(Exception):
    pass


class Links:
    """Makes links, lists them, ends them."""

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

    async def make(self, actor: Actor, new: NewLink) -> LinkMade:
        """Make a link and return it sealed.

        Raises BadInput, BadName, BadLifetime, UnknownWorkspace, NoGrant, OverCeiling, OverQuota, TooMany, NodeOffline,
        DeadlinePassed, and what the node says. Where it raises there is no link.
        """
        client_key = read_client_key(new.client_key)
        for _ in range(_TRIES):
            wanted = await self._wanted(actor, new)
            try:
                link, prepared = await self._written(actor, new, wanted)
            except _Moved:
                continue  # somebody shared or revoked meanwhile: looked at again
            try:
                signed = await self._signed(link, prepared, wanted, client_key, new.life_s)
            except BaseException:
                await asyncio.shield(self._abandon(link))
                raise
            return LinkMade(
                link=_shown(link),
                node_id=link.node_id,
                node_key=to_text(wanted.reached.key),
                request=signed.request,
                sealed=to_text(signed.credential.sealed),
                signature=to_text(signed.credential.signature),
                expires_at=signed.credential.expires,
            )
        raise Pending(f"What {actor.username} may do there changes faster than a link is made.", todo="Try again.")

    async def _wanted(self, actor: Actor, new: NewLink) -> _Wanted:
        """Find the file and see that its node may be asked for a link to it."""
        read = readings(new.path, actor.username)
        now = self._clock.now()
        names = {(one.owner, one.name) for one in read}
        lease = stale_lease(now)
        found = await self._database.run_glance(
            lambda connection: standings.reached(connection, actor.id, names, now, lease=lease)
        )
        reading = next((one for one in read if (one.owner, one.name) in found), read[0])
        reached = found.get((reading.owner, reading.name))
        wanted = _open(actor, new, reading, reached)
        _check_life(new.life_s, wanted)
        if wanted.standing.unconfirmed_since is not None:
            raise waiting(f"{reading.owner}/{reading.name}", wanted.standing.node)
        if not self._agents.online(wanted.node.id):
            raise NodeOffline(
                f"{wanted.node.name} is not connected, so no link can be made.",
                todo="Links that are out go on working. Try again later.",
            )
        return wanted

    async def _written(self, actor: Actor, new: NewLink, wanted: _Wanted) -> tuple[LinkRow, Prepared]:
        """Write the link down, with its set, once the node has whatever its maker's access is made of.

        From here on a change of that access is sent to the node at once, for as long as the link lives. Raises _Moved where
        something has changed since it was looked at.
        """
        node, person = wanted.node, Subject(SubjectKind.PERSON, actor.id, actor.username)
        await self._sets.ready_groups(node, person)
        everyones, mine = await asyncio.gather(
            self._sets.ready(node, EVERYONE), self._sets.ready(node, person), return_exceptions=True
        )
        for outcome in (everyones, mine):
            if isinstance(outcome, BaseException):
                raise outcome
        now = self._clock.now()
        ends = now + new.life_s * _MICROSECOND
        until = ends + _SLACK_S * _MICROSECOND
        subject = Subject(SubjectKind.LINK, self._chance.new_id(), f"{actor.username}{LINK_OF}")

        async def write(connection: AsyncConnection) -> Prepared:
            if await rows.count(connection, actor.id, now) >= MOST:
                raise TooMany(f"You have {MOST} links that work.", todo="End some first: wio links rm N, or --all.")
            await rows.add(
                connection,
                id=subject.id,
                node_id=node.id,
                workspace_id=wanted.standing.id,
                by_id=actor.id,
                key=wanted.key,
                put=new.put,
                created_at=now,
                expires_at=ends,
            )
            wish = Wish(workspace=wanted.standing.id, first=True)
            if not await grant_sets.hold_keys(connection, node.id, EVERYONE, epoch=everyones, until=until):  # type: ignore[arg-type]  # no exception: raised above
                raise _Moved
            prepared = await self._sets.prepare_one(connection, node, subject, wish)
            await grant_sets.raise_keys(connection, node.id, subject, until=until)
            if not await grant_sets.hold_keys(connection, node.id, person, epoch=mine, until=until):  # type: ignore[arg-type]  # no exception: raised above
                raise _Moved
            await self._record(
                connection, actor, "link.make", _called(wanted), wanted.standing, subject, ends, put=new.put or None
            )
            if prepared is None:
                raise Internal("A new link has no set.")
            return prepared

        prepared = await self._database.run_write(write)
        async with self._database.read() as connection:
            link = await rows.by_id(connection, subject.id)
        if link is None:
            raise Internal("A link that was written is not there.")
        return link, prepared

    async def _signed(self, link: LinkRow, prepared: Prepared, wanted: _Wanted, client_key: bytes, life_s: int) -> LinkSigned:
        """Send the link's set, and have its node sign. Raises what keeps it from that."""
        node, subject = wanted.node, _subject(link)
        async with self._sets.turns(node.id, subject):
            prepared, outcome = await self._sets.transmit(prepared)
        if not isinstance(outcome, Applied):
            raise Internal("A set that was to be sent was not.") if outcome is None else error_of(outcome.problem)
        epoch = prepared.epoch
        for left in reversed(range(_TRIES)):
            try:
                return await self._ask(link, epoch, wanted, client_key, life_s)
            except (Pending, NoGrant):
                if not left:
                    raise
                # The node lacks a set that it had: it was restored, or lost its state.
                maker = Subject(SubjectKind.PERSON, link.by_id, link.by)
                for one in (EVERYONE, *await self._sets.groups_of(node, maker), maker):
                    await self._sets.ready(node, one, again=True)
                epoch = await self._sets.ready(node, subject, again=True)
        raise Internal("A link was tried no further.")

    async def _ask(self, link: LinkRow, epoch: int, wanted: _Wanted, client_key: bytes, life_s: int) -> LinkSigned:
        subject, place = _subject(link), (wanted.bucket, wanted.place, link.put)
        answer = await self._agents.ask(
            wanted.node.id,
            lambda request, deadline: SignLink(request, deadline, subject, epoch, client_key, life_s, *place),
            deadline_s=DEADLINE_S,
        )
        if not isinstance(answer, LinkSigned):
            raise BadMessage(f"{wanted.node.name} gave an answer to SignLink that does not fit.")
        return answer

    async def _abandon(self, link: LinkRow) -> None:
        """End a link that was not handed out."""
        try:
            await self._end([link], HUB, reason="it could not be made")
        except WioError:
            return  # it is written down as ended, and sent again

    # -------------------------------------------------------------------------------------------------- looking

    async def list(self, actor: Actor, path: str | None = None) -> builtins.list[Link]:
        """List the links that work: one's own, or those below a path; everybody's for who manages the workspace there.

        Raises BadName, UnknownWorkspace.
        """
        now = self._clock.now()
        if path is None:
            async with self._database.read() as connection:
                found = await rows.living(connection, now, by=actor.id, most=LISTED)
            return [_shown(one) for one in found if one.name is not None]
        read = readings(path, actor.username)

        async def look(connection: AsyncConnection) -> builtins.list[LinkRow]:
            known = await standings.named(connection, actor.id, [(one.owner, one.name) for one in read], now)
            reading = next((one for one in read if (one.owner, one.name) in known), read[0])
            standing = known.get((reading.owner, reading.name))
            if standing is None or not held(actor, standing).known:
                require(actor, None, Permission.READ, path)
                raise UnknownWorkspace(f"There is no workspace {shown(path)}.")
            manages = not isinstance(decide(held(actor, standing), Permission.MANAGE), Denied)
            by = None if manages else actor.id
            found = await rows.living(connection, now, workspace=standing.id, by=by, most=LISTED)
            return [one for one in found if _below(one.key, reading.rest)]

        return [_shown(one) for one in await self._database.run_read(look)]

    # -------------------------------------------------------------------------------------------------- ending

    async def revoke(self, actor: Actor, link: int) -> LinkRevoked:
        """End a link. Whoever made it may, and whoever manages the workspace. Raises NotFound."""

        async def look(connection: AsyncConnection) -> LinkRow:
            row = await rows.by_id(connection, link)
            if row is None or not await self._may_end(connection, actor, row):
                raise NotFound(f"There is no link {link}, or none that you may end.", todo="wio links shows them.")
            return row

        row = await self._database.run_read(look)
        [receipt] = await self._end([row], actor)
        async with self._database.read() as connection:
            after = await rows.by_id(connection, link)
        return LinkRevoked(_shown(after or row), receipt)

    async def _may_end(self, connection: AsyncConnection, actor: Actor, row: LinkRow) -> bool:
        if row.owner is None or row.name is None:
            return False
        if row.by_id == actor.id:
            return True
        key = (row.owner, row.name)
        standing = (await standings.named(connection, actor.id, [key], self._clock.now())).get(key)
        return standing is not None and not isinstance(decide(held(actor, standing), Permission.MANAGE), Denied)

    async def wither(self, workspace: int | None = None) -> tuple[Receipt, ...]:
        """End for good the links whose makers have lost what they lean on: all, or those on one workspace.

        On their nodes they opened nothing from that very change on. Now they do not come back with what was lost.
        """
        now = self._clock.now()

        async def look(connection: AsyncConnection) -> builtins.list[LinkRow]:
            found = await rows.living(connection, now, workspace=workspace)
            lost: builtins.list[LinkRow] = []
            for maker in sorted({one.by_id for one in found}):
                mine = [one for one in found if one.by_id == maker]
                names = {(one.owner, one.name) for one in mine if one.owner is not None and one.name is not None}
                known = await standings.named(connection, maker, names, now)
                lost += [one for one in mine if _lost(one, known.get((one.owner or "", one.name or "")))]
            return lost

        lost = await self._database.run_read(look)
        return await self._end(lost, HUB, reason="who made it may do that no more") if lost else ()

    async def _end(self, which: Sequence[LinkRow], by: Actor, *, reason: str | None = None) -> tuple[Receipt, ...]:
        """End links, here and on their nodes, and return a receipt for each."""
        ordered = sorted(which, key=lambda one: (one.node_id, one.id))
        async with self._sets.all_turns((one.node_id, _subject(one)) for one in ordered):

            async def write(connection: AsyncConnection) -> builtins.list[Prepared]:
                await rows.revoke(connection, [one.id for one in ordered], at=self._clock.now())
                made = []
                for one in ordered:
                    at = At(NodeId(one.node_id), one.node)
                    made.append(
                        await self._sets.prepare_one(connection, at, _subject(one), Wish(one.workspace_id, receipt=True))
                    )
                    if one.revoked_at is None:
                        await self._record_end(connection, by, one, reason)
                return [one for one in made if one is not None]

            prepared = await self._database.run_write(write)
            slots = asyncio.Semaphore(_AT_ONCE)

            async def send(one: Prepared) -> Receipt:
                async with slots:
                    return self._sets.told(*await self._sets.transmit(one))

            return tuple(await asyncio.gather(*(send(one) for one in prepared)))

    # -------------------------------------------------------------------------------------------------- upkeep

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            before = await self._database.run_read(standings.version)
            await self.step()
            for _ in range(int(EVERY_S / LOOK_S)):
                await asyncio.sleep(LOOK_S)
                if await self._database.run_read(standings.version) != before:
                    break

    async def step(self) -> None:
        """End what has lost what it leans on, and forget what ended long ago."""
        await self.wither()
        before = self._clock.now() - KEPT_S * _MICROSECOND
        await self._database.run_write(lambda connection: rows.forget(connection, before))

    # -------------------------------------------------------------------------------------------------- audit

    async def _record(  # noqa: PLR0917 - what a line holds
        self,
        connection: AsyncConnection,
        actor: Actor,
        action: str,
        target: str,
        standing: Standing,
        subject: Subject,
        ends: int,
        *,
        put: bool | None,
    ) -> None:
        place = {"node": standing.node_id, "workspace": standing.id}
        await self._audit.record(connection, actor, action, target, **place, link=subject.id, until=str(ends), put=put)

    async def _record_end(self, connection: AsyncConnection, by: Actor, link: LinkRow, reason: str | None) -> None:
        target = _path(link)
        place = {"node": link.node_id, "workspace": link.workspace_id}
        await self._audit.record(connection, by, "link.revoke", target, **place, link=link.id, by=link.by, reason=reason)


# ------------------------------------------------------------------------------------------------------ pure


def _open(actor: Actor, new: NewLink, reading: Reading, reached: Reached | None) -> _Wanted:
    """See that a link may be made to what a path means, and where that is on its node."""
    want = Permission.DROP if new.put else Permission.READ
    standing, _ = require(actor, None if reached is None else reached.standing, want, new.path)
    if reached is None:
        raise Internal("A workspace that may be used was not found.")
    if not reading.rest or reading.rest.endswith("/"):
        raise BadInput(f"{shown(new.path)} is a folder; a link is for one file.", todo="For folders: wio share.")
    if {"", ".", ".."} & set(reading.rest.split("/")):
        raise BadInput(f"{shown(new.path)} has an empty, . or .. part: programs would change such an address on the way.")
    called = f"{standing.owner}/{standing.name}"
    if new.put and standing.strain == Strain.OVER:
        raise OverQuota(
            f"{called} is over its quota: nothing can be added to it now.",
            todo=f"Ask {standing.owner} to make room, then try again.",
        )
    _, place = reaches(actor, standing)  # who may only drop gets in at their own folder
    whole = place.key + reading.rest
    check_key(whole)
    if reached.report is None:
        raise NodeOffline(f"{standing.node} has not said yet how it is reached.", todo="Try again in a moment.")
    report = msgspec.msgpack.decode(reached.report, type=Report)
    inside = whole[len(locate(standing.layout, standing.bucket, standing.root_prefix, standing.prefix).key) :]
    return _Wanted(reached, report, new.path, inside, place.bucket, whole)


def _check_life(life_s: int, wanted: _Wanted) -> None:
    longest, node = wanted.report.longest_link_s, wanted.node.name
    if not longest:
        raise OverCeiling(f"The owner of {node} wants no presigned links.", todo="Share the folder, or ask them.")
    if not 1 <= life_s <= longest:
        raise BadLifetime(
            f"A link on {node} lives 1 s to {longest} s; {life_s} s were asked for.", todo="Choose another --expires."
        )


def _lost(link: LinkRow, standing: Standing | None) -> bool:
    if link.by_disabled_at is not None or standing is None or standing.id != link.workspace_id:
        return True
    maker = Actor(UserId(link.by_id), link.by, admin=False)
    want = Permission.DROP if link.put else Permission.READ
    return isinstance(decide(given(maker, standing), want), Denied)


def _below(key: str, above: str) -> bool:
    folder = above if not above or above.endswith("/") else above + "/"
    return key == above or key.startswith(folder)


def _subject(link: LinkRow) -> Subject:
    return Subject(SubjectKind.LINK, link.id, f"{link.by}{LINK_OF}")


def _path(link: LinkRow) -> str:
    return f"{link.owner}/{link.name}/{link.key}" if link.name is not None else link.key


def _called(wanted: _Wanted) -> str:
    return f"{wanted.standing.owner}/{wanted.standing.name}/{wanted.key}"


def _shown(link: LinkRow) -> Link:
    return Link(
        id=link.id,
        by=link.by,
        path=_path(link),
        node=link.node,
        put=link.put,
        created_at=link.created_at,
        expires_at=link.expires_at,
        revoked_at=link.revoked_at,
    )
