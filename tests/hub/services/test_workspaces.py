"""Workspaces are made whole or not at all, and listed to whom they concern."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select

from hub.db.tables import audit, entries, grant_sets, grants, workspaces
from hub.services.ports import Actor
from protocol.api import NewShare, RootKind
from protocol.errors import BadInput, BadName, DiskFull, NameTaken, NodeOffline, NotAllowed, OverCeiling, Overlap, UnknownRoot
from protocol.grants import Permission
from protocol.messages import PlaceWorkspace

ON_BOTH = {"test_what_lies_there_already_belongs_to_the_new_workspace", "test_folders_that_nest_are_made_once_even_at_once"}


async def test_a_workspace_is_placed_on_the_node_and_is_its_owners(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice)
    made = await bench.workspace(bob, "scans", description="brains")
    assert (made.owner, made.name, made.node, made.root) == ("bob", "scans", "lab3", "main")
    assert (made.bucket, made.prefix, made.permission, made.public) == ("lab--bob--scans", "", Permission.MANAGE, False)
    assert lab3.asked_for(PlaceWorkspace)[-1].prefix == "bob--scans/"
    await bench.key(bob, "scans")
    assert lab3.grants(bob.id) == {made.id: Permission.MANAGE}


async def test_a_new_workspace_reaches_a_key_that_is_out(bench: Any, alice: Actor, lab3: Any) -> None:
    await bench.root(alice)
    await bench.workspace(alice, "one")
    await bench.key(alice, "one")
    second = await bench.workspace(alice, "two")
    assert second.id in lab3.grants(alice.id)


async def test_a_public_workspace_is_everyones_to_read(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice)
    made = await bench.workspace(alice, public=True)
    assert made.public
    [seen] = await bench.workspaces.list(bob, "public")
    assert (seen.owner, seen.permission) == ("alice", Permission.READ)
    await bench.key(bob, "alice/scans")
    assert lab3.grants() == {made.id: Permission.READ}


async def test_what_lies_there_already_belongs_to_the_new_workspace(bench: Any, alice: Actor, lab3: Any) -> None:
    del lab3
    root = await bench.root(alice, RootKind.UNMANAGED_PUBLIC, "old")
    row = {"root_id": root.id, "workspace_id": 0, "mtime": 1, "etag": "e", "revision": 1}
    async with bench.database.write() as connection:
        for key, size in (("mri/a", 5), ("mri/b/c", 6), ("mrix", 7)):
            await connection.execute(insert(entries).values(row | {"key": key, "size": size}))
    made = await bench.workspace(alice, "mri", folder="mri")
    assert (made.objects, made.bytes, made.prefix) == (2, 11, "mri/")


async def test_folders_that_nest_are_made_once_even_at_once(bench: Any, alice: Actor, lab3: Any) -> None:
    del lab3
    await bench.root(alice, RootKind.UNMANAGED_PUBLIC, "old")
    tries = [bench.workspace(alice, name, folder=folder) for name, folder in (("w1", "a"), ("w2", "a/b"), ("w3", "a/b/c/"))]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == ["Overlap", "Overlap", "Workspace"]
    await bench.workspace(alice, "w4", folder="ab")
    with pytest.raises(Overlap):
        await bench.workspace(alice, "w5", folder="ab/c")


async def test_nothing_is_half_done_when_the_node_says_no(bench: Any, alice: Actor, lab3: Any) -> None:
    await bench.root(alice)

    async def rows() -> list[int]:
        async with bench.database.read() as connection:
            counts = [len((await connection.execute(select(table))).all()) for table in (workspaces, grants, audit)]
        return counts[:2]

    lab3.refuse = DiskFull("There is no space left on lab3.").problem
    with pytest.raises(DiskFull, match="no space"):
        await bench.workspace(alice)
    assert await rows() == [0, 0]
    lab3.refuse = None
    del bench.agents.nodes[lab3.id]
    with pytest.raises(NodeOffline):
        await bench.workspace(alice)
    assert await rows() == [0, 0]


async def test_a_workspace_above_the_ceiling_is_taken_back(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice)
    first = await bench.workspace(alice, "first", public=True)
    await bench.key(alice, "first")
    real = bench.chance.new_id
    ids: list[int] = []

    def remembered() -> int:
        ids.append(real())
        lab3.ceiling = {(one, Permission.MANAGE) for one in ids}
        return ids[-1]

    bench.chance.new_id = remembered
    with pytest.raises(OverCeiling):
        await bench.workspace(alice, "second", public=True)
    bench.chance.new_id = real
    assert [one.name for one in await bench.workspaces.list(alice, "mine")] == ["first"]
    assert [one.name for one in await bench.workspaces.list(bob)] == ["first"]
    assert lab3.grants(alice.id) == {first.id: Permission.MANAGE}
    assert lab3.grants() == {first.id: Permission.READ}
    async with bench.database.read() as connection:
        sets = (await connection.execute(select(grant_sets))).all()
    assert all(one.epoch == one.applied_epoch for one in sets)
    lab3.ceiling = set()
    assert (await bench.workspace(alice, "second", public=True)).public


async def test_the_root_is_found_or_has_to_be_named(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    del lab3
    with pytest.raises(UnknownRoot, match="no root that you may"):
        await bench.workspace(bob)
    await bench.root(alice, name="one", bucket="one")
    assert (await bench.workspace(bob, "a")).root == "one"
    await bench.root(alice, name="two", bucket="two")
    with pytest.raises(BadInput, match="several roots") as caught:
        await bench.workspace(bob, "b")
    assert "lab3/one, lab3/two" in caught.value.todo
    assert (await bench.workspace(bob, "b", root="two")).root == "two"
    assert (await bench.workspace(bob, "c", root="lab3/two")).root == "two"
    for root in ("three", "lab4/two", "", "a\0", "/"):
        with pytest.raises(UnknownRoot):
            await bench.workspace(bob, "d", root=root)


async def test_only_the_owner_turns_existing_folders_into_workspaces(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    del lab3
    await bench.root(alice, RootKind.UNMANAGED_PUBLIC, "old", prefix="data/")
    with pytest.raises(NotAllowed, match="Only alice"):
        await bench.workspace(bob, "w", root="old", folder="x")
    with pytest.raises(BadInput, match="folders that are there"):
        await bench.workspace(alice, "w", root="old")
    for folder in ("../x", "a*", "", "/", "a//b", "x" * 1020):
        with pytest.raises(BadName):
            await bench.workspace(alice, "w", root="old", folder=folder)
    assert (await bench.workspace(alice, "w", folder="2019/mri")).prefix == "data/2019/mri/"
    await bench.root(alice, RootKind.PUBLIC, "new", bucket="new")
    with pytest.raises(BadInput, match="chooses its folders itself"):
        await bench.workspace(alice, "v", root="new", folder="x")


async def test_names_are_checked_and_taken_once_per_owner(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice)
    await bench.workspace(alice)
    asked = len(lab3.asked)
    with pytest.raises(NameTaken):
        await bench.workspace(alice)
    for name in ("a*", "../x", "me", "x" * 41, "a_b"):  # a_b cannot be a bucket
        with pytest.raises(BadName):
            await bench.workspace(alice, name)
    for description in ("x" * 2001, "a\0b"):
        with pytest.raises(BadInput):
            await bench.workspace(alice, "w", description=description)
    assert len(lab3.asked) == asked
    assert (await bench.workspace(bob)).owner == "bob"


async def test_lists_show_what_each_word_says(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    del lab3
    await bench.root(alice)
    for name in ("private", "given", "open"):
        await bench.workspace(alice, name, public=name == "open")
    await bench.workspace(bob, "own")
    await bench.sharing.share(alice, "alice", "given", "bob", NewShare(Permission.WRITE))

    async def names(which: str) -> list[str]:
        return [f"{one.owner}/{one.name}" for one in await bench.workspaces.list(bob, which)]

    assert await names("mine") == ["bob/own"]
    assert await names("shared") == ["alice/given"]
    assert await names("public") == ["alice/open"]
    assert await names("all") == ["alice/given", "alice/open", "bob/own"]
    with pytest.raises(BadInput):
        await names("theirs")


async def test_reading_follows_shares_at_once_and_paths_find_their_workspace(
    bench: Any, alice: Actor, bob: Actor, lab3: Any
) -> None:
    del lab3
    await bench.root(alice)
    await bench.workspace(alice)
    assert list(await bench.people.readable(bob)) == []
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare())
    [one] = await bench.people.readable(bob)
    assert (one.owner, one.name, one.node, one.prefix) == ("alice", "scans", "lab3", "alice--scans/")
    assert (await bench.people.readable(bob))[0] is one  # kept while nothing changes
    assert (await bench.people.resolve(bob, "alice/scans/a/b"))[1] == "a/b"
    await bench.sharing.unshare(alice, "alice", "scans", "bob")
    assert list(await bench.people.readable(bob)) == []


async def test_ones_own_workspace_is_not_hidden_by_anybodys_name(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    del lab3
    await bench.root(alice)
    await bench.workspace(bob, "alice")
    await bench.workspace(alice, "scans", public=True)
    found, rest = await bench.people.resolve(bob, "alice/scans/x")
    assert (found.owner, found.name, rest) == ("bob", "alice", "scans/x")
    carol = await bench.person("carol")
    found, rest = await bench.people.resolve(carol, "alice/scans/x")
    assert (found.owner, found.name, rest) == ("alice", "scans", "x")
