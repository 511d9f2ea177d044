"""Links as the hub keeps them: made, sealed, listed, ended; and never more than their makers may do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from hub.db.tables import grant_sets, links
from hub.services.ports import Actor
from protocol.api import Handover, NewGroup, NewLink, NewMember, NewShare, WorkspaceChange
from protocol.errors import (
    BadInput,
    BadLifetime,
    BadName,
    DeadlinePassed,
    NodeOffline,
    NoGrant,
    NotAllowed,
    NotFound,
    OverCeiling,
    TooMany,
    UnknownWorkspace,
    WioError,
)
from protocol.grants import GrantSet, Permission, ReceiptState, SubjectKind
from protocol.identity import from_text
from protocol.messages import Finding, Report, SealedCredential, SetGrants, SignLink
from protocol.sealing import Context, client_key, open_link

ON_BOTH = (
    "test_a_link_is_a_set_of_its_own_under_its_maker",
    "test_ending_one_sends_its_empty_set_with_a_receipt",
    "test_what_has_lost_its_hold_is_ended_for_good",
    "test_long_after_its_end_nothing_is_left_of_a_link",
)
DAY_S = 86_400


@pytest.fixture
async def scans(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> Any:
    """Alice's workspace, which bob may read."""
    del bob, lab3
    await bench.root(alice)
    made = await bench.workspace(alice)
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.READ))
    return made


async def make(bench: Any, actor: Actor, path: str = "alice/scans/a.txt", **more: Any) -> Any:
    return await bench.links.make(actor, NewLink(bench.client_text, path, **more))


def sets_of(agent: Any) -> list[GrantSet]:
    return [one for key, one in sorted(agent.sets.items()) if key[0] is SubjectKind.LINK]


async def counted(bench: Any, table: Any) -> int:
    async with bench.database.read() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)))


async def reported(bench: Any, node: Any, longest_link_s: int) -> None:
    report = Report("0.1", "minio", "MinIO", ("http://127.0.0.1:9000",), "us-east-1", Finding.NO, ())
    await bench.enrolment.report(node, msgspec.structs.replace(report, longest_link_s=longest_link_s))


async def test_a_link_is_a_set_of_its_own_under_its_maker(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    made = await make(bench, bob, life_s=3600)
    [mine] = sets_of(lab3)
    [grant] = mine.grants
    assert (mine.under, mine.subject.id, mine.epoch) == (bob.id, made.link.id, 1)
    assert (grant.bucket, grant.prefix, grant.permission) == (scans.bucket, scans.prefix, Permission.READ)
    assert grant.expires == mine.lease_end == made.link.expires_at // 1_000_000
    assert (SubjectKind.PERSON, bob.id) in lab3.sets, "bob never had a key; the node has to know what he may do"
    [asked] = lab3.asked_for(SignLink)
    assert (asked.bucket, asked.key, asked.life_s, asked.put) == (scans.bucket, f"{scans.prefix}a.txt", 3600, False)
    sealed = SealedCredential(from_text(made.sealed), from_text(made.signature), made.expires_at)
    context = Context(made.node_id, made.link.id, made.request, client_key(bench.client))
    clear = open_link(bench.client, from_text(made.node_key), context, sealed)
    assert clear.url == f"http://127.0.0.1:9000/{scans.bucket}/{scans.prefix}a.txt"
    assert (made.link.by, made.link.path) == ("bob", "alice/scans/a.txt")


async def test_while_a_link_lives_a_change_of_its_makers_access_is_sent_at_once(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await make(bench, bob, life_s=7 * DAY_S)
    bench.clock.pass_s(6 * DAY_S)
    before = lab3.sets[SubjectKind.PERSON, bob.id].epoch
    change = await bench.sharing.unshare(alice, "alice", "scans", "bob")
    assert [one.state for one in change.receipts] == [ReceiptState.ENFORCED]
    assert lab3.sets[SubjectKind.PERSON, bob.id].epoch > before
    assert lab3.sets[SubjectKind.PERSON, bob.id].grants == ()


async def test_ending_one_sends_its_empty_set_with_a_receipt(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    first, second = await make(bench, bob), await make(bench, bob)
    carol = await bench.person("carol")
    for who, number in ((carol, first.link.id), (bob, 4711)):
        with pytest.raises(NotFound, match=f"There is no link {number}"):
            await bench.links.revoke(who, number)
    ended = await bench.links.revoke(alice, first.link.id)
    assert (ended.receipt.state, ended.receipt.subject.name) == (ReceiptState.ENFORCED, "bob's link")
    assert ended.link.revoked_at is not None
    by_id = {one.subject.id: one for one in sets_of(lab3)}
    assert by_id[first.link.id].grants == ()
    assert by_id[second.link.id].grants != ()
    assert [one.id for one in await bench.links.list(bob)] == [second.link.id]
    assert (await bench.links.revoke(bob, first.link.id)).receipt.state is ReceiptState.ENFORCED
    bench.clock.pass_s(2 * DAY_S)
    asked = len(lab3.asked)
    over = await bench.links.revoke(bob, second.link.id)
    assert (over.receipt.state, over.receipt.reason) == (ReceiptState.ENFORCED, "It had ended already.")
    assert len(lab3.asked) == asked


async def test_ended_while_the_node_is_away_it_is_sent_when_it_is_back(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans
    made = await make(bench, bob, life_s=3600)
    del bench.agents.nodes[lab3.id]
    ended = await bench.links.revoke(bob, made.link.id)
    assert ended.receipt.state is ReceiptState.PENDING
    assert ended.receipt.exposure_s is not None
    assert 3600 <= ended.receipt.exposure_s <= 3660
    bench.agents.nodes[lab3.id] = lab3
    await bench.settling.settle(lab3.id, lab3.epochs())
    assert [one.grants for one in sets_of(lab3)] == [()]
    assert (await bench.stored_receipt(ended.receipt.id)).state is ReceiptState.ENFORCED


async def test_a_node_that_reconnects_is_not_sent_what_it_has(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans
    await make(bench, bob)
    before = len(lab3.asked_for(SetGrants))
    await bench.settling.settle(lab3.id, lab3.epochs())
    await bench.settling.retry_once()
    assert len(lab3.asked_for(SetGrants)) == before
    lab3.sets.clear()
    await bench.settling.settle(lab3.id, lab3.epochs())
    assert len(sets_of(lab3)) == 1, "it lost its state: it has to know what is wanted again"


@pytest.mark.parametrize("way", ["unshare", "expiry", "handover", "delete", "disable", "group"])
async def test_what_has_lost_its_hold_is_ended_for_good(  # noqa: PLR0917 - fixtures, and the way
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any, way: str
) -> None:
    maker, path = bob, "alice/scans/a.txt"
    if way in {"handover", "delete"}:
        maker, path = alice, "scans/a.txt"
    if way == "group":
        await bench.sharing.unshare(alice, "alice", "scans", "bob")
        await bench.groups.create(alice, NewGroup("team"))
        await bench.groups.put_member(alice, "team", "bob", NewMember())
        await bench.sharing.share(alice, "alice", "scans", "@team", NewShare(Permission.READ))
    if way == "expiry":
        ends = bench.clock.time + 60_000_000
        await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.READ, ends))
    made = await make(bench, maker, path)
    assert await bench.links.wither() == ()
    match way:
        case "unshare":
            await bench.sharing.unshare(alice, "alice", "scans", "bob")
        case "expiry":
            bench.clock.pass_s(61)
        case "handover":
            await bench.workspace_changes.hand_over(alice, "alice", "scans", Handover("bob"))
        case "delete":
            await bench.workspace_changes.delete(alice, "alice", "scans")
        case "disable":
            await bench.accounts.disable("bob", await bench.person("boss", admin=True))
        case _:
            await bench.groups.remove_member(alice, "team", "bob")
    [receipt] = await bench.links.wither(scans.id)
    assert (receipt.subject.id, receipt.state) == (made.link.id, ReceiptState.ENFORCED)
    assert [one.grants for one in sets_of(lab3)] == [()]
    assert await bench.links.wither() == ()
    assert await bench.links.list(maker) == []


async def test_a_link_that_only_waits_is_not_ended(bench: Any, alice: Actor, lab3: Any, scans: Any) -> None:
    del scans, lab3
    await make(bench, alice, "scans/new", put=True)
    await bench.workspace_changes.change(alice, "alice", "scans", WorkspaceChange(archived=True))
    assert await bench.links.wither() == ()


async def test_to_a_hub_from_its_backup_no_link_is_lost_that_nobody_took_back(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    made = await make(bench, bob)
    await bench.settling.restored(await bench.person("boss", admin=True))
    assert await bench.links.wither() == ()
    await bench.settling.settle(lab3.id, lab3.epochs())
    assert [one.subject.id for one in sets_of(lab3) if one.grants] == [made.link.id]
    with pytest.raises(NotAllowed, match="confirm"):
        await make(bench, alice, "scans/a.txt")


async def test_a_link_that_this_database_does_not_know_is_closed(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans
    made = await make(bench, bob)
    async with bench.database.write() as connection:  # as after a backup from before the link
        await connection.execute(links.delete())
        await connection.execute(grant_sets.delete().where(grant_sets.c.subject_kind == "link"))
    await bench.settling.settle(lab3.id, lab3.epochs())
    assert [(one.subject.id, one.grants) for one in sets_of(lab3)] == [(made.link.id, ())]


# ------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("alice/scans", BadInput),
        ("alice/scans/", BadInput),
        ("alice/scans/sub/", BadInput),
        ("alice/scans/../x", BadInput),
        ("alice/scans/a//b", BadInput),
        ("alice/scans/./x", BadInput),
        ("alice/scans/\0", BadName),
        ("alice/nothing/a", UnknownWorkspace),
        ("", BadName),
        ("alice/scans/" + "x" * 1024, BadName),
    ],
)
async def test_what_is_no_file_gets_no_link(  # noqa: PLR0917 - fixtures, and a table
    bench: Any, bob: Actor, lab3: Any, scans: Any, path: str, error: type[WioError]
) -> None:
    del scans
    with pytest.raises(error):
        await make(bench, bob, path)
    assert lab3.asked_for(SignLink) == []
    assert await counted(bench, links) == 0


async def test_who_may_not_read_or_add_gets_none(bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any) -> None:
    with pytest.raises(NoGrant):
        await make(bench, bob, put=True)
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.DROP))
    with pytest.raises(NoGrant):
        await make(bench, bob)
    made = await make(bench, bob, "alice/scans/new.csv", put=True)
    [asked] = lab3.asked_for(SignLink)
    assert asked.key == f"{scans.prefix}bob/new.csv"
    assert made.link.path == "alice/scans/bob/new.csv"
    with pytest.raises(UnknownWorkspace):
        await make(bench, await bench.person("carol"))


@pytest.mark.parametrize("life_s", [0, -1, 7 * DAY_S + 1, 2**40])
async def test_lives_that_no_link_has_are_refused(bench: Any, bob: Actor, scans: Any, life_s: int) -> None:
    del scans
    with pytest.raises(BadLifetime, match="604800"):
        await make(bench, bob, life_s=life_s)


async def test_the_nodes_owner_decides(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans
    await reported(bench, lab3.id, 3600)
    with pytest.raises(BadLifetime, match="3600"):
        await make(bench, bob, life_s=3601)
    await reported(bench, lab3.id, 0)
    with pytest.raises(OverCeiling, match="no presigned links"):
        await make(bench, bob, life_s=60)


async def test_one_person_has_so_many_links_at_most(
    bench: Any, bob: Actor, scans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del scans
    monkeypatch.setattr("hub.services.links.MOST", 2)
    first = await make(bench, bob)
    await make(bench, bob)
    with pytest.raises(TooMany):
        await make(bench, bob)
    await bench.links.revoke(bob, first.link.id)
    await make(bench, bob)


async def test_where_the_node_is_away_no_link_is_made(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans
    del bench.agents.nodes[lab3.id]
    with pytest.raises(NodeOffline):
        await make(bench, bob)
    assert await counted(bench, links) == 0


async def test_a_node_that_lost_its_state_gets_all_that_a_link_leans_on_within_the_request(
    bench: Any, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    await make(bench, bob)
    lab3.sets.clear()
    made = await make(bench, bob)
    assert (SubjectKind.PERSON, bob.id) in lab3.sets
    assert [one.subject.id for one in sets_of(lab3)] == [made.link.id]


async def test_a_link_that_its_node_did_not_sign_is_ended(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans

    def fails(asked: Any) -> None:
        if isinstance(asked, SignLink):
            raise DeadlinePassed("The node did not answer in time.")

    lab3.before = fails
    with pytest.raises(DeadlinePassed):
        await make(bench, bob)
    assert [one.grants for one in sets_of(lab3)] == [()]
    assert await bench.links.list(bob) == []


async def test_a_link_that_the_ceiling_refuses_is_ended(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    def refuses(asked: Any) -> None:
        if isinstance(asked, SetGrants) and b"bob's link" in asked.grant_set.body:
            lab3.ceiling.add((scans.id, Permission.READ))

    lab3.before = refuses
    with pytest.raises(OverCeiling):
        await make(bench, bob)
    assert await bench.links.list(bob) == []


async def test_taken_back_while_it_is_made_no_link_comes_out(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    del scans
    once = []

    async def unshare() -> None:
        await bench.sharing.unshare(alice, "alice", "scans", "bob")

    def meanwhile(asked: Any) -> Any:
        if isinstance(asked, SetGrants) and not once:
            once.append(asked)
            return unshare()
        return None

    lab3.before = meanwhile
    with pytest.raises(WioError):
        await make(bench, bob)
    assert all(one.grants == () for one in sets_of(lab3))
    assert await bench.links.list(bob) == []


async def test_long_after_its_end_nothing_is_left_of_a_link(bench: Any, bob: Actor, lab3: Any, scans: Any) -> None:
    del scans, lab3
    await make(bench, bob)
    bench.clock.pass_s(DAY_S + 60)
    await bench.links.step()
    assert await counted(bench, links) == 1
    bench.clock.pass_s(30 * DAY_S)
    await bench.links.step()
    assert await counted(bench, links) == 0
    async with bench.database.read() as connection:
        left = await connection.scalars(select(grant_sets.c.subject_kind))
    assert "link" not in list(left)
