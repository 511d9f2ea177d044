"""Assertions: the hub's word for one node, and what it has to remember once it has given it."""

from __future__ import annotations

from typing import Any

import pytest

from hub.services.ports import Actor
from protocol.api import NewAssertion, NewShare
from protocol.errors import BadLifetime, NodeOffline, NoGrant, NotSignedIn, TooMany, UnknownNode
from protocol.grants import Permission, ReceiptState
from protocol.identity import open_assertion, read_assertion
from protocol.messages import KeysOut, OutUntil, SetGrants

ON_BOTH = {"test_from_then_on_every_change_is_sent_at_once_though_no_key_was_asked_for"}


@pytest.fixture
async def scans(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> Any:
    """A workspace that bob may read; he had a key, which has ended."""
    del lab3
    await bench.root(alice)
    made = await bench.workspace(alice)
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.READ))
    await bench.key(bob, "alice/scans", life_s=900)
    bench.clock.pass_s(2000)
    return made


async def test_the_hub_vouches_for_whoever_asks_to_one_node_for_a_time(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans
    issued = await bench.assertions.issue(bob, NewAssertion("lab3", 7200))
    now = bench.clock.time // 1_000_000
    signed = read_assertion(issued.assertion)
    found = open_assertion(lab3.hub_key, signed, node=lab3.id, now=now)
    assert (found.person, found.username, found.node) == (bob.id, "bob", lab3.id)
    assert issued.expires_at == found.expires * 1_000_000
    assert found.expires - found.issued == 7200
    with pytest.raises(NotSignedIn, match="another node"):
        open_assertion(lab3.hub_key, signed, node=lab3.id + 1, now=now)
    with pytest.raises(NotSignedIn, match="expired"):
        open_assertion(lab3.hub_key, signed, node=lab3.id, now=found.expires)


async def test_from_then_on_every_change_is_sent_at_once_though_no_key_was_asked_for(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    before = len(lab3.asked_for(SetGrants))
    lazy = await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    assert "holds no key" in lazy.receipts[0].reason
    assert len(lab3.asked_for(SetGrants)) == before
    await bench.assertions.issue(bob, NewAssertion("lab3", 7200))
    assert len(lab3.asked_for(SetGrants)) == before + 1, "the node has what bob may do now before it may act on it"
    bench.clock.pass_s(7200 + 3500)  # the last key that it can have brought forth may still live
    revoked = await bench.sharing.unshare(alice, "alice", "scans", "bob")
    assert [receipt.state for receipt in revoked.receipts] == [ReceiptState.ENFORCED]
    assert len(lab3.asked_for(SetGrants)) == before + 2


async def test_with_the_node_away_a_revocation_says_how_long_a_key_may_go_on(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await bench.assertions.issue(bob, NewAssertion("lab3", 7200))
    bench.agents.nodes.pop(lab3.id)
    with pytest.raises(NodeOffline):
        await bench.key(bob, "alice/scans")
    change = await bench.sharing.unshare(alice, "alice", "scans", "bob")
    [receipt] = change.receipts
    assert receipt.state is ReceiptState.PENDING
    assert receipt.exposure_s is not None
    assert 7200 + 3500 < receipt.exposure_s <= 7200 + 3700


async def test_who_never_had_a_key_there_gets_none_and_wrong_wishes_are_refused(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans, alice
    carol = await bench.person("carol")
    with pytest.raises(NoGrant, match="does not know you"):
        await bench.assertions.issue(carol, NewAssertion("lab3"))
    for name in ("nowhere", "", "lab3\0", "../lab3"):
        with pytest.raises(UnknownNode):
            await bench.assertions.issue(bob, NewAssertion(name))
    for life in (0, -1, 899, 7 * 86_400 + 1, 10**12):
        with pytest.raises(BadLifetime):
            await bench.assertions.issue(bob, NewAssertion("lab3", life))
    bench.agents.nodes.pop(lab3.id)
    await bench.assertions.issue(bob, NewAssertion("lab3"))  # it has bob's newest set: nothing has to be sent
    bench.clock.pass_s(20 * 86_400)
    with pytest.raises(NodeOffline):
        await bench.assertions.issue(bob, NewAssertion("lab3"))


async def test_one_person_gets_so_many_an_hour(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans, lab3
    for _ in range(60):
        await bench.assertions.issue(bob, NewAssertion("lab3", 900))
    with pytest.raises(TooMany):
        await bench.assertions.issue(bob, NewAssertion("lab3", 900))
    bench.clock.pass_s(3700)
    await bench.assertions.issue(bob, NewAssertion("lab3", 900))


async def test_keys_that_a_node_minted_by_itself_count_as_out(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))  # lazy: nobody holds a key
    before = len(lab3.asked_for(SetGrants))
    until = bench.clock.time // 1_000_000 + 3600
    await bench.assertions.keys_out(lab3.id, KeysOut((OutUntil(bench.subject(bob), until),)))
    assert len(lab3.asked_for(SetGrants)) == before + 1, "what was not sent for want of a key is sent now"
    bench.clock.pass_s(3500)
    revoked = await bench.sharing.unshare(alice, "alice", "scans", "bob")
    assert revoked.receipts[0].state is ReceiptState.ENFORCED
    assert len(lab3.asked_for(SetGrants)) == before + 2
    await bench.assertions.keys_out(lab3.id, KeysOut(()))
    await bench.assertions.keys_out(12345, KeysOut((OutUntil(bench.subject(bob), until),)))  # type: ignore[arg-type]  # no such node
