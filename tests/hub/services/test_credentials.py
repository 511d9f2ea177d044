"""Keys: one per node, within limits, opened by the client alone."""

from typing import Any

import pytest

from hub.services.ports import Actor
from protocol.api import NewCredentials, NewShare, RootKind
from protocol.errors import BadInput, BadLifetime, BadName, NodeOffline, Pending, UnknownWorkspace
from protocol.grants import Permission, open_set
from protocol.identity import from_text
from protocol.messages import Mint, SealedCredential, SetGrants
from protocol.sealing import Context, client_key, open_sealed


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    del lab3
    await bench.root(alice)
    return await bench.workspace(alice)


async def test_the_key_that_comes_back_opens_with_the_clients_key_and_the_nodes(
    bench: Any, alice: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    key = await bench.key(alice, "scans/a.txt")
    sealed = SealedCredential(from_text(key.sealed), from_text(key.signature), key.expires_at)
    context = Context(0, key.subject, key.request, client_key(bench.client))
    clear = open_sealed(bench.client, from_text(key.node_key), context, sealed)
    assert clear.access_key == "AK"
    assert (key.node, key.node_id, key.endpoint) == ("lab3", lab3.id, "http://127.0.0.1:9000")


async def test_a_second_key_costs_one_message(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans
    await bench.key(alice, "scans")
    assert len(lab3.asked_for(SetGrants)) == 2  # alice's and everyone's
    asked = len(lab3.asked)
    await bench.key(alice, "scans")
    assert [type(one) for one in lab3.asked[asked:]] == [Mint]


async def test_one_key_serves_all_paths_of_a_node(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans
    await bench.workspace(alice, "two")
    key = await bench.key(alice, "scans/x", "me/two/y/", "alice/two")
    assert [(one.path, one.workspace, one.key) for one in key.opens] == [
        ("scans/x", "alice/scans", "x"),
        ("me/two/y/", "alice/two", "y/"),
        ("alice/two", "alice/two", ""),
    ]
    assert len(lab3.asked_for(Mint)) == 1
    assert lab3.asked_for(Mint)[0].narrowing.places == ()


async def test_paths_on_two_nodes_give_two_keys(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del lab3, scans
    other = await bench.node(alice, "nas")
    await bench.roots.create(alice, bench.new_root("nas", "main", RootKind.PRIVATE, "nas"))
    await bench.workspace(alice, "far", root="nas/main")
    new = NewCredentials(bench.client_text, ("scans", "far"))
    assert {one.node for one in (await bench.issuing.issue(alice, new)).keys} == {"lab3", "nas"}
    del bench.agents.nodes[other.id]
    with pytest.raises(NodeOffline, match="nas is not connected"):
        await bench.issuing.issue(alice, new)


async def test_a_narrowed_key_is_for_the_asked_places_only(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans
    await bench.key(alice, "scans/p", "scans/p/", "scans", narrow=True, read_only=True)
    mint = lab3.asked_for(Mint)[-1]
    assert mint.narrowing.places == (("lab--alice--scans", "p/"), ("lab--alice--scans", ""))
    assert mint.narrowing.read_only
    with pytest.raises(BadName):
        await bench.key(alice, "scans/a*b/", narrow=True)


async def test_a_read_only_key_says_so_and_needs_no_more_than_reading(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    assert (await bench.key(bob, "alice/scans", read_only=True)).opens[0].permission is Permission.READ
    assert (await bench.key(bob, "alice/scans")).opens[0].permission is Permission.WRITE


async def test_lives_that_the_node_does_not_allow_are_refused_with_the_numbers(
    bench: Any, alice: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await bench.report(lab3.id, longest_s=7200)
    for life in (0, -1, 899, 7201, 2**40):
        with pytest.raises(BadLifetime, match="900 s to 7200 s"):
            await bench.key(alice, "scans", life_s=life)
    await bench.key(alice, "scans", life_s=900)
    await bench.key(alice, "scans", life_s=7200)
    assert [one.life_s for one in lab3.asked_for(Mint)] == [900, 7200]


@pytest.mark.parametrize("client_key_text", ["", "AAAA", "not base64!", "A" * 44, "\ud800"])
async def test_a_client_key_that_is_none_is_refused(bench: Any, alice: Actor, scans: Any, client_key_text: str) -> None:
    del scans
    with pytest.raises(BadInput, match="client_key"):
        await bench.issuing.issue(alice, NewCredentials(client_key_text, ("scans",)))


async def test_paths_that_lead_nowhere_are_refused(bench: Any, alice: Actor, scans: Any) -> None:
    del scans
    with pytest.raises(BadInput, match="1 to 50 paths"):
        await bench.key(alice)
    with pytest.raises(BadInput, match="1 to 50 paths"):
        await bench.key(alice, *(f"scans/{at}" for at in range(51)))
    with pytest.raises(UnknownWorkspace):
        await bench.key(alice, "scans", "nothing")
    with pytest.raises(BadName):
        await bench.key(alice, "scans/\0")


async def test_an_agent_that_lost_its_state_gets_the_set_again_within_the_request(
    bench: Any, alice: Actor, lab3: Any, scans: Any
) -> None:
    await bench.key(alice, "scans")
    lab3.sets.clear()
    await bench.key(alice, "scans")
    assert lab3.grants(alice.id) == {scans.id: Permission.MANAGE}
    assert ("everyone", 0) in lab3.sets


async def test_an_agent_that_stays_behind_is_given_up_on(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans
    lab3.before = lambda asked: lab3.sets.clear() if isinstance(asked, Mint) else None
    with pytest.raises(Pending):
        await bench.key(alice, "scans")
    assert len(lab3.asked_for(Mint)) == 3


async def test_a_set_is_signed_anew_when_half_its_lease_is_gone(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans
    await bench.key(alice, "scans")
    before = lab3.sets["person", alice.id]
    bench.clock.pass_s(14 * 86_400)
    await bench.key(alice, "scans")
    assert lab3.sets["person", alice.id] == before
    bench.clock.pass_s(2 * 86_400)
    await bench.key(alice, "scans")
    after = lab3.sets["person", alice.id]
    assert after.epoch == before.epoch + 1
    assert after.lease_end > before.lease_end
    assert after.grants == before.grants
    assert open_set(lab3.hub_key, lab3.asked_for(SetGrants)[-1].grant_set).lease_end == after.lease_end


async def test_a_node_that_was_never_heard_of_mints_nothing(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans
    async with bench.database.write() as connection:
        await connection.exec_driver_sql("UPDATE nodes SET report = NULL")
    with pytest.raises(NodeOffline, match="not said yet"):
        await bench.key(alice, "scans")
    assert lab3.asked_for(Mint) == []
