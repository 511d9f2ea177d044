"""Describing, renaming, archiving, handing over, removing: rights move at once, data never."""

from typing import Any

import pytest
from sqlalchemy import insert, select

from hub.db.tables import entries, past_grants
from hub.services.ports import Actor
from protocol.api import Handover, NewGroup, NewMember, NewShare, RootKind, WorkspaceChange
from protocol.errors import BadInput, BadName, NameTaken, NoGrant, NotAllowed, UnknownUser, UnknownWorkspace
from protocol.grants import Permission, ReceiptState
from protocol.messages import Finding, SetGrants

ON_BOTH = {
    "test_archived_means_that_everybody_only_reads_also_with_keys_that_are_out",
    "test_a_workspace_handed_over_is_the_other_ones_at_once",
    "test_a_removed_workspace_opens_nothing_and_its_name_is_free",
}
READ, WRITE, DROP, MANAGE = Permission.READ, Permission.WRITE, Permission.DROP, Permission.MANAGE


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    del lab3
    await bench.root(alice)
    return await bench.workspace(alice)


async def change(bench: Any, actor: Actor, workspace: str = "scans", **what: Any) -> Any:
    return await bench.workspace_changes.change(actor, "alice", workspace, WorkspaceChange(**what))


async def test_a_label_moves_and_the_data_does_not(bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any) -> None:
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(MANAGE))
    await bench.key(bob, "alice/scans")
    sets = len(lab3.asked_for(SetGrants))
    renamed = await change(bench, alice, name="mri-2026", description="all of 2026")
    assert (renamed.name, renamed.description, renamed.prefix, renamed.bucket) == (
        "mri-2026",
        "all of 2026",
        scans.prefix,
        scans.bucket,
    )
    assert renamed.receipts == ()
    assert len(lab3.asked_for(SetGrants)) == sets  # nobody's rights have moved
    await bench.key(bob, "alice/mri-2026")
    with pytest.raises(UnknownWorkspace):
        await bench.workspaces.show(alice, "alice", "scans")
    again = await bench.workspace(alice, "scans")  # the old name is free, the old place is not
    assert again.id != scans.id
    assert again.bucket != scans.bucket
    with pytest.raises(NameTaken):
        await change(bench, alice, name="mri-2026")
    for what, error in (({"name": "../x"}, BadName), ({"description": "x" * 2001}, BadInput)):
        with pytest.raises(error):
            await change(bench, alice, **what)


async def test_who_manages_may_describe_and_archive_but_not_rename(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    for permission, error in ((None, UnknownWorkspace), (WRITE, NoGrant)):
        if permission:
            await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(permission))
        with pytest.raises(error):
            await change(bench, bob, description="mine")
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(MANAGE))
    assert (await change(bench, bob, description="ours", archived=True)).archived_at is not None
    for call in (
        change(bench, bob, name="other"),
        bench.workspace_changes.hand_over(bob, "alice", "scans", Handover("bob")),
        bench.workspace_changes.delete(bob, "alice", "scans"),
    ):
        with pytest.raises(NotAllowed, match="Only alice"):
            await call


async def test_archived_means_that_everybody_only_reads_also_with_keys_that_are_out(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    carol = await bench.person("carol")
    await bench.groups.create(alice, NewGroup("mri"))
    await bench.groups.put_member(alice, "mri", "carol", NewMember())
    await bench.sharing.share(alice, "alice", "scans", "@mri", NewShare(DROP))
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(MANAGE))
    await bench.sharing.share(alice, "alice", "scans", "public", NewShare(WRITE))
    for actor, path in ((alice, "scans"), (bob, "alice/scans"), (carol, "alice/scans")):
        await bench.key(actor, path)
    archived = await change(bench, alice, archived=True)
    assert archived.archived_at is not None
    assert archived.permission is READ
    assert sorted(one.subject.name for one in archived.receipts) == ["alice", "bob", "carol", "everyone"]
    assert {one.state for one in archived.receipts} == {ReceiptState.ENFORCED}
    assert [lab3.grants(one) for one in (alice.id, bob.id, carol.id, 0)] == [
        {scans.id: READ},
        {scans.id: READ},
        {},
        {scans.id: READ},
    ]
    listed = {one.name: one for one in await bench.workspaces.list(alice)}
    assert listed["scans"].archived_at == archived.archived_at
    assert (await bench.key(alice, "scans")).opens[0].permission is READ
    await bench.sharing.unshare(alice, "alice", "scans", "public")  # it is managed as before
    back = await change(bench, alice, archived=False)
    assert (back.archived_at, back.permission) == (None, MANAGE)
    assert [lab3.grants(one)[scans.id] for one in (alice.id, bob.id, carol.id)] == [MANAGE, MANAGE, DROP]
    sets = len(lab3.asked_for(SetGrants))
    assert (await change(bench, alice, archived=False)).receipts == ()
    assert len(lab3.asked_for(SetGrants)) == sets


async def test_a_workspace_handed_over_is_the_other_ones_at_once(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(READ))
    await bench.key(alice, "scans")
    await bench.key(bob, "alice/scans")
    done = await bench.workspace_changes.hand_over(alice, "alice", "scans", Handover("bob"))
    assert (done.owner, done.name, done.permission, done.bucket) == ("bob", "scans", None, "")
    assert sorted((one.subject.name, one.state) for one in done.receipts) == [
        ("alice", ReceiptState.ENFORCED),
        ("bob", ReceiptState.ENFORCED),
    ]
    assert (lab3.grants(alice.id), lab3.grants(bob.id)) == ({}, {scans.id: MANAGE})
    with pytest.raises(UnknownWorkspace):
        await bench.key(alice, "bob/scans")
    with pytest.raises(UnknownWorkspace):
        await bench.key(alice, "alice/scans")
    assert [one.owner for one in await bench.workspaces.list(bob, "mine")] == ["bob"]
    assert await bench.sharing.shares(bob, "bob", "scans") == []

    back = await bench.workspace_changes.hand_over(bob, "bob", "scans", Handover("alice", keep=WRITE))
    assert back.permission is WRITE
    assert lab3.grants(bob.id) == {scans.id: WRITE}
    async with bench.database.read() as connection:
        columns = (past_grants.c.subject_id, past_grants.c.permission)
        rows = [tuple(row) for row in await connection.execute(select(*columns).order_by(past_grants.c.id))]
        spans = list(await connection.scalars(select(past_grants.c.created_at).where(past_grants.c.permission == "owner")))
        ends = list(await connection.scalars(select(past_grants.c.ended_at).where(past_grants.c.permission == "owner")))
    assert rows == [(alice.id, "owner"), (bob.id, "read"), (bob.id, "owner")]
    assert spans[1] == ends[0]  # one owner after the other, without a gap


async def test_what_cannot_be_handed_over_is_refused_in_words(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    await bench.workspace(bob, "scans")
    admin = await bench.person("root1", admin=True)

    async def hand_over(actor: Actor, to: str, keep: Permission | None = None) -> Any:
        return await bench.workspace_changes.hand_over(actor, "alice", "scans", Handover(to, keep))

    with pytest.raises(NameTaken, match="bob has a workspace"):
        await hand_over(alice, "bob")
    with pytest.raises(UnknownUser):
        await hand_over(alice, "nobody")
    with pytest.raises(BadInput, match="owns"):
        await hand_over(alice, "alice")
    with pytest.raises(BadInput, match="tidy"):
        await hand_over(alice, "root1", Permission.TIDY)
    with pytest.raises(UnknownWorkspace):
        await hand_over(admin, "root1")  # an admin takes nothing from somebody who is there
    await bench.accounts.disable("alice", by=admin)
    assert (await hand_over(admin, "root1")).owner == "root1"


async def test_a_removed_workspace_opens_nothing_and_its_name_is_free(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    root = (await bench.roots.list(alice))[0].id
    async with bench.database.write() as connection:
        row = {"root_id": root, "workspace_id": scans.id, "size": 5, "mtime": 0, "etag": "", "revision": 1}
        await connection.execute(insert(entries).values(row | {"key": "alice--scans/a.txt"}))
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(WRITE))
    for actor, path in ((alice, "scans"), (bob, "alice/scans")):
        await bench.key(actor, path)
    ended = await bench.workspace_changes.delete(alice, "alice", "scans")
    assert (ended.workspace, ended.bucket, ended.prefix) == ("alice/scans", "lab--alice--scans", "")
    assert sorted(one.subject.name for one in ended.receipts) == ["alice", "bob"]
    assert {one.state for one in ended.receipts} == {ReceiptState.ENFORCED}
    assert (lab3.grants(alice.id), lab3.grants(bob.id)) == ({}, {})
    assert await bench.people.readable(bob) == ()
    async with bench.database.read() as connection:
        assert await connection.scalar(select(entries.c.workspace_id)) == 0  # the file is still there
    again = await bench.workspace(alice, "scans")  # its last owner gets it back
    assert (again.bucket, again.objects) == ("lab--alice--scans", 1)


async def test_what_somebody_else_left_behind_is_not_found_in_a_new_workspace(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del lab3
    await bench.workspace_changes.hand_over(alice, "alice", "scans", Handover("bob"))
    await bench.workspace_changes.delete(bob, "bob", "scans")
    again = await bench.workspace(alice, "scans")
    assert again.bucket != scans.bucket


async def test_a_workspace_of_a_public_root_is_removed_from_what_everyone_has(bench: Any, alice: Actor, bob: Actor) -> None:
    lab3 = await bench.node(alice, isolates=Finding.YES)
    await bench.root(alice, RootKind.PUBLIC, layout="bucket")
    made = await bench.workspace(bob, "wiki")
    await bench.key(bob, "wiki")
    assert lab3.grants() == {made.id: READ}
    await bench.workspace_changes.delete(bob, "bob", "wiki")
    assert (lab3.grants(), lab3.grants(bob.id)) == ({}, {})


async def test_a_change_while_the_node_is_away_is_pending_with_its_receipt(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(WRITE))
    await bench.key(bob, "alice/scans")
    del bench.agents.nodes[lab3.id]
    ended = await bench.workspace_changes.delete(alice, "alice", "scans")
    [receipt] = ended.receipts
    assert (receipt.state, receipt.subject.name) == (ReceiptState.PENDING, "bob")
    assert receipt.exposure_s
    bench.agents.nodes[lab3.id] = lab3
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {}
    assert (await bench.stored_receipt(receipt.id)).state is ReceiptState.ENFORCED
