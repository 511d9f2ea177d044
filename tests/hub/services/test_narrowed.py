"""What a node's owner lets people only read is sent for reading, not left out; and what the owner changes is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from hub.services.ports import Actor
from protocol.api import NewShare
from protocol.grants import Permission, ReceiptState
from protocol.messages import SetGrants

READ, WRITE, DROP, MANAGE = Permission.READ, Permission.WRITE, Permission.DROP, Permission.MANAGE


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    del lab3
    await bench.root(alice)
    return await bench.workspace(alice)


async def test_who_may_only_read_now_is_sent_reading_and_the_share_says_why(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    other = await bench.workspace(alice, "other")
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(WRITE))
    await bench.sharing.share(alice, "alice", "other", "bob", NewShare(DROP))
    for who in (alice, bob):
        await bench.key(who, "alice/scans")
    lab3.ceiling = {(one.id, permission) for one in (scans, other) for permission in (DROP, WRITE, MANAGE)}
    await bench.report(lab3.id, ceiling=("read only",))
    await bench.settling.recheck(lab3.id)
    assert lab3.grants(alice.id) == {scans.id: READ, other.id: READ}
    assert lab3.grants(bob.id) == {scans.id: READ}, "what is only for dropping is nothing for reading"
    await bench.key(alice, "alice/scans")
    for name in ("scans", "other"):
        [listed] = await bench.sharing.shares(alice, "alice", name)
        assert (listed.applied, listed.reason) == (False, "The owner of this node does not allow that.")

    lab3.ceiling = set()
    await bench.report(lab3.id, ceiling=("all of it",))
    await bench.settling.recheck(lab3.id)
    assert lab3.grants(alice.id) == {scans.id: MANAGE, other.id: MANAGE}
    assert lab3.grants(bob.id) == {scans.id: WRITE, other.id: DROP}
    for name in ("scans", "other"):
        assert [one.applied for one in await bench.sharing.shares(alice, "alice", name)] == [True]


async def test_what_is_not_even_to_be_read_is_left_out_in_the_next_try(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    other, third = await bench.workspace(alice, "other"), await bench.workspace(alice, "third")
    for name, what in (("scans", WRITE), ("other", WRITE), ("third", READ)):
        await bench.sharing.share(alice, "alice", name, "bob", NewShare(what))
    lab3.ceiling = {(scans.id, WRITE), (scans.id, READ), (other.id, WRITE)}
    before = len(lab3.asked)
    await bench.key(bob, "alice/third")
    assert lab3.grants(bob.id) == {other.id: READ, third.id: READ}
    tries = [one for one in lab3.asked[before:] if isinstance(one, SetGrants)]
    assert len([one for one in tries if b"bob" in one.grant_set.body]) == 3, "as it is, for reading, without the rest"
    revoked = await bench.sharing.unshare(alice, "alice", "third", "bob")
    assert revoked.receipts[0].state is ReceiptState.ENFORCED
    assert lab3.grants(bob.id) == {other.id: READ}


async def test_a_share_that_the_owner_does_not_allow_is_refused_whole_and_not_made_a_smaller_one(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(READ))
    await bench.key(bob, "alice/scans")
    lab3.ceiling = {(scans.id, WRITE)}
    change = await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(WRITE))
    assert (change.after, change.receipts[0].state) == (READ, ReceiptState.REFUSED)
    assert lab3.grants(bob.id) == {scans.id: READ}
