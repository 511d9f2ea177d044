"""Bringing nodes to what is wanted of them: when they connect, when an answer was lost, when a person changes.

The node says which epoch of which subject it enforces; the hub's rows say what it should. Whatever differs is sent, what
takes something away first. A node that knows a *higher* epoch than the hub, or another set of the same epoch, shows that
the hub's database was restored from a backup: the hub jumps past it, and the audit trail says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import grant_sets, groups, nodes, people, standings
from hub.db.database import Database
from hub.db.grant_sets import SetBrief
from hub.services.audit import HUB, Audit
from hub.services.grantsets import Applied, At, GrantSets, Outcome, Prepared, Refused, Waiting, aging, living
from hub.services.ports import Actor, Agents, Clock
from protocol.api import Confirmed
from protocol.errors import BadMessage, NotAllowed, UnknownNode
from protocol.grants import Subject, SubjectKind
from protocol.messages import Epochs, EpochState, Report
from protocol.names import NodeId, shown

_LOG: Final = logging.getLogger("wio.hub.grants")
_MICROSECOND: Final = 1_000_000
_AT_ONCE: Final = 8
"""Sets sent at the same time."""
_MOST: Final = 50_000
"""Subjects that one node may report."""
_UNHEARD_KEYS_S: Final = 43_200
"""How long keys may live of which this database knows nothing, where the node never said: the protocol's own default."""

_KEPT_ONLY: Final = bytes(32)
"""What a node says instead of the content of a set that it has, but could not enforce yet."""

T = TypeVar("T")


class Settling:
    """Compares what nodes enforce with what they are to enforce."""

    def __init__(self, *, database: Database, agents: Agents, clock: Clock, audit: Audit, sets: GrantSets) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock
        self._audit = audit
        self._sets = sets
        self._reported: dict[int, dict[tuple[str, int], EpochState]] = {}

    async def settle(self, node: NodeId, epochs: Epochs) -> None:
        """Compare what a node enforces with what it is to enforce, and send what differs; what only takes away first.

        Takes the agent's report in as many parts as it comes, and acts on the last.
        """
        reported = self._reported.setdefault(node, {})
        reported |= {(str(state.subject.kind), state.subject.id): state for state in epochs.states}
        if len(reported) > _MOST:
            del self._reported[node]
            raise BadMessage(f"A node says it enforces more than {_MOST} grant sets.")
        if not epochs.last:
            return
        del self._reported[node]
        async with self._database.read() as connection:
            row = await nodes.by_id(connection, node)
            if row is None or row.evicted_at is not None:
                raise UnknownNode("That node is not known any more.")
            wanted = {(one.subject_kind, one.subject_id): one for one in await grant_sets.of_node(connection, node)}
            pending = await grant_sets.pending_receipts(connection, node)
            for key in reported.keys() - wanted.keys():
                reported[key] = await _renamed(connection, reported[key])
        at = At(node, row.name)
        now = self._clock.now()
        doubtful = row.unconfirmed_since is not None or any(_ahead(state, wanted.get(key)) for key, state in reported.items())
        tasks = [
            task
            for key in sorted(reported.keys() | wanted.keys())
            if (task := _difference(reported.get(key), wanted.get(key), now, doubtful=doubtful)) is not None
        ]
        jumps = [task for task in tasks if task.reason]
        longest_s = _UNHEARD_KEYS_S if row.report is None else msgspec.msgpack.decode(row.report, type=Report).longest_key_s
        until = now + longest_s * _MICROSECOND
        if jumps:
            await self._note_jumps(at, jumps, until)
        agreed = [task for task in tasks if task.agreed]
        if agreed:
            await self._agree(at, agreed)
        narrowing = {(str(one.subject.kind), one.subject.id) for one in pending if one.exposure_s is not None}
        widening = {(str(one.subject.kind), one.subject.id) for one in pending if one.exposure_s is None}
        to_send = sorted((task for task in tasks if not task.agreed), key=lambda task: _urgency(task, narrowing, widening))
        await self._all(to_send, lambda task: self._overlap(at, task, until) if task.reason else self._bring(at, task))

    async def retry_once(self) -> int:
        """Send what connected nodes have yet to take over, as after a deadline that passed; return how many sets.

        To be called every few seconds.
        """
        async with self._database.read() as connection:
            found = await grant_sets.waiting(connection, self._clock.now())
            names = {node.id: node.name for node in await nodes.everything(connection)} if found else {}
        due = [(At(NodeId(node), names[node]), subject) for node, subject in found if self._agents.online(NodeId(node))]
        await self._all(due, lambda one: self._bring(one[0], _Task(one[1], again=False)))
        return len(due)

    async def recheck(self, node: NodeId) -> None:
        """Ask a node again about every set that it has, after its owner changed the ceiling.

        The node obeys the file already. What it refuses now is written down with the reason, and what it refused before and
        takes now opens again. Those with keys out come first.
        """
        async with self._database.read() as connection:
            row = await nodes.by_id(connection, node)
            found = [one for one in await grant_sets.of_node(connection, node) if one.epoch > 0]
        now = self._clock.now()
        found = [one for one in found if living(one, now) or one.subject_kind != SubjectKind.LINK]
        due = [one for one in found if living(one, now) or one.refused is not None or not one.stale]
        due.sort(key=lambda one: not living(one, now))
        if row is None or row.evicted_at is not None:
            return
        at = At(node, row.name)
        tasks = [_Task(grant_sets.subject_of(one.subject_kind, one.subject_id, one.name)) for one in due]
        await self._all(tasks, lambda task: self._bring(at, task))

    async def restored(self, by: Actor) -> list[str]:
        """Have every node wait for confirmation, because this database was restored from a backup; return their names.

        Until then nothing new opens by what this database knew before: what was taken back since the backup stays so.
        """
        async with self._database.write() as connection:
            found = [one for one in await nodes.everything(connection) if one.evicted_at is None]
            now = self._clock.now()
            await nodes.doubt_all(connection, now)
            for row in found:
                report = None if row.report is None else msgspec.msgpack.decode(row.report, type=Report)
                longest_s = _UNHEARD_KEYS_S if report is None else report.longest_key_s
                await grant_sets.expect_keys(connection, row.id, until=now + longest_s * _MICROSECOND)
            await self._audit.record(connection, by, "hub.restored", "hub", nodes=len(found))
            await standings.changed(connection)
        return [one.name for one in found]

    async def confirm(self, actor: Actor, name: str) -> Confirmed:
        """Say that what this hub knows of a node is right, after a backup of the hub was restored: it is sent, all of it.

        Raises UnknownNode, NotAllowed.
        """
        async with self._database.write() as connection:
            row = await nodes.by_name(connection, name)
            if row is None or row.evicted_at is not None:
                raise UnknownNode(f"There is no node called {shown(name)}.", todo="wio node ls shows them.")
            if not (actor.admin or row.owner_id == actor.id):
                raise NotAllowed(f"Only {row.owner}, who joined {name}, or an admin may confirm what it is to allow.")
            if not await nodes.confirm(connection, row.id):
                return Confirmed(name, 0)
            sets = await grant_sets.of_node(connection, row.id)
            await grant_sets.mark_all_stale(connection, row.id)
            await self._audit.record(connection, actor, "node.confirm", name, node=row.id, sets=len(sets))
            await standings.changed(connection)
        now = self._clock.now()
        due = [one for one in sets if living(one, now) or one.applied_epoch < one.epoch]
        tasks = [_Task(grant_sets.subject_of(one.subject_kind, one.subject_id, one.name)) for one in due]
        at = At(NodeId(row.id), row.name)
        await self._all(tasks, lambda task: self._bring(at, task))
        return Confirmed(name, len(sets))

    async def renew(self, subject: Subject) -> None:
        """Compile a subject's sets on every node again, after a change that concerns all of them."""
        async with self._database.read() as connection:
            rows = [await nodes.by_id(connection, node) for node in await grant_sets.nodes_of(connection, subject)]
        places = [At(NodeId(row.id), row.name) for row in rows if row is not None and row.evicted_at is None]
        await self._all(places, lambda place: self._renew(place, subject))

    async def _renew(self, node: At, subject: Subject) -> None:
        async with self._sets.turns(node.id, subject):
            async with self._database.write() as connection:
                prepared = await self._sets.prepare(connection, node, subject)
            for one in prepared:
                await self._sets.transmit(one)

    async def _bring(self, node: At, task: _Task) -> None:
        async with self._sets.turns(node.id, task.subject):
            prepared = await self._sets.due(node, task.subject, again=task.again)
            _, outcome = await self._sets.transmit(prepared)
        self._warn(node, task, outcome)

    async def _overlap(self, node: At, task: _Task, keys_until: int) -> None:
        async with self._sets.turns(node.id, task.subject):
            prepared = await self._sets.overlap(node, task.subject, task.floor, keys_until=keys_until)
            _, outcome = await self._sets.transmit(prepared)
        self._warn(node, task, outcome)

    @staticmethod
    def _warn(node: At, task: _Task, outcome: Outcome | None) -> None:
        if isinstance(outcome, Refused | Waiting):
            _LOG.warning("%s did not take over the set of %s: %s", node.name, task.subject.name, outcome.problem.message)

    async def _note_jumps(self, node: At, tasks: Sequence[_Task], until: int) -> None:
        """Write down that this database is behind; whatever it says about keys of this node may be too."""
        async with self._database.write() as connection:
            await grant_sets.expect_keys(connection, node.id, until=until)
            if not await nodes.doubt(connection, node.id, self._clock.now()):
                return
            await self._audit.record(connection, HUB, "node.unconfirmed", node.name, node=node.id, sets=len(tasks))
            for task in tasks:
                target = f"{task.subject.name} on {node.name}"
                await self._audit.record(
                    connection, HUB, "grants.jumped", target, node=node.id, reason=task.reason, past_epoch=task.floor
                )
            await standings.changed(connection)

    async def _agree(self, node: At, tasks: Sequence[_Task]) -> None:
        """Note what the node already enforces: the answer to an earlier message was lost."""
        outcome = Applied(self._clock.now(), 0, ())
        async with self._database.write() as connection:
            for task in tasks:
                prepared = Prepared(node, task.subject, task.epoch, None, None)
                await self._sets.applied(connection, prepared, outcome)

    @staticmethod
    async def _all(tasks: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
        """Work on all of them, in order, a few at a time; a failure of one keeps nobody else waiting."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(task: T) -> None:
            async with slots:
                await work(task)

        for failed in await asyncio.gather(*(one(task) for task in tasks), return_exceptions=True):
            if failed is not None:
                raise failed


class _Task(msgspec.Struct, frozen=True):
    """What is to be done about one subject of a node."""

    subject: Subject
    agreed: bool = False
    epoch: int = 0
    again: bool = True
    floor: int = 0
    reason: str = ""


async def _renamed(connection: AsyncConnection, state: EpochState) -> EpochState:
    """Give a subject that the hub had no set for the name it has here, not what the node calls it."""
    kind, number = state.subject.kind, state.subject.id
    name = None
    if kind is SubjectKind.PERSON:
        user = await people.by_id(connection, number)
        name = None if user is None else user.username
    elif kind is SubjectKind.GROUP:
        group = await groups.name_of(connection, number)
        name = None if group is None else f"@{group}"
    subject = grant_sets.subject_of(str(kind), number, name)
    return msgspec.structs.replace(state, subject=subject)


def _difference(state: EpochState | None, row: SetBrief | None, now: int, *, doubtful: bool) -> _Task | None:
    """Decide what to do about what a node says of one subject (None: nothing) and what is wanted (None: nothing).

    ``doubtful``: the node waits for confirmation, so what both agree on stays as it is.
    """
    if state is None:
        if row is None or row.epoch == 0 or not living(row, now):
            return None
        return _Task(grant_sets.subject_of(row.subject_kind, row.subject_id, row.name))
    ahead = _ahead(state, row)
    if row is None:
        return _Task(state.subject, floor=state.epoch, reason=ahead)
    subject = grant_sets.subject_of(row.subject_kind, row.subject_id, row.name)
    if ahead:
        return _Task(subject, floor=state.epoch, reason=ahead)
    renew = not doubtful and (row.stale or aging(row, now))
    if renew or state.epoch < row.epoch or state.content == _KEPT_ONLY:
        return _Task(subject)
    return _Task(subject, agreed=True, epoch=row.epoch) if row.applied_epoch < row.epoch else None


def _ahead(state: EpochState, row: SetBrief | None) -> str:
    """Say how a node can know more than this database; empty where it does not."""
    if row is None:
        return "the hub knew of no set for this subject"
    if state.epoch > row.epoch:
        return "the node had a higher epoch, as after a backup of the hub was restored"
    if state.epoch == row.epoch and state.content not in {row.content, _KEPT_ONLY}:
        return "the node had another set of the same epoch, as after a backup of the hub was restored"
    return ""


def _urgency(task: _Task, narrowing: set[tuple[str, int]], widening: set[tuple[str, int]]) -> int:
    key = (str(task.subject.kind), task.subject.id)
    if key in narrowing or task.reason:
        return 1 if key in widening else 0
    return 2
