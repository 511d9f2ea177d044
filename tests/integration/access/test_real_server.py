"""Access on a real MinIO: what people's keys open, at every moment, by the server's own answers."""

from __future__ import annotations

import asyncio
import random

import pytest

from protocol.errors import Pending
from protocol.grants import Grant, Narrowing, Permission, Subject
from protocol.messages import GrantsApplied
from spoke_agent.agent import clock
from spoke_agent.storage.node import Credential
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE

pytestmark = pytest.mark.real


async def test_share_and_revoke_are_proven_by_the_servers_own_answers(real: Real) -> None:
    await real.set(BOB, 1, real.grant("scans/"))
    key = await real.key(BOB, 1)
    assert await real.opens(key, "scans/")
    assert not await real.opens(key, "plans/")
    assert not await real.opens(key, "scans/", Permission.WRITE)
    wider = await real.set(BOB, 2, real.grant("scans/", Permission.WRITE), real.grant("plans/"))
    assert isinstance(wider, GrantsApplied)
    assert [proof.expected for proof in wider.proofs] == [True, True], wider.proofs
    assert await real.opens(key, "scans/", Permission.WRITE)
    revoked = await real.set(BOB, 3)
    assert isinstance(revoked, GrantsApplied)
    assert sorted((proof.status, proof.expected) for proof in revoked.proofs) == [(403, True), (403, True)]
    assert revoked.keys_out == 1
    assert not await real.opens(key, "scans/")
    assert not await real.opens(key, "plans/")


async def test_everyone_reaches_keys_that_are_out_and_keys_to_come(real: Real) -> None:
    await real.set(ALICE, 1, real.grant("alice/"))
    old = await real.key(ALICE, 1)
    opened = await real.set(EVERYONE, 1, real.grant("open/"))
    assert isinstance(opened, GrantsApplied)
    assert [proof.expected for proof in opened.proofs] == [True], opened.proofs
    await real.set(BOB, 1)
    new = await real.key(BOB, 1)
    assert [await real.opens(key, "open/") for key in (old, new)] == [True, True]
    closed = await real.set(EVERYONE, 2)
    assert isinstance(closed, GrantsApplied)
    assert [(proof.status, proof.expected) for proof in closed.proofs] == [(403, True)]
    assert [await real.opens(key, "open/") for key in (old, new)] == [False, False]


async def test_a_narrowed_key_does_less_and_pause_ends_all(real: Real) -> None:
    await real.set(BOB, 1, real.grant("scans/", Permission.WRITE))
    narrow = await real.key(BOB, 1, Narrowing(((real.bucket, "scans/sub/"),), read_only=True))
    whole = await real.key(BOB, 1)
    assert await real.opens(narrow, "scans/sub/")
    assert not await real.opens(narrow, "scans/")
    assert not await real.opens(narrow, "scans/sub/", Permission.WRITE)
    assert (await real.access.pause()).problems == ()
    assert not await real.opens(whole, "scans/")
    await real.stop()
    await real.start()
    assert not await real.opens(whole, "scans/")
    assert (await real.access.resume()).problems == ()
    assert await real.opens(whole, "scans/", Permission.WRITE)


async def test_a_grant_ends_while_the_agent_is_there(real: Real) -> None:
    ends = clock() // 1_000_000 + 2
    await real.set(BOB, 1, real.grant("scans/", expires=ends), real.grant("plans/"))
    key = await real.key(BOB, 1)
    assert await real.opens(key, "scans/")
    while clock() // 1_000_000 < ends:
        wait = await real.access.expire_once()
        assert wait <= 2
        await asyncio.sleep(min(wait, 0.1))
    await real.access.expire_once()
    assert not await real.opens(key, "scans/")
    assert await real.opens(key, "plans/")


async def test_after_a_restart_access_that_somebody_changed_on_the_server_is_repaired(real: Real) -> None:
    await real.set(EVERYONE, 1, real.grant("open/"))
    await real.set(BOB, 1, real.grant("scans/"))
    key = await real.key(BOB, 1)
    [holder] = [one for one in real.access._principals.active_holders() if real.access.who(one.name) == BOB.id]
    await real.node.set_access(holder, [real.grant("scans/"), real.grant("plans/")])
    await real.node.set_shared(holder, [])
    assert await real.opens(key, "plans/")
    assert not await real.opens(key, "open/")
    await real.stop()
    await real.start()
    assert [await real.opens(key, place) for place in ("scans/", "plans/", "open/")] == [True, False, True]


async def test_a_lost_state_leaves_no_key_that_works(real: Real) -> None:
    await real.set(BOB, 1, real.grant("scans/"))
    key = await real.key(BOB, 1)
    await real.stop()
    for file in real.state.path.glob("grants.sqlite*"):
        file.unlink()
    await real.start()
    assert not await real.opens(key, "scans/")
    with pytest.raises(Pending):
        await real.key(BOB, 1)


async def test_a_random_history_with_real_keys_tried_after_every_step(real: Real) -> None:
    chance = random.Random(7)  # noqa: S311 - a history that can be repeated
    places = ("a/", "b/", "b/deep/", "open/")
    sets: dict[Subject, tuple[Grant, ...]] = {}
    keys: list[tuple[Subject, Credential]] = []
    for epoch in range(1, 61):
        subject = chance.choice([ALICE, BOB, EVERYONE])
        chosen = chance.sample(places, chance.randrange(4))
        sets[subject] = tuple(real.grant(p, chance.choice([Permission.READ, Permission.WRITE])) for p in chosen)
        answer = await real.set(subject, epoch, *sets[subject])
        assert isinstance(answer, GrantsApplied)
        assert all(proof.expected for proof in answer.proofs), answer.proofs
        if subject is not EVERYONE and (sets[subject] or sets.get(EVERYONE)):
            keys.append((subject, await real.key(subject, epoch)))
        for person, key in keys[-3:]:
            counts = [*sets.get(person, ()), *sets.get(EVERYONE, ())]
            for place in places:
                wanted = any(place.startswith(grant.prefix) for grant in counts)
                writes = any(place.startswith(grant.prefix) and grant.permission.writes for grant in counts)
                assert await real.opens(key, place) is wanted
                assert await real.opens(key, place, Permission.WRITE) is writes
    assert len(keys) > 10
