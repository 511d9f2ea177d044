"""The owner edits the ceiling while everything runs: the node obeys at once, and the hub tells people within seconds."""

from __future__ import annotations

import pytest

from bench.rig import Rig, fetch_key, s3
from deploy.running import until
from protocol.grants import Permission

pytestmark = pytest.mark.real

TELLING_S = 10.0
"""The agent looks at the file every 5 s; the rest is the way to the hub and back on a busy machine."""


def test_a_ceiling_that_is_edited_shows_among_the_shares_and_leaves_reading(rig: Rig) -> None:
    for name in ("kept", "dropped"):
        made = rig.alice.create_workspace(name)
        rig.root_client().put_object(Bucket=made.bucket, Key=made.prefix + "file", Body=b"x")
    rig.alice.share("kept", "bob", Permission.WRITE)
    rig.alice.share("dropped", "bob", Permission.DROP)
    keys = {who: fetch_key(client, "alice/kept") for who, client in (("alice", rig.alice), ("bob", rig.bob))}
    ceiling = rig.agent.state / "ceiling.toml"
    before = ceiling.read_text()

    ceiling.write_text(before.replace("read_only = false", "read_only = true"))
    shares = {"kept": "at most read", "dropped": "at most read"}
    until("the shares tell", lambda: all(_reason(rig, name).count(told) for name, told in shares.items()), seconds=TELLING_S)
    for key, place in keys.values():
        where = {"Bucket": place.opens[0].bucket, "Key": place.opens[0].prefix + "file"}
        assert s3(key).get_object(**where)["Body"].read() == b"x"
        with pytest.raises(s3(key).exceptions.ClientError, match="AccessDenied"):
            s3(key).put_object(**where, Body=b"y")
    again, place = fetch_key(rig.alice, "kept")
    where = {"Bucket": place.opens[0].bucket, "Key": place.opens[0].prefix + "file"}
    assert s3(again).get_object(**where)["Body"].read() == b"x", "who owns it reads it with a new key as well"

    ceiling.write_text(before)
    until("nothing is refused", lambda: not _reason(rig, "kept") and not _reason(rig, "dropped"), seconds=TELLING_S)
    for key, _ in (keys["bob"], (again, place)):
        s3(key).put_object(**where, Body=b"y")


def _reason(rig: Rig, name: str) -> str:
    [share] = rig.alice.shares(name)
    assert share.applied is not bool(share.reason)
    return share.reason
