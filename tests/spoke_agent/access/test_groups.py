"""Groups: one shared set, and persons whose own sets say that it counts for them."""

from __future__ import annotations

import pytest

from protocol.errors import Pending, StorageUnreachable
from protocol.grants import Permission
from protocol.messages import GrantsApplied
from tests.spoke_agent.access.bench import ALICE, BOB, STAFF, Bench, grant


async def test_a_group_s_set_opens_to_its_members_and_to_nobody_else(bench: Bench) -> None:
    await bench.set(STAFF, 1, grant("staff/"))
    await bench.set(ALICE, 1, grant("alice/"))
    await bench.set(BOB, 1, grant("bob/"), groups=(STAFF.id,))
    alice, bob = await bench.key(ALICE, 1), await bench.key(BOB, 1)
    assert (bench.opens(alice, "lab/staff/a"), bench.opens(bob, "lab/staff/a")) == (False, True)
    closed = await bench.set(STAFF, 2)
    assert isinstance(closed, GrantsApplied)
    assert (closed.keys_out, [proof.status for proof in closed.proofs]) == (1, [403])
    assert not bench.opens(bob, "lab/staff/a")


async def test_putting_in_and_taking_out_a_member_is_proven_with_a_key_that_was_out(bench: Bench) -> None:
    await bench.set(STAFF, 1, grant("staff/", Permission.WRITE))
    await bench.set(BOB, 1, grant("bob/"))
    key = await bench.key(BOB, 1)
    inside = await bench.set(BOB, 2, grant("bob/"), groups=(STAFF.id,))
    assert isinstance(inside, GrantsApplied)
    assert [(proof.what, proof.expected) for proof in inside.proofs] == [("read lab/staff/", True)]
    assert bench.opens(key, "lab/staff/a", Permission.WRITE)
    outside = await bench.set(BOB, 3, grant("bob/"))
    assert isinstance(outside, GrantsApplied)
    assert [(proof.what, proof.status, proof.expected) for proof in outside.proofs] == [("read lab/staff/", 403, True)]
    assert not bench.opens(key, "lab/staff/a")
    assert bench.opens(key, "lab/bob/a")


async def test_a_member_is_not_out_before_the_server_has_taken_it(bench: Bench) -> None:
    await bench.set(STAFF, 1, grant("staff/"))
    await bench.set(BOB, 1, groups=(STAFF.id,))
    key = await bench.key(BOB, 1)

    def away(what: str) -> None:
        if what == "set_shared":
            raise StorageUnreachable("The storage server is away.")

    bench.storage.fault = away
    with pytest.raises(Pending):
        await bench.set(BOB, 2)
    assert (await bench.access.expire_once()) <= 2
    [epochs] = await bench.access.epochs()
    assert epochs.states[1].content == bytes(32), "the hub is not told that it is enforced"
    assert bench.opens(key, "lab/staff/a")
    bench.storage.fault = lambda _: None
    await bench.access.expire_once()
    assert not bench.opens(key, "lab/staff/a")


async def test_a_group_s_set_that_comes_after_its_members_counts_too(bench: Bench) -> None:
    await bench.set(BOB, 1, groups=(STAFF.id,))
    await bench.set(ALICE, 1, grant("alice/"), groups=(STAFF.id, 32))
    key = await bench.key(ALICE, 1)
    await bench.set(STAFF, 1, grant("staff/"))
    assert bench.opens(key, "lab/staff/a")
    assert bench.opens(await bench.key(BOB, 1), "lab/staff/a"), "somebody who has no grant of their own gets a key all the same"


async def test_groups_are_the_same_after_a_restart(bench: Bench) -> None:
    await bench.set(STAFF, 1, grant("staff/"))
    await bench.set(BOB, 1, groups=(STAFF.id,))
    key = await bench.key(BOB, 1)
    await bench.restart()
    assert bench.opens(key, "lab/staff/a")
    await bench.set(BOB, 2)
    await bench.restart()
    assert not bench.opens(key, "lab/staff/a")
