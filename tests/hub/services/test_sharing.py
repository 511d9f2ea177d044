"""Share, key, revoke: with receipts."""

import asyncio
from typing import Any

import pytest

from hub.services.ports import Actor
from protocol.api import NewShare, RootKind
from protocol.errors import (
    BadInput,
    BadLifetime,
    BadSetting,
    Internal,
    NodeOffline,
    NoGrant,
    OverCeiling,
    UnknownGroup,
    UnknownShare,
    UnknownUser,
    UnknownWorkspace,
    Unreachable,
    WioError,
)
from protocol.grants import Permission, ReceiptState
from protocol.messages import Mint, SetGrants

ON_BOTH = {
    "test_share_key_revoke_from_end_to_end",
    "test_sharing_again_replaces_and_tells_what_was_before",
    "test_revoking_while_the_node_is_away_is_pending_with_the_exposure_then_enforced",
    "test_everyone_is_one_set_and_changes_reach_the_node_at_once",
    "test_sharing_with_somebody_unknown_is_refused",
    "test_changes_of_one_person_made_at_once_end_as_the_hub_has_them",
    "test_everyone_may_read_a_public_root_as_a_whole",
}
READ, WRITE, DROP, MANAGE = Permission.READ, Permission.WRITE, Permission.DROP, Permission.MANAGE


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    """alice's workspace on her node, in a private root."""
    del lab3
    await bench.root(alice)
    return await bench.workspace(alice)


async def share(bench: Any, actor: Actor, who: str, permission: Permission = READ, until: int | None = None) -> Any:
    return await bench.sharing.share(actor, "alice", "scans", who, NewShare(permission, until))


async def test_share_key_revoke_from_end_to_end(bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any) -> None:
    shared = await share(bench, alice, "bob", WRITE)
    assert (shared.workspace, shared.before, shared.after, shared.since) == ("alice/scans", None, WRITE, None)
    [receipt] = shared.receipts
    assert (receipt.state, receipt.keys_out) == (ReceiptState.ENFORCED, 0)
    assert "bob holds no key on lab3" in receipt.reason
    assert lab3.asked_for(SetGrants) == []  # nobody with a key: nothing to hurry

    key = await bench.key(bob, "alice/scans/a.txt")
    assert lab3.grants(bob.id) == {scans.id: WRITE}
    [opened] = key.opens
    assert (opened.bucket, opened.prefix, opened.key, opened.permission) == ("lab--alice--scans", "", "a.txt", WRITE)

    revoked = await bench.sharing.unshare(alice, "alice", "scans", "bob")
    assert lab3.grants(bob.id) == {}
    [receipt] = revoked.receipts
    assert (revoked.before, revoked.after) == (WRITE, None)
    assert (receipt.state, receipt.keys_out, receipt.node) == (ReceiptState.ENFORCED, 1, "lab3")
    assert [(proof.status, proof.expected) for proof in receipt.proofs] == [(403, True)]
    assert receipt.enforced_at is not None
    assert receipt.enforced_at >= receipt.asked_at
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans/a.txt")


async def test_sharing_again_replaces_and_tells_what_was_before(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    await share(bench, alice, "bob", WRITE)
    await bench.key(bob, "alice/scans")
    again = await share(bench, alice, "bob", READ)
    assert (again.before, again.after) == (WRITE, READ)
    assert again.since is not None
    assert lab3.grants(bob.id) == {scans.id: READ}
    [listed] = await bench.sharing.shares(alice, "alice", "scans")
    assert (listed.who, listed.permission, listed.by, listed.applied) == ("bob", READ, "alice", True)


async def test_what_the_node_refuses_is_taken_back_and_nothing_is_half_done(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    lab3.ceiling = {(scans.id, WRITE)}
    refused = await share(bench, alice, "bob", WRITE)
    [receipt] = refused.receipts
    assert (receipt.state, refused.after) == (ReceiptState.REFUSED, READ)
    assert "does not allow" in receipt.reason
    [listed] = await bench.sharing.shares(alice, "alice", "scans")
    assert listed.permission is READ

    lab3.ceiling = set()
    await bench.key(bob, "alice/scans")
    assert lab3.grants(bob.id) == {scans.id: READ}


async def test_a_new_share_that_is_refused_leaves_nothing(bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any) -> None:
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "bob", NewShare(READ))
    await bench.key(bob, "alice/other")
    lab3.ceiling = {(scans.id, WRITE)}
    refused = await share(bench, alice, "bob", WRITE)
    assert (refused.receipts[0].state, refused.after) == (ReceiptState.REFUSED, None)
    assert await bench.sharing.shares(alice, "alice", "scans") == []
    assert lab3.grants(bob.id) == {other.id: READ}
    assert lab3.sets["person", bob.id].epoch > refused.receipts[0].epoch


async def test_a_grant_above_the_ceiling_holds_up_neither_keys_nor_revocations(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    other = await bench.workspace(alice, "other")
    third = await bench.workspace(alice, "third")
    for name in ("scans", "other", "third"):
        await bench.sharing.share(alice, "alice", name, "bob", NewShare(READ))
    lab3.ceiling = {(scans.id, READ)}
    await bench.key(bob, "alice/other")
    assert lab3.grants(bob.id) == {other.id: READ, third.id: READ}
    with pytest.raises(OverCeiling, match="does not allow read on alice/scans"):
        await bench.key(bob, "alice/scans")
    [listed] = await bench.sharing.shares(alice, "alice", "scans")
    assert not listed.applied
    assert "does not allow" in listed.reason
    assert (await bench.sharing.shares(alice, "alice", "other"))[0].applied

    revoked = await bench.sharing.unshare(alice, "alice", "other", "bob")
    assert revoked.receipts[0].state is ReceiptState.ENFORCED
    assert lab3.grants(bob.id) == {third.id: READ}

    lab3.ceiling = set()
    await bench.report(lab3.id, ceiling=("everything",))  # the owner has changed the ceiling
    await bench.key(bob, "alice/scans")
    assert lab3.grants(bob.id) == {scans.id: READ, third.id: READ}


async def test_what_a_lifted_ceiling_lets_through_reaches_keys_that_are_out_without_a_new_one(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    other = await bench.workspace(alice, "other")
    for name in ("scans", "other"):
        await bench.sharing.share(alice, "alice", name, "bob", NewShare(READ))
    lab3.ceiling = {(scans.id, READ)}
    await bench.key(bob, "alice/other")
    assert lab3.grants(bob.id) == {other.id: READ}
    assert await bench.settling.retry_once() == 0, "the ceiling is as it was"
    await bench.report(lab3.id, ceiling=("another",))
    assert await bench.settling.retry_once() == 1
    assert lab3.grants(bob.id) == {other.id: READ}, "and refuses the same"
    lab3.ceiling = set()
    await bench.report(lab3.id, ceiling=("none",))
    assert await bench.settling.retry_once() == 1
    assert lab3.grants(bob.id) == {scans.id: READ, other.id: READ}
    assert await bench.settling.retry_once() == 0


async def test_revoking_while_the_node_is_away_is_pending_with_the_exposure_then_enforced(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans", life_s=3600)
    bench.clock.pass_s(1000)
    del bench.agents.nodes[lab3.id]
    revoked = await bench.sharing.unshare(alice, "alice", "scans", "bob")
    [receipt] = revoked.receipts
    assert receipt.state is ReceiptState.PENDING
    assert 2600 <= receipt.exposure_s <= 2660
    assert "not connected" in receipt.reason

    bench.agents.nodes[lab3.id] = lab3
    await bench.sharing.settle(lab3.id, lab3.epochs())
    assert lab3.grants(bob.id) == {}
    stored = await bench.stored_receipt(receipt.id)
    assert (stored.state, stored.exposure_s) == (ReceiptState.ENFORCED, None)
    assert stored.proofs


async def test_a_deadline_that_passes_is_pending_and_tried_again(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    bench.agents.silent = True
    receipt = (await bench.sharing.unshare(alice, "alice", "scans", "bob")).receipts[0]
    assert receipt.state is ReceiptState.PENDING
    bench.agents.silent = False
    assert await bench.settling.retry_once() == 1
    assert lab3.grants(bob.id) == {}
    assert (await bench.stored_receipt(receipt.id)).state is ReceiptState.ENFORCED
    assert await bench.settling.retry_once() == 0


@pytest.mark.parametrize("fault", [Internal("It failed."), BadSetting("Its file is damaged."), Unreachable("It is locked.")])
async def test_a_fault_of_the_nodes_own_is_no_refusal_and_it_is_tried_again(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any, *, fault: WioError, monkeypatch: pytest.MonkeyPatch
) -> None:
    del scans
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")

    async def failed(*_: object, **__: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(bench.agents, "ask", failed)
        receipt = (await bench.sharing.unshare(alice, "alice", "scans", "bob")).receipts[0]
        assert receipt.state is ReceiptState.PENDING
        assert fault.message in receipt.reason
        assert await bench.settling.retry_once() == 1
    assert await bench.settling.retry_once() == 1
    assert lab3.grants(bob.id) == {}
    assert (await bench.stored_receipt(receipt.id)).state is ReceiptState.ENFORCED


async def test_a_probe_that_proves_the_opposite_is_no_enforcement(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    lab3.proof_status = 200
    receipt = (await bench.sharing.unshare(alice, "alice", "scans", "bob")).receipts[0]
    assert receipt.state is ReceiptState.PENDING
    assert "answered with 200" in receipt.reason


async def test_everyone_is_one_set_and_changes_reach_the_node_at_once(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    shared = await share(bench, alice, "public")
    assert "Nobody has asked for a key" in shared.receipts[0].reason
    await bench.key(bob, "alice/scans")
    assert (lab3.grants(), lab3.grants(bob.id)) == ({scans.id: READ}, {})
    revoked = await bench.sharing.unshare(alice, "alice", "scans", "public")
    assert revoked.receipts[0].state is ReceiptState.ENFORCED
    assert lab3.grants() == {}
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")


async def test_who_may_only_drop_gets_a_folder_of_their_own(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await share(bench, alice, "bob", DROP)
    key = await bench.key(bob, "alice/scans/a.txt")
    assert (key.opens[0].prefix, key.opens[0].key, key.opens[0].permission) == ("bob/", "bob/a.txt", DROP)
    [grant] = lab3.sets["person", bob.id].grants
    assert (grant.bucket, grant.prefix, grant.permission) == ("lab--alice--scans", "bob/", DROP)
    with pytest.raises(NoGrant, match="drop on it, which does not include read"):
        await bench.key(bob, "alice/scans", read_only=True)
    assert list(await bench.people.readable(bob)) == []
    assert (await bench.workspaces.show(bob, "alice", "scans")).prefix == "bob/"


async def test_only_owners_and_managers_share(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    carol = await bench.person("carol")
    with pytest.raises(UnknownWorkspace):
        await share(bench, carol, "bob")
    await share(bench, alice, "bob", WRITE)
    with pytest.raises(NoGrant, match="may not manage alice/scans"):
        await share(bench, bob, "carol")
    with pytest.raises(NoGrant):
        await bench.sharing.shares(bob, "alice", "scans")
    with pytest.raises(NoGrant):
        await bench.sharing.unshare(bob, "alice", "scans", "bob")
    await share(bench, alice, "bob", MANAGE)
    await share(bench, bob, "carol", READ)
    shares = await bench.sharing.shares(bob, "alice", "scans")
    assert [(one.who, one.by) for one in shares] == [("bob", "alice"), ("carol", "bob")]


async def test_nobody_learns_of_workspaces_that_are_not_theirs(bench: Any, bob: Actor, scans: Any) -> None:
    del scans
    messages = []
    for name in ("scans", "nothing"):
        with pytest.raises(UnknownWorkspace) as caught:
            await bench.sharing.share(bob, "alice", name, "bob", NewShare())
        messages.append(str(caught.value).replace(name, "X"))
        with pytest.raises(UnknownWorkspace):
            await bench.key(bob, f"alice/{name}")
        with pytest.raises(UnknownWorkspace):
            await bench.workspaces.show(bob, "alice", name)
    assert messages[0] == messages[1]


@pytest.mark.parametrize("who", ["nobody", "../b*b", "x" * 500, "a\0b\x1b[31m"])
async def test_sharing_with_somebody_unknown_is_refused(bench: Any, alice: Actor, bob: Actor, scans: Any, who: str) -> None:
    del bob, scans
    with pytest.raises(UnknownUser) as caught:
        await share(bench, alice, who)
    assert "\x1b" not in str(caught.value)
    assert await bench.sharing.shares(alice, "alice", "scans") == []


async def test_shares_that_make_no_sense_are_refused_in_words(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    with pytest.raises(BadInput, match="alice owns alice/scans"):
        await share(bench, alice, "alice")
    with pytest.raises(UnknownGroup, match="no group"):
        await share(bench, alice, "@mri")
    with pytest.raises(BadInput, match="manage cannot be given to everyone"):
        await share(bench, alice, "public", MANAGE)
    with pytest.raises(BadInput, match="drop cannot be given to everyone"):
        await share(bench, alice, "public", DROP)
    for until in (0, -5, bench.clock.time, 2**62):
        with pytest.raises(BadLifetime):
            await share(bench, alice, "bob", READ, until)
    with pytest.raises(UnknownShare, match="not shared with bob"):
        await bench.sharing.unshare(alice, "alice", "scans", "bob")
    with pytest.raises(UnknownShare, match="no share"):
        await bench.sharing.unshare(alice, "alice", "scans", "alice")
    with pytest.raises(UnknownUser):
        await bench.sharing.unshare(alice, "alice", "scans", "nobody")
    del bob


async def test_a_share_that_has_run_out_gives_nothing_and_is_none(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    await share(bench, alice, "bob", READ, bench.clock.time + 100_000_000)
    await bench.key(bob, "alice/scans")
    assert lab3.sets["person", bob.id].grants[0].expires == (bench.clock.time + 100_000_000) // 1_000_000
    assert len(await bench.people.readable(bob)) == 1
    bench.clock.pass_s(101)
    assert list(await bench.people.readable(bob)) == []
    assert await bench.sharing.shares(alice, "alice", "scans") == []
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")
    with pytest.raises(UnknownShare):
        await bench.sharing.unshare(alice, "alice", "scans", "bob")
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    assert lab3.grants(bob.id) == {scans.id: READ}


async def test_changes_of_one_person_made_at_once_end_as_the_hub_has_them(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    names = [f"w{at}" for at in range(6)]
    ids = {name: (await bench.workspace(alice, name)).id for name in names}
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    shared = await asyncio.gather(
        *(bench.sharing.share(alice, "alice", name, "bob", NewShare(WRITE)) for name in names),
        bench.sharing.unshare(alice, "alice", "scans", "bob"),
    )
    assert {one.receipts[0].state for one in shared} == {ReceiptState.ENFORCED}
    assert len({one.receipts[0].epoch for one in shared}) == len(shared)
    assert lab3.grants(bob.id) == dict.fromkeys(ids.values(), WRITE)
    assert scans.id not in lab3.grants(bob.id)


async def test_a_key_that_was_being_minted_while_its_grant_was_revoked_never_leaves(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "other", "bob", NewShare(READ))
    await share(bench, alice, "bob", READ)
    # The node has bob's set but no key of bob's is out, so the revocation will not hurry.
    await bench.sets.ready(bench.at(lab3), bench.subject(bob))
    await bench.sets.ready(bench.at(lab3), bench.everyone)
    revoked: list[Any] = []
    real = bench.issuing._note

    async def note_late(job: Any, epochs: Any) -> None:
        if not revoked:
            revoked.append(await bench.sharing.unshare(alice, "alice", "scans", "bob"))
        await real(job, epochs)

    bench.issuing._note = note_late
    await bench.key(bob, "alice/other")
    assert revoked[0].receipts[0].keys_out == 0
    assert len(lab3.asked_for(Mint)) == 2  # the first key, minted with the old set, was thrown away
    assert len(lab3.grants(bob.id)) == 1


async def test_the_trail_tells_of_every_change(bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any) -> None:
    del lab3, scans
    await share(bench, alice, "bob", READ)
    await bench.key(bob, "alice/scans")
    await bench.sharing.unshare(alice, "alice", "scans", "bob")
    told = [(one.actor, one.action, one.target) for one in await bench.audit.entries(alice)]
    assert told[:3] == [
        ("alice", "unshare", "alice/scans"),
        ("bob", "key.mint", "lab3"),
        ("alice", "share", "alice/scans"),
    ]
    assert [one.action for one in await bench.audit.entries(bob)] == ["key.mint", "account.create"]
    page = await bench.audit.entries(alice, limit=1)
    assert (await bench.audit.entries(alice, limit=1, before=page[0].id))[0].action == "key.mint"
    with pytest.raises(BadInput):
        await bench.audit.entries(alice, limit=0)


async def test_everyone_may_read_a_public_root_as_a_whole(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice, RootKind.PUBLIC, "open", bucket="atlas")
    made = await bench.workspace(bob, "maps")
    key = await bench.key(alice, "bob/maps")
    assert key.opens[0].permission is READ
    [grant] = lab3.sets["everyone", 0].grants
    assert (grant.workspace, grant.bucket, grant.prefix, grant.permission) == (0, "atlas", "", READ)
    assert made.public
    del bench.agents.nodes[lab3.id]
    with pytest.raises(NodeOffline, match="lab3 is not connected"):
        await bench.key(alice, "bob/maps")
