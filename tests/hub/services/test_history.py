"""Who could reach a workspace when, and who read or wrote in it."""

from __future__ import annotations

from typing import Any, Final

import pytest
from sqlalchemy import delete, func, insert, select, update

from hub.db.tables import accesses, grants, group_members, groups, past_grants, past_members, users, workspaces
from hub.domain.reachers import Span
from hub.services.history import History, Pruning
from hub.services.ingest import Ingest
from hub.services.ports import Actor
from protocol.api import NewGroup, NewMember, NewShare, Reacher, RootKind
from protocol.errors import BadInput, BadMessage, NotAllowed, UnknownWorkspace
from protocol.grants import Permission
from protocol.messages import Access, Accesses
from protocol.names import NodeId

ON_BOTH = {
    "test_who_could_reach_it_follows_grants_groups_and_owners_through_time",
    "test_calls_of_one_minute_are_one_line_however_often_they_are_told",
    "test_what_is_older_than_the_days_that_it_is_kept_is_forgotten",
}
MINUTE: Final = 60_000_000
DAY: Final = 86_400_000_000


class Scans:
    """alice's workspace on her node lab3; bob has an account."""

    id: int
    created_at: int
    root: Any

    def __init__(self, bench: Any, alice: Actor, bob: Actor, node: NodeId) -> None:
        self.alice, self.bob, self.node = alice, bob, node
        self.history = History(database=bench.database, clock=bench.clock)
        self.ingest = Ingest(database=bench.database, clock=bench.clock)


@pytest.fixture
async def scans(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> Scans:
    made = Scans(bench, alice, bob, lab3.id)
    made.root = await bench.root(alice, accept_visible_names=True, layout="prefix")
    workspace = await bench.workspace(alice)
    made.id, made.created_at = workspace.id, workspace.created_at
    return made


def _named(found: list[Reacher]) -> set[tuple[str, str, str]]:
    return {(one.who, one.permission, one.through) for one in found}


# ------------------------------------------------------------------------------------------------------ who could


async def test_who_could_reach_it_follows_grants_groups_and_owners_through_time(bench: Any, scans: Scans) -> None:
    history, alice, bob = scans.history, scans.alice, scans.bob
    dave = await bench.person("dave")
    t = scans.created_at
    async with bench.database.write() as connection:
        await connection.execute(insert(groups).values(id=5, name="mri", owner_id=dave.id, created_at=t))
        member = {"group_id": 5, "user_id": bob.id}
        await connection.execute(insert(past_members).values(**member, since=t + 10, ended_at=t + 20))
        await connection.execute(insert(group_members).values(**member, since=t + 40, manager=False))
        on = {"workspace_id": scans.id, "subject_kind": "person"}
        owner = {**on, "subject_id": dave.id, "permission": "owner", "created_at": t, "ended_at": t + 30}
        await connection.execute(insert(past_grants).values(owner))
        wrote = {**on, "subject_id": bob.id, "permission": "write", "created_at": t + 5, "ended_at": t + 12}
        await connection.execute(insert(past_grants).values(wrote))
        group = {**on, "subject_kind": "group", "subject_id": 5, "permission": "read", "expires_at": t + 50}
        await connection.execute(insert(grants).values(**group, id=1, by_id=dave.id, created_at=t))
    seen = {at: await history.access(alice, "scans", t + at) for at in (0, 5, 11, 12, 20, 30, 45, 50)}
    dave_owns, alice_owns = ("dave", "owner", "owner"), ("alice", "owner", "owner")
    in_group = ("bob", "read", "@mri")
    assert {at: _named(found) for at, found in seen.items()} == {
        0: {dave_owns},
        5: {dave_owns, ("bob", "write", "")},
        11: {dave_owns, ("bob", "write", ""), in_group},
        12: {dave_owns, in_group},
        20: {dave_owns},
        30: {alice_owns},
        45: {alice_owns, in_group},
        50: {alice_owns},
    }
    through = next(one for one in seen[45] if one.through == "@mri")
    assert (through.since, through.until) == (t + 40, t + 50)
    assert await history.access(alice, "scans", t - 1) == []


async def test_real_shares_and_what_ended_them_are_told_as_they_were(bench: Any, scans: Scans) -> None:
    history, alice = scans.history, scans.alice
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.READ))
    reading = bench.clock.now()
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE, bench.clock.now() + MINUTE))
    writing = bench.clock.now()
    bench.clock.pass_s(61)
    after = bench.clock.now()
    await bench.sharing.share(alice, "alice", "scans", "public", NewShare(Permission.READ))
    public = bench.clock.now()
    await bench.sharing.unshare(alice, "alice", "scans", "public")
    owner = ("alice", "owner", "owner")
    assert _named(await history.access(alice, "scans", reading)) == {owner, ("bob", "read", "")}
    assert _named(await history.access(alice, "scans", writing)) == {owner, ("bob", "write", "")}
    assert _named(await history.access(alice, "scans", after)) == {owner}
    assert _named(await history.access(alice, "scans", public)) == {owner, ("public", "read", "public")}
    assert _named(await history.access(alice, "scans")) == {owner}


async def test_a_group_that_was_deleted_keeps_its_name_in_what_was(bench: Any, scans: Scans) -> None:
    history, alice, bob = scans.history, scans.alice, scans.bob
    await bench.groups.create(alice, NewGroup("mri"))
    await bench.groups.put_member(alice, "mri", "bob", NewMember())
    await bench.sharing.share(alice, "alice", "scans", "@mri", NewShare(Permission.READ))
    then = bench.clock.now()
    bench.clock.pass_s(1)
    await bench.groups.delete(alice, "mri")
    told = {one.through for one in await history.access(alice, "scans", then) if one.who == bob.username}
    assert told == {"@mri (deleted)"}
    assert {one.who for one in await history.access(alice, "scans")} == {"alice"}
    lines = [(one.action, one.target) for one in await bench.audit.entries(alice, workspace="scans", limit=1)]
    assert lines == [("share.group-gone", "@mri")], "who manages the workspace sees why the share is gone"


async def test_everyone_reaches_what_lies_in_a_public_root_and_nobody_writes_what_is_archived(bench: Any, scans: Scans) -> None:
    history, alice, bob = scans.history, scans.alice, scans.bob
    await bench.root(alice, RootKind.PUBLIC, name="open", bucket="open")
    await bench.workspace(alice, "shown", root="lab3/open")
    assert ("public", "read", "public") in _named(await history.access(alice, "shown"))
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    before = bench.clock.now()
    async with bench.database.write() as connection:
        row = update(workspaces).where(workspaces.c.id == scans.id)
        await connection.execute(row.values(archived_at=bench.clock.now()))
    assert ("bob", "write", "") in _named(await history.access(alice, "scans", before))
    assert ("bob", "read", "") in _named(await history.access(alice, "scans"))
    async with bench.database.write() as connection:
        await connection.execute(update(users).where(users.c.id == bob.id).values(disabled_at=bench.clock.now()))
    assert {one.who for one in await history.access(alice, "scans")} == {"alice"}


async def test_only_managers_the_nodes_owner_and_admins_may_ask(bench: Any, scans: Scans) -> None:
    history, alice, bob = scans.history, scans.alice, scans.bob
    admin = await bench.person("carol", admin=True)
    await bench.workspace(bob, "bobs", root="lab3/main")
    for ask in (history.access, history.accesses):
        with pytest.raises(UnknownWorkspace):
            await ask(bob, "alice/scans")
        with pytest.raises(UnknownWorkspace):
            await ask(bob, "alice/nothing")
        await ask(admin, "alice/scans")
        await ask(alice, "bob/bobs")  # her node
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.WRITE))
    for ask in (history.access, history.accesses):
        with pytest.raises(NotAllowed, match="Only those who manage alice/scans"):
            await ask(bob, "alice/scans")
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(Permission.MANAGE))
    assert {one.who for one in await history.access(bob, "alice/scans")} == {"alice", "bob"}


async def test_an_admin_may_ask_about_a_workspace_that_is_no_more(bench: Any, scans: Scans) -> None:
    history, alice = scans.history, scans.alice
    admin = await bench.person("carol", admin=True)
    async with bench.database.write() as connection:
        row = {"workspace_id": scans.id, "subject_kind": "person", "subject_id": alice.id, "permission": "owner"}
        times = {"created_at": scans.created_at, "ended_at": bench.clock.now()}
        await connection.execute(insert(past_grants).values(row | times))
        await connection.execute(delete(workspaces).where(workspaces.c.id == scans.id))
    assert _named(await history.access(admin, "alice/scans", scans.created_at)) == {("alice", "owner", "owner")}
    with pytest.raises(UnknownWorkspace):
        await history.access(alice, "scans", scans.created_at)


def test_spans_meet_where_both_hold() -> None:
    assert Span(1, None).meets(Span(3, 5)) == Span(3, 5)
    assert Span(1, 4).meets(Span(3, 5)) == Span(3, 4)
    assert Span(1, 3).meets(Span(3, 5)) is None


# ------------------------------------------------------------------------------------------------------ who did


def _access(root: Any, key: str, actor: Actor, at: int, **more: Any) -> Access:
    last = more.pop("last", at)
    return Access(
        root.id, key, actor.id, more.pop("operation", "GetObject"), at, last, more.pop("count", 1), more.pop("refused", 0)
    )


async def test_calls_of_one_minute_are_one_line_however_often_they_are_told(bench: Any, scans: Scans) -> None:
    history, ingest, alice, bob = scans.history, scans.ingest, scans.alice, scans.bob
    at = bench.clock.now() // MINUTE * MINUTE - 10 * MINUTE
    key = "alice/scans/a"
    rows = (
        _access(scans.root, key, bob, at + 5, last=at + 9, count=2),
        _access(scans.root, key, bob, at + 7, last=at + 20, count=3, refused=1),
        _access(scans.root, key, bob, at + 1, operation="PutObject"),
        _access(scans.root, key, alice, at + 1),
        _access(scans.root, key, bob, at + MINUTE),
    )
    await ingest.accesses(scans.node, Accesses(rows))
    await ingest.accesses(scans.node, Accesses((_access(scans.root, key, bob, at + 2, last=at + 6, count=10),)))
    found = await history.accesses(alice, "scans", who="bob")
    merged = [(one.operation, one.first_at - at, one.last_at - at, one.count, one.refused) for one in found]
    assert merged == [
        ("GetObject", MINUTE, MINUTE, 1, 0),
        ("PutObject", 1, 1, 1, 0),
        ("GetObject", 2, 20, 15, 1),
    ]
    assert [one.who for one in await history.accesses(alice, "scans")] == ["bob", "alice", "bob", "bob"]


async def test_a_path_a_person_and_a_page_can_be_asked_for(bench: Any, scans: Scans) -> None:
    history, ingest, alice, bob = scans.history, scans.ingest, scans.alice, scans.bob
    at = bench.clock.now() - 10 * MINUTE
    names = ["a", "a/b", "a/c/d", "ab", "z"]
    rows = tuple(_access(scans.root, f"alice/scans/{name}", bob, at) for name in names)
    await ingest.accesses(scans.node, Accesses((*rows, _access(scans.root, "elsewhere", bob, at))))

    async def asked(path: str, **more: Any) -> list[str]:
        return [one.path.removeprefix("alice/scans/") for one in await history.accesses(alice, path, **more)]

    assert await asked("scans") == names[::-1]
    assert await asked("scans/a") == ["a/c/d", "a/b", "a"]
    assert await asked("scans/a/") == ["a/c/d", "a/b"]
    assert await asked("scans/ab") == ["ab"]
    assert await asked("scans", who="alice") == []
    first = await history.accesses(alice, "scans", limit=2)
    assert await asked("scans", limit=2, before=first[-1].id) == ["a/c/d", "a/b"]
    with pytest.raises(BadInput):
        await history.accesses(alice, "scans", limit=0)


async def test_a_node_speaks_of_its_own_roots_only_and_of_times_that_can_be(bench: Any, scans: Scans) -> None:
    history, ingest, alice, bob = scans.history, scans.ingest, scans.alice, scans.bob
    other = await bench.node(alice, "other")
    now = bench.clock.now()
    with pytest.raises(BadMessage, match="another node"):
        await ingest.accesses(other.id, Accesses((_access(scans.root, "alice/scans/a", bob, now),)))
    rows = (
        _access(scans.root, "alice/scans/a", bob, now + 30 * DAY),
        _access(scans.root, "alice/scans/a", bob, now, last=now - 1),
        _access(scans.root, "alice/scans/a", bob, now, operation="Get\0Object"),
        _access(scans.root, "alice/scans/kept", bob, now),
    )
    await ingest.accesses(scans.node, Accesses(rows))
    gone = type("Root", (), {"id": 12345})
    await ingest.accesses(scans.node, Accesses((_access(gone, "x", bob, now),)))
    assert [one.path for one in await history.accesses(alice, "scans")] == ["alice/scans/kept"]
    assert ingest.accesses_dropped == 3


async def test_what_is_older_than_the_days_that_it_is_kept_is_forgotten(bench: Any, scans: Scans) -> None:
    ingest, bob = scans.ingest, scans.bob
    old = bench.clock.now()
    for start in range(0, 6000, 1000):
        rows = tuple(_access(scans.root, f"alice/scans/{start + n}", bob, old) for n in range(1000))
        await ingest.accesses(scans.node, Accesses(rows))
    bench.clock.pass_s(30 * 86_400)
    await ingest.accesses(scans.node, Accesses((_access(scans.root, "alice/scans/new", bob, bench.clock.now()),)))
    pruning = Pruning(database=bench.database, clock=bench.clock, days=29)
    assert await pruning.step() == 6000
    async with bench.database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(accesses)) == 1
    assert await pruning.step() == 0
