"""What the hub asks to prove its catalogue: counted, compared, added up and said again, over a real session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol.messages import (
    Change,
    Digested,
    Digests,
    Done,
    Events,
    Failed,
    GiveUp,
    IndexLevel,
    KeyRange,
    Recheck,
    Row,
    Survey,
    Surveyed,
    Verified,
    Verify,
)
from spoke_agent.index import verify
from spoke_agent.storage.node import Entry
from tests.spoke_agent.index.conftest import config_of, until
from tests.spoke_agent.link.conftest import Agent, SmallHub


async def started(agent: Agent, objects: int = 50) -> None:
    for number in range(objects):
        agent.bench.node.put(1, f"k{number:03}.txt", "x" * (number % 3))
    agent.bench.schedule.request_all()
    agent.start()
    await agent.caught_up()


def rows_behind(hub: SmallHub, sequence: int) -> list[Row]:
    found = [message for message in hub.live.of(Events) if isinstance(message, Events) and message.first >= sequence]
    return [row for message in found for row in message.rows]


async def test_a_survey_counts_and_keeps_names_at_home_where_the_hub_may_not_know_them(hub: SmallHub, agent: Agent) -> None:
    await started(agent)
    agent.bench.node.put(1, "odd name\x1b.csv", "12345")
    said = await hub.ask(lambda request, deadline: Survey(request, deadline, config_of(1)))
    assert isinstance(said, Surveyed)
    assert said.objects == 51
    assert {one.what: one.objects for one in said.extensions} == {"txt": 50, "csv": 1}
    assert said.odd[0].samples
    said = await hub.ask(lambda request, deadline: Survey(request, deadline, config_of(1, level=IndexLevel.NONE)))
    assert isinstance(said, Surveyed)
    assert (said.objects, said.extensions) == (51, ())
    assert [one.samples for one in said.odd] == [()]


async def test_ranges_add_up_to_the_whole(hub: SmallHub, agent: Agent) -> None:
    await started(agent)
    whole = await hub.ask(lambda request, deadline: Digests(request, deadline, 1, (KeyRange("", None),)))
    parts = (KeyRange("", "k010.txt"), KeyRange("k010.txt", "k010.txt"), KeyRange("k010.txt", "k0300"), KeyRange("k0300", None))
    said = await hub.ask(lambda request, deadline: Digests(request, deadline, 1, parts))
    assert isinstance(whole, Digested)
    assert isinstance(said, Digested)
    assert [one.objects for one in said.sums] == [11, 0, 19 + 1, 19]
    assert sum(one.objects for one in said.sums) == whole.sums[0].objects == 50
    assert sum(one.digest for one in said.sums) % 2**63 == whole.sums[0].digest
    assert (said.generation, said.sequence) == (hub.far.cursor.generation, hub.far.cursor.sequence)


async def test_a_recheck_says_what_is_there_of_known_keys_and_of_the_hubs_own(hub: SmallHub, agent: Agent) -> None:
    await started(agent)
    before = hub.far.cursor.sequence
    agent.bench.node.put(1, "k005.txt", "changed, and nobody said so")
    asked = ("k004.txt", "k005x-never", "k006.txt")
    said = await hub.ask(lambda request, deadline: Recheck(request, deadline, 1, KeyRange("k003.txt", "k006.txt"), asked))
    assert isinstance(said, Done)
    await until(lambda: hub.far.cursor.sequence >= before + 4)
    rows = {row.key: row.change for row in rows_behind(hub, before)}
    assert rows == {
        "k004.txt": Change.PUT,
        "k005.txt": Change.PUT,
        "k005x-never": Change.DELETE,
        "k006.txt": Change.PUT,
    }
    await agent.caught_up()


async def test_a_verification_says_what_storage_has_that_is_not_known(
    hub: SmallHub, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "SETTLING_S", (0.0, 0.0))
    await started(agent)
    agent.bench.node.put(1, "nobody said so")
    said = await hub.ask(lambda request, deadline: Verify(request, deadline, 1))
    assert isinstance(said, Verified)
    assert (said.unknown.objects, said.gone.objects, said.other.objects) == (1, 0, 0)
    assert said.kept == said.recounted
    assert said.storage.objects == said.kept.objects + 1
    assert said.sequence == hub.far.cursor.sequence


async def test_what_is_not_indexed_is_not_compared(hub: SmallHub, agent: Agent) -> None:
    await started(agent)
    await agent.bench.ledger.configure(99, [config_of(1, level=IndexLevel.NONE)])
    for make in (
        lambda request, deadline: Verify(request, deadline, 1),
        lambda request, deadline: Digests(request, deadline, 1, (KeyRange("", None),)),
        lambda request, deadline: Recheck(request, deadline, 1, KeyRange("", None), ()),
    ):
        said = await hub.ask(make)
        assert isinstance(said, Failed)
        assert said.problem.code == "bad-setting"


async def test_a_walk_that_nobody_waits_for_ends_and_only_a_few_go_on_at_once(hub: SmallHub, agent: Agent) -> None:
    await started(agent)
    walking = 0

    async def endless(*_: object, **__: object) -> AsyncIterator[list[Entry]]:
        nonlocal walking
        walking += 1
        try:
            await asyncio.Event().wait()
            yield []
        finally:
            walking -= 1

    agent.bench.node.scan = endless  # type: ignore[method-assign,assignment]  # it never ends
    first = await hub.send_request(lambda request, deadline: Verify(request, deadline, 1))
    second = await hub.send_request(lambda request, deadline: Survey(request, deadline, config_of(1)))
    await until(lambda: walking == 2)
    said = await hub.ask(lambda request, deadline: Verify(request, deadline, 1))
    assert isinstance(said, Failed)
    assert said.problem.code == "too-many"
    await hub.live.send(GiveUp(first))
    await hub.live.send(GiveUp(12_345))
    await until(lambda: walking == 1)
    await hub.live.send(GiveUp(second))
    await until(lambda: walking == 0)
    assert first not in hub.answers
