"""The main job as people do it: with the commands of the README, on real servers."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bench.rig import Rig, s3
from deploy.running import until
from protocol.sealing import ClearCredential

pytestmark = pytest.mark.real


def clear(one: dict[str, Any]) -> ClearCredential:
    return ClearCredential(one["access_key"], one["secret_key"], one["session_token"], 0, one["endpoint"], one["region"])


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as opened:  # noqa: S310 - a link of our own server
            return int(opened.status)
    except urllib.error.HTTPError as error:
        return error.code


def put(rig: Rig, workspace: str, path: str, body: bytes) -> None:
    one = rig.alice.workspace(workspace)
    rig.root_client().put_object(Bucket=one.bucket, Key=one.prefix + path, Body=body)


def found(person: Any, *query: str) -> list[str]:
    return [hit["path"] for hit in person.wio("find", *query, "--json").good().json["hits"]]


def test_a_workspace_is_made_filled_listed_and_read_with_the_tools_people_have(rig: Rig, tmp_path: Path) -> None:
    alice = rig.federation.people["alice"]
    alice.wio("create", "scans", "--json").good()
    file = tmp_path / "T1w.nii"
    file.write_bytes(b"voxels" * 1000)
    alice.wio("mc", "cp", str(file), "scans/sub-014/anat/T1w.nii").good()
    assert "T1w.nii" in alice.wio("mc", "ls", "--recursive", "scans/").good().out
    assert alice.wio("mc", "cat", "scans/sub-014/anat/T1w.nii").good().out.encode() == file.read_bytes()
    until("the file is found", lambda: found(alice, "T1w", "in:scans") == ["alice/scans/sub-014/anat/T1w.nii"])
    listed = alice.wio("ls", "scans/sub-014", "--json").good().json
    assert [(entry["path"], entry["folder"], entry["size"]) for entry in listed["entries"]] == [
        ("alice/scans/sub-014/anat/", True, 6000)
    ]


def test_a_program_reads_with_boto3_and_thinks_of_no_keys(rig: Rig) -> None:
    alice = rig.federation.people["alice"]
    alice.wio("create", "programs").good()
    put(rig, "programs", "a/b.txt", b"hello")
    code = (
        "import wio\n"
        's3 = wio.boto3_client("programs")\n'
        'at = wio.locate("programs/a/b.txt")\n'
        'print(s3.get_object(Bucket=at.bucket, Key=at.key)["Body"].read().decode())\n'
    )
    said = subprocess.run([sys.executable, "-c", code], env=alice.environment, capture_output=True, text=True, check=True)
    assert said.stdout == "hello\n"


def test_sharing_lets_the_other_read_and_find_and_nothing_else(rig: Rig) -> None:
    alice, bob = rig.federation.people["alice"], rig.federation.person("bob")
    for name in ("shared", "secret"):
        alice.wio("create", name).good()
        put(rig, name, f"{name}-results.csv", b"1,2,3")
    until("alice finds both", lambda: len(found(alice, "results", "ext:csv")) == 2)
    assert found(bob, "results", "ext:csv") == []
    assert alice.wio("share", "shared", "bob").good().out
    assert found(bob, "results", "ext:csv") == ["alice/shared/shared-results.csv"]
    assert bob.wio("mc", "cat", "alice/shared/shared-results.csv").good().out == "1,2,3"
    assert bob.wio("mc", "cp", "alice/shared/shared-results.csv", "alice/shared/mine.csv").code == 1
    assert bob.wio("mc", "ls", "alice/secret/").code == 3
    page = bob.wio("find", "results", "--facets", "--json").good().json
    assert page["total"] == 1
    assert all(count["count"] == 1 for facet in page["facets"].values() for count in facet)


def test_taking_a_share_back_kills_the_key_and_the_link_that_are_out(rig: Rig) -> None:
    alice, bob = rig.federation.people["alice"], rig.federation.person("bob")
    alice.wio("create", "lent").good()
    put(rig, "lent", "file.txt", b"content")
    alice.wio("share", "lent", "bob", "--write").good()
    [key] = bob.wio("creds", "alice/lent", "--ttl", "1h", "--format", "json").good().json["keys"]
    client, place = s3(clear(key)), key["opens"][0]
    file = {"Bucket": place["bucket"], "Key": place["prefix"] + "file.txt"}
    assert client.get_object(**file)["Body"].read() == b"content"
    client.put_object(Bucket=place["bucket"], Key=place["prefix"] + "bobs.txt", Body=b"bob")
    link = bob.wio("presign", "alice/lent/file.txt", "--expires", "30m", "--json").good().json["url"]
    assert status(link) == 200
    change = alice.wio("unshare", "lent", "bob", "--json").good().json
    [receipt] = change["receipts"]
    assert receipt["state"] == "enforced"
    assert receipt["keys_out"] >= 1
    assert any(proof["status"] == 403 and proof["expected"] for proof in receipt["proofs"])
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(**file)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=place["bucket"], Key=place["prefix"] + "bobs.txt", Body=b"again")
    assert status(link) == 403
    assert found(bob, "file.txt", "owner:alice", "workspace:lent") == []
    assert bob.wio("creds", "alice/lent").code in {3, 4}
