"""The catalogue's bulk path, on both databases: entries over entries, workspaces over ranges, folders a level at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.db import catalogue
from hub.db.catalogue import Entry, Line
from hub.db.database import Database

ODD = ["a'b", 'a"b', "a\\b", "a\nb", "a$1?b", "%_", "é", "e\u0301", "\U0001f9e0/x", "a b", "-", ".", "..", "\x01", "\x7f", "{}"]


async def put(world: Any, root: int, keys: dict[str, int], workspace: int = 0) -> None:
    async with world.database.write() as connection:
        first = await Database.take_revisions(connection, len(keys))
        rows = [
            Entry(root, key, workspace, size, 5, "e", 0, first + at, gone=False, generation=1)
            for at, (key, size) in enumerate(keys.items())
        ]
        await catalogue.store(connection, rows)


async def level(world: Any, workspace: int, prefix: str, limit: int = 100, start: str | None = None) -> list[Line]:
    async with world.database.read() as connection:
        return await catalogue.level(connection, workspace, prefix, prefix if start is None else start, limit)


async def test_any_key_that_s3_can_hold_is_stored_and_found_again(world: Any, agent: Any) -> None:
    await put(world, agent.root, dict.fromkeys(ODD, 1))
    async with world.database.read() as connection:
        found = await catalogue.stored(connection, [(agent.root, key) for key in [*ODD, "not there"]])
    assert {key for _, key in found} == set(ODD)


async def test_entries_are_written_over_what_is_there(world: Any, agent: Any) -> None:
    await put(world, agent.root, {"a": 1, "b": 2})
    await put(world, agent.root, {"b": 7, "c": 3})
    async with world.database.read() as connection:
        found = await catalogue.stored(connection, [(agent.root, key) for key in "abc"])
    assert {key: one.size for (_, key), one in found.items()} == {"a": 1, "b": 7, "c": 3}


async def test_nothing_is_nothing(world: Any) -> None:
    async with world.database.write() as connection:
        await catalogue.store(connection, [])
        assert await catalogue.stored(connection, []) == {}
        assert await catalogue.homes(connection, []) == {}
        await catalogue.add_to_workspaces(connection, {})


async def test_a_workspace_takes_its_range_and_nothing_beside_it(world: Any, agent: Any) -> None:
    keys = ["p/", "p/a", "p/\U0010ffff", "p0", "p.", "p", "o/z", "p/b/c", "P/a"]
    await put(world, agent.root, dict.fromkeys(keys, 1))
    workspace = await world.workspace(agent.root, "p/")
    async with world.database.read() as connection:
        found = await catalogue.stored(connection, [(agent.root, key) for key in keys])
    assert {key for (_, key), one in found.items() if one.workspace_id == workspace} == {
        "p/",
        "p/a",
        "p/\U0010ffff",
        "p/b/c",
    }


async def test_giving_a_range_back_takes_it_from_the_workspace_and_its_totals(world: Any, agent: Any) -> None:
    for key in ("p/a", "p/b", "q"):
        agent.put(key, 5)
    agent.delete("p/b")
    await agent.send(0, 3)
    workspace = await world.workspace(agent.root, "p/")
    await agent.send()
    newest = await world.newest()
    async with world.database.write() as connection:
        assert await catalogue.assign(connection, agent.root, "p/", 0) == 1  # type: ignore[arg-type]  # none
        assert await catalogue.assign(connection, agent.root, "p/", 0) == 0  # type: ignore[arg-type]  # none
    async with world.database.read() as connection:
        pending = await catalogue.pending(connection, newest, 10)
    assert [(one.key, one.workspace_id, one.gone) for one in pending] == [("p/a", 0, False), ("p/b", 0, True)]
    assert await level(world, workspace, "p/") == []


async def test_what_the_index_has_not_seen_comes_in_revision_order_and_in_pieces(world: Any, agent: Any) -> None:
    before = await world.newest()
    workspace = await world.workspace(agent.root, "p/")
    for key in ("p/a", "z", "p/b"):
        agent.put(key)
    await agent.send()
    async with world.database.read() as connection:
        first = await catalogue.pending(connection, before, 2)
        rest = await catalogue.pending(connection, first[-1].revision, 100)
    assert [(one.key, one.workspace_id, one.prefix) for one in [*first, *rest]] == [
        ("p/a", workspace, "p/"),
        ("z", 0, None),
        ("p/b", workspace, "p/"),
    ]


async def test_a_level_shows_files_and_folders_with_what_is_in_them(world: Any, agent: Any) -> None:
    workspace = await world.workspace(agent.root, "w/")
    keys = {"w/b.txt": 1, "w/a/1": 2, "w/a/2/3": 3, "w/a0": 4, "w/a.": 5, "w//x": 6, "w/é/y": 7}
    await put(world, agent.root, keys, workspace)
    assert await level(world, workspace, "w/") == [
        Line("/", 1, 6, 5, ""),
        Line("a.", 1, 5, 5, "e"),
        Line("a/", 2, 5, 5, ""),
        Line("a0", 1, 4, 5, "e"),
        Line("b.txt", 1, 1, 5, "e"),
        Line("é/", 1, 7, 5, ""),
    ]
    assert await level(world, workspace, "w/a/") == [Line("1", 1, 2, 5, "e"), Line("2/", 1, 3, 5, "")]
    assert await level(world, workspace, "w/nothing/") == []


async def test_a_page_of_a_level_costs_nothing_of_the_folders_behind_it(world: Any, agent: Any) -> None:
    if not world.database.sqlite:
        pytest.skip("counted with SQLite's own counter of steps")
    workspace = await world.workspace(agent.root, "w/")
    await put(world, agent.root, {f"w/f{folder}/{file:05d}": 1 for folder in range(6) for file in range(2_000)}, workspace)

    async def steps(limit: int) -> int:
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        async with world.database.read() as connection:
            raw: Any = await connection.get_raw_connection()
            await raw.driver_connection.set_progress_handler(count, 1000)
            lines = await catalogue.level(connection, workspace, "w/", "w/", limit)
            await raw.driver_connection.set_progress_handler(None, 0)
        assert len(lines) == limit
        return counted

    assert await steps(1) < await steps(6) / 4


_key = st.text(alphabet="ab/0.", min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(_key, max_size=25), folder=st.sampled_from(["", "a/", "a/b/", "/"]), limit=st.integers(1, 4))
async def test_pages_of_a_level_put_together_are_the_level(world: Any, keys: set[str], folder: str, limit: int) -> None:
    node = await world.node()
    root = await world.root(node)
    workspace = await world.workspace(root, "w/")
    await put(world, root, {f"w/{key}": 1 for key in keys}, workspace)
    prefix = f"w/{folder}"
    rests = sorted(f"w/{key}"[len(prefix) :] for key in keys if f"w/{key}".startswith(prefix))
    expected: dict[str, int] = {}
    for rest in rests:
        name = rest.partition("/")[0] + ("/" if "/" in rest else "")
        expected[name] = expected.get(name, 0) + 1
    got: list[tuple[str, int]] = []
    start = prefix
    while lines := await level(world, workspace, prefix, limit, start):
        got += [(line.name, line.objects) for line in lines]
        last = prefix + lines[-1].name
        start = catalogue.after_folder(last) if lines[-1].name.endswith("/") else catalogue.after_key(last)
    assert got == sorted(expected.items())
