"""Roots are made where their owner says, safely, or not at all."""

from typing import Any

import pytest

from hub.services.ports import Actor
from protocol.api import NewRoot, RootKind
from protocol.errors import (
    BadInput,
    BadName,
    NameTaken,
    NodeOffline,
    NotAllowed,
    Overlap,
    RootMissing,
    UnknownNode,
    UnknownRoot,
)
from protocol.messages import CheckRoot, Configure, Finding, Scan, ScanState
from protocol.names import Layout


async def test_a_root_is_checked_on_the_node_then_written_down_then_configured(bench: Any, alice: Actor, lab3: Any) -> None:
    made = await bench.root(alice, RootKind.PUBLIC, "atlas", prefix="data")
    assert (made.node, made.name, made.owner, made.bucket, made.prefix) == ("lab3", "atlas", "alice", "lab", "data/")
    assert (made.layout, made.digest) == (Layout.PREFIX, "0" * 16)
    assert "names in the whole bucket" in made.warnings[0]
    check, configure = lab3.asked[-2:]
    assert isinstance(check, CheckRoot)
    assert isinstance(configure, Configure)
    assert configure.roots == (check.root,)
    assert configure.revision == 1
    await bench.root(alice, RootKind.PUBLIC, "second", bucket="other")
    assert (lab3.asked[-1].revision, len(lab3.asked[-1].roots)) == (2, 2)


async def test_a_private_root_is_laid_out_so_that_names_stay_hidden(bench: Any, alice: Actor, lab3: Any) -> None:
    del lab3
    assert (await bench.root(alice)).layout is Layout.BUCKET
    with pytest.raises(BadInput, match="names in the whole bucket"):
        await bench.root(alice, name="b", bucket="bbb", layout=Layout.PREFIX)
    with pytest.raises(BadInput, match="unmanaged root cannot give"):
        await bench.root(alice, RootKind.UNMANAGED_PRIVATE, "b", bucket="bbb")
    accepted = await bench.root(alice, RootKind.UNMANAGED_PRIVATE, "b", bucket="bbb", accept_visible_names=True)
    assert accepted.layout is Layout.PREFIX
    assert accepted.warnings


async def test_where_names_are_isolated_folders_do(bench: Any, alice: Actor) -> None:
    await bench.node(alice, isolates=Finding.YES)
    made = await bench.root(alice)
    assert (made.layout, made.warnings) == (Layout.PREFIX, ())


async def test_roots_never_overlap_or_share_a_name(bench: Any, alice: Actor, lab3: Any) -> None:
    await bench.root(alice, RootKind.PUBLIC, "atlas", prefix="data/")
    asked = len(lab3.asked)
    with pytest.raises(Overlap, match="overlaps root atlas"):
        await bench.root(alice, RootKind.PUBLIC, "inner", prefix="data/x/")
    with pytest.raises(NameTaken):
        await bench.root(alice, RootKind.PUBLIC, "atlas", prefix="else/")
    assert len(lab3.asked) == asked
    await bench.root(alice, RootKind.PUBLIC, "beside", prefix="data2/")


async def test_only_the_nodes_owner_makes_roots_and_only_while_it_is_there(
    bench: Any, alice: Actor, bob: Actor, lab3: Any
) -> None:
    with pytest.raises(NotAllowed, match="Only alice"):
        await bench.root(bob)
    with pytest.raises(UnknownNode):
        await bench.roots.create(alice, NewRoot("lab4", "main", RootKind.PUBLIC, "lab"))
    for wrong in ({"name": "a*"}, {"bucket": "A"}, {"prefix": "a/../b"}, {"prefix": "/a"}, {"prefix": "a*"}):
        with pytest.raises(BadName):
            await bench.root(alice, RootKind.PUBLIC, **wrong)
    del bench.agents.nodes[lab3.id]
    with pytest.raises(NodeOffline):
        await bench.root(alice)
    assert await bench.roots.list(alice) == []


async def test_what_the_node_says_no_to_is_not_made(bench: Any, alice: Actor, lab3: Any) -> None:
    lab3.refuse = RootMissing("Bucket lab is not there.", todo="Make it first.").problem
    with pytest.raises(RootMissing, match="not there") as caught:
        await bench.root(alice)
    assert caught.value.todo == "Make it first."
    assert await bench.roots.list(alice) == []

    lab3.refuse = None
    late = RootMissing("Bucket lab went away.").problem

    def refuse_configure(asked: Any) -> None:
        lab3.refuse = late if isinstance(asked, Configure) and asked.roots else None

    lab3.before = refuse_configure
    with pytest.raises(RootMissing, match="went away"):
        await bench.root(alice, RootKind.PUBLIC)
    assert await bench.roots.list(alice) == []
    lab3.before = lab3.refuse = None
    assert (await bench.root(alice, RootKind.PUBLIC)).name == "main"


async def test_a_node_that_goes_away_in_between_gets_its_root_when_it_is_back(bench: Any, alice: Actor, lab3: Any) -> None:
    def leave(asked: Any) -> None:
        if isinstance(asked, CheckRoot):
            del bench.agents.nodes[lab3.id]

    lab3.before = leave
    assert (await bench.root(alice)).name == "main"
    bench.agents.nodes[lab3.id] = lab3
    await bench.roots.configure(lab3.id)
    assert [root.name for root in lab3.asked[-1].roots] == ["main"]


async def test_other_peoples_unmanaged_private_roots_are_not_seen(bench: Any, alice: Actor, bob: Actor, lab3: Any) -> None:
    await bench.root(alice, RootKind.UNMANAGED_PRIVATE, "secret", accept_visible_names=True)
    await bench.root(alice, RootKind.PUBLIC, "open", bucket="other")
    assert [root.name for root in await bench.roots.list(alice)] == ["open", "secret"]
    assert [root.name for root in await bench.roots.list(bob)] == ["open"]
    with pytest.raises(UnknownRoot):
        await bench.roots.show(bob, "lab3", "secret")
    with pytest.raises(UnknownRoot):
        await bench.roots.scan(bob, "lab3", "secret")
    with pytest.raises(NotAllowed):
        await bench.roots.scan(bob, "lab3", "open")
    assert lab3.asked_for(Scan) == []
    status = await bench.roots.scan(alice, "lab3", "open")
    assert (status.root, status.state) == ("lab3/open", None)
    assert len(lab3.asked_for(Scan)) == 1
    assert status.state != ScanState.RUNNING
