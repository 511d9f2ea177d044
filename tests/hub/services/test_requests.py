"""Finding a description, asking, and being answered."""

from typing import Any

import pytest

from hub.services.ports import Actor
from protocol.api import NewAnswer, NewGroup, NewMember, NewRequest, NewShare
from protocol.errors import BadInput, Conflict, NotFound, OverCeiling, UnknownWorkspace
from protocol.grants import Permission

ON_BOTH = {"test_a_description_is_found_access_is_asked_for_and_given"}
READ, WRITE, MANAGE = Permission.READ, Permission.WRITE, Permission.MANAGE


@pytest.fixture
async def scans(bench: Any, alice: Actor, lab3: Any) -> Any:
    del lab3
    await bench.root(alice)
    await bench.workspace(alice, "secret")
    return await bench.workspace(alice, description="Scans of 2026, 7 T")


async def ask(bench: Any, actor: Actor, permission: Permission = READ, workspace: str = "alice/scans") -> Any:
    return await bench.requests.create(actor, NewRequest(workspace, permission, "for the paper"))


async def test_a_description_is_found_access_is_asked_for_and_given(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    [found] = await bench.workspaces.list(bob, "public")
    assert (found.owner, found.name, found.description) == ("alice", "scans", "Scans of 2026, 7 T")
    assert (found.permission, found.bucket, found.prefix, found.objects) == (None, "", "", 0)
    assert await bench.workspaces.list(bob, "all") == []
    assert await bench.workspaces.show(bob, "alice", "scans") == found
    with pytest.raises(UnknownWorkspace):
        await bench.key(bob, "alice/scans")

    asked = await ask(bench, bob)
    assert (asked.workspace, asked.who, asked.message, asked.granted) == ("alice/scans", "bob", "for the paper", None)
    assert await bench.requests.list(alice) == [asked]
    assert await bench.requests.list(bob) == [asked]
    until = bench.clock.time + 3_600_000_000
    answered = await bench.requests.answer(alice, asked.id, NewAnswer(yes=True, until=until))
    assert (answered.granted, answered.answered_by) == (True, "alice")
    assert answered.answered_at
    await bench.key(bob, "alice/scans")
    assert lab3.grants(bob.id) == {scans.id: READ}
    [share] = await bench.sharing.shares(alice, "alice", "scans")
    assert (share.who, share.permission, share.until) == ("bob", READ, until)
    actions = [one.action for one in await bench.audit.entries(alice)]
    assert {"request", "request.yes", "share"} <= set(actions)


async def test_no_is_an_answer_and_one_may_ask_again_after_it(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    asked = await ask(bench, bob)
    with pytest.raises(Conflict, match="nobody has answered"):
        await ask(bench, bob, WRITE)
    answered = await bench.requests.answer(alice, asked.id, NewAnswer(yes=False))
    assert answered.granted is False
    assert await bench.sharing.shares(alice, "alice", "scans") == []
    with pytest.raises(Conflict, match="alice has answered"):
        await bench.requests.answer(alice, asked.id, NewAnswer(yes=True))
    again = await ask(bench, bob)
    assert [one.id for one in await bench.requests.list(alice)] == [again.id, asked.id]


async def test_only_who_manages_a_workspace_may_answer(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    carol, dave = await bench.person("carol"), await bench.person("dave")
    admin = await bench.person("root1", admin=True)
    asked = await ask(bench, bob)
    await bench.sharing.share(alice, "alice", "scans", "carol", NewShare(WRITE))
    for actor in (bob, carol, dave, admin):
        with pytest.raises(NotFound):
            await bench.requests.answer(actor, asked.id, NewAnswer(yes=True))
    assert await bench.requests.list(carol) == []
    await bench.groups.create(alice, NewGroup("mri"))
    await bench.groups.put_member(alice, "mri", "dave", NewMember())
    await bench.sharing.share(alice, "alice", "scans", "@mri", NewShare(MANAGE))
    assert [one.id for one in await bench.requests.list(dave)] == [asked.id]
    assert (await bench.requests.answer(dave, asked.id, NewAnswer(yes=True))).answered_by == "dave"
    with pytest.raises(NotFound):
        await bench.requests.answer(alice, 4, NewAnswer(yes=True))


async def test_what_cannot_be_asked_for_is_refused(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    messages = []
    for workspace in ("alice/secret", "alice/nothing", "nobody/scans", "scans", ""):
        with pytest.raises(UnknownWorkspace) as caught:
            await ask(bench, bob, workspace=workspace)
        messages.append(str(caught.value).replace(workspace, "X"))
    assert messages[0] == messages[1]
    with pytest.raises(BadInput, match="already"):
        await ask(bench, alice)
    with pytest.raises(BadInput, match="tidy"):
        await ask(bench, bob, Permission.TIDY)
    with pytest.raises(BadInput):
        await bench.requests.create(bob, NewRequest("alice/scans", message="x" * 1001))
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(READ))
    with pytest.raises(BadInput, match="already"):
        await ask(bench, bob)
    assert (await ask(bench, bob, WRITE)).permission is WRITE  # more than one has


async def test_a_yes_that_the_node_does_not_allow_leaves_the_request_open(
    bench: Any, alice: Actor, bob: Actor, lab3: Any, scans: Any
) -> None:
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(READ))
    await bench.key(bob, "alice/scans")
    asked = await ask(bench, bob, WRITE)
    lab3.ceiling = {(scans.id, WRITE)}
    with pytest.raises(OverCeiling):
        await bench.requests.answer(alice, asked.id, NewAnswer(yes=True))
    [listed] = await bench.requests.list(bob)
    assert listed.granted is None
    lab3.ceiling = set()
    assert (await bench.requests.answer(alice, asked.id, NewAnswer(yes=True))).granted
    assert lab3.grants(bob.id) == {scans.id: WRITE}


async def test_a_yes_never_takes_away_what_was_given_meanwhile(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    asked = await ask(bench, bob)
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare(WRITE))
    await bench.requests.answer(alice, asked.id, NewAnswer(yes=True))
    [share] = await bench.sharing.shares(alice, "alice", "scans")
    assert share.permission is WRITE


async def test_requests_go_with_their_workspace(bench: Any, alice: Actor, bob: Actor, scans: Any) -> None:
    del scans
    asked = await ask(bench, bob)
    await bench.workspace_changes.delete(alice, "alice", "scans")
    assert await bench.requests.list(bob) == []
    with pytest.raises(NotFound):
        await bench.requests.answer(alice, asked.id, NewAnswer(yes=True))
