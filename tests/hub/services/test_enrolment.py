"""How storage servers join, are seen, and go."""

import asyncio
import shlex
from typing import Any

import pytest
from sqlalchemy import select

from hub.db.tables import invitations, nodes
from hub.services.ports import Actor
from protocol.api import NewInvitation, NodeState
from protocol.errors import (
    AlreadyJoined,
    BadJoinString,
    BadLifetime,
    BadName,
    Evicted,
    JoinStringUsed,
    NameTaken,
    NotAllowed,
    TooMany,
    UnknownNode,
    UnknownPeer,
)
from protocol.identity import JoinString, fingerprint, label_of, new_key, public_bytes, to_text
from protocol.messages import Health
from protocol.session import Proved

HERE = "192.0.2.9"
ON_BOTH = {
    "test_a_node_joins_once_and_may_repeat_itself",
    "test_of_many_nodes_with_one_string_one_gets_in",
    "test_a_taken_name_uses_nothing_up",
}


async def test_a_node_joins_once_and_may_repeat_itself(bench: Any, alice: Actor) -> None:
    proved = bench.proved(await bench.invited(alice), "lab3")
    first = await bench.enrolment.admit(proved, HERE)
    assert (first.name, first.epochs) == ("lab3", ())
    assert await bench.enrolment.admit(proved, HERE) == first
    assert await bench.enrolment.admit(Proved(proved.node_key, None), HERE) == first
    with pytest.raises(JoinStringUsed):
        await bench.enrolment.admit(Proved(public_bytes(new_key(bytes(32))), proved.enrolment), HERE)
    assert [one.name for one in await bench.enrolment.nodes(alice)] == ["lab3"]


async def test_of_many_nodes_with_one_string_one_gets_in(bench: Any, alice: Actor) -> None:
    join = await bench.invited(alice)
    keys = [public_bytes(new_key(bytes([at]) * 32)) for at in range(6)]
    tries = [bench.enrolment.admit(bench.proved(join, f"lab{at}", key), HERE) for at, key in enumerate(keys)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == ["Admitted"] + ["JoinStringUsed"] * 5
    async with bench.database.read() as connection:
        assert len((await connection.execute(select(nodes.c.id))).all()) == 1


async def test_one_node_that_tries_several_times_at_once_is_one_node(bench: Any, alice: Actor) -> None:
    proved = bench.proved(await bench.invited(alice), "lab3")
    outcomes = await asyncio.gather(*(bench.enrolment.admit(proved, HERE) for _ in range(5)))
    assert len({one.node for one in outcomes}) == 1


async def test_a_taken_name_uses_nothing_up(bench: Any, alice: Actor, bob: Actor) -> None:
    await bench.enrolment.admit(bench.proved(await bench.invited(alice), "lab3"), HERE)
    join = await bench.invited(bob)
    key = public_bytes(new_key(bytes(32)))
    with pytest.raises(NameTaken):
        await bench.enrolment.admit(bench.proved(join, "lab3", key), HERE)
    for name in ("../x", "public", "x" * 41):
        with pytest.raises(BadName):
            await bench.enrolment.admit(bench.proved(join, name, key), HERE)
    assert (await bench.enrolment.admit(bench.proved(join, "lab4", key), HERE)).name == "lab4"


async def test_the_inviter_may_name_the_node_and_the_joiner_has_the_last_word(bench: Any, alice: Actor) -> None:
    join = await bench.invited(alice, "named")
    assert (await bench.enrolment.admit(bench.proved(join, "", public_bytes(new_key(bytes(32)))), HERE)).name == "named"
    other = await bench.invited(alice, "wished")
    assert (await bench.enrolment.admit(bench.proved(other, "chosen"), HERE)).name == "chosen"
    with pytest.raises(BadName, match="no name"):
        await bench.enrolment.admit(bench.proved(await bench.invited(alice), "", b"\1" * 32), HERE)
    with pytest.raises(NameTaken):
        await bench.enrolment.invite(alice, NewInvitation("named"))


async def test_expired_and_foreign_strings_are_refused_and_written_down(bench: Any, alice: Actor) -> None:
    admin = await bench.person("boss", admin=True)
    join = await bench.invited(alice)
    bench.clock.pass_s(600)
    with pytest.raises(BadJoinString, match="expired"):
        await bench.enrolment.admit(bench.proved(join, "lab3"), HERE)
    foreign = type(join)(join.hub_url, join.hub_key, bytes(32), join.expires)
    with pytest.raises(BadJoinString, match="did not make"):
        await bench.enrolment.admit(bench.proved(foreign, "lab3"), HERE)
    told = [one for one in await bench.audit.entries(admin) if one.action == "node.join-refused"]
    assert len(told) == 2
    assert '"from":"192.0.2.9"' in told[0].detail
    with pytest.raises(UnknownPeer):
        await bench.enrolment.admit(Proved(b"\2" * 32, None), HERE)


async def test_tries_to_join_are_limited_by_address(bench: Any, alice: Actor) -> None:
    join = await bench.invited(alice)
    foreign = type(join)(join.hub_url, join.hub_key, bytes(32), join.expires)
    for _ in range(30):
        with pytest.raises(BadJoinString):
            await bench.enrolment.admit(bench.proved(foreign, "lab3"), HERE)
    with pytest.raises(TooMany):
        await bench.enrolment.admit(bench.proved(join, "lab3"), HERE)
    await bench.enrolment.admit(bench.proved(join, "lab3"), "198.51.100.7")


async def test_the_database_holds_nothing_that_joins(bench: Any, alice: Actor) -> None:
    join = await bench.invited(alice)
    async with bench.database.read() as connection:
        [row] = (await connection.execute(select(invitations))).all()
    assert join.seed not in row
    assert row.join_key == public_bytes(join.key)


async def test_an_invitation_is_a_line_to_run(bench: Any, alice: Actor) -> None:
    made = await bench.enrolment.invite(alice, NewInvitation(life_s=60))
    words = shlex.split(made.command)
    assert words == ["wio-agent", "join", made.join_string, "--s3", "http://127.0.0.1:9000"]
    for life in (0, -1, 59, 8 * 86_400):
        with pytest.raises(BadLifetime):
            await bench.enrolment.invite(alice, NewInvitation(life_s=life))
    with pytest.raises(BadName):
        await bench.enrolment.invite(alice, NewInvitation("a*"))


async def test_a_node_whose_agent_lost_its_keys_is_replaced_and_the_old_key_opens_nothing(
    bench: Any, alice: Actor, bob: Actor
) -> None:
    admin = await bench.person("boss", admin=True)
    old, new, third = (public_bytes(new_key(bytes([number]) * 32)) for number in range(3))
    node = (await bench.enrolment.admit(bench.proved(await bench.invited(alice), "lab3", old), HERE)).node
    for who, name, error in (
        (bob, "lab3", NotAllowed),
        (alice, "lab9", UnknownNode),
        (alice, None, BadName),
    ):
        with pytest.raises(error):
            await bench.enrolment.invite(who, NewInvitation(name, replace=True))
    made = await bench.enrolment.invite(admin, NewInvitation("lab3", replace=True))
    assert shlex.split(made.command)[5:] == ["--replace", "--name", "lab3", "--label", label_of(old)]
    join = JoinString.parse(made.join_string, 0)
    with pytest.raises(BadName, match="for node lab3"):
        await bench.enrolment.admit(bench.proved(join, "lab4", new), HERE)
    for _ in range(2):  # again, as where the answer was lost
        admitted = await bench.enrolment.admit(bench.proved(join, "lab3", new), HERE)
        assert (admitted.node, admitted.name) == (node, "lab3")
    with pytest.raises(JoinStringUsed):
        await bench.enrolment.admit(bench.proved(join, "", third), HERE)
    with pytest.raises(UnknownPeer):
        await bench.enrolment.admit(Proved(old, None), HERE)
    assert (await bench.enrolment.admit(Proved(new, None), HERE)).node == node
    shown = await bench.enrolment.node(alice, "lab3")
    assert (shown.owner, shown.key) == ("alice", to_text(new))
    [told] = [one for one in await bench.audit.entries(admin) if one.action == "node.replace"]
    assert fingerprint(old) in told.detail
    assert fingerprint(new) in told.detail


async def test_a_node_that_was_evicted_is_not_replaced(bench: Any, alice: Actor) -> None:
    old, new = (public_bytes(new_key(bytes([number]) * 32)) for number in range(2))
    await bench.enrolment.admit(bench.proved(await bench.invited(alice), "lab3", old), HERE)
    made = await bench.enrolment.invite(alice, NewInvitation("lab3", replace=True))
    await bench.enrolment.evict(alice, "lab3")
    with pytest.raises(Evicted):
        await bench.enrolment.invite(alice, NewInvitation("lab3", replace=True))
    with pytest.raises(BadJoinString, match="removed"):
        await bench.enrolment.admit(bench.proved(JoinString.parse(made.join_string, 0), "", new), HERE)


async def test_nobody_can_hoard_join_strings(bench: Any, alice: Actor) -> None:
    for _ in range(100):
        await bench.enrolment.invite(alice, NewInvitation())
    with pytest.raises(TooMany):
        await bench.enrolment.invite(alice, NewInvitation())
    bench.clock.pass_s(601)
    await bench.enrolment.invite(alice, NewInvitation())


async def test_a_node_belongs_to_one_person(bench: Any, alice: Actor, bob: Actor) -> None:
    await bench.enrolment.admit(bench.proved(await bench.invited(alice), "lab3"), HERE)
    again = await bench.enrolment.admit(bench.proved(await bench.invited(alice), "lab3"), HERE)
    assert again.name == "lab3"
    with pytest.raises(AlreadyJoined, match="lab3 of alice"):
        await bench.enrolment.admit(bench.proved(await bench.invited(bob), "lab3"), HERE)


async def test_the_owner_sees_more_of_a_node_than_others(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.report(lab3.id, ceiling=("at most read",))
    await bench.enrolment.health(lab3.id, Health(bench.clock.now(), 5, 0, paused=False, warnings=("disk nearly full",)))
    mine, theirs = await bench.enrolment.node(alice, "lab3"), await bench.enrolment.node(bob, "lab3")
    assert (mine.ceiling, mine.warnings) == (("at most read",), ("disk nearly full",))
    assert (theirs.ceiling, theirs.warnings, theirs.probes) == ((), (), ())
    assert (theirs.state, theirs.server, theirs.pending_rows) == (NodeState.ONLINE, "MinIO", 5)
    del bench.agents.nodes[lab3.id]
    assert (await bench.enrolment.node(bob, "lab3")).state is NodeState.OFFLINE
    with pytest.raises(UnknownNode):
        await bench.enrolment.node(bob, "lab4")


async def test_health_is_written_down_when_it_matters_and_else_now_and_then(bench: Any, alice: Actor, lab3: Any) -> None:
    async def stored() -> bytes:
        async with bench.database.read() as connection:
            return bytes(await connection.scalar(select(nodes.c.health)) or b"")

    await bench.enrolment.health(lab3.id, Health(1, 1, 0, paused=False))
    first = await stored()
    await bench.enrolment.health(lab3.id, Health(2, 2, 0, paused=False))
    assert await stored() == first
    assert (await bench.enrolment.node(alice, "lab3")).pending_rows == 2
    await bench.enrolment.health(lab3.id, Health(3, 2, 0, paused=True))
    second = await stored()
    assert second != first
    bench.clock.pass_s(15)
    await bench.enrolment.health(lab3.id, Health(4, 9, 0, paused=True))
    assert await stored() != second


async def test_an_evicted_node_is_cut_off_and_stays_out(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    with pytest.raises(NotAllowed):
        await bench.enrolment.evict(bob, "lab3")
    with pytest.raises(UnknownNode):
        await bench.enrolment.evict(alice, "lab4")
    await bench.enrolment.evict(alice, "lab3")
    assert [(node, problem.code) for node, problem in bench.agents.ended] == [(lab3.id, "evicted")]
    with pytest.raises(Evicted):
        await bench.enrolment.admit(Proved(public_bytes(lab3.key), None), HERE)
    with pytest.raises(Evicted):
        await bench.enrolment.admit(bench.proved(await bench.invited(alice), "lab3"), HERE)
    assert (await bench.enrolment.node(alice, "lab3")).state is NodeState.EVICTED
    assert await bench.enrolment.nodes(bob) == []
    with pytest.raises(UnknownNode):
        await bench.enrolment.node(bob, "lab3")
