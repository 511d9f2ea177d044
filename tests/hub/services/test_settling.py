"""A node that connects is brought to what is wanted of it, whatever happened to either side."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from hub.db.tables import grant_sets
from hub.services.ports import Actor
from protocol.api import NewShare
from protocol.errors import BadMessage, NotAllowed, UnknownNode, UnknownWorkspace
from protocol.grants import Permission, Subject, SubjectKind, open_set
from protocol.identity import public_key
from protocol.messages import Epochs, EpochState, SetGrants
from protocol.names import NodeId

ON_BOTH = {"test_a_node_ahead_of_the_hub_shows_a_restored_backup", "test_only_what_differs_is_sent"}
READ = Permission.READ


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    """alice's workspace, shared with bob; both hold keys."""
    del lab3
    await bench.root(alice)
    return await bench.workspace(alice)


@pytest.fixture
async def keys(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(READ))
    await bench.key(alice, "scans")
    await bench.key(bob, "alice/scans")


def sent(bench: Any, agent: Any, after: int) -> list[str]:
    """Whose sets were sent since then, in order."""
    key = public_key(bench.hub_key.public_key().public_bytes_raw())
    return [open_set(key, one.grant_set).subject.name for one in agent.asked[after:] if isinstance(one, SetGrants)]


async def test_only_what_differs_is_sent(bench: Any, bob: Actor, lab3: Any, keys: None) -> None:
    del keys
    asked = len(lab3.asked)
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert sent(bench, lab3, asked) == []
    del lab3.sets["person", bob.id]
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert sent(bench, lab3, asked) == ["bob"]


async def test_what_only_takes_away_goes_first(bench: Any, alice: Actor, bob: Actor, lab3: Any, keys: None) -> None:
    del keys
    other = await bench.workspace(alice, "other")
    del bench.agents.nodes[lab3.id]
    await bench.sharing.share(alice, "alice", "other", "public", NewShare(READ))
    await bench.sharing.unshare(alice, "alice", "scans", "bob")
    bench.agents.nodes[lab3.id] = lab3
    asked = len(lab3.asked)
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert sent(bench, lab3, asked)[0] == "bob"
    assert set(sent(bench, lab3, asked)) == {"bob", "everyone"}
    assert (lab3.grants(bob.id), lab3.grants()) == ({}, {other.id: READ})


async def test_people_without_keys_that_the_node_knows_are_brought_up_to_date_too(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, keys: None
) -> None:
    del keys
    bench.clock.pass_s(4000)
    receipt = (await bench.sharing.unshare(alice, "alice", "scans", "bob")).receipts[0]
    assert receipt.keys_out == 0
    assert lab3.grants(bob.id)  # nobody could use it, so it was not hurried
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {}


async def test_a_node_ahead_of_the_hub_shows_a_restored_backup(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, keys: None
) -> None:
    del keys
    async with bench.database.write() as connection:  # the database of an hour ago, in which bob had no keys yet
        await connection.execute(update(grant_sets).values(epoch=1, applied_epoch=1, keys_until=0))
    lab3.sets["person", bob.id] = type(lab3.sets["person", bob.id])(lab3.id, bench.subject(bob), 40, (), 2**31)
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {}  # what the node had taken away stays away
    told = [one for one in await bench.audit.entries(alice) if one.action == "grants.jumped"]
    assert "bob on lab3" in {one.target for one in told}
    assert all("backup" in one.detail for one in told)
    lines = len(await bench.audit.entries(alice))
    await bench.sharing.settle(lab3.id, lab3.epochs())  # as when the node connects again
    assert len(await bench.audit.entries(alice)) == lines
    # Keys may be out of which this database knows nothing, so revoking hurries again.
    receipt = (await bench.sharing.unshare(alice, "alice", "scans", "bob")).receipts[0]
    assert receipt.keys_out == 1
    assert lab3.sets["person", bob.id].epoch == 41


async def test_of_two_sets_of_one_epoch_only_what_both_open_is_open(
    bench: Any, bob: Actor, lab3: Any, scans: Any, keys: None
) -> None:
    del keys
    here = lab3.sets["person", bob.id]
    lab3.sets["person", bob.id] = type(here)(lab3.id, bench.subject(bob), here.epoch, (), here.lease_end)
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {}
    await bench.settling.confirm(await bench.person("root1", admin=True), "lab3")
    assert lab3.grants(bob.id) == {scans.id: READ}


async def test_a_set_that_a_node_could_not_enforce_yet_is_no_sign_of_a_backup(
    bench: Any, alice: Actor, lab3: Any, keys: None
) -> None:
    del keys
    states = tuple(EpochState(one.subject, one.epoch, bytes(32)) for one in lab3.epochs().states)
    asked = len(lab3.asked)
    await bench.sharing.settle(lab3.id, Epochs(states))
    assert set(sent(bench, lab3, asked)) == {"alice", "bob", "everyone"}
    assert (await bench.enrolment.node(alice, "lab3")).warnings == ()


async def test_a_grant_that_was_revoked_after_the_backup_does_not_come_back_until_it_is_confirmed(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, keys: None
) -> None:
    del keys
    scans = await bench.workspaces.show(alice, "alice", "scans")
    carol, dave = await bench.person("carol"), await bench.person("dave")
    for who in (carol, dave):
        await bench.sharing.share(alice, "alice", "scans", who.username, NewShare(READ))
        await bench.key(who, "alice/scans")
    bench.clock.pass_s(4000)
    await bench.key(bob, "alice/scans")
    await bench.key(carol, "alice/scans")
    restored = await backed_up(bench)
    await bench.sharing.unshare(alice, "alice", "scans", "bob")  # holds a key: taken back on the node
    await bench.sharing.unshare(alice, "alice", "scans", "dave")  # holds none: the node heard nothing of it
    assert lab3.grants(bob.id) == {}

    await restored.sharing.settle(lab3.id, lab3.epochs())
    assert (lab3.grants(bob.id), lab3.grants(carol.id)) == ({}, {scans.id: READ})
    for actor in (bob, carol, dave):
        with pytest.raises(NotAllowed, match="waits for confirmation by the owner of lab3"):
            await restored.key(actor, "alice/scans")
        assert await restored.people.readable(actor) == ()
    assert lab3.grants(carol.id) == {scans.id: READ}  # keys that are out go on, as far as both agree
    with pytest.raises(NotAllowed, match="waits for confirmation"):
        await restored.key(alice, "scans")  # it may be somebody else's by now
    listed = await restored.sharing.shares(alice, "alice", "scans")
    assert [(one.who, one.applied) for one in listed] == [("bob", False), ("carol", False), ("dave", False)]
    assert {one.reason for one in listed} == {"It waits for confirmation by alice, because this hub came back from a backup."}
    assert "wio node confirm lab3" in (await restored.enrolment.node(alice, "lab3")).warnings[0]

    # What a person says now counts now.
    await restored.sharing.share(alice, "alice", "scans", "dave", NewShare(READ))
    await restored.key(dave, "alice/scans")
    assert lab3.grants(dave.id) == {scans.id: READ}
    await restored.sharing.unshare(alice, "alice", "scans", "bob")

    with pytest.raises(NotAllowed):
        await restored.settling.confirm(bob, "lab3")
    confirmed = await restored.settling.confirm(alice, "lab3")
    assert confirmed.sets >= 4
    assert (await restored.settling.confirm(alice, "lab3")).sets == 0
    assert (lab3.grants(bob.id), lab3.grants(carol.id)) == ({}, {scans.id: READ})
    await restored.key(carol, "alice/scans")
    await restored.key(alice, "scans")
    with pytest.raises(UnknownWorkspace):
        await restored.key(bob, "alice/scans")
    assert (await restored.enrolment.node(alice, "lab3")).warnings == ()
    asked = len(lab3.asked)
    await restored.sharing.settle(lab3.id, lab3.epochs())
    assert sent(restored, lab3, asked) == []
    await restored.database.close()


async def test_a_confirmation_while_the_node_is_away_reaches_it_when_it_is_back(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, keys: None
) -> None:
    del keys
    scans = await bench.workspaces.show(alice, "alice", "scans")
    restored = await backed_up(bench)
    await bench.sharing.unshare(alice, "alice", "scans", "bob")
    await restored.sharing.settle(lab3.id, lab3.epochs())
    del restored.agents.nodes[lab3.id]
    restored.clock.pass_s(100_000)  # and no key is out any more
    await restored.settling.confirm(alice, "lab3")
    restored.agents.nodes[lab3.id] = lab3
    await restored.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {scans.id: READ}  # as alice said
    assert (await restored.enrolment.node(alice, "lab3")).warnings == ()
    await restored.database.close()


async def backed_up(bench: Any) -> Any:
    """Copy the database as it is now, and return a hub on the copy, to which the same nodes are connected."""
    here = Path(bench.database.url.removeprefix("sqlite+aiosqlite:///"))
    there = here.with_name("backup.sqlite")
    with closing(sqlite3.connect(here)) as source, closing(sqlite3.connect(there)) as copy:
        source.backup(copy)
    again = type(bench)(f"sqlite+aiosqlite:///{there}")
    again.agents.nodes |= bench.agents.nodes
    again.clock.time = bench.clock.time
    again.chance.random.seed(99)  # ids of their own
    return again


async def test_somebody_the_hub_knows_nothing_of_is_emptied(bench: Any, bob: Actor, lab3: Any, keys: None) -> None:
    del keys
    stranger = Subject(SubjectKind.PERSON, 4242, "../mallory")
    lab3.sets["person", 4242] = type(lab3.sets["person", bob.id])(
        lab3.id, stranger, 9, lab3.sets["person", bob.id].grants, 2**31
    )
    async with bench.database.write() as connection:  # and bob's set was lost, but not what it is made of
        await connection.execute(delete(grant_sets).where(grant_sets.c.subject_id == bob.id))
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.sets["person", 4242].grants == ()
    assert lab3.sets["person", 4242].epoch == 10
    assert lab3.sets["person", 4242].subject.name == "#4242"
    assert len(lab3.grants(bob.id)) == 1
    asked = len(lab3.asked)
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert sent(bench, lab3, asked) == []


async def test_an_answer_that_was_lost_is_learnt_from_the_nodes_report(bench: Any, alice: Actor, lab3: Any, keys: None) -> None:
    del keys
    real = bench.agents.ask

    async def lose(node: NodeId, make: Any, *, deadline_s: float) -> Any:
        await real(node, make, deadline_s=deadline_s)
        bench.agents.ask = real
        raise bench.deadline

    bench.agents.ask = lose
    receipt = (await bench.sharing.unshare(alice, "alice", "scans", "bob")).receipts[0]
    assert receipt.state == "pending"
    asked = len(lab3.asked)
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert sent(bench, lab3, asked) == []
    assert (await bench.stored_receipt(receipt.id)).state == "enforced"


async def test_reports_come_in_parts_and_count_when_the_last_is_there(bench: Any, bob: Actor, lab3: Any, keys: None) -> None:
    del keys, bob
    states = lab3.epochs().states
    asked = len(lab3.asked)
    for at, state in enumerate(states):
        await bench.sharing.settle(lab3.id, Epochs((state,), last=at == len(states) - 1))
    assert sent(bench, lab3, asked) == []
    many = [EpochState(Subject(SubjectKind.PERSON, at, "x"), 1, bytes(32)) for at in range(50_001)]
    for start in range(0, 50_000, 5000):
        await bench.sharing.settle(lab3.id, Epochs(tuple(many[start : start + 5000]), last=False))
    with pytest.raises(BadMessage, match="more than"):
        await bench.sharing.settle(lab3.id, Epochs(tuple(many[50_000:])))
    with pytest.raises(UnknownNode):
        await bench.sharing.settle(NodeId(5), Epochs(()))


async def test_admission_tells_the_node_what_is_wanted(bench: Any, bob: Actor, lab3: Any, keys: None) -> None:
    del keys
    admitted = await bench.enrolment.admit(bench.reconnecting(lab3), "192.0.2.9")
    wanted = {state.subject.name: state.epoch for state in admitted.epochs}
    assert wanted == {"alice": 1, "bob": 1, "everyone": 1}
    async with bench.database.read() as connection:
        rows = (await connection.execute(select(grant_sets.c.stale).where(grant_sets.c.subject_id == bob.id))).all()
    assert rows == [(False,)]
