"""Bringing a catalogue that has drifted back to what its node has: by ranges of keys, without starting over if it can be.

The catalogue's own keys are cut into ranges of equal counts, the node adds the same ranges up, and those that differ are cut
again until few keys are left; of these the node then says what is there. Everything goes through the journal like any change,
so whatever else happens meanwhile is right, and a repair that is cut off anywhere is begun again: ``roots.drifted_at`` stays
until both sides agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from hub.db import catalogue, journals, proofs
from hub.db.database import Database
from hub.db.proofs import Drifted
from hub.services import sums
from hub.services.audit import HUB, Audit
from hub.services.ports import Agents, Clock
from hub.services.sums import Counted, Part
from protocol.errors import Internal, NodeOffline, WioError
from protocol.messages import Cursor, Digested, Digests, Recheck, Scan
from protocol.names import MAX_KEY_BYTES, NodeId

RANGES: Final = 64
"""Ranges asked for at once."""
LEAF: Final = 100
"""Keys of a range that is not cut any more; MOST where so much differs that finer cuts would save nothing."""
MOST: Final = 1_000
MANY: Final = 64
KEYS: Final = 2_000
"""Keys in one Recheck."""
ROUNDS: Final = 5
"""Times that differences are looked for and asked about; what is different then cannot be healed like this."""
DEADLINE_S: Final = 600.0
"""For adding up or looking at a range: whole roots at first."""
CATCH_UP_S: Final = 10.0
POLL_S: Final = 0.05
EVERY_S: Final = 5.0
"""How often it is looked for roots whose node was away."""
REST_US: Final = 30_000_000
GIVEN_UP_US: Final = 600_000_000

_LOG: Final = logging.getLogger("wio.hub.repair")


class Repaired(msgspec.Struct, frozen=True):
    """What a repair did: how many rounds it took, how many ranges were looked at again, how many keys of the hub in them."""

    rounds: int
    ranges: int
    keys: int


class Repairing:
    """Repairs. ``run`` is the loop, ``step`` one round of it."""

    def __init__(
        self,
        *,
        database: Database,
        agents: Agents,
        clock: Clock,
        audit: Audit,
        settled: Callable[[int], None] = lambda _: None,
        begin_anew: Callable[[int], None] = lambda _: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``settled`` is told of a root that agrees again; ``begin_anew`` of one that only a new journal can heal."""
        self._database = database
        self._agents = agents
        self._clock = clock
        self._audit = audit
        self._settled = settled
        self._begin_anew = begin_anew
        self._pause = pause
        self._stirred = asyncio.Event()
        self._busy: set[int] = set()
        self._rest: dict[int, int] = {}

    def drifted(self) -> None:
        """Say that some root has drifted."""
        self._stirred.set()

    # -------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Repair for ever; nodes side by side, so that a slow one holds up nothing but itself."""
        async with asyncio.TaskGroup() as working:
            while True:
                self._stirred.clear()
                for node, roots in (await self._due()).items():
                    working.create_task(self._work(node, roots))
                try:
                    async with asyncio.timeout(EVERY_S):
                        await self._stirred.wait()
                except TimeoutError:
                    continue

    async def step(self) -> int:
        """Repair what can be repaired now, one after the other; return how many roots agree again."""
        return sum([await self._work(node, roots) for node, roots in (await self._due()).items()])

    async def _due(self) -> dict[int, list[Drifted]]:
        found = await self._database.run_read(proofs.drifted)
        now = self._clock.now()
        self._rest = {one.root: self._rest[one.root] for one in found if one.root in self._rest}
        due: dict[int, list[Drifted]] = {}
        for one in found:
            if one.node not in self._busy and self._rest.get(one.root, 0) <= now and self._agents.online(NodeId(one.node)):
                due.setdefault(one.node, []).append(one)
        return due

    async def _work(self, node: int, roots: Sequence[Drifted]) -> int:
        self._busy.add(node)
        healed = 0
        try:
            for one in roots:
                try:
                    healed += await self.repair(one) is not None
                except NodeOffline:
                    return healed
                except WioError as error:
                    _LOG.warning("%s/%s cannot be repaired now: %s", one.node_name, one.name, error)
                    self._rest[one.root] = self._clock.now() + REST_US
                except Exception:  # noqa: BLE001 - logged whole; the other roots are repaired
                    _LOG.exception("The repair of %s/%s failed", one.node_name, one.name)
                    self._rest[one.root] = self._clock.now() + REST_US
        finally:
            self._busy.discard(node)
        return healed

    # -------------------------------------------------------------------------------------------------- one root

    async def repair(self, one: Drifted) -> Repaired | None:
        """Bring one root back; None where that did not work.

        Raises NodeOffline, DeadlinePassed, TooMany, and what the node says: StorageUnreachable, RootMissing …
        """
        asked, checked = 0, 0
        for number in range(ROUNDS):
            counted = await sums.count(self._database, one.node, one.root, pieces=RANGES)
            if counted.kept != counted.sum:
                await self._mend(one, counted)
            differing = await self._differing(one, counted)
            if not differing:
                done = Repaired(number, asked, checked)
                await self._agreed(one, done)
                return done
            for part in differing:
                checked += await self._recheck(one, part)
            asked += len(differing)
        _LOG.error("%s/%s still differs from its node after %d rounds.", one.node_name, one.name, ROUNDS)
        self._rest[one.root] = self._clock.now() + GIVEN_UP_US
        self._begin_anew(one.root)
        await self._ask_for_scan(one)
        return None

    async def _mend(self, one: Drifted, counted: Counted) -> None:
        _LOG.warning("The totals of %s/%s were wrong; they were counted again.", one.node_name, one.name)
        async with self._database.write() as connection:
            await proofs.mend(connection, one.root, counted.kept, counted.sum)
            await catalogue.recount_workspaces(connection, one.root)

    async def _agreed(self, one: Drifted, done: Repaired) -> None:
        async with self._database.write() as connection:
            await proofs.note_drift(connection, {one.root: None})
            target, told = f"{one.node_name}/{one.name}", msgspec.structs.asdict(done)
            await self._audit.record(connection, HUB, "root.repair", target, node=one.node, **told)
        self._settled(one.root)
        _LOG.info("%s/%s equals its node again: %s", one.node_name, one.name, done)

    async def _differing(self, one: Drifted, counted: Counted) -> list[Part]:
        """Return the ranges that differ, cut as small as is worth it."""
        level = await self._compared(one, counted.parts, counted.cursor)
        leaves: list[Part] = []
        while level:
            bound = LEAF if len(level) <= MANY else MOST
            leaves += [part for part in level if part.sum.objects <= bound]
            async with self._database.view() as connection:
                cursor = await journals.cursor(connection, one.node)
                finer: list[Part] = []
                for part in level:
                    if part.sum.objects > bound:
                        each = max(bound, -(-part.sum.objects // (RANGES // 4)))
                        finer += await sums.cut(connection, one.root, part.range, each)
            level = await self._compared(one, finer, cursor)
        return leaves

    async def _compared(self, one: Drifted, parts: Sequence[Part], cursor: Cursor) -> list[Part]:
        """Return the parts of which the node has another sum; ``cursor`` is where the catalogue stood when they were."""
        found: list[Part] = []
        for start in range(0, len(parts), RANGES + 1):
            found += await self._compared_at_once(one, parts[start : start + RANGES + 1], cursor)
        return found

    async def _compared_at_once(self, one: Drifted, parts: Sequence[Part], cursor: Cursor) -> list[Part]:
        ranges = tuple(part.range for part in parts)
        said = await self._agents.ask(
            NodeId(one.node),
            lambda request, deadline: Digests(request, deadline, one.root, ranges),
            deadline_s=DEADLINE_S,
        )
        if not isinstance(said, Digested) or len(said.sums) != len(parts):
            raise Internal(f"{one.node_name} did not add up what it was asked to.")
        differing = [(part, other) for part, other in zip(parts, said.sums, strict=True) if part.sum != other]
        if not differing or (cursor.generation, cursor.sequence) >= (said.generation, said.sequence):
            return [part for part, _ in differing]
        # The node is ahead: what differs may only be on its way.
        await self._catch_up(one, said)
        async with self._database.view() as connection:
            now = await sums.measure(connection, one.root, [part.range for part, _ in differing])
        both = zip(differing, now, strict=True)
        return [Part(part.range, here) for (part, other), here in both if here != other]

    async def _catch_up(self, one: Drifted, said: Digested) -> None:
        """Wait until the catalogue is where the node was, but not for ever: with more to ask than needed nothing is lost."""
        for _ in range(round(CATCH_UP_S / POLL_S)):
            cursor = await self._database.run_read(lambda connection: journals.cursor(connection, one.node))
            if (cursor.generation, cursor.sequence) >= (said.generation, said.sequence):
                return
            await self._pause(POLL_S)

    async def _recheck(self, one: Drifted, part: Part) -> int:
        """Have the node say again what is there; return how many keys of the catalogue that is about."""
        async with self._database.read() as connection:
            found = await sums.keys(connection, one.root, part.range, KEYS)
        keys = tuple(key for key in found if key and "\0" not in key and len(key.encode()) <= MAX_KEY_BYTES)
        await self._agents.ask(
            NodeId(one.node),
            lambda request, deadline: Recheck(request, deadline, one.root, part.range, keys),
            deadline_s=DEADLINE_S,
        )
        return len(keys)

    async def _ask_for_scan(self, one: Drifted) -> None:
        await self._agents.ask(NodeId(one.node), lambda request, deadline: Scan(request, deadline, one.root), deadline_s=10.0)
