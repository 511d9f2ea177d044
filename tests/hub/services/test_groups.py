"""Groups: who is in them is who has what they were given, also on keys that are out, and at a cost that stays small."""

import asyncio
import time
from typing import Any, NamedTuple

import pytest
from sqlalchemy import insert, select

from hub.db import groups as group_rows
from hub.db.tables import group_members, past_grants, past_members, users
from hub.services.ports import Actor
from protocol.api import NewGroup, NewMember, NewShare
from protocol.errors import BadInput, BadName, NameTaken, NotAllowed, UnknownGroup, UnknownUser, UnknownWorkspace
from protocol.grants import Permission, ReceiptState, SubjectKind
from protocol.messages import SetGrants

ON_BOTH = {
    "test_a_member_has_what_the_group_was_given_and_loses_it_at_once_when_taken_out",
    "test_somebody_taken_in_gains_on_keys_that_are_out",
    "test_deleting_a_group_ends_what_it_was_given_for_everybody_at_once",
    "test_a_group_that_many_living_people_are_in_costs_one_write",
    "test_a_share_to_500_people_of_whom_10_hold_keys_costs_10_writes",
    "test_a_first_key_asked_for_while_a_share_is_taken_back_does_not_open_it",
    "test_past_members_and_grants_are_kept",
}
READ, WRITE, DROP, MANAGE = Permission.READ, Permission.WRITE, Permission.DROP, Permission.MANAGE


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    del lab3
    await bench.root(alice)
    return await bench.workspace(alice)


@pytest.fixture
async def carol(bench: Any) -> Actor:
    return await bench.person("carol")


@pytest.fixture
async def mri(bench: Any, alice: Actor, bob: Actor) -> Any:
    """alice's group, bob in it."""
    del bob
    await bench.groups.create(alice, NewGroup("mri", "the scanner's people"))
    await bench.groups.put_member(alice, "mri", "bob", NewMember())
    return await bench.groups.show(alice, "mri")


class Here(NamedTuple):
    """alice's node, her workspace on it, and her group, which bob is in."""

    lab3: Any
    scans: Any
    mri: Any


@pytest.fixture
def here(lab3: Any, scans: Any, mri: Any) -> Here:
    return Here(lab3, scans, mri)


async def share(bench: Any, actor: Actor, who: str = "@mri", permission: Permission = READ, until: int | None = None) -> Any:
    return await bench.sharing.share(actor, "alice", "scans", who, NewShare(permission, until))


async def crowd(bench: Any, group: int, size: int) -> list[Actor]:
    """Put people into a group as rows, which is faster than by the service."""
    people = [(bench.chance.new_id(), f"person{number}") for number in range(size)]
    now = bench.clock.now()
    async with bench.database.write() as connection:
        await connection.execute(
            insert(users),
            [
                {"id": number, "username": name, "email": f"{name}@x", "password": "-", "admin": False, "created_at": now}
                for number, name in people
            ],
        )
        await connection.execute(
            insert(group_members),
            [{"group_id": group, "user_id": number, "manager": False, "since": now} for number, _ in people],
        )
    return [Actor(number, name, admin=False) for number, name in people]  # type: ignore[arg-type]  # an id is an id


# ------------------------------------------------------------------------------------------------ who sees, who may


async def test_who_is_in_a_group_is_told_to_members_and_admins_only(bench: Any, bob: Actor, carol: Actor, mri: Any) -> None:
    assert [(one.username, one.manager) for one in mri.members] == [("alice", True), ("bob", False)]
    admin = await bench.person("root1", admin=True)
    for actor, seen in ((bob, 2), (admin, 2), (carol, 0)):
        shown = await bench.groups.show(actor, "@mri")
        assert (shown.owner, shown.description, len(shown.members)) == ("alice", "the scanner's people", seen)
        [listed] = await bench.groups.list(actor)
        assert listed == shown
    with pytest.raises(UnknownGroup):
        await bench.groups.show(bob, "nmr")


async def test_only_owner_and_managers_change_who_is_in_it(
    bench: Any, alice: Actor, bob: Actor, carol: Actor, mri: Any
) -> None:
    del mri
    admin = await bench.person("root1", admin=True)
    await bench.person("dave")
    for actor in (bob, carol, admin):
        with pytest.raises(NotAllowed):
            await bench.groups.put_member(actor, "mri", "dave", NewMember())
    with pytest.raises(NotAllowed):
        await bench.groups.remove_member(carol, "mri", "bob")
    with pytest.raises(NotAllowed):
        await bench.groups.delete(bob, "mri")

    await bench.groups.put_member(alice, "mri", "bob", NewMember(manager=True))
    await bench.groups.put_member(bob, "mri", "dave", NewMember())
    with pytest.raises(NotAllowed, match="who manages"):
        await bench.groups.put_member(bob, "mri", "dave", NewMember(manager=True))
    await bench.groups.put_member(alice, "mri", "carol", NewMember(manager=True))
    with pytest.raises(NotAllowed, match="who manages"):
        await bench.groups.remove_member(bob, "mri", "carol")
    await bench.groups.remove_member(bob, "mri", "dave")
    await bench.groups.remove_member(carol, "mri", "carol")  # everybody may leave
    await bench.groups.remove_member(admin, "mri", "bob")  # taking out opens nothing to an admin
    with pytest.raises(BadInput, match="owns @mri"):
        await bench.groups.remove_member(alice, "mri", "alice")
    with pytest.raises(BadInput, match="owns @mri"):
        await bench.groups.put_member(alice, "mri", "alice", NewMember())
    with pytest.raises(UnknownUser):
        await bench.groups.remove_member(alice, "mri", "bob")
    await bench.groups.delete(admin, "mri")
    assert await bench.groups.list(alice) == []


async def test_groups_that_cannot_be_are_refused(bench: Any, alice: Actor, bob: Actor, mri: Any) -> None:
    del mri
    with pytest.raises(NameTaken):
        await bench.groups.create(bob, NewGroup("mri"))
    for name in ("public", "@mri", "MRI", "", "a" * 41):
        with pytest.raises(BadName):
            await bench.groups.create(alice, NewGroup(name))
    with pytest.raises(BadInput):
        await bench.groups.create(alice, NewGroup("nmr", "x" * 2001))
    with pytest.raises(BadInput):
        await bench.groups.create(alice, NewGroup("nmr", "\0"))
    with pytest.raises(UnknownUser):
        await bench.groups.put_member(alice, "mri", "nobody", NewMember())


# ------------------------------------------------------------------------------------------------ what members have


async def test_a_member_has_what_the_group_was_given_and_loses_it_at_once_when_taken_out(
    bench: Any, alice: Actor, bob: Actor, here: Here
) -> None:
    lab3, scans = here.lab3, here.scans
    shared = await share(bench, alice, permission=WRITE)
    [receipt] = shared.receipts
    assert (receipt.state, receipt.subject.name, receipt.keys_out) == (ReceiptState.ENFORCED, "@mri", 0)
    assert "@mri on lab3" in receipt.reason
    assert [(one.who, one.permission, one.applied) for one in await bench.sharing.shares(alice, "alice", "scans")] == [
        ("@mri", WRITE, True)
    ]
    assert [one.name for one in await bench.workspaces.list(bob, "shared")] == ["scans"]
    assert [one.name for one in await bench.people.readable(bob)] == ["scans"]

    await bench.key(bob, "alice/scans")
    assert lab3.grants(bob.id) == {scans.id: WRITE}
    out = await bench.groups.remove_member(alice, "mri", "bob")
    [receipt] = out.receipts
    assert (receipt.state, receipt.node, receipt.subject.name) == (ReceiptState.ENFORCED, "lab3", "bob")
    assert receipt.proofs
    assert lab3.grants(bob.id) == {}
    assert await bench.people.readable(bob) == ()
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")


async def test_why_somebody_may_is_said_with_the_group(bench: Any, alice: Actor, bob: Actor, scans: Any, mri: Any) -> None:
    del scans, mri
    await share(bench, alice)
    with pytest.raises(NotAllowed, match="is in @mri, which was given read"):
        await share(bench, bob, "carol")


async def test_somebody_taken_in_gains_on_keys_that_are_out(bench: Any, alice: Actor, carol: Actor, here: Here) -> None:
    lab3, scans = here.lab3, here.scans
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "carol", NewShare(READ))
    await bench.key(carol, "alice/other")
    await share(bench, alice, permission=WRITE)
    assert lab3.grants(carol.id) == {other.id: READ}
    change = await bench.groups.put_member(alice, "mri", "carol", NewMember())
    assert [(one.state, one.subject.name) for one in change.receipts] == [(ReceiptState.ENFORCED, "carol")]
    assert lab3.grants(carol.id) == {other.id: READ, scans.id: WRITE}
    sets = len(lab3.asked_for(SetGrants))
    again = await bench.groups.put_member(alice, "mri", "carol", NewMember(manager=True))
    assert len(lab3.asked_for(SetGrants)) == sets  # who manages a group opens nothing
    assert again.receipts[0].state is ReceiptState.ENFORCED


async def test_the_strongest_of_several_ways_counts_and_each_can_go_by_itself(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    for name, permission in (("mri", READ), ("nmr", WRITE)):
        await bench.groups.create(alice, NewGroup(name))
        await bench.groups.put_member(alice, name, "bob", NewMember())
        await share(bench, alice, f"@{name}", permission)
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    assert len(lab3.sets[SubjectKind.PERSON, bob.id].grants) == 1
    assert lab3.grants(bob.id) == {scans.id: WRITE}
    await bench.groups.delete(alice, "nmr")
    assert lab3.grants(bob.id) == {scans.id: READ}
    sets = len(lab3.asked_for(SetGrants))
    unmoved = await bench.sharing.unshare(alice, "alice", "scans", "@mri")
    assert len(lab3.asked_for(SetGrants)) == sets  # bob has it by name anyway: the node need not hear of it
    assert unmoved.receipts[0].state is ReceiptState.ENFORCED
    await bench.sharing.unshare(alice, "alice", "scans", "bob")
    assert lab3.grants(bob.id) == {}


async def test_members_who_may_only_drop_have_a_folder_each_also_in_a_large_group(
    bench: Any, alice: Actor, bob: Actor, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    lab3, scans, mri = here.lab3, here.scans, here.mri
    monkeypatch.setattr(group_rows, "LARGE", 0)
    await share(bench, alice, permission=DROP)
    await bench.key(bob, "alice/scans")
    assert [one.prefix for one in lab3.sets[SubjectKind.PERSON, bob.id].grants] == ["bob/"]
    assert lab3.group(mri.id) == {}
    await share(bench, alice, permission=WRITE)
    assert (lab3.grants(bob.id), lab3.group(mri.id)) == ({}, {scans.id: WRITE})
    await share(bench, alice, permission=DROP)
    assert (lab3.grants(bob.id), lab3.group(mri.id)) == ({scans.id: DROP}, {})
    await bench.sharing.unshare(alice, "alice", "scans", "@mri")
    assert lab3.whole(bob.id) == {}


async def test_a_share_with_a_group_ends_to_the_second(bench: Any, alice: Actor, bob: Actor, scans: Any, mri: Any) -> None:
    del scans, mri
    await share(bench, alice, until=bench.clock.time + 60_000_000)
    assert [one.name for one in await bench.people.readable(bob)] == ["scans"]
    bench.clock.pass_s(59)
    assert [one.name for one in await bench.people.readable(bob)] == ["scans"]
    bench.clock.pass_s(1)
    assert await bench.people.readable(bob) == ()
    assert await bench.workspaces.list(bob) == []
    assert await bench.sharing.shares(alice, "alice", "scans") == []
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")


async def test_deleting_a_group_ends_what_it_was_given_for_everybody_at_once(
    bench: Any, alice: Actor, bob: Actor, carol: Actor, here: Here
) -> None:
    lab3 = here.lab3
    await bench.groups.put_member(alice, "mri", "carol", NewMember())
    await share(bench, alice)
    for actor in (bob, carol):
        await bench.key(actor, "alice/scans")
    change = await bench.groups.delete(alice, "mri")
    assert sorted(one.subject.name for one in change.receipts) == ["bob", "carol"]
    assert {one.state for one in change.receipts} == {ReceiptState.ENFORCED}
    assert (lab3.grants(bob.id), lab3.grants(carol.id)) == ({}, {})
    assert await bench.sharing.shares(alice, "alice", "scans") == []
    # Another group of that name is another group.
    await bench.groups.create(alice, NewGroup("mri"))
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")


async def test_past_members_and_grants_are_kept(bench: Any, alice: Actor, bob: Actor, scans: Any, mri: Any) -> None:
    await share(bench, alice, permission=READ)
    await share(bench, alice, permission=WRITE)
    await bench.sharing.unshare(alice, "alice", "scans", "@mri")
    await bench.groups.remove_member(alice, "mri", "bob")
    await share(bench, alice)
    await bench.groups.delete(alice, "mri")
    async with bench.database.read() as connection:
        given = select(past_grants.c.permission).where(past_grants.c.workspace_id == scans.id).order_by(past_grants.c.id)
        assert list(await connection.scalars(given)) == ["read", "write", "read"]
        was = select(past_members.c.user_id, past_members.c.ended_at > past_members.c.since).order_by(past_members.c.id)
        rows = [tuple(row) for row in await connection.execute(was.where(past_members.c.group_id == mri.id))]
        assert rows == [(bob.id, True), (alice.id, True)]


# ------------------------------------------------------------------------------------------------ what it costs


async def test_a_share_to_500_people_of_whom_10_hold_keys_costs_10_writes(
    bench: Any, alice: Actor, lab3: Any, scans: Any, mri: Any
) -> None:
    people = await crowd(bench, mri.id, 498)
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "@mri", NewShare(READ))
    for actor in people[:40]:
        await bench.key(actor, "alice/other", life_s=900)
    bench.clock.pass_s(2000)
    for actor in people[30:40]:
        await bench.key(actor, "alice/other")
    sets = len(lab3.asked_for(SetGrants))
    began = time.perf_counter()
    shared = await share(bench, alice, permission=WRITE)
    took = time.perf_counter() - began
    assert len(lab3.asked_for(SetGrants)) - sets == 10
    assert len(shared.receipts) == 10
    assert {one.state for one in shared.receipts} == {ReceiptState.ENFORCED}
    assert took < 5  # measured 60 ms on SQLite on a quiet machine
    for actor in people[30:40]:
        assert lab3.grants(actor.id) == {other.id: READ, scans.id: WRITE}
    await bench.key(people[0], "alice/scans")  # held a key once, so its set is old: it is sent before the key is made
    assert lab3.grants(people[0].id) == {other.id: READ, scans.id: WRITE}


async def test_a_group_that_many_living_people_are_in_costs_one_write(
    bench: Any, alice: Actor, lab3: Any, scans: Any, mri: Any
) -> None:
    people = await crowd(bench, mri.id, 60)
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "@mri", NewShare(READ))
    for actor in people[:50]:
        await bench.key(actor, "alice/other")
    assert lab3.group(mri.id) == {}
    await bench.key(people[50], "alice/other")  # the 51st makes it one shared set
    assert lab3.group(mri.id) == {other.id: READ}
    assert lab3.grants(people[50].id) == {}
    assert all(lab3.whole(actor.id) == {other.id: READ} for actor in people[:51])

    first = await share(bench, alice, permission=WRITE)
    assert {one.state for one in first.receipts} == {ReceiptState.ENFORCED}
    assert lab3.group(mri.id) == {other.id: READ, scans.id: WRITE}
    assert all(lab3.grants(actor.id) == {} for actor in people[:51])  # what stood in their own sets does no more

    sets = len(lab3.asked_for(SetGrants))
    change = await share(bench, alice, permission=READ)
    assert [one.subject.name for one in change.receipts] == ["@mri"]
    assert len(lab3.asked_for(SetGrants)) - sets == 1
    await bench.sharing.unshare(alice, "alice", "scans", "@mri")
    assert len(lab3.asked_for(SetGrants)) - sets == 2
    assert lab3.group(mri.id) == {other.id: READ}

    await bench.key(people[55], "alice/other")
    out = await bench.groups.remove_member(alice, "mri", people[0].username)
    assert [one.subject.name for one in out.receipts] == [people[0].username]
    assert lab3.whole(people[0].id) == {}
    assert lab3.whole(people[55].id) == {other.id: READ}
    assert [one.applied for one in await bench.sharing.shares(alice, "alice", "other")] == [True]

    gone = await bench.groups.delete(alice, "mri")
    assert {one.state for one in gone.receipts} == {ReceiptState.ENFORCED}
    assert all(lab3.whole(actor.id) == {} for actor in people[:56])


async def test_a_key_waits_for_the_shared_set_that_a_node_has_not_taken_over(
    bench: Any, alice: Actor, bob: Actor, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    lab3, scans, mri = here
    monkeypatch.setattr(group_rows, "LARGE", 0)
    await share(bench, alice, permission=WRITE)
    await bench.key(bob, "alice/scans")
    # With 0 for many, one other living member makes it shared.
    await bench.key(alice, "scans")
    await bench.key(bob, "alice/scans")
    assert lab3.group(mri.id) == {scans.id: WRITE}
    bench.agents.silent = True
    change = await share(bench, alice, permission=READ)
    [receipt] = change.receipts
    assert receipt.state is ReceiptState.PENDING
    assert receipt.exposure_s is not None
    assert 3000 < receipt.exposure_s <= 3700
    assert [one.applied for one in await bench.sharing.shares(alice, "alice", "scans")] == [False]
    bench.agents.silent = False
    await bench.key(bob, "alice/scans")
    assert lab3.group(mri.id) == {scans.id: READ}
    assert (await bench.stored_receipt(change.receipts[0].id)).state is ReceiptState.ENFORCED


# ------------------------------------------------------------------------------------------------ faults


async def test_a_member_taken_out_while_the_node_is_away_is_pending_then_enforced(
    bench: Any, alice: Actor, bob: Actor, here: Here
) -> None:
    lab3 = here.lab3
    await share(bench, alice)
    await bench.key(bob, "alice/scans")
    del bench.agents.nodes[lab3.id]
    out = await bench.groups.remove_member(alice, "mri", "bob")
    [receipt] = out.receipts
    assert receipt.state is ReceiptState.PENDING
    assert receipt.exposure_s is not None
    assert 3000 < receipt.exposure_s <= 3700
    bench.agents.nodes[lab3.id] = lab3
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {}
    assert (await bench.stored_receipt(receipt.id)).state is ReceiptState.ENFORCED


async def test_what_a_node_refuses_to_some_stays_with_the_others_and_what_it_refuses_to_all_is_taken_back(
    bench: Any, alice: Actor, bob: Actor, here: Here
) -> None:
    lab3, scans = here.lab3, here.scans
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "@mri", NewShare(READ))
    await bench.key(bob, "alice/other")
    lab3.ceiling = {(scans.id, WRITE)}
    await share(bench, alice, permission=READ)
    refused = await share(bench, alice, permission=WRITE)
    assert [one.state for one in refused.receipts] == [ReceiptState.REFUSED]
    assert "does not allow" in refused.receipts[0].reason
    assert refused.after is READ
    assert lab3.grants(bob.id) == {other.id: READ, scans.id: READ}
    [listed] = await bench.sharing.shares(alice, "alice", "scans")
    assert (listed.permission, listed.applied) == (READ, True)
    async with bench.database.read() as connection:
        assert list(await connection.scalars(select(past_grants.c.permission))) == []


async def test_a_first_key_asked_for_while_a_share_is_taken_back_does_not_open_it(
    bench: Any, alice: Actor, lab3: Any, scans: Any, mri: Any
) -> None:
    people = await crowd(bench, mri.id, 12)
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "@mri", NewShare(READ))
    await share(bench, alice, permission=WRITE)
    wanted = [bench.key(actor, "alice/other") for actor in people]
    _, *keys = await asyncio.gather(bench.sharing.unshare(alice, "alice", "scans", "@mri"), *wanted)
    assert len(keys) == 12
    assert all(lab3.grants(actor.id) == {other.id: READ} for actor in people)
    assert scans.id not in {one.workspace for held in lab3.sets.values() for one in held.grants}


async def test_changes_of_a_group_made_at_once_end_as_the_hub_has_them(
    bench: Any, alice: Actor, bob: Actor, carol: Actor, here: Here
) -> None:
    lab3, scans = here.lab3, here.scans
    await bench.groups.put_member(alice, "mri", "carol", NewMember())
    other = await bench.workspace(alice, "other")
    for name in ("other", "scans"):
        await bench.sharing.share(alice, "alice", name, "@mri", NewShare(READ))
    for actor in (bob, carol):
        await bench.key(actor, "alice/other")
    await asyncio.gather(
        share(bench, alice, permission=WRITE),
        bench.groups.remove_member(alice, "mri", "carol"),
        bench.sharing.unshare(alice, "alice", "other", "@mri"),
        bench.groups.put_member(alice, "mri", "bob", NewMember(manager=True)),
        bench.sharing.share(alice, "alice", "other", "bob", NewShare(WRITE)),
    )
    assert lab3.grants(bob.id) == {scans.id: WRITE, other.id: WRITE}
    assert lab3.grants(carol.id) == {}
