"""Groups and the life of workspaces and roots, on a real MinIO: what is taken away is refused to keys that are out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bench.rig import NODE, Rig, fetch_key, s3
from deploy.running import until
from protocol.api import NewRoot, NodeState, RootKind
from protocol.errors import NotAllowed, UnknownWorkspace
from protocol.grants import Permission, ReceiptState
from tests.integration.test_crashes import quietly
from wio.client import Client

READ, WRITE = Permission.READ, Permission.WRITE


class Hand:
    """A key in somebody's hand, for one workspace."""

    def __init__(self, client: Client, path: str) -> None:
        key, opened = fetch_key(client, path)
        self.s3, place = s3(key), opened.opens[0]
        self.where = {"Bucket": place.bucket, "Key": place.prefix + "file"}

    def _may(self, call: Callable[[], Any]) -> bool:
        try:
            call()
        except self.s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
            return False
        return True

    def reads(self) -> bool:
        return self._may(lambda: self.s3.get_object(**self.where))

    def writes(self) -> bool:
        return self._may(lambda: self.s3.put_object(**self.where, Body=b"x"))


@pytest.fixture(scope="module")
def people(rig: Rig) -> Iterator[dict[str, Client]]:
    """carol and dave, and those of the rig."""
    with ExitStack() as stack:
        more = {
            name: stack.enter_context(Client(rig.federation.hub.url, rig.federation.person(name).token))
            for name in ("carol", "dave")
        }
        yield {"alice": rig.alice, "bob": rig.bob, **more}


def enforced(receipts: Any) -> set[str]:
    """See that all is enforced; return for whom."""
    assert {one.state for one in receipts} == {ReceiptState.ENFORCED}, receipts
    return {one.subject.name for one in receipts}


def test_who_is_taken_out_of_a_group_is_refused_at_once_and_the_others_are_not(rig: Rig, people: dict[str, Client]) -> None:
    alice = people["alice"]
    alice.create_workspace("scans")
    alice.create_group("mri")
    for name in ("bob", "carol"):
        alice.add_member("mri", name)
    alice.share("scans", "@mri", WRITE)
    bob, carol = Hand(people["bob"], "alice/scans"), Hand(people["carol"], "alice/scans")
    assert bob.writes()
    assert carol.reads()
    out = alice.remove_member("mri", "bob")
    assert (bob.reads(), bob.writes(), carol.reads(), carol.writes()) == (False, False, True, True)
    assert enforced(out.receipts) == {"bob"}
    assert {proof.status for one in out.receipts for proof in one.proofs} == {403}
    with pytest.raises(UnknownWorkspace):
        fetch_key(people["bob"], "alice/scans")
    assert enforced(alice.add_member("mri", "bob").receipts) == {"bob"}
    assert bob.writes()  # the same key
    assert enforced(alice.delete_group("mri").receipts) == {"bob", "carol"}
    assert (bob.reads(), carol.reads()) == (False, False)
    del rig


def test_a_workspace_handed_over_is_closed_to_its_former_owners_key(people: dict[str, Client]) -> None:
    people["alice"].create_workspace("given")
    hers, his = Hand(people["alice"], "given"), None
    assert hers.writes()
    people["dave"].create_workspace("own")
    his = Hand(people["dave"], "own")
    done = people["alice"].hand_over("given", "dave")
    assert (hers.reads(), hers.writes()) == (False, False)
    assert enforced(done.receipts) == {"alice", "dave"}
    assert done.owner == "dave"
    given = Hand(people["dave"], "given")
    assert given.reads()
    assert his.writes()
    people["dave"].hand_over("given", "alice", keep=READ)
    assert (given.reads(), given.writes()) == (True, False)


def test_in_an_archived_workspace_every_key_only_reads(people: dict[str, Client]) -> None:
    alice = people["alice"]
    alice.create_workspace("finished")
    alice.share("finished", "bob", WRITE)
    hers, his = Hand(alice, "finished"), Hand(people["bob"], "alice/finished")
    assert his.writes()
    archived = alice.change_workspace("finished", archived=True)
    assert (hers.writes(), his.writes(), hers.reads(), his.reads()) == (False, False, True, True)
    assert enforced(archived.receipts) == {"alice", "bob"}
    alice.change_workspace("finished", archived=False, name="reopened")
    assert (hers.writes(), his.writes()) == (True, True)


def test_a_removed_workspace_and_a_retired_root_are_closed_and_their_files_stay(rig: Rig, people: dict[str, Client]) -> None:
    alice = people["alice"]
    alice.create_root(NewRoot(NODE, "project", RootKind.PRIVATE, "project"))
    hands = []
    for name in ("one", "two", "three"):
        alice.create_workspace(name, root=f"{NODE}/project")
        alice.share(name, "bob", WRITE)
        hands.append(Hand(people["bob"], f"alice/{name}"))
        assert hands[-1].writes()
    ended = alice.delete_workspace("one")
    assert [hand.reads() for hand in hands] == [False, True, True]
    assert "bob" in enforced(ended.receipts)
    again = alice.create_workspace("one", root=f"{NODE}/project")  # its last owner gets the place, and what is in it, back
    assert again.bucket == hands[0].where["Bucket"]
    alice.delete_workspace("one")

    retired = alice.retire_root(NODE, "project")
    assert [hand.reads() for hand in hands] == [False, False, False]
    assert retired.workspaces == 2
    assert "bob" in enforced(retired.receipts)
    for hand in hands:
        assert rig.root_client().get_object(**hand.where)["Body"].read() == b"x"
    with pytest.raises(UnknownWorkspace):
        fetch_key(people["bob"], "alice/two")
    alice.create_root(NewRoot(NODE, "project", RootKind.PRIVATE, "project"))  # name and place are free
    assert alice.retire_root(NODE, "project").workspaces == 0


def test_a_share_with_a_group_reaches_all_its_keys_that_are_out_at_once(
    people: dict[str, Client], record_property: Callable[[str, Any], None]
) -> None:
    alice = people["alice"]
    alice.create_workspace("shared-out")
    alice.create_group("nmr")
    hands = {}
    for name in ("bob", "carol", "dave"):
        alice.add_member("nmr", name)
        people[name].create_workspace("first")
        hands[name] = Hand(people[name], "first")
    began = time.perf_counter()
    shared = alice.share("shared-out", "@nmr", WRITE)
    record_property("share_with_3_living_ms", (time.perf_counter() - began) * 1000)
    assert enforced(shared.receipts) == set(hands)
    [place] = {(one.bucket, one.prefix) for one in alice.workspaces("mine") if one.name == "shared-out"}
    for hand in hands.values():
        hand.where = {"Bucket": place[0], "Key": place[1] + "file"}
        assert hand.writes()
    assert enforced(alice.unshare("shared-out", "@nmr").receipts) == set(hands)
    assert not any(hand.reads() for hand in hands.values())


def test_a_hub_that_comes_back_from_a_backup_opens_nothing_that_was_taken_back_since(
    rig: Rig, people: dict[str, Client]
) -> None:
    alice, hub = people["alice"], rig.federation.hub
    alice.create_workspace("restored")
    for name in ("bob", "carol"):
        alice.share("restored", name, READ)
    hers = Hand(alice, "restored")
    assert hers.writes()
    bob, carol = Hand(people["bob"], "alice/restored"), Hand(people["carol"], "alice/restored")
    assert (bob.reads(), carol.reads()) == (True, True)

    hub.stop()
    backup = hub.data.with_name("backup")
    shutil.copytree(hub.data, backup)
    hub.start()
    until("the agent is back", quietly(lambda: alice.node(NODE).state is NodeState.ONLINE), seconds=15)
    assert enforced(alice.unshare("restored", "bob").receipts) == {"bob"}
    assert not bob.reads()
    hub.stop()
    shutil.rmtree(hub.data)
    shutil.copytree(backup, hub.data)
    hub.start()
    until("the hub has noticed", quietly(lambda: any("confirm" in one for one in alice.node(NODE).warnings)), seconds=15)

    shares = {one.who: one for one in alice.shares("restored")}
    assert shares["bob"].reason == "It waits for confirmation by alice, because this hub came back from a backup."
    assert (bob.reads(), carol.reads(), hers.writes()) == (False, True, True)
    with pytest.raises(NotAllowed, match="waits for confirmation"):
        fetch_key(people["bob"], "alice/restored")
    assert not bob.reads()
    alice.unshare("restored", "bob")
    assert alice.confirm_node(NODE).sets >= 3
    assert (bob.reads(), carol.reads(), hers.writes()) == (False, True, True)
    assert Hand(people["carol"], "alice/restored").reads()
    assert not any("confirm" in one for one in alice.node(NODE).warnings)
