"""B2: from the unshare call to the first refusal of a key that was already out, against detaching a policy."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

from botocore.exceptions import ClientError

from bench.figure import Figure, compare
from bench.peers import admin
from bench.rig import Rig, fetch_key, s3
from protocol.grants import Permission
from protocol.sealing import ClearCredential

ROUNDS = 60
PEER_ROUNDS = 15
DEADLINE_S = 10


class Hammer:
    """Reads one object with one key as fast as it can, until it is refused."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        self._thread = threading.Thread(target=self._run)
        self.passes = 0
        self.refused_at: float | None = None
        self.started = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self.started.wait(DEADLINE_S):
            raise AssertionError("the key does not work")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        end = time.perf_counter() + DEADLINE_S
        while time.perf_counter() < end:
            try:
                self._client.get_object(Bucket=self._bucket, Key=self._key)["Body"].read()
            except ClientError:
                if self.started.is_set():
                    self.refused_at = time.perf_counter()
                    return
            else:
                self.passes += 1
                self.started.set()


def measure(rig: Rig, *, grants: int = 1) -> Figure:
    """Share, take a key, read with it in a loop, unshare; the same with the server's own means. Bob has ``grants`` in all."""
    rig.shared(grants - 1)
    workspace = rig.alice.create_workspace("b2")
    rig.root_client().put_object(Bucket=workspace.bucket, Key=workspace.prefix + "file", Body=b"x" * 1000)
    ours = []
    for _ in range(ROUNDS):
        rig.alice.share("b2", "bob", Permission.READ)
        key, _opened = fetch_key(rig.bob, "alice/b2")
        with Hammer(s3(key), workspace.bucket, workspace.prefix + "file") as hammer:
            asked = time.perf_counter()
            change = rig.alice.unshare("b2", "bob")
        if hammer.refused_at is None or not all(receipt.state == "enforced" for receipt in change.receipts):
            raise AssertionError(f"not revoked: {change}")
        ours.append((hammer.refused_at - asked) * 1000)
    return compare(
        "unshare call to the first refusal of a key that is out",
        "ms",
        ours,
        "detaching a policy with the server's own Python admin client",
        _peer(rig, workspace.bucket, workspace.prefix + "file"),
        goal="p50 <= 25 ms, p99 <= 100 ms",
        scale={"grants": grants},
    )


def _peer(rig: Rig, bucket: str, key: str) -> list[float]:
    client = admin(rig.server)
    user, password = "b2-peer", "b2-peer-password"
    client.user_add(user, password)
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"]}
    client.policy_add("b2-peer", policy={"Version": "2012-10-17", "Statement": [statement]})
    took = []
    for _ in range(PEER_ROUNDS):
        client.attach_policy(["b2-peer"], user=user)
        with Hammer(s3(ClearCredential(user, password, "", 0, rig.server.url, "us-east-1")), bucket, key) as hammer:
            asked = time.perf_counter()
            client.detach_policy(["b2-peer"], user=user)
        if hammer.refused_at is None:
            raise AssertionError("the peer's key was not refused")
        took.append((hammer.refused_at - asked) * 1000)
    return took
