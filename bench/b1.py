"""B1: a key through hub and agent, against the same server's own AssumeRole."""

from __future__ import annotations

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.figure import Figure, compare, rounded, timed
from bench.rig import Rig, fetch_key, s3

ROUNDS = 300


def measure(rig: Rig, *, grants: int = 1) -> Figure:
    """Take turns: one key of wio's, one of the server's, connections kept open on both sides. Bob's key has ``grants``."""
    path = f"alice/{rig.shared(grants)[0].name}"
    key, opened = fetch_key(rig.bob, path)
    s3(key).list_objects_v2(Bucket=opened.opens[0].bucket)  # it works at all
    user, password = "b1-peer", "b1-peer-password"
    _peer_user(rig, user, password)
    sts = boto3.client(
        "sts",
        endpoint_url=rig.server.url,
        region_name="us-east-1",
        aws_access_key_id=user,
        aws_secret_access_key=password,
        config=Config(retries={"max_attempts": 1}),
    )

    def raw() -> None:
        sts.assume_role(RoleArn="arn:aws:iam:::role/peer", RoleSessionName="peer", DurationSeconds=3600)

    ours, peers = [], []
    for round_number in range(ROUNDS + 20):
        mine, theirs = timed(lambda: fetch_key(rig.bob, path)), timed(raw)
        if round_number >= 20:
            ours.append(mine)
            peers.append(theirs)
    return compare(
        "a key through hub and agent",
        "ms",
        ours,
        "raw AssumeRole with boto3",
        peers,
        goal="ratio <= 1.5",
        scale={"grants": grants, **_processor_ms(rig, path)},
    )


def _processor_ms(rig: Rig, path: str) -> dict[str, float]:
    """Return how many milliseconds of processor time one key takes in each program, without the peer in between."""
    programs = {"hub": rig.federation.hub, "agent": rig.agent, "storage": rig.server}
    processes = {"client": psutil.Process(), **{name: psutil.Process(one.pid) for name, one in programs.items()}}
    before = {name: sum(one.cpu_times()[:2]) for name, one in processes.items()}
    for _ in range(ROUNDS):
        fetch_key(rig.bob, path)
    return {
        f"{name}-cpu-ms": rounded((sum(one.cpu_times()[:2]) - before[name]) * 1000 / ROUNDS) for name, one in processes.items()
    }


def _peer_user(rig: Rig, user: str, password: str) -> None:
    from bench.peers import admin  # noqa: PLC0415 - the server's own admin client is slow to load

    client = admin(rig.server)
    client.user_add(user, password)
    client.policy_set("readonly", user=user)
    try:
        s3_key = boto3.client(
            "s3",
            endpoint_url=rig.server.url,
            region_name="us-east-1",
            aws_access_key_id=user,
            aws_secret_access_key=password,
        )
        s3_key.list_buckets()
    except ClientError as error:  # the peer must work, or the ratio means nothing
        raise AssertionError(str(error)) from error
