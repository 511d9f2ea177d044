"""Quotas, why and attributed accesses on a real MinIO: what keys that are out are answered, and how soon."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bench.rig import Rig, fetch_key, s3
from deploy.running import until
from protocol.api import QuotaKind, Why
from protocol.grants import Permission

MIB = 1 << 20
LONGEST_S = 5.0
MINUTE_S = 60


def _status(call: Any, **arguments: Any) -> int:
    """Make a call of boto3's and return the status it was answered with."""
    try:
        return int(call(**arguments)["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _why(rig: Rig, path: str) -> Why:
    return rig.alice.why("bob", path)


@pytest.fixture(scope="module")
def shared(rig: Rig) -> Any:
    """Alice's workspace, which bob may write to and has a key for: (workspace, bob's S3 client)."""
    workspace = rig.alice.create_workspace("full")
    rig.alice.share("full", "bob", Permission.WRITE)
    key, _ = fetch_key(rig.bob, "alice/full")
    return workspace, s3(key)


def test_past_a_hard_quota_keys_that_are_out_read_and_delete_and_no_more_until_there_is_room(rig: Rig, shared: Any) -> None:
    workspace, client = shared
    bucket, prefix = workspace.bucket, workspace.prefix
    rig.alice.set_quota(QuotaKind.WORKSPACE, "alice/full", hard=MIB)
    put = {"Bucket": bucket, "Key": f"{prefix}probe", "Body": b""}
    assert _status(client.put_object, **put) == 200
    allowed = _why(rig, "alice/full/probe")
    assert (allowed.allowed, allowed.permission, allowed.agrees) == (True, Permission.WRITE, True)

    for number in range(2):
        client.put_object(Bucket=bucket, Key=f"{prefix}{number}", Body=b"x" * (MIB - 1024))
    began = time.monotonic()
    until("writing is refused", lambda: _status(client.put_object, **put) == 403, seconds=30, every=0.01)
    refused_s = time.monotonic() - began
    print(f"from the write that passed the limit to the first 403: {refused_s * 1000:.0f} ms")  # noqa: T201  - a figure
    assert refused_s < LONGEST_S
    assert _status(client.get_object, Bucket=bucket, Key=f"{prefix}0") == 200
    assert _status(client.list_objects_v2, Bucket=bucket, Prefix=prefix) == 200
    assert _status(client.create_multipart_upload, Bucket=bucket, Key=f"{prefix}parts") == 403
    [quota] = rig.alice.quotas()
    assert quota.over_since is not None
    over = _why(rig, "alice/full/0")
    assert (over.allowed, over.permission, over.agrees) == (True, Permission.TIDY, True)
    assert next(step for step in over.steps if step.what == "quota").detail.startswith("over quota: alice/full holds")
    _, fresh = fetch_key(rig.bob, "alice/full")
    assert fresh.opens[0].permission is Permission.TIDY

    assert _status(client.delete_object, Bucket=bucket, Key=f"{prefix}0") == 204
    assert _status(client.delete_object, Bucket=bucket, Key=f"{prefix}1") == 204
    began = time.monotonic()
    until("writing is back", lambda: _status(client.put_object, **put) == 200, seconds=30, every=0.01)
    back_s = time.monotonic() - began
    print(f"from the delete that made room to the first write: {back_s * 1000:.0f} ms")  # noqa: T201  - a figure
    assert back_s < LONGEST_S
    until("it is written down", lambda: _told(rig)[:1] == ["quota.lifted"])
    assert _told(rig) == ["quota.lifted", "quota.under", "quota.enforced", "quota.over", "quota.set"]


def _told(rig: Rig) -> list[str]:
    return [one.action for one in rig.alice.audit(workspace="full", limit=20) if one.action.startswith("quota.")]


def test_a_workspace_handed_to_somebody_over_their_quota_takes_no_more_within_a_second(rig: Rig) -> None:
    workspace = rig.alice.create_workspace("given")
    rig.alice.share("given", "bob", Permission.WRITE)
    key, _ = fetch_key(rig.bob, "alice/given")
    client, put = s3(key), {"Bucket": workspace.bucket, "Key": f"{workspace.prefix}more", "Body": b""}
    rig.root_client().put_object(Bucket=workspace.bucket, Key=f"{workspace.prefix}large", Body=b"x" * 2 * MIB)
    until("it is counted", lambda: rig.alice.workspace("given").bytes >= 2 * MIB)
    quota = rig.alice.set_quota(QuotaKind.USER_ROOT, "bob@lab3/homes", hard=MIB)
    assert _status(client.put_object, **put) == 200, "it is alice's yet"
    began = time.monotonic()
    rig.alice.hand_over("given", "bob", keep=None)
    handed = time.monotonic()
    until("writing is refused", lambda: _status(client.put_object, **put) == 403, seconds=30, every=0.01)
    refused = time.monotonic()
    print(f"hand-over {(handed - began) * 1000:.0f} ms, then {(refused - handed) * 1000:.0f} ms to the 403")  # noqa: T201
    assert refused - handed < 1.0
    assert _status(client.get_object, Bucket=workspace.bucket, Key=f"{workspace.prefix}large") == 200
    rig.alice.delete_quota(quota.id)


def test_why_says_what_the_server_says_when_a_share_is_taken_back(rig: Rig, shared: Any) -> None:
    workspace, client = shared
    rig.root_client().put_object(Bucket=workspace.bucket, Key=f"{workspace.prefix}seen", Body=b"x")
    rig.alice.unshare("full", "bob")
    assert _status(client.get_object, Bucket=workspace.bucket, Key=f"{workspace.prefix}seen") == 403
    denied = _why(rig, "alice/full/seen")
    assert (denied.allowed, denied.permission, denied.agrees) == (False, None, True)
    assert denied.because == "bob has no grant on alice/full."
    assert denied.todo == "Ask alice: wio request alice/full"
    grant = next(step for step in denied.steps if step.what == "grant")
    assert grant.detail.startswith("shared until ")
    assert "alice revoked it, receipt " in grant.detail
    assert "403" in denied.server_said
    rig.alice.share("full", "bob", Permission.READ)
    again = _why(rig, "alice/full")
    assert (again.allowed, again.permission, again.agrees) == (True, Permission.READ, True)
    assert rig.bob.why("bob", "alice/full").agrees is True


@pytest.mark.timeout(240)
def test_reads_are_told_of_with_who_did_them_as_the_server_reported(rig: Rig, shared: Any) -> None:
    workspace, client = shared
    rig.alice.share("full", "bob", Permission.READ)
    rig.root_client().put_object(Bucket=workspace.bucket, Key=f"{workspace.prefix}folder/read", Body=b"x")
    for _ in range(3):
        assert _status(client.get_object, Bucket=workspace.bucket, Key=f"{workspace.prefix}folder/read") == 200
    assert _status(client.put_object, Bucket=workspace.bucket, Key=f"{workspace.prefix}folder/read", Body=b"y") == 403
    assert _why(rig, "alice/full/folder/read").agrees is True, "which reads it with a key of bob's that is not bob"

    def told() -> dict[str, Any]:
        return {one.operation: one for one in rig.alice.accesses("full/folder", who="bob")}

    # The agent sends a minute when it is over.
    until("the reads are told of", lambda: {"GetObject", "PutObject"} <= told().keys(), seconds=3 * MINUTE_S, every=0.5)
    read, written = told()["GetObject"], told()["PutObject"]
    assert (read.who, read.path, read.count, read.refused) == ("bob", "alice/full/folder/read", 3, 0)
    assert (written.count, written.refused) == (1, 1)
    assert rig.alice.accesses("full/nothing") == []
