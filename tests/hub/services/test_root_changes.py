"""Who may do what with a root, changing it, retiring it: its data is never touched."""

from typing import Any

import pytest
from sqlalchemy import select

from hub.db.tables import past_grants, roots, settings, workspaces
from hub.services.ports import Actor
from protocol.api import NewGroup, NewMember, NewShare, RootChange, RootKind
from protocol.errors import (
    BadInput,
    NodeOffline,
    NotAllowed,
    OverCeiling,
    UnknownGroup,
    UnknownRoot,
    UnknownUser,
    UnknownWorkspace,
)
from protocol.grants import Permission, ReceiptState
from protocol.messages import CheckRoot, Configure, IndexLevel

ON_BOTH = {
    "test_who_may_make_workspaces_is_who_is_named_and_who_is_in_a_named_group",
    "test_a_retired_root_takes_its_workspaces_along_and_cuts_every_key_off",
}
READ, WRITE = Permission.READ, Permission.WRITE


@pytest.fixture
async def main(bench: Any, alice: Actor, lab3: Any) -> Any:
    del lab3
    return await bench.root(alice)


async def change(bench: Any, actor: Actor, **what: Any) -> Any:
    return await bench.root_changes.change(actor, "lab3", "main", RootChange(**what))


async def test_everybody_may_make_workspaces_in_a_new_managed_root_and_its_owner_in_others(
    bench: Any, alice: Actor, main: Any
) -> None:
    assert (main.creators, main.managers) == (("public",), ())
    raw = await bench.root(alice, RootKind.UNMANAGED_PRIVATE, "raw", bucket="raw", accept_visible_names=True)
    assert (raw.creators, raw.managers) == ((), ())


async def test_who_may_make_workspaces_is_who_is_named_and_who_is_in_a_named_group(
    bench: Any, alice: Actor, bob: Actor, main: Any
) -> None:
    del main
    carol, dave = await bench.person("carol"), await bench.person("dave")
    await bench.groups.create(alice, NewGroup("mri"))
    await bench.groups.put_member(alice, "mri", "carol", NewMember())
    changed = await change(bench, alice, creators=("bob", "@mri"))
    assert sorted(changed.creators) == ["@mri", "bob"]
    for actor in (alice, bob, carol):
        await bench.workspace(actor, "mine")
        await bench.workspace(actor, "named", root="lab3/main")
    with pytest.raises(NotAllowed, match="whom they let"):
        await bench.workspace(dave, "mine", root="lab3/main")
    with pytest.raises(UnknownRoot):
        await bench.workspace(dave, "mine")
    await bench.groups.remove_member(alice, "mri", "carol")
    with pytest.raises(NotAllowed):
        await bench.workspace(carol, "more", root="lab3/main")
    await bench.groups.delete(alice, "mri")
    assert (await bench.roots.show(alice, "lab3", "main")).creators == ("bob",)
    assert (await change(bench, alice, creators=())).creators == ()
    await bench.workspace(alice, "still")


async def test_somebody_named_may_turn_folders_of_an_unmanaged_root_into_workspaces(
    bench: Any, alice: Actor, bob: Actor, lab3: Any
) -> None:
    del lab3
    await bench.root(alice, RootKind.UNMANAGED_PRIVATE, "raw", bucket="raw", accept_visible_names=True)
    with pytest.raises(UnknownRoot):
        await bench.workspace(bob, "old", root="lab3/raw", folder="2019")
    await bench.root_changes.change(alice, "lab3", "raw", RootChange(creators=("bob",)))
    assert [one.name for one in await bench.roots.list(bob)] == ["raw"]
    assert (await bench.workspace(bob, "old", root="lab3/raw", folder="2019")).prefix == "2019/"


async def test_managers_change_a_root_but_not_who_manages_it(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, main: Any
) -> None:
    del main
    with pytest.raises(NotAllowed, match="may change it"):
        await change(bench, bob, pace=100)
    await change(bench, alice, managers=("bob",))
    changed = await change(bench, bob, level=IndexLevel.NONE, creators=("bob",))
    assert (changed.level, changed.creators, changed.managers) == (IndexLevel.NONE, ("bob",), ("bob",))
    await bench.roots.scan(bob, "lab3", "main")
    with pytest.raises(NotAllowed, match="who manages"):
        await change(bench, bob, managers=("bob", "alice"))
    with pytest.raises(NotAllowed):
        await bench.root_changes.retire(bob, "lab3", "main")
    for names, error in ((("nobody",), UnknownUser), (("@nobody",), UnknownGroup), (("public",), BadInput)):
        with pytest.raises(error):
            await change(bench, alice, managers=names)
    with pytest.raises(BadInput, match="pace"):
        await change(bench, alice, pace=-1)
    assert lab3.asked_for(CheckRoot)


async def test_the_node_is_told_of_a_new_level_or_pace_and_of_nothing_else(
    bench: Any, alice: Actor, lab3: Any, main: Any
) -> None:
    told = lab3.asked_for(Configure)
    await change(bench, alice, creators=("alice",))
    await change(bench, alice, level=main.level)
    assert lab3.asked_for(Configure) == told
    await change(bench, alice, pace=50)
    await change(bench, alice, level=IndexLevel.METADATA)
    slower, deeper = lab3.asked_for(Configure)[len(told) :]
    assert (slower.roots[0].pace, deeper.roots[0].level) == (50, IndexLevel.METADATA)
    assert deeper.revision > slower.revision > told[-1].revision


async def test_a_level_that_the_nodes_owner_does_not_allow_is_not_written_down(
    bench: Any, alice: Actor, lab3: Any, main: Any
) -> None:
    lab3.refuse = OverCeiling("The owner of this node lets the hub know at most names.").problem
    with pytest.raises(OverCeiling):
        await change(bench, alice, level=IndexLevel.CONTENT)
    lab3.refuse = None
    assert (await bench.roots.show(alice, "lab3", "main")).level is main.level
    del bench.agents.nodes[lab3.id]
    assert (await change(bench, alice, pace=7)).id == main.id  # told when it is back
    bench.agents.nodes[lab3.id] = lab3
    await bench.roots.configure(lab3.id)
    assert lab3.asked_for(Configure)[-1].roots[0].pace == 7


async def test_a_retired_root_takes_its_workspaces_along_and_cuts_every_key_off(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, main: Any
) -> None:
    carol = await bench.person("carol")
    other = await bench.root(alice, name="other", bucket="other")
    kept = await bench.workspace(bob, "kept", root="lab3/other")
    await bench.groups.create(alice, NewGroup("mri"))
    await bench.groups.put_member(alice, "mri", "carol", NewMember())
    for name in ("scans", "plans"):
        await bench.workspace(alice, name, root="lab3/main")
        await bench.sharing.share(alice, "alice", name, "bob", NewShare(WRITE))
        await bench.sharing.share(alice, "alice", name, "@mri", NewShare(READ))
    for actor in (bob, carol):
        await bench.key(actor, "alice/scans")
    with pytest.raises(NotAllowed):
        await bench.root_changes.retire(bob, "lab3", "main")
    retired = await bench.root_changes.retire(alice, "lab3", "main")
    assert (retired.root, retired.workspaces) == ("lab3/main", 2)
    assert sorted(one.subject.name for one in retired.receipts) == ["bob", "carol"]
    assert {one.state for one in retired.receipts} == {ReceiptState.ENFORCED}
    assert (lab3.grants(bob.id), lab3.grants(carol.id)) == ({kept.id: Permission.MANAGE}, {})
    assert [one.name for one in lab3.asked_for(Configure)[-1].roots] == ["other"]
    assert [one.name for one in await bench.roots.list(alice)] == ["other"]
    assert [one.name for one in await bench.people.readable(bob)] == ["kept"]
    with pytest.raises(UnknownRoot):
        await bench.roots.show(alice, "lab3", "main")
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")
    async with bench.database.read() as connection:
        assert await connection.scalar(select(roots.c.retired_at).where(roots.c.id == main.id))
        assert list(await connection.scalars(select(workspaces.c.id).where(workspaces.c.root_id != other.id))) == []
        ended = await connection.scalars(select(past_grants.c.permission).where(past_grants.c.workspace_id != kept.id))
        assert sorted(ended) == ["owner", "owner", "read", "read", "write", "write"]
    again = await bench.root(alice)  # name and place are free
    assert again.id != main.id


async def test_a_public_root_that_is_retired_is_closed_to_everyone(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice, RootKind.PUBLIC)
    made = await bench.workspace(bob, "wiki")
    await bench.key(bob, "wiki")
    assert made.id
    assert list(lab3.sets["everyone", 0].grants)
    retired = await bench.root_changes.retire(alice, "lab3", "main")
    assert sorted(one.subject.name for one in retired.receipts) == ["bob", "everyone"]
    assert lab3.sets["everyone", 0].grants == ()


async def test_reading_files_begins_only_with_the_agent_there_and_ends_at_any_time(
    bench: Any, alice: Actor, lab3: Any, main: Any
) -> None:
    del main
    await change(bench, alice, level=IndexLevel.METADATA)
    del bench.agents.nodes[lab3.id]
    assert (await change(bench, alice, level=IndexLevel.CONTENT)).level is IndexLevel.CONTENT
    assert (await change(bench, alice, level=IndexLevel.NAMES)).level is IndexLevel.NAMES
    with pytest.raises(NodeOffline, match="begin to read"):
        await change(bench, alice, level=IndexLevel.METADATA)
    assert (await change(bench, alice, level=IndexLevel.NONE)).level is IndexLevel.NONE
    assert (await change(bench, alice, level=IndexLevel.NAMES)).level is IndexLevel.NAMES
    bench.agents.nodes[lab3.id] = lab3
    assert (await change(bench, alice, level=IndexLevel.METADATA)).level is IndexLevel.METADATA


async def test_a_lowered_level_and_a_retired_root_are_noted_for_what_is_to_be_forgotten(
    bench: Any, alice: Actor, lab3: Any, main: Any
) -> None:
    del lab3

    async def noted() -> int:
        async with bench.database.read() as connection:
            found = await connection.execute(select(settings).where(settings.c.name == f"level of root {main.id}"))
            return len(found.all())

    assert await noted() == 0
    await change(bench, alice, pace=5)
    assert await noted() == 0
    await change(bench, alice, level=IndexLevel.NONE)
    assert await noted() == 1
    await bench.root_changes.retire(alice, "lab3", "main")
    assert await noted() == 1
