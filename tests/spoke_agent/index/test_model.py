"""A random history of storage, scans, hints, crashes and hubs against the one thing that counts: in the end all agree."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.digest import EMPTY_RUN
from protocol.errors import StorageUnreachable, WioError
from protocol.messages import Cursor
from spoke_agent.index import feed, journal, ledger, looks
from spoke_agent.index.dirty import Dirty
from spoke_agent.storage.node import Hint
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of

KEYS = [f"{folder}{name}" for folder in ("", "a/", "a/b/", "b/", "ü/") for name in ("0", "1", "2", "z", "\U0001f600")]
keys = st.sampled_from(KEYS)


class History(RuleBasedStateMachine):
    """Every rule is one thing that may happen; nothing of it may ever make hub and storage disagree for good."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False
        self.chance = random.Random(1)  # noqa: S311 - repeatable on purpose
        self.backups: list[tuple[Cursor, dict[Any, Any]]] = []

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(seed=st.integers(0, 2**32), page=st.integers(1, 5), small=st.booleans(), honest=st.booleans())
    def begin(self, seed: int, page: int, *, small: bool, honest: bool) -> None:
        """``honest``: every change is hinted, so no scan is needed to find it; ``small``: bounds are met all the time."""
        self.patches = pytest.MonkeyPatch()
        self.honest = honest
        if small:
            self.patches.setattr(ledger, "KNOWN_AT_ONCE", 2)
            self.patches.setattr(feed, "KEYS_AT_ONCE", 3)
            self.patches.setattr(feed, "CROWD", 3)
            self.patches.setattr(looks, "MAX_OVERTAKEN", 2)
            self.patches.setattr(looks, "MAX_OVERTAKEN_SPANS", 2)
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.node = MemoryNode(page)
        self.node.make_root(1)
        self.bench = Bench(Path(self.folder.name) / "index.sqlite", self.node)
        self.begun = True
        self.chance.seed(seed)
        self.do(self.start())

    async def start(self) -> None:
        await self.bench.start()
        self.bench.feed.dirty = Dirty(max_keys=6, max_folders=2)
        await self.bench.ledger.configure(1, [config_of(1)])
        self.bench.schedule.request_all()  # as an agent does: hints of the time before are lost

    # ------------------------------------------------------------------------------------------------ the world

    def change(self, key: str) -> None:
        if self.chance.random() < 0.4:
            self.node.delete(1, key)
        else:
            self.node.put(1, key, "x" * self.chance.randrange(3))

    @rule(some=st.lists(keys, min_size=1, max_size=8), hinted=st.booleans(), early=st.booleans())
    def changes(self, some: list[str], *, hinted: bool, early: bool) -> None:
        hinted = hinted or self.honest
        for key in some:
            if hinted and early:
                self.bench.feed.hint(Hint(1, key))
            self.change(key)
            if hinted and not early:
                self.bench.feed.hint(Hint(1, key))

    @rule(prefix=st.sampled_from(["", "a/", "a/b/", "ü/", "nowhere/"]))
    def a_folder_is_hinted(self, prefix: str) -> None:
        self.bench.feed.hint(Hint(1, prefix, folder=True))

    @rule(borders=st.sampled_from([[""], ["", "a/"], ["", "a/", "b/"], ["a/0", "b/", "ü/1"], ["zz"]]))
    def the_root_is_cut_otherwise(self, borders: list[str]) -> None:
        self.node.borders = borders

    # ------------------------------------------------------------------------------------------------ the agent

    @rule()
    def a_scan_is_asked_for(self) -> None:
        self.bench.schedule.request(1)

    @rule(faults=st.floats(0, 0.3), changes=st.booleans(), steps=st.integers(1, 60), crash=st.booleans())
    def the_agent_works_for_a_while(self, *, faults: float, changes: bool, steps: int, crash: bool) -> None:
        def fault(_: str) -> None:
            if self.chance.random() < faults:
                raise StorageUnreachable("The storage server is away.")

        def between() -> None:
            if changes:
                key = self.chance.choice(KEYS)
                self.change(key)
                if self.honest or self.chance.random() < 0.5:
                    self.bench.feed.hint(Hint(1, key))

        self.node.fault, self.node.between = fault, between
        self.do(self.work(steps, crash=crash))
        self.node.fault, self.node.between = lambda _: None, lambda: None

    async def work(self, steps: int, *, crash: bool) -> None:
        """Look, list and scan side by side, for so many turns of the event loop; then what is under way is cut off."""

        ending = False

        async def again(step: Any) -> None:
            while not ending:
                with suppress(WioError):
                    await step()
                await asyncio.sleep(0)

        steps_of = (self.bench.feed.look_once, self.bench.feed.list_once, self.bench.schedule.step)
        tasks = [asyncio.create_task(again(step)) for step in steps_of]
        for _ in range(steps):
            await asyncio.sleep(self.chance.choice([0, 0, 0.0005]))
        if crash:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.bench.stop()
            await self.start()
        else:
            ending = True
            await asyncio.gather(*tasks)

    # ------------------------------------------------------------------------------------------------ the hub

    @rule(batches=st.integers(1, 4), lost=st.booleans())
    def the_hub_takes_some(self, batches: int, *, lost: bool) -> None:
        async def some() -> None:
            after, new = await self.bench.ledger.settle(self.bench.hub.cursor)
            if new:
                self.bench.schedule.request_all()
            for _ in range(batches):
                batch, _ = await self.bench.ledger.outgoing(after)
                if batch is None:
                    return
                assert self.bench.hub.apply(batch.generation, batch.first, batch.rows, batch.running)
                if not lost:
                    assert await self.bench.ledger.acknowledged(self.bench.hub.cursor)
                after = batch.end

        self.do(some())

    @rule()
    def the_hub_is_backed_up(self) -> None:
        self.backups.append((self.bench.hub.cursor, dict(self.bench.hub.entries)))

    @rule(empty=st.booleans())
    def the_hub_is_restored(self, *, empty: bool) -> None:
        cursor, entries = (Cursor(0, 0, EMPTY_RUN), {}) if empty or not self.backups else self.backups.pop(0)
        self.bench.hub.cursor, self.bench.hub.entries = cursor, dict(entries)

    @rule()
    def old_news_is_coalesced(self) -> None:
        self.do(self.bench.ledger._run(journal.coalesce))

    @rule()
    def the_agent_loses_its_state(self) -> None:
        self.do(self.bench.stop())
        for file in Path(self.folder.name).iterdir():
            file.unlink()
        self.do(self.start())

    # ------------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def the_snapshot_agrees_with_itself(self) -> None:
        async def agrees() -> None:
            kept, recounted, _ = await self.bench.ledger.recount(1)
            assert kept == recounted

        if self.begun:
            self.do(agrees())

    def teardown(self) -> None:
        if self.begun:
            try:
                self.do(self.end())
            finally:
                self.patches.undo()
                self.loop.close()
                self.folder.cleanup()

    async def end(self) -> None:
        if not self.honest:
            self.bench.schedule.request_all()
        self.bench.now_s += 600.0  # what failed is tried again; it is not yet time for the next scan
        await self.bench.quiet()
        await self.bench.sync()
        await self.bench.check(1)
        await self.bench.stop()


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
