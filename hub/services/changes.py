"""A change of who may do what, with everything on the nodes that follows from it: one transaction, then all at once.

Whoever changes something says whom it *touches*: people, everyone, groups, each on a node. A group stands for its members
until so many of them hold keys on the node that it gets a shared set there. Of all of these only the living are sent
anything, and only where what they may do has changed; everybody else is marked stale and compiled before their next key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, grants, groups, standings
from hub.db.database import Database
from hub.services.grantsets import EVERYONE, At, GrantSets, Outcome, Prepared, Wish
from hub.services.ports import Chance, Clock
from protocol.errors import Pending
from protocol.grants import Permission, Receipt, ReceiptState, Subject, SubjectKind

AT_ONCE: Final = 8
"""Sets sent at the same time: more only queue up on the storage server."""
_TRIES: Final = 20
"""How often a change begins again because somebody got their first key just then."""

T = TypeVar("T")
Work = Callable[[AsyncConnection], Coroutine[Any, Any, T]]


class Touched(msgspec.Struct, frozen=True):
    """Somebody whose access on a node a change may move. ``workspace``: the one it is about, 0 where it is about several.

    ``told``: a receipt is due even if nothing has to be sent. ``each``: what a group has of it may stand in its members' own
    sets, whatever else it has there.
    """

    node: At
    subject: Subject
    workspace: int = 0
    told: bool = False
    each: bool = False


class Made(msgspec.Struct, Generic[T], frozen=True):
    """A change that is made: what its transaction returned, and what became of it on the nodes."""

    result: T
    sent: tuple[tuple[Prepared, Outcome | None], ...]
    receipts: tuple[Receipt, ...]

    @property
    def refused(self) -> bool:
        """Whether nobody that had to be told was let have it."""
        return bool(self.receipts) and all(one.state is ReceiptState.REFUSED for one in self.receipts)


class _Plan(msgspec.Struct):
    """What is to be done on the nodes: sets to prepare, by node and subject, and people to mark stale, by node."""

    wishes: dict[tuple[int, str, int], tuple[At, Subject, Wish]] = {}
    stale: dict[int, set[int]] = {}


class _Moved(Exception):
    """Somebody got their first key on a node meanwhile: their turn has to be taken too."""


class Changes:
    """Makes changes."""

    def __init__(self, *, database: Database, clock: Clock, chance: Chance, sets: GrantSets) -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._sets = sets

    @asynccontextmanager
    async def making(self, touches: Work[Sequence[Touched]], work: Work[T]) -> AsyncIterator[Made[T]]:
        """Make a change in one transaction, send what follows from it, and hold the turns of all concerned in the block.

        ``touches`` says whom ``work`` will touch, before it does; both may run several times, on a fresh transaction each.
        Raises what ``work`` raises, then nothing is changed; and BadInput where somebody would have too many grants.
        """
        for _ in range(_TRIES):
            plan = await self._database.run_read(lambda connection: self._plan(connection, touches))
            async with self._sets.all_turns((key[0], subject) for key, (_, subject, _) in plan.wishes.items()):
                try:
                    result, prepared, unmoved = await self._written(touches, work, frozenset(plan.wishes))
                except _Moved:
                    continue
                sent = await self._send(prepared)
                receipts = tuple(self._sets.told(one, outcome) for one, outcome in sent if one.receipt is not None)
                yield Made(result, sent, receipts or unmoved)
                return
        raise Pending("People get keys faster than this can be changed.", todo="Try again.")

    # -------------------------------------------------------------------------------------------------- who

    async def _plan(self, connection: AsyncConnection, touches: Work[Sequence[Touched]]) -> _Plan:
        plan = _Plan()
        for touched in await touches(connection):
            if touched.subject.kind is SubjectKind.GROUP:
                await self._add_group(connection, plan, touched)
            else:
                _add(plan, touched, touched.subject, Wish(touched.workspace, receipt=True, changed_only=not touched.told))
        return plan

    async def _add_group(self, connection: AsyncConnection, plan: _Plan, touched: Touched) -> None:
        """Add a group: its shared set, its living members as far as they need it, and mark the others stale."""
        node, now = touched.node, self._clock.now()
        members = await groups.member_sets(connection, node.id, touched.subject.id)
        alive = [one for one in members if one.keys_until > now]
        shared = await groups.is_shared(connection, node.id, touched.subject.id)
        sharing = shared or len(alive) > groups.LARGE
        if sharing:
            until = max((one.keys_until for one in alive), default=0)
            shared_wish = Wish(touched.workspace, receipt=True, lenient=True, first=True, keys_until=until)
            _add(plan, touched, touched.subject, shared_wish)
        own = not shared or touched.each
        for one in alive:
            if own or one.stale:
                person = Subject(SubjectKind.PERSON, one.user_id, one.username)
                _add(plan, touched, person, Wish(touched.workspace, receipt=True, lenient=True, changed_only=True))
        if own:
            plan.stale.setdefault(node.id, set()).update(one.user_id for one in members if one.keys_until <= now)

    # -------------------------------------------------------------------------------------------------- in one transaction

    async def _written(
        self, touches: Work[Sequence[Touched]], work: Work[T], held: frozenset[tuple[int, str, int]]
    ) -> tuple[T, list[Prepared], tuple[Receipt, ...]]:
        return await self._database.run_write(lambda connection: self._write(connection, touches, work, held))

    async def _write(
        self,
        connection: AsyncConnection,
        touches: Work[Sequence[Touched]],
        work: Work[T],
        held: frozenset[tuple[int, str, int]],
    ) -> tuple[T, list[Prepared], tuple[Receipt, ...]]:
        touched = await touches(connection)
        for group in sorted({one.subject.id for one in touched if one.subject.kind is SubjectKind.GROUP}):
            await groups.lock(connection, group)
        plan = await self._plan(connection, touches)
        if not plan.wishes.keys() <= held:
            raise _Moved
        result = await work(connection)
        prepared: list[Prepared] = []
        for node_id in sorted({key[0] for key in plan.wishes} | plan.stale.keys()):
            prepared += await self._prepare(connection, node_id, plan)
        await standings.changed(connection)
        unmoved: list[Receipt] = []
        for other in () if any(change.receipt for change in prepared) else _one_each(touched):
            unmoved.append(self._nobody(other))
            await grant_sets.add_receipt(connection, other.node.id, other.workspace, unmoved[-1])
        return result, prepared, tuple(unmoved)

    async def _prepare(self, connection: AsyncConnection, node_id: int, plan: _Plan) -> list[Prepared]:
        """Prepare the sets of one node, shared ones first, and mark stale what is not sent; locks are taken in one order."""
        keys = sorted(key for key in plan.wishes if key[0] == node_id)
        persons = {key[2] for key in keys if key[1] == SubjectKind.PERSON}
        others = plan.stale.get(node_id, set()) - persons
        prepared: list[Prepared] = []
        held = False
        for key in keys:
            if key[1] == SubjectKind.PERSON and not held:
                held = await grant_sets.hold_persons(connection, node_id, sorted(persons | others))
            one = await self._sets.prepare_one(connection, *plan.wishes[key])
            prepared += [] if one is None else [one]
        if await grant_sets.mark_persons_stale(connection, node_id, sorted(others), now=self._clock.now()):
            raise _Moved
        return prepared

    def _nobody(self, touched: Touched) -> Receipt:
        """Return the receipt of a change that no node has to hear of now."""
        now = self._clock.now()
        return Receipt(
            id=f"{self._chance.new_id():x}",
            node=touched.node.name,
            subject=touched.subject,
            epoch=0,
            state=ReceiptState.ENFORCED,
            asked_at=now,
            enforced_at=now,
            reason=_unmoved(touched),
        )

    # -------------------------------------------------------------------------------------------------- then

    async def _send(self, prepared: Sequence[Prepared]) -> tuple[tuple[Prepared, Outcome | None], ...]:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(change: Prepared) -> tuple[Prepared, Outcome | None]:
            async with slots:
                return await self._sets.transmit(change)

        found = await asyncio.gather(*(one(change) for change in prepared), return_exceptions=True)
        sent = []
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
            sent.append(outcome)
        return tuple(sent)


async def touching(
    connection: AsyncConnection, node: At, workspace: int, owner: Subject, *, public_root: bool
) -> list[Touched]:
    """Return everybody whose access to a workspace may move when the workspace itself changes or goes."""
    found = [Touched(node, owner, workspace), *([Touched(node, EVERYONE, workspace)] if public_root else [])]
    listed = await grants.of_workspace(connection, workspace)
    return found + [Touched(node, one.subject, workspace, each=one.grant.permission == Permission.DROP) for one in listed]


def _add(plan: _Plan, touched: Touched, subject: Subject, wish: Wish) -> None:
    """Add a wish; of two for one subject the one that says more counts, and it is about several workspaces then."""
    key = (int(touched.node.id), str(subject.kind), subject.id)
    before = plan.wishes.get(key)
    if before is not None:
        one, other = before[2], wish
        wish = Wish(
            one.workspace if one.workspace == other.workspace else 0,
            receipt=True,
            lenient=one.lenient or other.lenient or one.workspace != other.workspace,
            changed_only=one.changed_only and other.changed_only,
            first=one.first or other.first,
            keys_until=max(one.keys_until, other.keys_until),
        )
    plan.wishes[key] = (touched.node, subject, wish)


def _one_each(touched: Iterable[Touched]) -> list[Touched]:
    """Return one for each node, the first."""
    found: dict[int, Touched] = {}
    for one in touched:
        found.setdefault(int(one.node.id), one)
    return list(found.values())


def _unmoved(touched: Touched) -> str:
    node, name = touched.node.name, touched.subject.name
    if touched.subject.kind is SubjectKind.GROUP:
        return f"No key of {name} on {node} does more or less by it; the next ones will be made with this."
    if touched.subject.kind is SubjectKind.EVERYONE:
        return f"No key on {node} does more or less by it; the next ones will be made with this."
    return f"{name} holds no key on {node} that does more or less by it; the next one will be made with this."
