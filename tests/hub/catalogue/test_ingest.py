"""Journals in: exactly once, in order, with totals and digest that anyone can count again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from hub.db.tables import entries, roots
from protocol.digest import run_on
from protocol.errors import BadMessage
from protocol.messages import Ack, Change, Cursor, Events, IndexLevel, Nak, Progress, Row, ScanState

KEYS = ["a", "p/a", "p/b", "p/c/d", "q/x", "q/y/z", "q0", "p0", "é/ü", "p//", "r/1", "r/2"]
PREFIXES = ["p/", "q/", "q/y/", "r/", "é/"]


async def test_rows_become_entries_and_the_cursor_moves_with_them(agent: Any) -> None:
    agent.put("p/a", 3)
    agent.put("p/b", 4)
    agent.delete("p/a")
    assert await agent.send() == Ack(agent.cursor)
    assert await agent.world.live(agent.root) == {"p/b": (4, 5, "e")}
    assert await agent.world.ingest.cursor(agent.node) == agent.cursor
    await agent.world.check(agent.root)


async def test_a_node_of_which_nothing_is_known_has_a_cursor_below_every_generation(agent: Any) -> None:
    assert await agent.world.ingest.cursor(agent.node) == Cursor(0, 0, bytes(32))


async def test_a_batch_sent_again_is_acknowledged_again_and_changes_nothing(agent: Any) -> None:
    agent.put("a", 1)
    agent.put("b", 2)
    await agent.send()
    newest = await agent.world.newest()
    for first, last in ((0, 2), (0, 1), (2, 2)):
        assert await agent.send(first, last) == Ack(agent.cursor)
    assert await agent.world.newest() == newest
    await agent.world.check(agent.root)


async def test_of_a_batch_that_overlaps_only_the_new_rows_count(agent: Any) -> None:
    agent.put("a", 1)
    agent.put("b", 1)
    await agent.send()
    agent.delete("a")
    agent.put("c", 1)
    assert await agent.send(0) == Ack(agent.cursor)
    assert set(await agent.world.live(agent.root)) == {"b", "c"}


async def test_a_gap_is_refused_with_the_cursor_and_changes_nothing(agent: Any) -> None:
    for key in "abc":
        agent.put(key)
    await agent.send(0, 1)
    answer = await agent.send(2)
    assert isinstance(answer, Nak)
    assert answer.cursor == Cursor(1, 1, agent.runs[1])
    assert set(await agent.world.live(agent.root)) == {"a"}


async def test_rows_that_do_not_give_the_hash_the_agent_says_make_it_start_anew(agent: Any) -> None:
    agent.put("a")
    answer = await agent.world.ingest.apply(agent.node, msgspec.structs.replace(agent.batch(0), running=bytes(32)))
    assert isinstance(answer, Nak)
    assert answer.cursor.running not in agent.runs
    assert await agent.world.live(agent.root) == {}


async def test_an_agent_that_uses_row_numbers_again_for_other_rows_is_noticed(agent: Any) -> None:
    agent.put("a")
    await agent.send()
    restored = Row(Change.PUT, agent.root, "other", 1, 1, "x")
    answer = await agent.world.ingest.apply(agent.node, Events(1, 0, (restored,), run_on(bytes(32), [restored])))
    assert isinstance(answer, Nak)
    assert answer.cursor.running not in agent.runs


async def test_a_generation_that_is_over_is_refused(agent: Any) -> None:
    agent.put("a")
    old = agent.batch(0)
    agent.lose_state()
    agent.put("b")
    assert isinstance(await agent.send(), Ack)
    answer = await agent.world.ingest.apply(agent.node, old)
    assert isinstance(answer, Nak)
    assert answer.cursor == agent.cursor


async def test_a_new_generation_must_begin_at_its_first_row(agent: Any) -> None:
    agent.generation = 7
    agent.put("a")
    agent.put("b")
    answer = await agent.send(1)
    assert isinstance(answer, Nak)
    assert answer.cursor.generation == 0


async def test_a_root_of_another_node_ends_the_connection_and_changes_nothing(
    agent: Any, make_agent: Callable[[], Awaitable[Any]]
) -> None:
    other = await make_agent()
    other.put("theirs")
    await other.send()
    agent.put("mine")
    agent.write(Row(Change.DELETE, other.root, "theirs"))
    with pytest.raises(BadMessage, match="another node"):
        await agent.send()
    with pytest.raises(BadMessage, match="another node"):
        await agent.say(Progress(other.root, ScanState.DONE, 0, 0, 1, 2))
    assert await agent.world.live(agent.root) == {}
    assert set(await other.world.live(other.root)) == {"theirs"}


@pytest.mark.parametrize("level", [IndexLevel.NONE, IndexLevel.LOCAL])
async def test_rows_of_a_root_that_is_not_to_be_indexed_here_are_passed_over(world: Any, agent: Any, level: IndexLevel) -> None:
    closed = await world.root(agent.node, level)
    agent.write(Row(Change.PUT, closed, "secret", 1, 1, "e"), Row(Change.PUT, 12345, "nobody's", 1, 1, "e"))
    agent.put("a")
    assert await agent.send() == Ack(agent.cursor)
    assert await world.live(closed) == {}
    assert set(await world.live(agent.root)) == {"a"}
    assert await agent.say(Progress(closed, ScanState.DONE, 5, 5, 1, 2, 3, 4)) is None


async def test_rows_of_a_retired_root_are_passed_over(world: Any, agent: Any) -> None:
    async with world.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == agent.root).values(retired_at=1))
    agent.put("a")
    assert await agent.send() == Ack(agent.cursor)
    assert await world.live(agent.root) == {}


async def test_an_etag_that_no_database_holds_ends_the_connection(agent: Any) -> None:
    agent.put("a", etag="x\0y")
    with pytest.raises(BadMessage, match="NUL"):
        await agent.send()


async def test_a_fault_of_one_node_harms_no_other_in_the_same_transaction(make_agent: Callable[[], Awaitable[Any]]) -> None:
    agents = [await make_agent() for _ in range(6)]
    for agent in agents:
        agent.put("a")
    agents[2].write(Row(Change.PUT, agents[0].root, "a", 9, 9, "forged"))
    outcomes = await asyncio.gather(*(agent.send(0) for agent in agents), return_exceptions=True)
    assert isinstance(outcomes.pop(2), BadMessage)
    assert all(isinstance(one, Ack) for one in outcomes)
    assert await agents[0].world.live(agents[0].root) == {"a": (1, 5, "e")}


async def test_seeing_a_file_unchanged_gives_the_search_index_nothing_to_do(agent: Any) -> None:
    agent.put("a")
    await agent.send()
    newest = await agent.world.newest()
    agent.write(Row(Change.PUT, agent.root, "a", 1, 5, "e", 77))
    before = agent.world.changes
    await agent.send()
    async with agent.world.database.read() as connection:
        row = (await connection.execute(select(entries).where(entries.c.root_id == agent.root))).one()
    assert (row.actor_id, row.revision <= newest) == (77, True)
    assert agent.world.changes == before


# ---------------------------------------------------------------------------------------------------- workspaces


async def test_a_new_workspace_takes_over_the_files_that_lie_there(world: Any, agent: Any) -> None:
    for key in KEYS:
        agent.put(key, 2)
    await agent.send()
    newest = await world.newest()
    workspace = await world.workspace(agent.root, "p/")
    await world.check(agent.root)
    async with world.database.read() as connection:
        found = (await connection.execute(select(entries).where(entries.c.workspace_id == workspace))).all()
    assert {row.key for row in found} == {"p/a", "p/b", "p/c/d", "p//"}
    assert all(row.revision > newest for row in found)


async def test_files_and_a_workspace_made_at_the_same_moment_find_each_other(world: Any, agent: Any) -> None:
    for number in range(300):
        agent.put(f"p/{number}")

    async def send() -> None:
        for start in range(0, 300, 20):
            assert isinstance(await agent.send(start, start + 20), Ack)

    await asyncio.gather(send(), world.workspace(agent.root, "p/"), world.workspace(agent.root, "q/"))
    await world.check(agent.root)


# ---------------------------------------------------------------------------------------------------- scans


async def test_tombstones_stay_until_a_scan_is_done_and_the_index_has_seen_them(agent: Any) -> None:
    agent.put("a")
    agent.delete("a")
    agent.put("b")
    await agent.send(0, 1)
    await agent.send()
    assert await agent.world.tombstones(agent.root) == {"a"}
    agent.world.indexed = 0
    assert await agent.say(agent.scan()) is None
    assert await agent.world.tombstones(agent.root) == {"a"}
    agent.world.indexed = 2**62
    await agent.say(agent.scan())
    assert await agent.world.tombstones(agent.root) == set()


async def test_a_scan_that_ends_before_its_rows_are_here_is_compared_where_it_ended(agent: Any) -> None:
    for key in KEYS[:4]:
        agent.put(key)
    done = agent.done()
    for key in KEYS[4:]:
        agent.put(key)
    await agent.send(0, 1)
    await agent.say(done)
    assert (await scan_of(agent)).state is ScanState.RUNNING
    assert await agent.send(0, 3) == Ack(Cursor(1, 3, agent.runs[3]))
    assert (await scan_of(agent)).state is ScanState.RUNNING
    assert await agent.send() == Ack(agent.cursor)
    assert (await scan_of(agent)).state is ScanState.DONE
    assert agent.root not in agent.world.ingest.drifts


async def test_a_catalogue_that_has_drifted_is_noted_and_only_where_nothing_else_helps_the_agent_starts_anew(
    agent: Any,
) -> None:
    agent.put("a")
    agent.put("b")
    await agent.send()
    async with agent.world.database.write() as connection:
        gone = entries.delete().where(entries.c.root_id == agent.root, entries.c.key == "a")
        await connection.execute(gone)
        await connection.execute(update(roots).where(roots.c.id == agent.root).values(objects=1, bytes=1, digest=17))
    assert await agent.say(agent.scan()) is None
    assert "2 (" in agent.world.ingest.drifts[agent.root]
    since = await drifted_at(agent)
    assert since is not None
    assert await agent.say(agent.scan()) is None
    assert await drifted_at(agent) == since
    agent.world.ingest.begin_anew(agent.root)
    answer = await agent.say(agent.scan())
    assert isinstance(answer, Nak)
    assert answer.cursor.running not in agent.runs
    agent.world.ingest.begin_anew(agent.root)
    assert await agent.say(agent.scan()) is None, "not all the time"
    agent.put("a", 1, "e")
    async with agent.world.database.write() as connection:
        await connection.execute(update(roots).where(roots.c.id == agent.root).values(objects=2, digest=agent.done().digest))
    await agent.say(agent.done())
    assert await drifted_at(agent) is None
    assert agent.root not in agent.world.ingest.drifts


async def drifted_at(agent: Any) -> int | None:
    async with agent.world.database.read() as connection:
        found: int | None = await connection.scalar(select(roots.c.drifted_at).where(roots.c.id == agent.root))
    return found


async def test_how_far_a_scan_is_can_be_read(agent: Any) -> None:
    await agent.say(Progress(agent.root, ScanState.RUNNING, 10, 20, 1, 2))
    assert (await scan_of(agent)).objects == 10


async def test_after_a_lost_journal_what_the_new_scan_does_not_find_is_dropped(agent: Any) -> None:
    for key in "abc":
        agent.put(key)
    await agent.send()
    agent.storage.pop("b")
    agent.lose_state()
    await agent.send()
    assert set(await agent.world.live(agent.root)) == {"a", "b", "c"}
    done = agent.scan()
    await agent.send()
    assert set(await agent.world.live(agent.root)) == {"a", "b", "c"}
    assert await agent.say(done) is None
    assert set(await agent.world.live(agent.root)) == {"a", "c"}
    assert await agent.world.tombstones(agent.root) <= {"b"}
    await agent.world.check(agent.root)
    assert agent.root not in agent.world.ingest.drifts


async def test_a_scan_of_the_generation_before_drops_nothing(agent: Any) -> None:
    agent.put("a")
    agent.put("b")
    await agent.send()
    old = agent.done()
    agent.lose_state()
    agent.look("a")
    agent.put("c")
    await agent.send()
    await agent.say(old)
    assert set(await agent.world.live(agent.root)) == {"a", "b", "c"}


async def scan_of(agent: Any) -> Progress:
    async with agent.world.database.read() as connection:
        row = (await connection.execute(select(roots).where(roots.c.id == agent.root))).one()
    return msgspec.msgpack.decode(row.scan, type=Progress)


# ---------------------------------------------------------------------------------------------------- any history

_put = st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 3))
_delete = st.tuples(st.just("delete"), st.sampled_from(KEYS), st.just(0))
_unseen = st.tuples(st.just("unseen"), st.sampled_from(KEYS), st.integers(0, 3))
_send = st.tuples(st.just("send"), st.just(""), st.integers(0, 6))
_again = st.tuples(st.just("again"), st.just(""), st.integers(0, 6))
_gap = st.tuples(st.just("gap"), st.just(""), st.integers(1, 3))
_workspace = st.tuples(st.just("workspace"), st.sampled_from(PREFIXES), st.just(0))
_lose = st.tuples(st.just("lose"), st.just(""), st.just(0))
_scan = st.tuples(st.just("scan"), st.just(""), st.integers(0, 2))
_steps = st.lists(
    st.one_of(_put, _put, _put, _delete, _unseen, _send, _send, _again, _gap, _workspace, _lose, _scan), max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=_steps)
async def test_whatever_happens_the_catalogue_ends_as_the_storage_is(world: Any, steps: list[tuple[str, str, int]]) -> None:
    node = await world.node()
    root = await world.root(node)
    agent = type(world).Agent(world, node, root)
    made: list[str] = []
    for what, text, number in steps:
        await _step(agent, made, what, text, number)
        await world.check(root)
    done = agent.scan()
    await agent.send()
    assert await agent.say(done) is None
    assert await world.live(root) == agent.storage
    assert await world.tombstones(root) <= set(KEYS)
    assert root not in world.ingest.drifts
    await world.check(root)


async def _step(agent: Any, made: list[str], what: str, text: str, number: int) -> None:  # noqa: C901 - one line per kind
    world = agent.world
    sent = await world.cursor(agent.node)
    at = sent.sequence if sent.generation == agent.generation else 0
    match what:
        case "put":
            agent.put(text, number, f"e{number}")
        case "delete":
            agent.delete(text)
        case "unseen":
            agent.storage[text] = (number, 9, "unseen")
        case "send":
            end = min(at + number, len(agent.rows))
            assert await agent.send(at, end) == Ack(
                Cursor(agent.generation, end, agent.runs[end])
                if end or sent.generation == agent.generation
                else Cursor(agent.generation, 0, agent.runs[0])
            )
        case "again":
            first = max(at - number, 0)
            assert isinstance(await agent.send(first, min(at + 1, len(agent.rows))), Ack)
        case "gap" if at + number < len(agent.rows):
            assert isinstance(await agent.send(at + number), Nak)
        case "workspace" if not any(text.startswith(one) or one.startswith(text) for one in made):
            made.append(text)
            await world.workspace(agent.root, text)
        case "lose":
            agent.lose_state()
        case "scan":
            done = agent.scan()
            if number:  # the end is said before, or after, its rows are sent
                await agent.send()
            assert await agent.say(done) is None


async def test_after_a_lost_journal_over_an_emptied_bucket_nothing_is_left_in_the_catalogue(agent: Any) -> None:
    agent.put("a")
    agent.put("b")
    await agent.send()
    agent.lose_state()
    agent.storage.clear()
    assert await agent.say(agent.scan()) is None  # there is no row to send
    assert await agent.world.live(agent.root) == {}
    agent.put("c")
    assert isinstance(await agent.send(), Ack)
    assert set(await agent.world.live(agent.root)) == {"c"}


async def test_the_end_of_a_scan_that_comes_before_its_new_journal_waits_for_it(agent: Any) -> None:
    agent.put("a")
    await agent.send()
    agent.lose_state()
    agent.storage["b"] = (1, 5, "e")
    del agent.storage["a"]
    done = agent.scan()
    assert await agent.say(done) is None
    assert set(await agent.world.live(agent.root)) == {"a"}
    assert isinstance(await agent.send(), Ack)
    assert set(await agent.world.live(agent.root)) == {"b"}
