"""From the catalogue into a real search index: everything, in order, soon, and again after any loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from hub.db.tables import counters
from hub.services import indexing as module
from hub.services.indexing import LONGEST_REST_S, Indexing
from search.engine import Asked
from search.query import Everything
from search.tantivy import Tantivy


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Tantivy]:
    made = Tantivy(tmp_path / "index")
    await made.open()
    yield made
    await made.close()


async def caught_up(indexing: Indexing) -> None:
    while await indexing.step():
        pass


async def found(engine: Tantivy, *workspaces: int) -> set[str]:
    page = await engine.search(Asked(query=Everything(), workspaces=frozenset(workspaces), limit=1000))
    return {hit.document.path for hit in page.hits}


async def test_files_are_found_below_their_workspace_and_gone_ones_are_not(world: Any, agent: Any, engine: Tantivy) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    workspace = await world.workspace(agent.root, "p/")
    for key in ("p/a", "p/b/c", "outside"):
        agent.put(key)
    await agent.send()
    await caught_up(indexing)
    assert await found(engine, workspace, 0) == {"a", "b/c"}
    assert indexing.indexed() == await world.newest()
    agent.delete("p/a")
    agent.put("p/d")
    await agent.send()
    assert await found(engine, workspace) == {"a", "b/c"}
    await caught_up(indexing)
    assert await found(engine, workspace) == {"b/c", "d"}


async def test_files_follow_when_a_workspace_is_made_around_them(world: Any, agent: Any, engine: Tantivy) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    agent.put("q/x")
    await agent.send()
    assert await indexing.searchable(agent.root) == 0
    await caught_up(indexing)
    assert await indexing.searchable(agent.root) == 1
    workspace = await world.workspace(agent.root, "q/")
    assert await indexing.searchable(agent.root) == 0
    await caught_up(indexing)
    assert await found(engine, workspace) == {"x"}


async def test_more_than_one_step_holds_is_moved_in_several(
    world: Any, agent: Any, engine: Tantivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    await caught_up(indexing)
    monkeypatch.setattr(module, "STEP_ROWS", 10)
    monkeypatch.setattr(module, "COMMIT_ROWS", 20)
    workspace = await world.workspace(agent.root, "p/")
    for number in range(35):
        agent.put(f"p/{number}")
    await agent.send()
    assert await indexing.step()
    assert await indexing.searchable(agent.root) == 0
    assert await indexing.step()
    assert await indexing.searchable(agent.root) == 20
    assert len(await found(engine, workspace)) == 20
    assert await indexing.step()
    assert not await indexing.step()
    assert await indexing.searchable(agent.root) == 35
    assert len(await found(engine, workspace)) == 35


async def test_a_lost_index_is_filled_again_from_the_catalogue(world: Any, agent: Any, engine: Tantivy) -> None:
    workspace = await world.workspace(agent.root, "p/")
    agent.put("p/a")
    await agent.send()
    await caught_up(Indexing(database=world.database, engine=engine))
    await engine.clear()
    assert await found(engine, workspace) == set()
    await caught_up(Indexing(database=world.database, engine=engine))
    assert await found(engine, workspace) == {"a"}


async def test_an_index_from_a_future_that_a_restored_database_does_not_know_is_built_anew(
    world: Any, agent: Any, engine: Tantivy
) -> None:
    workspace = await world.workspace(agent.root, "p/")
    agent.put("p/a")
    await agent.send()
    await caught_up(Indexing(database=world.database, engine=engine))
    await engine.commit(await world.newest() + 1000)
    await caught_up(Indexing(database=world.database, engine=engine))
    assert await engine.position() == await world.newest()
    assert await found(engine, workspace) == {"a"}


async def test_what_fails_is_begun_again_at_the_last_commit(
    world: Any, agent: Any, engine: Tantivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    workspace = await world.workspace(agent.root, "p/")
    agent.put("p/a")
    await agent.send()
    with monkeypatch.context() as broken:

        async def fail(position: int) -> None:
            raise OSError(position)

        broken.setattr(engine, "commit", fail)
        with pytest.raises(OSError, match=r"\d"):
            await caught_up(indexing)
    await caught_up(indexing)
    assert await found(engine, workspace) == {"a"}


async def test_a_change_is_searchable_soon_after_it_came(world: Any, agent: Any, engine: Tantivy) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    workspace = await world.workspace(agent.root, "p/")
    running = asyncio.create_task(indexing.run())
    try:
        async with asyncio.timeout(20):
            while await engine.position() < await world.newest():  # noqa: ASYNC110 - the engine says nothing
                await asyncio.sleep(0.005)
            for number in range(3):
                agent.put(f"p/{number}")
                await agent.send()
                indexing.changed()
                while f"{number}" not in await found(engine, workspace):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.002)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_change_nobody_spoke_of_is_found_by_itself(world: Any, agent: Any, engine: Tantivy) -> None:
    """Another process may have made it."""
    indexing = Indexing(database=world.database, engine=engine)
    workspace = await world.workspace(agent.root, "p/")
    running = asyncio.create_task(indexing.run())
    try:
        async with asyncio.timeout(20):
            agent.put("p/a")
            await agent.send()
            while await found(engine, workspace) != {"a"}:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_counter_of_revisions_starts_every_index(world: Any, engine: Tantivy) -> None:
    async with world.database.write() as connection:
        await connection.execute(update(counters).where(counters.c.name == "revision").values(value=counters.c.value + 5))
    indexing = Indexing(database=world.database, engine=engine)
    await caught_up(indexing)
    assert not await indexing.step()


async def test_changes_that_are_not_committed_yet_become_searchable_with_a_later_step(
    world: Any, agent: Any, engine: Tantivy
) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    workspace = await world.workspace(agent.root, "p/")
    await caught_up(indexing)
    agent.put("p/a")
    await agent.send()
    assert not await indexing.step(commit=False)
    assert await found(engine, workspace) == set()
    assert await indexing.searchable(agent.root) == 0
    assert not await indexing.step()
    assert await found(engine, workspace) == {"a"}
    assert await indexing.searchable(agent.root) == 1


async def test_a_change_after_a_quiet_moment_is_searchable_at_once_and_one_right_behind_it_soon(
    world: Any, agent: Any, engine: Tantivy
) -> None:
    indexing = Indexing(database=world.database, engine=engine)
    workspace = await world.workspace(agent.root, "p/")
    running = asyncio.create_task(indexing.run())
    try:
        for name in ("a", "b", "c"):
            agent.put(f"p/{name}")
            await agent.send()
            indexing.changed()
            async with asyncio.timeout(LONGEST_REST_S + 2):
                while name not in await found(engine, workspace):  # noqa: ASYNC110 - the engine tells nobody
                    await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
