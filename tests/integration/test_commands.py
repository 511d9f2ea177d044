"""What people do with groups, roles, requests, quotas and history, with the commands, on real servers and with real keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bench.rig import Rig, s3
from deploy.federation import BIN, PASSWORD, Person, Said, run
from deploy.running import until
from protocol.sealing import ClearCredential

pytestmark = pytest.mark.real


class Held:
    """A key that somebody has in their hands, and where it opens a workspace."""

    def __init__(self, person: Person, path: str) -> None:
        [key] = person.wio("creds", path, "--json").good().json["keys"]
        self.client = s3(
            ClearCredential(key["access_key"], key["secret_key"], key["session_token"], 0, key["endpoint"], key["region"])
        )
        place = key["opens"][0]
        self.bucket, self.prefix = place["bucket"], place["prefix"]

    def _allowed(self, call: Any, **where: Any) -> bool:
        try:
            call(Bucket=self.bucket, **where)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return False
        return True

    def reads(self, name: str = "file.txt") -> bool:
        return self._allowed(self.client.get_object, Key=self.prefix + name)

    def writes(self, name: str = "new.txt", body: bytes = b"new") -> bool:
        return self._allowed(self.client.put_object, Key=self.prefix + name, Body=body)

    def deletes(self, name: str) -> bool:
        return self._allowed(self.client.delete_object, Key=self.prefix + name)


@pytest.fixture
def alice(rig: Rig) -> Person:
    return rig.federation.person("alice")


@pytest.fixture
def bob(rig: Rig) -> Person:
    return rig.federation.person("bob")


@pytest.fixture
def admin(rig: Rig) -> Person:
    """Somebody who administers the hub, made on its own machine while it runs."""
    federation = rig.federation
    if "carol" not in federation.people:
        carol = Person(federation.hub.url, "carol", federation.folder / "person-carol")
        create = [BIN / "wio-hub", "user", "create", carol.email, carol.username, "--admin", "--password-stdin"]
        run(create, federation.hub.settings, stdin=PASSWORD + "\n").good()
        carol.wio("login", carol.email).good()
        federation.people["carol"] = carol
    return federation.people["carol"]


def made(rig: Rig, owner: Person, name: str) -> dict[str, Any]:
    """Make a workspace with one file in it."""
    one: dict[str, Any] = owner.wio("create", name, "--root", "lab3/homes", "--json").good().json
    rig.root_client().put_object(Bucket=one["bucket"], Key=one["prefix"] + "file.txt", Body=b"content")
    return one


def stored(rig: Rig, one: dict[str, Any]) -> list[str]:
    found = rig.root_client().list_objects_v2(Bucket=one["bucket"], Prefix=one["prefix"])
    return [entry["Key"][len(one["prefix"]) :] for entry in found.get("Contents", [])]


def refused(said: Said) -> bool:
    return said.code in {3, 4}


def test_a_group_gets_access_and_whoever_leaves_it_loses_it_on_the_key_that_is_out(
    rig: Rig, alice: Person, bob: Person
) -> None:
    made(rig, alice, "grouped")
    alice.wio("group", "create", "@mri", "--description", "the MR group").good()
    assert "bob is in @mri" in alice.wio("group", "add", "@mri", "bob").good().out
    alice.wio("share", "grouped", "@mri", "--write").good()
    key = Held(bob, "alice/grouped")
    assert key.reads()
    assert key.writes()
    said = alice.wio("group", "remove", "mri", "bob").good().out
    assert said.startswith("bob is no longer in @mri.\nenforced on lab3 in ")
    assert "refused" in said
    assert not key.reads()
    assert refused(bob.wio("creds", "alice/grouped"))
    assert "enforced on lab3" in alice.wio("group", "add", "@mri", "bob").good().out
    assert key.reads()
    shown = alice.wio("group", "show", "@mri", "--json").good().json
    assert [member["username"] for member in shown["members"]] == ["alice", "bob"]
    [receipt] = alice.wio("group", "rm", "@mri", "--yes", "--json").good().json["receipts"]
    assert receipt["state"] == "enforced"
    assert not key.reads()
    assert alice.wio("group", "show", "@mri").code == 3


def test_a_workspace_is_handed_over_with_what_its_former_owner_keeps(rig: Rig, alice: Person, bob: Person) -> None:
    made(rig, alice, "given")
    key = Held(alice, "given")
    assert key.writes()
    assert "bob/given" in alice.wio("w", "handover", "given", "bob", "--keep", "read").good().out
    assert key.reads()
    assert not key.writes()
    assert Held(bob, "given").writes()
    assert alice.wio("w", "show", "bob/given", "--json").good().json["permission"] == "read"
    assert refused(alice.wio("w", "describe", "bob/given", "still mine?"))


def test_an_archived_workspace_is_read_by_all_and_written_by_nobody(rig: Rig, alice: Person) -> None:
    made(rig, alice, "old")
    key = Held(alice, "old")
    alice.wio("w", "archive", "old").good()
    assert key.reads()
    assert not key.writes()
    assert not key.deletes("file.txt")
    assert "archived" in alice.wio("w", "show", "old").good().out
    said = alice.wio("w", "rm", "old", "--delete-data", "--yes")
    assert said.code == 2
    assert "unarchive" in said.err
    alice.wio("w", "unarchive", "old").good()
    assert key.writes()


def test_a_workspace_is_described_and_renamed_and_its_files_stay(rig: Rig, alice: Person) -> None:
    one = made(rig, alice, "first")
    alice.wio("w", "describe", "first", "MR scans of 2026").good()
    said = alice.wio("w", "rename", "first", "second", "--json").good().json
    assert (said["name"], said["description"], said["bucket"]) == ("second", "MR scans of 2026", one["bucket"])
    assert alice.wio("w", "show", "first").code == 3
    assert alice.wio("mc", "cat", "second/file.txt").good().out == "content"


def test_access_is_asked_for_and_given(rig: Rig, alice: Person, bob: Person) -> None:
    made(rig, alice, "wanted")
    alice.wio("share", "wanted", "bob").good()
    asked = bob.wio("request", "alice/wanted", "--write", "--message", "for the review", "--json").good().json
    [seen] = [one for one in alice.wio("requests", "--json").good().json if one["id"] == asked["id"]]
    assert (seen["who"], seen["permission"], seen["message"], seen["granted"]) == ("bob", "write", "for the review", None)
    key = Held(bob, "alice/wanted")
    assert not key.writes()
    assert "bob may now write alice/wanted" in alice.wio("answer", str(asked["id"]), "yes").good().out
    assert key.writes()
    assert alice.wio("answer", str(asked["id"]), "no").code != 0
    [mine] = [one for one in bob.wio("requests", "--json").good().json if one["id"] == asked["id"]]
    assert mine["granted"] is True


def test_whoever_sees_a_description_may_ask_and_a_no_changes_nothing(rig: Rig, alice: Person, bob: Person) -> None:
    made(rig, alice, "described")
    alice.wio("w", "describe", "described", "MR scans, ask me").good()
    assert "MR scans, ask me" in bob.wio("w", "ls", "--public").good().out
    said = bob.wio("request", "alice/described").good().out
    number = said.rstrip(".\n").rsplit(" ", 1)[1]
    assert bob.wio("request", "alice/described").code == 1
    assert "is told no" in alice.wio("answer", number, "no").good().out
    assert refused(bob.wio("creds", "alice/described"))


def test_over_quota_everybody_reads_and_deletes_and_nobody_writes_until_there_is_room(
    rig: Rig, alice: Person, bob: Person
) -> None:
    made(rig, alice, "full")
    alice.wio("share", "full", "bob", "--write").good()
    keys = (Held(alice, "full"), Held(bob, "alice/full"))
    said = alice.wio("quota", "set", "workspace", "full", "--hard", "4M").good()
    assert "stop at 4M" in said.out
    assert keys[1].writes("big.bin", b"x" * 5_000_000)
    until("writing ends for both", lambda: not any(key.writes("more.txt") for key in keys), seconds=30)
    assert all(key.reads() for key in keys)
    assert "over its quota" in alice.wio("w", "show", "full").good().out
    assert "over its quota" in alice.wio("w", "ls").good().err
    assert "(read and delete: over quota)" in bob.wio("creds", "alice/full").good().err
    tried = bob.wio("mc", "cp", "alice/full/file.txt", "alice/full/copy.txt")
    assert tried.code != 0
    assert "over quota" in tried.err
    listed = [one for one in alice.wio("quota", "ls", "--json").good().json if one["of"] == "alice/full"]
    assert listed[0]["over_since"] is not None
    assert keys[0].deletes("big.bin")
    until("writing returns for both", lambda: all(key.writes("more.txt") for key in keys), seconds=30)
    alice.wio("quota", "rm", "workspace", "full").good()
    assert not [one for one in alice.wio("quota", "ls", "--json").good().json if one["of"] == "alice/full"]


def test_why_explains_what_is_allowed_and_what_is_denied_and_the_server_agrees(rig: Rig, alice: Person, bob: Person) -> None:
    made(rig, alice, "asked")
    alice.wio("share", "asked", "bob").good()
    Held(bob, "alice/asked")  # without a key there is nothing of bob's on the server to ask about
    said = alice.wio("why", "bob", "alice/asked/file.txt").good().out
    assert said.startswith("allowed (read).")
    assert "The server agrees" in said
    alice.wio("unshare", "asked", "bob").good()
    said = alice.wio("why", "bob", "alice/asked/file.txt").good().out
    assert said.startswith("denied.")
    assert "The server agrees" in said
    found = alice.wio("why", "bob", "alice/asked/file.txt", "--json").good().json
    assert found["agrees"] is True
    assert len(found["steps"]) > 1
    assert refused(bob.wio("why", "alice", "alice/asked/file.txt"))


@pytest.mark.usefixtures("bob")
def test_the_audit_trail_is_whole_and_goes_out_line_by_line(rig: Rig, alice: Person, admin: Person) -> None:
    made(rig, alice, "noted")
    alice.wio("share", "noted", "bob").good()
    alice.wio("unshare", "noted", "bob").good()
    assert refused(alice.wio("audit", "--check"))
    assert "each as it was written" in admin.wio("audit", "--check").good().out
    assert admin.wio("audit", "--check", "--json").good().json["whole"] is True
    lines = [json.loads(line) for line in alice.wio("audit", "--jsonl", "--workspace", "alice/noted").good().out.splitlines()]
    newest = alice.wio("audit", "--workspace", "alice/noted", "--json").good().json
    assert [line["id"] for line in lines] == sorted(one["id"] for one in newest)
    assert len(lines) >= 3


@pytest.mark.usefixtures("bob")
def test_who_could_reach_a_workspace_is_known_for_now_and_for_then(rig: Rig, alice: Person) -> None:
    made(rig, alice, "reached")
    alice.wio("share", "reached", "bob", "--write").good()
    now = alice.wio("access", "reached", "--json").good().json
    assert {(one["who"], one["permission"]) for one in now} >= {("bob", "write")}
    [since] = [one["since"] for one in now if one["who"] == "bob"]
    alice.wio("unshare", "reached", "bob").good()
    assert "bob" not in {one["who"] for one in alice.wio("access", "reached", "--json").good().json}
    then = rig.alice.access("alice/reached", since + 1)
    assert "bob" in {one.who for one in then}
    assert alice.wio("access", "reached", "--at", "2020-01-01", "--json").good().json == []


@pytest.mark.timeout(240)  # accesses are told by the minute, once it is over
def test_who_read_and_wrote_is_known_from_the_storage_server_itself(rig: Rig, alice: Person, bob: Person) -> None:
    made(rig, alice, "watched")
    alice.wio("share", "watched", "bob").good()
    key = Held(bob, "alice/watched")
    assert key.reads()
    assert not key.writes("refused.txt")

    def noted() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = alice.wio("accesses", "watched/", "--who", "bob", "--json").good().json
        return found

    until("the read is known", lambda: any(one["path"] == "alice/watched/file.txt" for one in noted()), seconds=100)
    assert {one["who"] for one in noted()} == {"bob"}
    assert "alice/watched/file.txt" in alice.wio("accesses", "watched/").good().out


def test_a_workspace_is_removed_and_its_files_stay_or_go_as_its_owner_says(rig: Rig, alice: Person, bob: Person) -> None:
    kept, gone, beside = made(rig, alice, "kept"), made(rig, alice, "gone"), made(rig, alice, "gone2")
    assert alice.wio("w", "rm", "kept").code == 2
    alice.wio("share", "gone", "bob", "--write").good()
    key = Held(bob, "alice/gone")
    assert refused(bob.wio("w", "rm", "alice/gone", "--delete-data", "--yes"))
    assert stored(rig, gone) == ["file.txt"]
    assert "Its files stay where they are" in alice.wio("w", "rm", "kept", "--yes").good().out
    assert stored(rig, kept) == ["file.txt"]
    said = alice.wio("w", "rm", "gone", "--delete-data", "--yes", "--json").good().json
    assert (said["data"], said["objects"], said["bytes"]) == ("deleted", 1, 7)
    assert stored(rig, gone) == []
    assert stored(rig, beside) == ["file.txt"]
    assert not key.reads()
    for name in ("kept", "gone"):
        assert alice.wio("w", "show", name).code == 3


def test_a_root_takes_workspaces_of_whom_its_owner_lets_in_and_retires_without_its_data(
    rig: Rig, alice: Person, bob: Person
) -> None:
    alice.wio("root", "create", "lab3/lent", "--bucket", "lent", "--kind", "private").good()
    assert "its owner only" in alice.wio("root", "set", "lab3/lent", "--creators", "").good().out
    assert refused(bob.wio("create", "guest", "--root", "lab3/lent"))
    said = alice.wio("root", "set", "lab3/lent", "--creators", "bob", "--pace", "500").good()
    assert "bob" in said.out
    one = bob.wio("create", "guest", "--root", "lab3/lent", "--json").good().json
    rig.root_client().put_object(Bucket=one["bucket"], Key=one["prefix"] + "file.txt", Body=b"content")
    key = Held(bob, "guest")
    assert key.reads()
    assert refused(bob.wio("root", "retire", "lab3/lent", "--yes"))
    assert alice.wio("root", "retire", "lab3/lent").code == 2
    said = alice.wio("root", "retire", "lab3/lent", "--yes").good()
    assert "retired with 1 workspace" in said.out
    assert not key.reads()
    assert stored(rig, one) == ["file.txt"]
    assert alice.wio("root", "show", "lab3/lent").code == 3
