"""How fresh nodes and roots are, what alarms stand, and that both are as true after a restart of the hub."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.services.alarms import Alarms, Caller
from hub.services.enrolment import Enrolment
from hub.services.freshness import Freshness
from hub.services.ports import Actor
from hub.services.roots import Roots
from protocol.api import AlarmKind, RootChange
from protocol.errors import BadInput
from protocol.messages import Configure, Health, RootActivity, RootState
from protocol.names import NodeId

ON_BOTH = ("test_freshness_and_alarms_outlast_a_restart",)
HOUR_US = 3600 * 1_000_000


class Fresh:
    """A bench's freshness and alarms, wired as a hub does; ``restart`` is what a new process knows."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.told: list[Any] = []
        self.start()

    def start(self) -> None:
        bench = self.bench
        self.freshness = Freshness(database=bench.database, agents=bench.agents, clock=bench.clock)
        self.alarms = Alarms(
            database=bench.database, clock=bench.clock, audit=bench.audit, freshness=self.freshness, tell=self.told.append
        )
        self.enrolment = Enrolment(
            database=bench.database,
            agents=bench.agents,
            clock=bench.clock,
            chance=bench.chance,
            audit=bench.audit,
            hub_key=bench.hub_key,
            hub_url="http://127.0.0.1:8000",
            freshness=self.freshness,
            alarms=self.alarms.of_node,
        )
        self.roots = Roots(
            database=bench.database,
            agents=bench.agents,
            clock=bench.clock,
            chance=bench.chance,
            audit=bench.audit,
            sets=bench.sets,
            searchable=bench._searchable,
            freshness=self.freshness,
        )

    async def restart(self) -> None:
        self.start()
        await self.freshness.load()
        await self.alarms.load()

    async def say(self, node: NodeId, *states: RootState, pending: int = 0, dirty: int = 0, warnings: Any = ()) -> None:
        health = Health(self.bench.clock.now(), pending, dirty, paused=False, warnings=warnings, roots=states)
        await self.enrolment.health(node, health)

    def state(self, root: int, *, activity: RootActivity = RootActivity.IDLE, dirty: int = 0) -> RootState:
        now = self.bench.clock.now()
        return RootState(root, activity, now - HOUR_US, now + 5 * HOUR_US, dirty)


@pytest.fixture
def fresh(bench: Any) -> Fresh:
    return Fresh(bench)


async def test_a_root_is_fresh_while_its_agent_has_nothing_to_tell_of_it(
    bench: Any, fresh: Fresh, alice: Actor, lab3: Any
) -> None:
    main, side = await bench.root(alice), await bench.root(alice, name="side", bucket="side")
    await fresh.say(lab3.id, fresh.state(main.id), fresh.state(side.id, dirty=3), dirty=3)
    bench.clock.pass_s(10)
    view = (await fresh.roots.show(alice, "lab3", "main")).view
    assert view is not None
    assert view.root == "lab3/main"
    assert view.age_s == pytest.approx(10, abs=0.1)
    other = (await fresh.roots.show(alice, "lab3", "side")).view
    assert other is not None
    assert (other.age_s, other.dirty, other.activity) == (None, 3, RootActivity.IDLE)
    node = await fresh.enrolment.node(alice, "lab3")
    assert node.age_s is None, "the node as a whole never was"
    assert {one.root for one in node.roots} == {"lab3/main", "lab3/side"}
    await fresh.say(lab3.id, fresh.state(main.id), fresh.state(side.id), pending=1)
    bench.clock.pass_s(5)
    assert fresh.freshness.root_age_s(lab3.id, main.id) == pytest.approx(15, abs=0.1), "rows are on their way"
    await fresh.say(lab3.id)  # an agent that is busy says nothing of its roots
    assert fresh.freshness.root_age_s(lab3.id, main.id) == pytest.approx(15, abs=0.1)
    assert fresh.freshness.age_s(lab3.id) == pytest.approx(0, abs=0.1)


async def test_others_see_no_roots_and_no_alarms_of_a_node(
    bench: Any, fresh: Fresh, alice: Actor, bob: Actor, lab3: Any
) -> None:
    main = await bench.root(alice)
    await fresh.say(lab3.id, fresh.state(main.id, activity=RootActivity.MISSING))
    for _ in range(10):
        bench.clock.pass_s(5)
        await fresh.alarms.step()
    mine, theirs = await fresh.enrolment.node(alice, "lab3"), await fresh.enrolment.node(bob, "lab3")
    assert [one.kind for one in mine.alarms] == [AlarmKind.MISSING]
    assert (theirs.alarms, theirs.roots) == ((), ())
    assert await fresh.alarms.alarms(bob) == []
    assert [one.root for one in await fresh.alarms.alarms(alice)] == ["lab3/main"]
    overseer = await bench.person("overseer", admin=True)
    assert len(await fresh.alarms.alarms(overseer)) == 1


async def test_freshness_and_alarms_outlast_a_restart(bench: Any, fresh: Fresh) -> None:
    alice = await bench.person("alice")
    lab3 = await bench.node(alice)
    main = await bench.root(alice)
    await fresh.say(lab3.id, fresh.state(main.id))
    await fresh.freshness.step()
    seen = bench.clock.time
    bench.agents.nodes.pop(lab3.id)
    bench.clock.pass_s(310)
    turn = await fresh.alarms.step()
    assert [one.key.kind for one in turn.raised] == [AlarmKind.OFFLINE]
    bench.clock.pass_s(1000)
    await fresh.restart()
    (alarm,) = await fresh.alarms.alarms(alice)
    assert alarm.since == pytest.approx(seen, abs=1000)
    assert fresh.freshness.root_age_s(lab3.id, main.id) == pytest.approx(1310, abs=1)
    assert (await fresh.alarms.step()).raised == (), "raised once"
    bench.agents.nodes[lab3.id] = lab3
    await fresh.say(lab3.id, fresh.state(main.id))
    assert len((await fresh.alarms.step()).cleared) == 1
    lines = [(one.action, one.target) for one in await bench.audit.entries(alice) if one.action.startswith("alarm")]
    assert lines == [("alarm.clear", "lab3"), ("alarm.raise", "lab3")]
    await fresh.restart()
    assert await fresh.alarms.alarms(alice) == []


async def test_what_was_kept_and_cannot_be_read_is_not_known(bench: Any, fresh: Fresh, alice: Actor, lab3: Any) -> None:
    from hub.db import kept  # noqa: PLC0415 - here alone

    async with bench.database.write() as connection:
        await kept.put(connection, {f"fresh.{lab3.id}": b"\xff", "fresh.x": b"\x90", "alarms": b"\xff"})
    await fresh.restart()
    assert fresh.freshness.age_s(lab3.id) is None
    assert await fresh.alarms.alarms(alice) == []


async def test_an_evicted_node_takes_its_alarms_along(bench: Any, fresh: Fresh, alice: Actor, lab3: Any) -> None:
    await fresh.say(lab3.id, warnings=("disk nearly full",))
    for _ in range(8):
        bench.clock.pass_s(5)
        await fresh.alarms.step()
    assert len(fresh.alarms.standing) == 1
    await fresh.enrolment.evict(alice, "lab3")
    assert len((await fresh.alarms.step()).cleared) == 1


async def test_pace_and_quiet_hours_reach_the_agent_and_are_shown(bench: Any, alice: Actor, lab3: Any) -> None:
    made = await bench.root(alice, pace=500, quiet="08:00-18:00")
    assert (made.pace, made.quiet) == (500, "08:00-18:00")
    (config,) = lab3.asked_for(Configure)[-1].roots
    assert (config.pace, config.quiet) == (500, "08:00-18:00")
    changed = await bench.root_changes.change(alice, "lab3", "main", RootChange(quiet="22:00-06:00", pace=0))
    assert (changed.pace, changed.quiet) == (0, "22:00-06:00")
    (config,) = lab3.asked_for(Configure)[-1].roots
    assert (config.pace, config.quiet) == (0, "22:00-06:00")
    assert (await bench.root_changes.change(alice, "lab3", "main", RootChange(quiet=""))).quiet == ""


@pytest.mark.parametrize("quiet", ["8-18", "08:00-24:00", "08:00-08:00", "08:00-18:00\n", "٠٨:00-18:00"])
async def test_hours_that_are_none_are_refused(bench: Any, alice: Actor, lab3: Any, quiet: str) -> None:
    del lab3
    with pytest.raises(BadInput):
        await bench.root(alice, quiet=quiet)
    await bench.root(alice)
    with pytest.raises(BadInput):
        await bench.root_changes.change(alice, "lab3", "main", RootChange(quiet=quiet))
    with pytest.raises(BadInput):
        await bench.root_changes.change(alice, "lab3", "main", RootChange(pace=2**31))


async def test_alarms_are_told_in_order_tried_again_and_hold_up_nobody(
    bench: Any, fresh: Fresh, alice: Actor, lab3: Any
) -> None:
    del alice
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
        bodies.append(await reader.readexactly(length))
        status = b"503 Busy" if len(bodies) == 1 else b"204 Fine"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    caller = Caller(url, hub="http://hub", clock=bench.clock, pause=lambda _: asyncio.sleep(0))
    fresh.alarms._tell = caller.tell
    sending = asyncio.create_task(caller.run())
    try:
        bench.agents.nodes.pop(lab3.id)
        bench.clock.pass_s(400)
        await fresh.alarms.step()
        bench.agents.nodes[lab3.id] = lab3
        await fresh.alarms.step()
        async with asyncio.timeout(10):
            while len(bodies) < 3:  # noqa: ASYNC110 - a server has no event
                await asyncio.sleep(0.005)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        server.close()
    import msgspec  # noqa: PLC0415 - here alone

    said = [msgspec.json.decode(body) for body in bodies]
    assert [one["what"] for one in said] == ["raised", "raised", "cleared"]
    assert said[0]["alarm"]["kind"] == "offline"
    assert said[0]["alarm"]["node"] == "lab3"
