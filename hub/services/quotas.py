"""Quotas: set and looked at by people, watched and enforced by a step that follows the catalogue.

``used`` is what the catalogue's running totals say. Whenever they have moved, the quotas over the roots concerned are
measured in one query; one that is exceeded is written down together with every grant set it changes (marked stale, so no
key can be made with the old one), and then the sets with keys out are compiled and sent. Back below, the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import facts, grant_sets, people, roles, standings
from hub.db import quotas as rows
from hub.db import roots as root_rows
from hub.db.database import Database
from hub.db.quotas import Concerned, Counted, Measured, QuotaRow
from hub.db.roots import RootRow
from hub.db.standings import Standing
from hub.domain.quota import Trait, caveats, exceeded, size
from hub.services.audit import HUB, Audit
from hub.services.grantsets import Applied, At, GrantSets, Refused, living
from hub.services.ports import Actor, Chance, Clock
from hub.services.reach import held
from hub.services.roots import may_know
from protocol.api import NewQuota, Quota, QuotaKind
from protocol.errors import BadInput, NotAllowed, NotFound, UnknownRoot, UnknownUser, UnknownWorkspace
from protocol.messages import Finding, Report
from protocol.names import NodeId, shown

_LOG: Final = logging.getLogger("wio.hub.quotas")

SWEEP_S: Final = 15.0
"""How often all quotas are measured, whatever was said to have moved: a retired root, a restart."""
_AT_ONCE: Final = 8
"""Sets sent at the same time."""
_MOST: Final = 1 << 62
"""Bytes that a quota may name: what the database holds, with room to add."""
_DIRECTORY: Final = "directory"
"""What a node's report calls a plain directory."""

_PairKey: TypeAlias = tuple[int, str, int]
_Measure: TypeAlias = Callable[[AsyncConnection], Coroutine[Any, Any, list[Measured]]]


class Turn(msgspec.Struct, frozen=True):
    """A hard quota that has just become exceeded, or is not any more, and the grant sets that change by it.

    ``moved_at``: when the bytes that did it came into the catalogue, Unix microseconds.
    """

    quota: int
    of: str
    kind: str
    node: int | None
    workspace: int | None
    over: bool
    moved_at: int
    sets: tuple[Concerned, ...]


class QuotaStep:
    """Watches quotas and enforces them. ``run`` is the loop, ``step`` one round of it."""

    def __init__(self, *, database: Database, clock: Clock, audit: Audit, sets: GrantSets, sweep_s: float = SWEEP_S) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._sets = sets
        self._sweep_s = sweep_s
        self._moved: dict[int, int] = {}
        self._sweep = True
        self._turns: list[Turn] = []
        self._stirred = asyncio.Event()

    def moved(self, roots: Iterable[int], at: int) -> None:
        """Say that the totals of these roots, or of workspaces in them, have moved at Unix microsecond ``at``."""
        for root in roots:
            self._moved.setdefault(root, at)
        if self._moved:
            self._stirred.set()

    def charged(self) -> None:
        """Say that what quotas count has moved though no file has, as by a hand-over: all of them are measured now."""
        self._sweep = True
        self._stirred.set()

    def turned(self, turns: Sequence[Turn]) -> None:
        """Take over the enforcing of what ``decide`` has found in somebody else's transaction, once that is committed."""
        self._turns += turns
        self._stirred.set()

    # -------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Decide as soon as something moves; enforce meanwhile, so that a slow node holds up nothing but itself."""
        async with asyncio.TaskGroup() as enforcing:
            while True:
                try:
                    async with asyncio.timeout(self._sweep_s):
                        await self._stirred.wait()
                except TimeoutError:
                    self._sweep = True
                turns = await self._due()
                if turns:
                    enforcing.create_task(self.enforce(turns))

    async def step(self) -> int:
        """Decide on all that has moved and enforce it; return how many quotas have turned."""
        turns = await self._due()
        await self.enforce(turns)
        return len(turns)

    async def _due(self) -> list[Turn]:
        self._stirred.clear()
        moved, self._moved = self._moved, {}
        sweep, self._sweep = self._sweep, False
        given, self._turns = self._turns, []
        try:
            if sweep:
                await self._database.run_write(rows.forget_dangling)
                return given + await self._decided(rows.everything, moved)
            return given + (await self._decided(lambda one: rows.of_roots(one, moved), moved) if moved else [])
        except BaseException:
            self._sweep = True  # nothing is lost: the next round measures everything
            self._turns = given + self._turns
            raise

    async def _decided(self, measure: _Measure, moved: dict[int, int]) -> list[Turn]:
        at = min(moved.values(), default=self._clock.now())

        async def look(connection: AsyncConnection) -> bool:
            return any(_turns(one) for one in await measure(connection))

        async def decide(connection: AsyncConnection) -> list[Turn]:
            return await self.decide(connection, await measure(connection), at)

        if not await self._database.run_read(look):
            return []
        return await self._database.run_write(decide)

    # -------------------------------------------------------------------------------------------------- deciding

    async def decide(self, connection: AsyncConnection, measured: Iterable[Measured], at: int) -> list[Turn]:
        """Write down how these quotas stand, in a transaction that may write; return those whose hard limit has turned.

        Every grant set that changes by it is stale from this transaction on. To be called after everything else in it.
        """
        turns = []
        now = self._clock.now()
        for one in measured:
            row = one.row
            over = exceeded(one.used, row.hard, before=row.over_since is not None)
            warned = exceeded(one.used, row.soft, before=row.warned_at is not None)
            turned, warning = over != (row.over_since is not None), warned != (row.warned_at is not None)
            if not turned and not warning:
                continue
            since = (row.over_since or now) if over else None
            await rows.turn(connection, row.id, over_since=since, warned_at=(row.warned_at or now) if warned else None)
            if warning:
                await self._record(connection, one, "quota.warn" if warned else "quota.calm", limit=row.soft)
            if turned:
                await self._record(connection, one, "quota.over" if over else "quota.under", limit=row.hard)
                sets = tuple(await rows.concerned(connection, row.id))
                turns.append(Turn(row.id, one.of, row.kind, one.node, row.workspace_id or None, over, at, sets))
        if turns:
            await rows.mark_stale(connection, list({_key(one): one for turn in turns for one in turn.sets}.values()))
            await standings.changed(connection)
        return turns

    async def _record(self, connection: AsyncConnection, one: Measured, action: str, *, limit: int | None) -> None:
        workspace = one.row.workspace_id or None
        await self._audit.record(
            connection,
            HUB,
            action,
            one.of,
            node=one.node,
            workspace=workspace,
            kind=one.row.kind,
            used=one.used,
            limit=limit,
        )

    # -------------------------------------------------------------------------------------------------- enforcing

    async def enforce(self, turns: Sequence[Turn]) -> None:
        """Bring the sets with keys out to the nodes, each once, and note how long it took."""
        now = self._clock.now()
        due = {_key(one): one for turn in turns for one in turn.sets if living(one.set, now)}
        slots = asyncio.Semaphore(_AT_ONCE)
        outcomes: dict[_PairKey, str] = {}

        async def bring(key: _PairKey, one: Concerned) -> None:
            async with slots:
                outcomes[key] = await self._bring(one)

        for failed in await asyncio.gather(*(bring(*item) for item in due.items()), return_exceptions=True):
            if failed is not None:
                _LOG.error("A grant set could not be compiled for a quota: %s", failed, exc_info=failed)
        if turns:
            await self._database.run_write(lambda connection: self._note(connection, turns, outcomes))

    async def _bring(self, one: Concerned) -> str:
        node = At(NodeId(one.node_id), one.node)
        subject = grant_sets.subject_of(one.set.subject_kind, one.set.subject_id, one.set.name)
        async with self._sets.turns(node.id, subject):
            prepared = await self._database.run_write(lambda connection: self._sets.prepare(connection, node, subject))
            for each in prepared:
                _, outcome = await self._sets.transmit(each)
                if isinstance(outcome, Applied) or outcome is None:
                    continue
                return "refused" if isinstance(outcome, Refused) else "waiting"
        return "enforced"

    async def _note(self, connection: AsyncConnection, turns: Sequence[Turn], outcomes: dict[_PairKey, str]) -> None:
        now = self._clock.now()
        for turn in turns:
            told = [outcomes.get(_key(one), "") for one in turn.sets]
            await self._audit.record(
                connection,
                HUB,
                "quota.enforced" if turn.over else "quota.lifted",
                turn.of,
                node=turn.node,
                workspace=turn.workspace,
                kind=turn.kind,
                ms=max(0, now - turn.moved_at) // 1000,
                sets=told.count("enforced"),
                waiting=told.count("waiting") or None,
                refused=told.count("refused") or None,
            )


def _key(one: Concerned) -> _PairKey:
    return one.node_id, one.set.subject_kind, one.set.subject_id


def _turns(one: Measured) -> bool:
    row = one.row
    over, warned = row.over_since is not None, row.warned_at is not None
    return (exceeded(one.used, row.hard, before=over), exceeded(one.used, row.soft, before=warned)) != (over, warned)


class _Target(msgspec.Struct, frozen=True):
    """What a quota is to be set on. ``above``: whether whoever asks decides about its root, not only about a workspace."""

    user: int = 0
    root: int = 0
    workspace: int = 0
    above: bool = True


class Quotas:
    """What people do with quotas."""

    def __init__(self, *, database: Database, clock: Clock, chance: Chance, audit: Audit, step: QuotaStep) -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._step = step

    async def list(self, actor: Actor) -> list[Quota]:
        """List the quotas that concern somebody; an admin sees all."""

        async def look(connection: AsyncConnection) -> list[Quota]:
            if actor.admin:
                found = await rows.everything(connection)
            else:
                found = await rows.concerning(connection, actor.id, self._clock.now())
            return await _shown(connection, found)

        return await self._database.run_read(look)

    async def put(self, actor: Actor, new: NewQuota) -> Quota:
        """Set a quota or change it; it is enforced as soon as this returns has been committed.

        Raises BadInput, UnknownUser, UnknownRoot, UnknownWorkspace, NotAllowed.
        """
        _check(new)

        async def change(connection: AsyncConnection) -> tuple[Quota, list[Turn]]:
            target = await self._target(connection, actor, new)
            before = await rows.find(connection, new.kind, target.user, target.root, target.workspace)
            _check_above(actor, target, before)
            row = QuotaRow(
                id=self._chance.new_id() if before is None else before.id,
                kind=str(new.kind),
                user_id=target.user,
                root_id=target.root,
                workspace_id=target.workspace,
                soft=new.soft,
                hard=new.hard,
                by_id=actor.id,
                created_at=self._clock.now(),
                over_since=None,
                warned_at=None,
            )
            await rows.put(connection, row)
            measured = await rows.some(connection, [row.id])
            await self._record(connection, actor, "quota.set", measured[0], soft=new.soft, hard=new.hard)
            turns = await self._step.decide(connection, measured, self._clock.now())
            [quota] = await _shown(connection, await rows.some(connection, [row.id]))
            return quota, turns

        quota, turns = await self._database.run_write(change)
        self._step.turned(turns)
        return quota

    async def remove(self, actor: Actor, quota: int) -> None:
        """Remove a quota. Raises NotFound, NotAllowed."""

        async def change(connection: AsyncConnection) -> list[Turn]:
            row = await rows.by_id(connection, quota)
            measured = await rows.some(connection, [quota])
            if row is None or not measured:
                raise _unknown()
            known = await rows.concerning(connection, actor.id, self._clock.now())
            if not actor.admin and all(one.row.id != quota for one in known):
                raise _unknown()
            new = NewQuota(QuotaKind(row.kind), measured[0].of)
            _check_above(actor, await self._target(connection, actor, new), row)
            await self._record(connection, actor, "quota.remove", measured[0], soft=row.soft, hard=row.hard)
            gone = msgspec.structs.replace(measured[0], row=msgspec.structs.replace(row, soft=None, hard=None))
            turns = await self._step.decide(connection, [gone], self._clock.now())
            await rows.remove(connection, quota)
            return turns

        self._step.turned(await self._database.run_write(change))

    async def _record(
        self,
        connection: AsyncConnection,
        actor: Actor,
        action: str,
        one: Measured,
        *,
        soft: int | None,
        hard: int | None,
    ) -> None:
        workspace = one.row.workspace_id or None
        kind = one.row.kind
        await self._audit.record(
            connection, actor, action, one.of, node=one.node, workspace=workspace, kind=kind, soft=soft, hard=hard
        )

    # -------------------------------------------------------------------------------------------------- targets

    async def _target(self, connection: AsyncConnection, actor: Actor, new: NewQuota) -> _Target:
        """Read ``of``, and see that this person may set such a quota there."""
        if new.kind is QuotaKind.USER:
            if not actor.admin:
                raise NotAllowed("Only an admin of this hub may set a quota on a person.", todo="On your root: user@node/root.")
            return _Target(user=await _user(connection, new.of))
        if new.kind is QuotaKind.WORKSPACE:
            standing = await self._workspace(connection, actor, new.of)
            above = await _decides(connection, actor, standing.root_id, await facts.node_owner(connection, standing.node_id))
            if not above and standing.owner_id != actor.id:
                raise NotAllowed(
                    f"Only {standing.owner}, who owns {new.of}, and those who manage its root may set a quota on it."
                )
            return _Target(workspace=standing.id, above=above)
        name, at, place = new.of.rpartition("@")
        if bool(at) is (new.kind is QuotaKind.ROOT):
            raise BadInput(f"{shown(new.of)} is no {_FORMS[new.kind]}.", todo=f"Write {_FORMS[new.kind]}.")
        root = await _root(connection, actor, place)
        if not await _decides(connection, actor, root.id, root.owner_id):
            raise NotAllowed(f"Only {root.owner}, whose node that is, and the managers of {place} may set a quota there.")
        user = await _user(connection, name) if at else 0
        return _Target(user=user, root=root.id)

    async def _workspace(self, connection: AsyncConnection, actor: Actor, of: str) -> Standing:
        owner, slash, name = of.partition("/")
        if not slash or "/" in name:
            raise BadInput(f"{shown(of)} is no workspace.", todo=f"Write {_FORMS[QuotaKind.WORKSPACE]}.")
        found = await standings.named(connection, actor.id, [(owner, name)], self._clock.now())
        standing = found.get((owner, name))
        known = standing is not None and (
            actor.admin
            or held(actor, standing).strongest is not None
            or await _decides(connection, actor, standing.root_id, await facts.node_owner(connection, standing.node_id))
        )
        if standing is None or not known:
            raise UnknownWorkspace(
                f"There is no workspace {shown(of)}, or none that you may use.", todo="wio w ls shows yours."
            )
        return standing


_FORMS: Final = {
    QuotaKind.USER: "user",
    QuotaKind.USER_ROOT: "user@node/root",
    QuotaKind.ROOT: "node/root",
    QuotaKind.WORKSPACE: "owner/workspace",
}


def _check(new: NewQuota) -> None:
    limits = [one for one in (new.soft, new.hard) if one is not None]
    if not limits:
        raise BadInput("A quota needs a limit: soft, hard or both.", todo="To remove one: wio quota rm.")
    if any(not 0 <= one <= _MOST for one in limits):
        raise BadInput("A limit is a number of bytes, 0 or more.")
    if new.soft is not None and new.hard is not None and new.soft > new.hard:
        raise BadInput("The soft limit is above the hard one, so nobody would be warned.")


def _check_above(actor: Actor, target: _Target, before: QuotaRow | None) -> None:
    if before is not None and not target.above and before.by_id != actor.id:
        raise NotAllowed("That quota was set by somebody who manages the root; only they may change it.")


def _unknown() -> NotFound:
    return NotFound("There is no such quota, or none that concerns you.", todo="wio quota ls shows them.")


async def _user(connection: AsyncConnection, name: str) -> int:
    user = await people.by_name(connection, name)
    if user is None:
        raise UnknownUser(f"There is nobody called {shown(name)}.")
    return user.id


async def _root(connection: AsyncConnection, actor: Actor, place: str) -> RootRow:
    node, _, name = place.rpartition("/")
    found = await root_rows.called(connection, name, node)
    if not found or not may_know(actor, found[0], await roles.of_person(connection, actor.id)):
        raise UnknownRoot(f"There is no root {shown(place)}.", todo="wio root ls shows them; write node/root.")
    return found[0]


async def _decides(connection: AsyncConnection, actor: Actor, root: int, node_owner: int | None) -> bool:
    return actor.admin or node_owner == actor.id or await facts.manages_root(connection, root, actor.id)


async def _shown(connection: AsyncConnection, found: Sequence[Measured]) -> list[Quota]:
    counted = await rows.counted(connection, [one.row.id for one in found])
    return [
        Quota(
            id=one.row.id,
            kind=QuotaKind(one.row.kind),
            of=one.of,
            soft=one.row.soft,
            hard=one.row.hard,
            used=one.used,
            over_since=one.row.over_since,
            caveats=caveats(_trait(root) for root in counted.get(one.row.id, ())),
            warnings=_said(one),
        )
        for one in found
    ]


def _said(one: Measured) -> tuple[str, ...]:
    row = one.row
    if row.over_since is not None and row.hard is not None:
        return (f"{one.of} is full: {size(one.used)} of {size(row.hard)}. Nothing can be added; reading and deleting go on.",)
    if row.warned_at is not None and row.soft is not None:
        return (f"{one.of} holds {size(one.used)}, more than {size(row.soft)}.",)
    return ()


def _trait(root: Counted) -> Trait:
    report = None if root.report is None else msgspec.msgpack.decode(root.report, type=Report)
    versioned = report is not None and any(
        line.capability == "versioned-buckets" and line.found is Finding.YES for line in report.probes
    )
    return Trait(f"{root.node}/{root.root}", root.level, versioned, report is not None and report.storage == _DIRECTORY)
