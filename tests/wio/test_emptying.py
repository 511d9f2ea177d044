"""Deleting what lies in a workspace, on a real MinIO."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import boto3
import msgspec
import pytest
from botocore.config import Config
from typer.testing import Result

from deploy.running import Minio
from protocol.api import NewCredentials, Workspace, WorkspaceEnded
from protocol.errors import NotAllowed, StorageRefused, StorageUnreachable
from protocol.grants import Permission
from tests.wio.standins import ALICE, RecordedHub, Request, SealingNode
from wio.credentials import Place
from wio.emptying import Emptied, empty

pytestmark = pytest.mark.real


@pytest.fixture
def client(minio: Minio) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=minio.url,
        region_name="us-east-1",
        aws_access_key_id=minio.user,
        aws_secret_access_key=minio.password,
    )


@pytest.fixture
def place(client: Any) -> Place:
    bucket = f"wio-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    prefix = "alice/scans/"
    return Place("alice/scans", "alice/scans", "lab3", "", "us-east-1", bucket, prefix, prefix, Permission.MANAGE)


def fill(client: Any, place: Place, *keys: str) -> None:
    for key in keys:
        client.put_object(Bucket=place.bucket, Key=key, Body=b"four")


def left(client: Any, place: Place) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket=place.bucket).get("Contents", [])]


@pytest.fixture
def node(minio: Minio, place: Place) -> SealingNode:
    """A node whose keys open the real server."""

    def mint(_: int) -> tuple[str, str, str]:
        key = assumed(minio)
        return key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"]

    return SealingNode(endpoint=minio.url, bucket=place.bucket, mint=mint, now=lambda: int(time.time()))


@pytest.fixture
def removable(hub: RecordedHub, client: Any, place: Place, node: SealingNode) -> list[list[str]]:
    """A hub on which alice may remove the workspace; what was left in it each time that was asked for."""
    seen: list[list[str]] = []
    one = Workspace(
        1, "alice", "scans", "lab3", "homes", place.bucket, place.prefix, "", False, Permission.MANAGE, 2, 8, 1
    )  # fmt: skip
    hub.on("POST", "/credentials", lambda request: node.answer(msgspec.json.decode(request.body, type=NewCredentials)))
    hub.on("GET", "/me", ALICE)
    hub.on("GET", "/workspaces/me/scans", one)

    def end(_: Request) -> WorkspaceEnded:
        seen.append(left(client, place))
        return WorkspaceEnded("alice/scans", place.bucket, place.prefix, ())

    hub.on("DELETE", "/workspaces/alice/scans", end)
    return seen


def test_the_command_deletes_the_files_before_it_removes_the_workspace(
    wio: Callable[..., Result], client: Any, place: Place, removable: list[list[str]]
) -> None:
    fill(client, place, place.prefix + "a", place.prefix + "sub/b", "bob/cells/c")
    said = wio("w", "rm", "scans", "--delete-data", "--yes", "--json")
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    assert (answer["data"], answer["objects"], answer["bytes"]) == ("deleted", 2, 8)
    assert removable == [["bob/cells/c"]]


@pytest.fixture
def only_listing(minio: Minio, place: Place, node: SealingNode) -> None:
    """The keys of the node may list the workspace, and nothing else."""
    key = assumed(minio, allowing(place, ["s3:ListBucket"]))
    node.mint = lambda _: (key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])


@pytest.mark.usefixtures("only_listing")
def test_the_workspace_stays_where_a_file_of_it_cannot_be_deleted(
    wio: Callable[..., Result], client: Any, place: Place, removable: list[list[str]]
) -> None:
    fill(client, place, place.prefix + "kept.txt")
    said = wio("w", "rm", "scans", "--delete-data", "--yes")
    assert said.exit_code == 4
    assert "kept.txt" in said.stderr
    assert removable == []


def nothing(_: Emptied) -> None:
    pass


def test_everything_in_the_workspace_goes_and_nothing_beside_it(client: Any, place: Place) -> None:
    inside = ("a", "sub/b", "sub/", "ü ö+&<>\"'.txt", "tab\tand\nline", "ctrl\x01\x7f", "cr\rcr")
    beside = ("alice/scans2/a", "bob/scans/a")
    fill(client, place, *(place.prefix + key for key in inside), *beside)
    assert empty(client, place, nothing) == Emptied(len(inside), 4 * len(inside))
    assert left(client, place) == sorted(beside)
    assert empty(client, place, nothing) == Emptied()


def test_more_than_one_page_is_deleted_and_told_as_it_goes(client: Any, place: Place) -> None:
    keys = [f"{place.prefix}{number:05}" for number in range(1200)]
    fill(client, place, *keys)
    told: list[int] = []
    assert empty(client, place, lambda so_far: told.append(so_far.objects)).objects == 1200
    assert told == [1000, 1200]
    assert left(client, place) == []


def test_what_is_written_meanwhile_goes_too(client: Any, place: Place) -> None:
    fill(client, place, place.prefix + "b")
    late = iter([place.prefix + "a"])  # sorts before what was deleted: the listing is past it already

    def write(_: Emptied) -> None:
        for key in late:
            fill(client, place, key)

    assert empty(client, place, write).objects == 2
    assert left(client, place) == []


def test_somebody_who_goes_on_writing_is_noticed(client: Any, place: Place) -> None:
    fill(client, place, place.prefix + "b")
    with pytest.raises(StorageRefused, match="goes on writing"):
        empty(client, place, lambda so_far: fill(client, place, f"{place.prefix}a{9 - so_far.objects}"))


def test_a_file_that_the_storage_keeps_is_named(client: Any, place: Place, minio: Minio) -> None:
    fill(client, place, place.prefix + "kept.txt")
    reader = session_key(minio, place, ["s3:ListBucket"])
    with pytest.raises(NotAllowed, match=r"kept\.txt"):
        empty(reader, place, nothing)
    assert left(client, place) == [place.prefix + "kept.txt"]


def test_a_key_that_may_not_even_list_is_a_sentence(place: Place, minio: Minio) -> None:
    with pytest.raises(NotAllowed, match="your key may not"):
        empty(session_key(minio, place, ["s3:GetObject"]), place, nothing)


def test_a_storage_that_is_away_is_a_sentence(place: Place, unused: str) -> None:
    away = boto3.client(
        "s3",
        endpoint_url=unused,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 0}),
    )
    with pytest.raises(StorageUnreachable):
        empty(away, place, nothing)


@pytest.fixture
def unused(hub: RecordedHub) -> str:
    return hub.url.rsplit(":", 1)[0] + ":1"


def session_key(minio: Minio, place: Place, actions: list[str]) -> Any:
    """A key of the server's owner that may only do this in the bucket."""
    key = assumed(minio, allowing(place, actions))
    return boto3.client(
        "s3",
        endpoint_url=minio.url,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key["SessionToken"],
    )


def allowing(place: Place, actions: list[str]) -> str:
    """Write a policy that allows only this in the bucket."""
    places = [f"arn:aws:s3:::{place.bucket}", f"arn:aws:s3:::{place.bucket}/*"]
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": places}]})


def assumed(minio: Minio, policy: str = "") -> Any:
    """Return a session key of the server's owner, narrowed by a policy."""
    sts = boto3.client(
        "sts",
        endpoint_url=minio.url,
        region_name="us-east-1",
        aws_access_key_id=minio.user,
        aws_secret_access_key=minio.password,
    )
    narrowed = {"Policy": policy} if policy else {}
    role = "arn:x:ignored:by:minio:"
    return sts.assume_role(RoleArn=role, RoleSessionName="someone", DurationSeconds=3600, **narrowed)["Credentials"]
