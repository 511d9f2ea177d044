"""The main job on a plain directory, as people do it; and that the directory is as it was before and after."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bench.rig import s3
from deploy.federation import Agent, Federation, Person
from deploy.running import until
from protocol.sealing import ClearCredential

pytestmark = pytest.mark.real


class Lab:
    """A hub, and a directory node ``nas`` of alice's over a tree that was there before."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.tree = federation.folder / "lab"
        _plant(self.tree)
        self.before = listing(self.tree)
        self.alice = federation.person("alice")
        self.bob = federation.person("bob")
        self.agent: Agent = federation.directory("nas", self.alice, self.tree)
        self.alice.wio("root", "create", "nas/archive", "--bucket", "lab", "--kind", "unmanaged-private").good()


def _plant(tree: Path) -> None:
    """Make a tree of what is found on disks: odd modes and times, extended attributes, links, empty folders."""
    for key in ("atlas/sub-01/scan.csv", "atlas/sub-02/scan.csv", "secret/plans.txt", "old/ümläut/日本.txt", "old/empty"):
        path = tree / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if key.endswith("empty") else f"1,2,3 {key}\n")
    (tree / "old" / "nothing-in-it").mkdir()
    (tree / "old" / "link").symlink_to("empty")
    os.link(tree / "old" / "empty", tree / "old" / "hard")
    (tree / "old" / "private.key").write_text("x")
    (tree / "old" / "private.key").chmod(0o400)
    (tree / "old").chmod(0o2755)
    for path in (tree / "atlas" / "sub-01" / "scan.csv", tree / "atlas"):
        os.setxattr(path, "user.project", b"fly brain")
    for number, path in enumerate(sorted(tree.rglob("*"), reverse=True)):
        os.utime(path, ns=(1_600_000_000_000_000_000, 1_500_000_000_123_456_789 + number), follow_symlinks=False)


def listing(tree: Path) -> dict[str, tuple[object, ...]]:
    """Return everything of a tree that can be seen: names, sizes, times, modes, owners, inodes, attributes, targets, bytes."""
    found = {}
    for path in (tree, *tree.rglob("*")):
        at = path.lstat()
        link = stat.S_ISLNK(at.st_mode)
        attributes = () if link else tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))
        inside = str(path.readlink()) if link else path.read_bytes() if path.is_file() else b""
        facts = (at.st_mode, at.st_uid, at.st_gid, at.st_ino, at.st_nlink, at.st_mtime_ns)
        found[str(path.relative_to(tree))] = (*facts, at.st_size if path.is_file() else 0, attributes, inside)
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Federation(tmp_path / "wio") as federation:
        yield Lab(federation)


class Key:
    """A person's key for the workspace atlas, in boto3's hands."""

    def __init__(self, person: Person) -> None:
        [one] = person.wio("creds", "alice/atlas", "--json").good().json["keys"]
        assert one["session_token"] == ""
        self.s3 = s3(ClearCredential(one["access_key"], one["secret_key"], "", 0, one["endpoint"], one["region"]))

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket="lab", Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket="lab", Key=key, Body=body)

    def refused(self, method: str, **named: Any) -> bool:
        """Say whether it is refused; what it does if it is not has to be harmless."""
        try:
            getattr(self.s3, method)(Bucket="lab", **named)
        except ClientError as error:
            return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 403)
        return False


def found(person: Person, *query: str) -> list[str]:
    return [hit["path"] for hit in person.wio("find", *query, "--json").good().json["hits"]]


def test_a_directory_is_a_node_like_any_other_and_is_left_as_it_was(lab: Lab) -> None:
    shown = lab.alice.wio("node", "show", "nas", "--json").good().json
    assert (shown["storage"], shown["isolates_names"]) == ("directory", "yes")
    lab.alice.wio("create", "atlas", "--root", "nas/archive", "--folder", "atlas/").good()
    until("alice finds what was there", lambda: len(found(lab.alice, "scan", "in:atlas")) == 2)
    _reads(lab)
    assert listing(lab.tree) == lab.before  # nothing was written so far: nothing is new
    _loses_it_with_a_receipt(lab, Key(lab.bob))
    lab.alice.wio("share", "atlas", "bob", "--write").good()
    key = Key(lab.bob)
    _writes(lab, key)
    _fills_it(lab, key)
    _owner_s_own_commands(lab, key)
    _leave(lab)
    _is_as_it_was(lab, written={"atlas/kept", "atlas/kept/a.txt"})


def _reads(lab: Lab) -> None:
    assert found(lab.bob, "scan") == []
    lab.alice.wio("share", "atlas", "bob").good()
    assert len(found(lab.bob, "scan")) == 2
    key = Key(lab.bob)
    assert key.get("atlas/sub-01/scan.csv") == (lab.tree / "atlas/sub-01/scan.csv").read_bytes()
    assert key.refused("put_object", Key="atlas/mine", Body=b"x")
    assert key.refused("get_object", Key="secret/plans.txt")
    assert key.refused("list_objects_v2")
    assert key.refused("list_objects_v2", Prefix="secret/")
    assert "scan.csv" in lab.bob.wio("mc", "ls", "--recursive", "alice/atlas").good().out


def _loses_it_with_a_receipt(lab: Lab, key: Key) -> None:
    [receipt] = lab.alice.wio("unshare", "atlas", "bob", "--json").good().json["receipts"]
    assert receipt["state"] == "enforced"
    assert receipt["keys_out"] >= 1
    assert [proof["status"] for proof in receipt["proofs"]] == [403]
    assert key.refused("get_object", Key="atlas/sub-01/scan.csv")
    assert found(lab.bob, "scan") == []


def _writes(lab: Lab, key: Key) -> None:
    key.put("atlas/results/new.csv", b"4,5,6\n")
    until("what bob wrote is found", lambda: found(lab.alice, "new", "ext:csv") == ["alice/atlas/results/new.csv"])
    assert (lab.tree / "atlas/results/new.csv").read_bytes() == b"4,5,6\n"
    outside = lab.tree / "atlas/sub-01/from-outside.csv"
    outside.write_text("7,8,9\n")
    until("what came from outside is found", lambda: len(found(lab.alice, "outside")) == 1)
    outside.unlink()
    until("what went is found no longer", lambda: found(lab.alice, "outside") == [])
    at: Any = lab.before["atlas/sub-01"][5]
    os.utime(outside.parent, ns=(at, at))


def _fills_it(lab: Lab, key: Key) -> None:
    """A quota stops writing and not deleting."""
    lab.alice.wio("quota", "set", "workspace", "alice/atlas", "--hard", "1").good()
    until("bob's key writes no longer", lambda: key.refused("put_object", Key="atlas/results/new.csv", Body=b"4,5,6\n"))
    key.s3.delete_object(Bucket="lab", Key="atlas/results/new.csv")
    assert not (lab.tree / "atlas/results").exists()
    lab.alice.wio("quota", "rm", "workspace", "alice/atlas").good()
    until("it writes again", lambda: not key.refused("put_object", Key="atlas/kept/a.txt", Body=b"kept"))


def _owner_s_own_commands(lab: Lab, key: Key) -> None:
    agent = lab.agent
    assert "lab/atlas/" in agent.ask("grants").good().out
    agent.ask("pause").good()
    assert key.refused("get_object", Key="atlas/kept/a.txt")
    agent.ask("resume").good()
    assert key.get("atlas/kept/a.txt") == b"kept"
    assert all(one["same"] for one in agent.ask("verify", "--json").good().json)
    agent.stop()
    agent.start()
    lab.federation.wait_online("nas", lab.alice)
    assert key.get("atlas/kept/a.txt") == b"kept"  # keys that are out go on


def _leave(lab: Lab) -> None:
    lab.agent.stop()
    assert str(lab.tree) in lab.agent.ask("leave", "--yes").good().out
    assert list(lab.agent.state.iterdir()) == []


def _is_as_it_was(lab: Lab, written: set[str]) -> None:
    after = listing(lab.tree)
    assert after.keys() == lab.before.keys() | written
    changed = {key for key in lab.before if after[key] != lab.before[key]}
    # folders into which something was written have another time and, one more in it, another count; nothing else has
    assert changed <= {".", "atlas"}
    for key in changed:
        (mode, uid, gid, inode, _, _, *rest), (was_mode, was_uid, was_gid, was_inode, _, _, *was) = after[key], lab.before[key]
        assert (mode, uid, gid, inode, rest) == (was_mode, was_uid, was_gid, was_inode, was)


def test_joined_again_it_serves_one_more_directory_and_what_is_dangerous_is_refused_first(tmp_path: Path) -> None:
    with Federation(tmp_path / "wio") as federation:
        alice, tree, more = federation.person("alice"), tmp_path / "tree", tmp_path / "more"
        for path in (tree, more):
            path.mkdir()
            (path / "a.txt").write_text(path.name)
        agent = federation.directory("nas", alice, tree)
        settings = (agent.state / "node.json").read_text()
        invitation = alice.wio("node", "invite", "other", "--json").good().json["join_string"]
        said = agent.ask("join", "-", "--directory", more, stdin=invitation)
        assert said.code != 0
        assert "Stop that agent" in said.err
        agent.stop()
        (more / "out").symlink_to("/etc/hostname")
        said = agent.ask("join", "-", "--directory", more, stdin=invitation)
        assert said.code == 2
        assert "dangerous to serve" in said.err
        assert (agent.state / "node.json").read_text() == settings
        (more / "out").unlink()
        assert (
            agent.ask("join", "-", "--directory", more, "--bucket", "second", "--file-mode", "0640", stdin=invitation).code == 0
        )
        agent.start()
        federation.wait_online("nas", alice)
        alice.wio("root", "create", "nas/more", "--bucket", "second", "--kind", "unmanaged-private").good()
        alice.wio("create", "added", "--root", "nas/more", "--folder", "in/").good()
        refused_layout = alice.wio("root", "create", "nas/none", "--bucket", "third", "--kind", "private")
        assert refused_layout.code != 0
        assert "not served by this node" in refused_layout.err
        file = tmp_path / "b.txt"
        file.write_text("b")
        alice.wio("mc", "cp", file, "added/b.txt").good()
        assert (more / "in" / "b.txt").read_text() == "b"
        assert (more / "in" / "b.txt").stat().st_mode & 0o777 == 0o640
        agent.stop()
        left = agent.ask("leave", "--yes", "--json").good().json
        assert left["name"] == "nas"
        assert sorted(path.name for path in more.rglob("*")) == ["a.txt", "b.txt", "in"]
