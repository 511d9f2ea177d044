"""Why somebody may or may not: every link of the chain, and the storage server's own word beside it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, update

from hub.db.tables import group_members, groups, nodes, users, workspaces
from hub.services.ports import Actor
from hub.services.why import Explaining
from protocol.api import NewShare, RootKind, Why, WhyStep
from protocol.errors import NotAllowed, UnknownUser, UnknownWorkspace
from protocol.grants import Permission
from protocol.messages import Explain, Health

ON_BOTH = {"test_allowed_denied_and_taken_back_are_explained_whole", "test_groups_everyone_and_public_roots_are_told"}


class Asked:
    """alice's workspace scans on lab3, and somebody who asks why."""

    def __init__(self, bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
        self.bench, self.alice, self.bob, self.lab3 = bench, alice, bob, lab3
        self.explaining = Explaining(database=bench.database, agents=bench.agents, clock=bench.clock, sets=bench.sets)

    async def why(self, path: str = "alice/scans/a.txt", who: str = "bob", asking: Actor | None = None) -> Why:
        return await self.explaining.why(asking or self.alice, who, path)

    async def share(self, permission: Permission = Permission.READ, who: str = "bob", until: int | None = None) -> Any:
        return await self.bench.sharing.share(self.alice, "alice", "scans", who, NewShare(permission, until))


@pytest.fixture
async def asked(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> Asked:
    await bench.root(alice)
    await bench.workspace(alice)
    return Asked(bench, alice, bob, lab3)


def step(found: Why, what: str) -> WhyStep:
    return next(one for one in found.steps if one.what == what)


async def test_allowed_denied_and_taken_back_are_explained_whole(bench: Any, asked: Asked) -> None:
    never = await asked.why()
    assert (never.allowed, never.because, never.agrees) == (False, "bob has no grant on alice/scans.", None)
    assert step(never, "grant").detail == "no grant to bob"
    assert never.todo == "Ask alice: wio request alice/scans"
    await asked.share(Permission.WRITE)
    await bench.key(asked.bob, "alice/scans")
    may = await asked.why()
    assert (may.allowed, may.permission, may.agrees) == (True, Permission.WRITE, True)
    assert may.because == "bob was given write on it."
    assert {one.what for one in may.steps if not one.holds} == {"owner", "group", "everyone", "public-root"}
    assert "got 404" in may.server_said
    change = await bench.sharing.unshare(asked.alice, "alice", "scans", "bob")
    denied = await asked.why()
    assert (denied.allowed, denied.permission, denied.agrees) == (False, None, True)
    told = step(denied, "grant").detail
    assert told.startswith("shared until 2027-01-15 ")
    assert told.endswith(f"(alice revoked it, receipt {change.receipts[0].id})")
    owner = await asked.why(who="alice", path="scans")
    assert (owner.permission, owner.because) == (Permission.MANAGE, "alice owns it.")


async def test_a_grant_that_ran_out_is_told_as_that(bench: Any, asked: Asked) -> None:
    await asked.share(until=bench.clock.now() + 60_000_000)
    await bench.key(asked.bob, "alice/scans")
    assert "until 2027-01-15" in step(await asked.why(), "grant").detail
    bench.clock.pass_s(61)
    gone = await asked.why()
    assert not gone.allowed
    assert step(gone, "grant").detail.endswith("(it ran out)")


async def test_groups_everyone_and_public_roots_are_told(bench: Any, asked: Asked) -> None:
    async with bench.database.write() as connection:
        for number, name in ((5, "mri"), (6, "pet")):
            row = {"id": number, "name": name, "owner_id": asked.alice.id, "created_at": 1}
            await connection.execute(insert(groups).values(row))
            await connection.execute(insert(group_members).values(group_id=number, user_id=asked.bob.id, since=1))
    found = await asked.why()
    assert step(found, "group").detail == "bob is in @mri, @pet, which have no grant here"
    await asked.share(Permission.WRITE, who="@mri")
    found = await asked.why()
    assert (found.permission, found.because) == (Permission.WRITE, "bob is in @mri, which was given write.")
    assert [one.detail for one in found.steps if one.what == "group"] == [
        "bob is in @mri, which has write",
        "bob is in @pet, which has no grant here",
    ]
    await asked.share(Permission.READ, who="public")
    assert step(await asked.why(), "everyone").detail == "shared with everyone for read"
    await bench.root(asked.alice, RootKind.PUBLIC, name="open", bucket="open")
    await bench.workspace(asked.alice, "shown", root="lab3/open")
    shown = await asked.why("alice/shown", asking=asked.bob)
    assert (shown.allowed, shown.because) == (True, "bob may, because it lies in a public root.")
    assert step(shown, "public-root").holds


async def test_what_takes_access_away_is_named(bench: Any, asked: Asked) -> None:
    await asked.share(Permission.WRITE)
    await bench.key(asked.bob, "alice/scans")
    now = bench.clock.now()
    tables: list[tuple[Any, Any, dict[str, Any], str]] = [
        (users, users.c.username == "bob", {"disabled_at": now}, "person"),
        (nodes, nodes.c.name == "lab3", {"evicted_at": now}, "node"),
    ]
    for table, where, values, what in tables:
        async with bench.database.write() as connection:
            await connection.execute(update(table).where(where).values(values))
        found = await asked.why()
        assert (found.allowed, step(found, what).holds, found.permission) == (False, False, None)
        async with bench.database.write() as connection:
            await connection.execute(update(table).where(where).values(dict.fromkeys(values)))
    async with bench.database.write() as connection:
        await connection.execute(update(workspaces).values(archived_at=now))
    archived = await asked.why()
    assert (archived.allowed, archived.permission, step(archived, "archived").holds) == (True, Permission.READ, False)


async def test_a_node_that_is_offline_is_told_and_nothing_is_asked(bench: Any, asked: Asked) -> None:
    await asked.share()
    await bench.key(asked.bob, "alice/scans")
    bench.agents.nodes.clear()
    found = await asked.why()
    assert (found.allowed, found.agrees, found.server_said) == (True, None, "")
    assert "offline" in step(found, "online").detail
    assert asked.lab3.asked_for(Explain) == []


async def test_what_the_nodes_owner_does_not_allow_is_told(bench: Any, asked: Asked) -> None:
    await bench.key(asked.alice, "scans")
    await asked.share()
    scans = (await bench.workspaces.show(asked.alice, "alice", "scans")).id
    asked.lab3.ceiling.add((scans, Permission.READ))
    bench.clock.pass_s(2 * 3600)
    with pytest.raises(Exception, match="does not allow"):
        await bench.key(asked.bob, "alice/scans")
    found = await asked.why()
    assert not found.allowed
    assert found.because.startswith("The owner of lab3 does not allow it")
    assert not step(found, "ceiling").holds


async def test_a_server_that_says_otherwise_is_shown_to_disagree(bench: Any, asked: Asked) -> None:
    await asked.share()
    await bench.key(asked.bob, "alice/scans")
    asked.lab3.explains = 403
    found = await asked.why()
    assert (found.allowed, found.agrees) == (True, False)
    asked.lab3.explains = 500
    assert (await asked.why()).agrees is None
    await bench.sharing.unshare(asked.alice, "alice", "scans", "bob")
    asked.lab3.explains = 200
    assert (await asked.why()).agrees is False


async def test_who_may_only_drop_is_allowed_and_not_expected_to_read(bench: Any, asked: Asked) -> None:
    await asked.share(Permission.DROP)
    await bench.key(asked.bob, "alice/scans")
    found = await asked.why()
    assert (found.allowed, found.permission, found.agrees) == (True, Permission.DROP, True)


async def test_the_answer_is_of_now_even_where_the_node_was_not_told_because_nobody_has_a_key(bench: Any, asked: Asked) -> None:
    await asked.share()
    await bench.key(asked.bob, "alice/scans")
    bench.clock.pass_s(2 * 3600)
    await bench.sharing.unshare(asked.alice, "alice", "scans", "bob")
    assert asked.lab3.grants(asked.bob.id) != {}, "he has no key, so nothing was sent"
    assert (await asked.why()).agrees is True


async def test_who_asks_about_others_has_to_manage_it_and_nobody_learns_what_they_may_not_know(
    bench: Any, asked: Asked
) -> None:
    dave = await bench.person("dave")
    admin = await bench.person("carol", admin=True)
    for path in ("alice/scans", "alice/nothing"):
        with pytest.raises(UnknownWorkspace):
            await asked.why(path, asking=dave)
        mine = await asked.why(path, who="me", asking=dave)
        assert (mine.allowed, [one.what for one in mine.steps]) == (False, ["person", "workspace"])
        assert mine.because.replace("nothing", "scans") == (
            "There is no workspace “alice/scans”, or none that dave may know of."
        )
    await asked.share(who="dave")
    with pytest.raises(NotAllowed, match="is told to those who manage it"):
        await asked.why(asking=dave)
    await asked.share(Permission.MANAGE, who="dave")
    assert not (await asked.why(asking=dave)).allowed
    assert not (await asked.why(asking=admin)).allowed
    with pytest.raises(UnknownUser):
        await asked.why(who="nobody")
    with pytest.raises(UnknownUser):
        await asked.why(who="\0")


async def test_a_paused_node_is_told_as_that(bench: Any, asked: Asked) -> None:
    await asked.share()
    await bench.key(asked.bob, "alice/scans")
    await bench.enrolment.health(asked.lab3.id, Health(bench.clock.now(), 0, 0, paused=True))
    paused = await asked.why()
    assert (paused.allowed, paused.permission) == (False, None)
    assert paused.because == "The owner of lab3 has paused it: nobody reaches anything there now."
    assert not step(paused, "paused").holds
    await bench.enrolment.health(asked.lab3.id, Health(bench.clock.now(), 0, 0, paused=False))
    again = await asked.why()
    assert (again.allowed, [one for one in again.steps if one.what == "paused"]) == (True, [])
