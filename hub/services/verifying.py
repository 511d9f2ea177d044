"""Proofs that people ask for: a survey of what lies in a place, and a comparison of storage, node and catalogue from nothing.

Both take as long as it takes to list a root. One at a time goes on in a place; it ends when the person who asked is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from hub.db import journals, proofs, roles
from hub.db.database import Database
from hub.db.roles import Role
from hub.db.roots import RootRow
from hub.services import sums
from hub.services.audit import Audit
from hub.services.ports import Actor, Agents, Clock
from hub.services.roots import Roots, config_of
from hub.services.sums import EVERYTHING, Counted
from protocol.api import Count, NewRoot, SurveyResult, Total, Verification
from protocol.errors import Conflict, Internal, NotAllowed
from protocol.messages import Counted as CountedKind
from protocol.messages import Digested, Digests, RootConfig, Sum, Survey, Surveyed, Verified, Verify
from protocol.names import NodeId, shown

DEADLINE_S: Final = 3_600.0
CATCH_UP_S: Final = 60.0
"""How long the catalogue may take to come to where the node was."""
POLL_S: Final = 0.05
TRIES: Final = 5
"""Times that node and catalogue are compared while changes come in."""
BETWEEN_S: Final = 0.5
_MICROSECONDS: Final = 1_000_000


class Verifying:
    """Asks nodes, and counts what the hub has itself."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        audit: Audit,
        roots: Roots,
        drifted: Callable[[], None] = lambda: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``drifted`` is called when a catalogue turns out not to be what it should be: it is noted, and repaired."""
        self._database = database
        self._agents = agents
        self._clock = clock
        self._audit = audit
        self._roots = roots
        self._drifted = drifted
        self._pause = pause
        self._going: set[str] = set()

    # -------------------------------------------------------------------------------------------------- surveys

    async def survey(self, actor: Actor, node: str, root: str) -> SurveyResult:
        """Count what lies in a root. Raises UnknownRoot, NotAllowed, Conflict, NodeOffline, and what the agent says."""
        row = await self._managed(actor, node, root, "survey")
        return await self._surveyed(actor, row.node_id, row.node, config_of(row))

    async def survey_place(self, actor: Actor, node: str, new: NewRoot) -> SurveyResult:
        """Count what lies where a root could be made. Raises what making it raises, and as ``survey``; makes nothing."""
        found, config = await self._roots.planned(actor, msgspec.structs.replace(new, node=node))
        return await self._surveyed(actor, found.id, found.name, config)

    async def _surveyed(self, actor: Actor, node: int, node_name: str, config: RootConfig) -> SurveyResult:
        place = f"{config.bucket}/{config.prefix}"
        with self._alone(f"{node_name}:{place}", place):
            said = await self._agents.ask(
                NodeId(node), lambda request, deadline: Survey(request, deadline, config), deadline_s=DEADLINE_S
            )
        if not isinstance(said, Surveyed):
            raise Internal(f"{node_name} did not count what it was asked to.")
        async with self._database.write() as connection:
            target = f"{node_name}/{config.name}"
            await self._audit.record(
                connection, actor, "root.survey", target, node=node, place=place[:500], objects=said.objects
            )
        return SurveyResult(
            bucket=config.bucket,
            prefix=config.prefix,
            objects=said.objects,
            bytes=said.bytes,
            extensions=tuple(map(_count, said.extensions)),
            odd=tuple(map(_count, said.odd)),
            took_s=said.took_ms / 1000,
            estimate_s=said.estimate_ms / 1000,
        )

    # -------------------------------------------------------------------------------------------------- verifications

    async def verify(self, actor: Actor, node: str, root: str) -> Verification:
        """Compare storage, node and catalogue. Raises UnknownRoot, NotAllowed, Conflict, NodeOffline, what the agent says."""
        row = await self._managed(actor, node, root, "verify")
        called = f"{row.node}/{row.name}"
        with self._alone(f"{row.node}:{row.bucket}/{row.prefix}", called):
            began = self._clock.now()
            said = await self._agents.ask(
                NodeId(row.node_id), lambda request, deadline: Verify(request, deadline, row.id), deadline_s=DEADLINE_S
            )
            if not isinstance(said, Verified):
                raise Internal(f"{row.node} did not compare what it was asked to.")
            counted, settled, at_node = await self._side_by_side(row, said)
            took_s = (self._clock.now() - began) / _MICROSECONDS
        found = judged(called, said, counted, took_s, settled=settled, at_node=at_node)
        wrong = counted.kept != counted.sum or (settled and counted.sum != at_node)
        async with self._database.write() as connection:
            if wrong:
                await proofs.note_drift(connection, {row.id: self._clock.now()})
            differ = sum(one.objects for one in found.differences)
            await self._audit.record(
                connection,
                actor,
                "root.verify",
                called,
                node=row.node_id,
                equal=found.equal,
                busy=found.busy,
                differ=differ,
            )
        if wrong:
            self._drifted()
        return found

    async def _side_by_side(self, row: RootRow, said: Verified) -> tuple[Counted, bool, Sum]:
        """Count the catalogue where it stood when the node counted; return that, whether it did, and what the node said then.

        While changes come in the node adds up what it knows once more, which is quick, until both meet.
        """
        at, known = (said.generation, said.sequence), said.recounted
        for attempt in range(TRIES):
            await self._catch_up(row, at)
            counted = await sums.count(self._database, row.node_id, row.id)
            if counted.sum == counted.kept == known or (counted.cursor.generation, counted.cursor.sequence) == at:
                return counted, True, known
            if attempt < TRIES - 1:
                await self._pause(BETWEEN_S)
                again = await self._agents.ask(
                    NodeId(row.node_id),
                    lambda request, deadline: Digests(request, deadline, row.id, (EVERYTHING,)),
                    deadline_s=DEADLINE_S,
                )
                if not isinstance(again, Digested) or len(again.sums) != 1:
                    raise Internal(f"{row.node} did not add up what it was asked to.")
                at, known = (again.generation, again.sequence), again.sums[0]
        return counted, False, known

    async def _catch_up(self, row: RootRow, at: tuple[int, int]) -> None:
        for _ in range(round(CATCH_UP_S / POLL_S)):
            cursor = await self._database.run_read(lambda connection: journals.cursor(connection, row.node_id))
            if (cursor.generation, cursor.sequence) >= at:
                return
            await self._pause(POLL_S)

    # -------------------------------------------------------------------------------------------------- who, and how many

    async def _managed(self, actor: Actor, node: str, root: str, verb: str) -> RootRow:
        row = await self._roots.find(actor, node, root)
        async with self._database.read() as connection:
            mine = await roles.of_person(connection, actor.id)
        if not (actor.admin or row.owner_id == actor.id or (row.id, Role.MANAGE) in mine):
            raise NotAllowed(f"Only {row.owner}, whose node that is, and its managers may {verb} {row.node}/{row.name}.")
        return row

    @contextmanager
    def _alone(self, place: str, called: str) -> Iterator[None]:
        if place in self._going:
            raise Conflict(f"{shown(called)} is being counted or compared already.", todo="Wait until that is done.")
        self._going.add(place)
        try:
            yield
        finally:
            self._going.discard(place)


def judged(called: str, said: Verified, counted: Counted, took_s: float, *, settled: bool, at_node: Sum) -> Verification:
    """Say what a comparison has found. Pure.

    What differs by key is a difference, and so are sums that were taken at one position. Sums alone that were not, while
    things are written, prove nothing either way: that is busy.
    """
    differences = tuple(_count(one) for one in (said.unknown, said.gone, said.other) if one.objects)
    consistent = said.kept == said.recounted and counted.kept == counted.sum
    same = settled and counted.sum == at_node
    equal = consistent and same and said.storage == said.recounted == at_node and not differences
    different = bool(differences) or not consistent or (settled and not same)
    return Verification(
        root=called,
        storage=_total(said.storage),
        node=_total(at_node),
        catalogue=_total(counted.sum),
        kept=_total(counted.kept),
        equal=equal,
        differences=differences,
        busy=not equal and not different,
        took_s=took_s,
    )


def _count(one: CountedKind) -> Count:
    return Count(what=one.what, objects=one.objects, bytes=one.bytes, samples=one.samples)


def _total(one: Sum) -> Total:
    return Total(objects=one.objects, bytes=one.bytes, digest=f"{one.digest:016x}")
