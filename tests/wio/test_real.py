"""Keys in real hands: the real mc, boto3 and links, against a real MinIO."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import msgspec
import pytest

import wio as library
from deploy.running import Minio
from protocol.api import Credentials, NewCredentials
from protocol.errors import NodeOffline, UnknownWorkspace
from protocol.grants import Permission
from tests.wio.standins import RecordedHub, Request, SealingNode
from wio.config import Config, Seat
from wio.credentials import LONG_LIFE_S, USUAL_LIFE_S
from wio.session import Session

pytestmark = pytest.mark.real

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def owner(minio: Minio, service: str = "s3") -> Any:
    """A client with the server's root key."""
    return boto3.client(
        service,
        endpoint_url=minio.url,
        region_name="us-east-1",
        aws_access_key_id=minio.user,
        aws_secret_access_key=minio.password,
    )


@pytest.fixture
def node(minio: Minio, hub: RecordedHub) -> SealingNode:
    """A node whose keys open the real server."""

    def mint(_: int) -> tuple[str, str, str]:
        answer = owner(minio, "sts").assume_role(
            RoleArn="arn:x:ignored:by:minio:", RoleSessionName="someone", DurationSeconds=3600
        )
        key = answer["Credentials"]
        return key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"]

    made = SealingNode(endpoint=minio.url, bucket=f"wio-{uuid4().hex[:12]}", mint=mint, now=lambda: int(time.time()))
    owner(minio).create_bucket(Bucket=made.bucket)
    hub.on("POST", "/credentials", lambda request: made.answer(msgspec.json.decode(request.body, type=NewCredentials)))
    return made


@pytest.fixture
def environment(hub: RecordedHub, mc: Path, tmp_path: Path) -> dict[str, str]:
    own = {"WIO_CONFIG": str(tmp_path / "c"), "WIO_HUB": hub.url, "WIO_TOKEN": "t", "WIO_MC": str(mc), "HOME": str(tmp_path)}
    return os.environ | own | {"MC_CONFIG_DIR": str(tmp_path / "mc")}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run `wio …` as a program of its own, in an empty directory."""
    here = tmp_path / "here"
    here.mkdir()

    def start(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from wio.cli import main; main()", *words]
        return subprocess.run(
            command, env=environment, cwd=here, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    return start


@pytest.fixture
def session(hub: RecordedHub, tmp_path: Path) -> Session:
    return Session(Config(tmp_path / "library", {}), Seat(hub.url, "t"))


def keys_of(minio: Minio, bucket: str) -> list[str]:
    return [one["Key"] for one in owner(minio).list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_mc_copies_lists_prints_and_removes_with_workspace_names(
    run: Run, minio: Minio, node: SealingNode, tmp_path: Path
) -> None:
    (tmp_path / "here" / "a.txt").write_text("first\n")
    up = run("mc", "cp", "a.txt", "scans/sub/")
    assert up.returncode == 0, up.stderr
    assert "`alice/scans/sub/a.txt`" in up.stdout
    assert keys_of(minio, node.bucket) == ["alice/scans/sub/a.txt"]
    assert node.minted[-1].life_s == USUAL_LIFE_S
    assert run("mc", "ls", "scans").stdout.split()[-1] == "sub/"
    assert run("mc", "cat", "alice/scans/sub/a.txt").stdout == "first\n"
    assert run("mc", "find", "scans").stdout == "alice/scans/sub/a.txt\n"
    assert run("mc", "du", "scans").stdout.split("\t")[-1] == "alice/scans\n"
    assert '"key":"alice/scans/sub/a.txt"' in run("mc", "find", "scans", "--json").stdout
    assert run("mc", "pipe", "scans/p.txt", stdin="piped").returncode == 0
    assert run("mc", "cp", "scans/p.txt", "down.txt").returncode == 0
    assert (tmp_path / "here" / "down.txt").read_text() == "piped"
    assert run("mc", "mv", "scans/p.txt", "other/q.txt").returncode == 0
    assert keys_of(minio, node.bucket) == ["alice/other/q.txt", "alice/scans/sub/a.txt"]
    assert run("mc", "rm", "-r", "--force", "other").returncode == 0
    assert keys_of(minio, node.bucket) == ["alice/scans/sub/a.txt"]


def test_a_whole_workspace_never_takes_its_neighbour_along(run: Run, minio: Minio, node: SealingNode, tmp_path: Path) -> None:
    for key in ("alice/scans/a", "alice/scans2/b"):
        owner(minio).put_object(Bucket=node.bucket, Key=key, Body=b"x")
    assert run("mc", "cp", "-r", "alice/scans", "./out/").returncode == 0
    assert [path.name for path in (tmp_path / "here" / "out").rglob("*") if path.is_file()] == ["a"]
    assert node.minted[-1].life_s == LONG_LIFE_S
    assert run("mc", "mirror", "scans/", "./mirrored").returncode == 0
    assert [path.name for path in (tmp_path / "here" / "mirrored").rglob("*") if path.is_file()] == ["a"]
    assert run("mc", "rm", "-r", "--force", "scans").returncode == 0
    assert keys_of(minio, node.bucket) == ["alice/scans2/b"]


def test_mcs_exit_code_and_error_come_through_with_workspace_names(run: Run, node: SealingNode) -> None:
    said = run("mc", "cat", "scans/missing.txt")
    assert said.returncode == 1
    assert "`alice/scans/missing.txt`" in said.stderr
    assert node.bucket not in said.stderr


@pytest.mark.usefixtures("node")
def test_head_ends_well_although_mc_says_otherwise(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here" / "a.txt").write_text("1\n2\n3\n")
    run("mc", "cp", "a.txt", "scans/")
    said = run("mc", "head", "-n", "2", "scans/a.txt")
    assert (said.returncode, said.stdout) == (0, "1\n2\n")
    assert run("mc", "head", "scans/a.txt").returncode == 0
    assert run("mc", "head", "scans/none.txt").returncode == 1


# ------------------------------------------------------------------------------------------------------ refused keys

DENY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}]}'


@pytest.fixture
def worn(run: Run, minio: Minio, hub: RecordedHub, node: SealingNode) -> SealingNode:
    """The kept key has lost its right; keys made from now on are good. `alice/scans/a` is there."""
    good = node.mint
    owner(minio).put_object(Bucket=node.bucket, Key="alice/scans/a", Body=b"content")

    def refused(_: int) -> tuple[str, str, str]:
        made = owner(minio, "sts").assume_role(
            RoleArn="arn:x:ignored:by:minio:", RoleSessionName="someone", DurationSeconds=3600, Policy=DENY
        )
        key = made["Credentials"]
        return key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"]

    node.mint = refused
    assert run("creds", "scans").returncode == 0
    node.mint = good
    hub.asked.clear()
    return node


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "scans"), ("ls", "--json", "scans"), ("tree", "scans"), ("find", "scans"), ("stat", "scans/a"), ("du", "scans"),
        ("du", "--json", "scans"), ("cat", "scans/a"), ("cat", "--json", "scans/a"), ("head", "scans/a"),
        ("diff", "scans/", "./none/"), ("cp", "scans/a", "./down"), ("cp", "a.txt", "scans/up"),
        ("cp", "--json", "a.txt", "scans/up"), ("mv", "scans/a", "./down"),
        ("rm", "scans/a"), ("rm", "-r", "--force", "scans/"), ("pipe", "scans/p"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_refused_key_is_dropped_and_the_hub_says_why(
    run: Run, hub: RecordedHub, worn: SealingNode, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "here" / "a.txt").write_text("1\n")
    (tmp_path / "here" / "none").mkdir()
    hub.on("POST", "/credentials", UnknownWorkspace("scans is not shared with you.", todo="Ask alice."))
    said = run("mc", *words, stdin="x")
    assert said.returncode == 3, said
    assert "scans is not shared with you." in said.stderr
    assert "Denied" not in said.stderr
    assert len(hub.asked) == 1
    assert run("creds", "scans", "--format", "process").returncode == 3
    assert len(worn.minted) == 1


@pytest.mark.parametrize(
    "words",
    [("ls", "scans"), ("ls", "--json", "scans"), ("tree", "-f", "scans"), ("find", "scans"), ("stat", "scans/a"),
     ("du", "scans"), ("cat", "scans/a"), ("head", "scans/a"), ("diff", "scans/", "./none/")],
    ids=" ".join,
)  # fmt: skip
def test_what_only_looks_is_run_again_with_the_key_the_hub_gives_now(
    run: Run, hub: RecordedHub, worn: SealingNode, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "here" / "none").mkdir()
    said = run("mc", *words)
    assert said.stderr == ""
    assert (len(hub.asked), len(worn.minted)) == (1, 2)
    again = run("mc", *words)
    assert (said.returncode, said.stdout) == (again.returncode, again.stdout)
    assert said.stdout
    assert len(worn.minted) == 2


@pytest.mark.parametrize(
    "words", [("cp", "a.txt", "scans/up"), ("cp", "scans/a", "./down"), ("rm", "scans/a"), ("mv", "scans/a", "scans/b")]
)
def test_what_changes_something_is_left_to_the_person_to_run_again(
    run: Run, worn: SealingNode, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "here" / "a.txt").write_text("1\n")
    said = run("mc", *words)
    assert said.returncode == 1
    assert "mc: <ERROR>" in said.stderr
    assert "run the command again" in said.stderr
    assert len(worn.minted) == 2
    assert run("mc", *words).returncode == 0


def test_where_the_right_is_too_small_that_is_what_is_said(
    run: Run, hub: RecordedHub, worn: SealingNode, tmp_path: Path
) -> None:
    def to_read(request: Request) -> Credentials:
        [one] = worn.answer(msgspec.json.decode(request.body, type=NewCredentials)).keys
        opens = tuple(msgspec.structs.replace(opened, permission=Permission.READ) for opened in one.opens)
        return Credentials((msgspec.structs.replace(one, opens=opens),))

    hub.on("POST", "/credentials", to_read)
    (tmp_path / "here" / "a.txt").write_text("1\n")
    said = run("mc", "cp", "a.txt", "scans/up")
    assert said.returncode == 1
    assert "shared with you to read only" in said.stderr
    assert "again" not in said.stderr


def test_a_hub_that_cannot_say_leaves_what_mc_said(run: Run, hub: RecordedHub, worn: SealingNode) -> None:
    hub.on("POST", "/credentials", NodeOffline("lab3 is offline."))
    said = run("mc", "ls", "scans")
    assert said.returncode == 1
    assert "Access Denied" in said.stderr
    assert len(worn.minted) == 1


def test_an_error_that_is_no_refusal_asks_the_hub_nothing(run: Run, hub: RecordedHub, worn: SealingNode, minio: Minio) -> None:
    first = run("mc", "cat", "scans/a")
    assert first.stdout == "content"
    asked = len(hub.asked)
    owner(minio).delete_object(Bucket=worn.bucket, Key="alice/scans/a")
    assert run("mc", "cat", "scans/a").returncode == 1
    assert len(hub.asked) == asked


def test_neither_the_arguments_nor_the_disk_of_mc_hold_a_secret(
    run: Run, minio: Minio, node: SealingNode, tmp_path: Path, environment: dict[str, str]
) -> None:
    seen = tmp_path / "seen"
    spy = tmp_path / "mc-spy"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\nexec {environment["WIO_MC"]} "$@"\n')
    spy.chmod(0o755)
    environment["WIO_MC"] = str(spy)
    minted: list[tuple[str, str, str]] = []
    real = node.mint
    node.mint = lambda number: minted.append(real(number)) or minted[-1]  # type: ignore[func-returns-value]
    owner(minio).put_object(Bucket=node.bucket, Key="alice/scans/a", Body=b"x")
    assert run("mc", "ls", "scans").returncode == 0
    [(_, secret, token)] = minted
    written = seen.read_bytes() + b"".join(path.read_bytes() for path in (tmp_path / "mc").rglob("*") if path.is_file())
    assert f"wio_lab3/{node.bucket}/alice/scans/".encode() in written
    assert secret.encode() not in written
    assert token.encode() not in written


def test_on_a_terminal_names_are_harmless(run: Run, minio: Minio, node: SealingNode, environment: dict[str, str]) -> None:
    owner(minio).put_object(Bucket=node.bucket, Key="alice/scans/\x1b[31mred", Body=b"x")
    raw = run("mc", "ls", "scans").stdout
    assert "\x1b[31mred" in raw  # data for a program stays as it is
    primary, secondary = pty.openpty()
    command = [sys.executable, "-c", "from wio.cli import main; main()", "mc", "ls", "scans"]
    process = subprocess.Popen(command, env=environment, stdout=secondary, stdin=subprocess.DEVNULL)
    os.close(secondary)
    shown = b""
    try:
        while chunk := os.read(primary, 4096):
            shown += chunk
    except OSError:  # the other end is closed: everything was read
        pass
    assert process.wait(30) == 0
    os.close(primary)
    assert b"\\x1b[31mred" in shown
    assert b"\x1b" not in shown


def test_boto3_client_reads_and_writes_where_locate_says(session: Session, node: SealingNode) -> None:
    s3 = library.boto3_client("scans", session=session)
    place = library.locate("scans/sub/a.txt", session=session)
    assert (place.bucket, place.key) == (node.bucket, "alice/scans/sub/a.txt")
    s3.put_object(Bucket=place.bucket, Key=place.key, Body=b"x")
    assert s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read() == b"x"
    session.close()


def test_a_botocore_session_takes_no_keys_from_the_environment(
    session: Session, node: SealingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    client = library.botocore_session("scans", session=session).create_client("s3")
    assert client.list_objects_v2(Bucket=node.bucket)["KeyCount"] == 0
    session.close()


def test_a_client_gets_a_new_key_before_the_old_one_ends(hub: RecordedHub, node: SealingNode, tmp_path: Path) -> None:
    node.lives = 5  # seconds: short enough to see the change, which a server's own keys never are
    session = Session(Config(tmp_path / "library", {}), Seat(hub.url, "t"))
    client = library.boto3_client("scans", session=session)
    deadline = time.monotonic() + 20
    while len(node.minted) < 2 and time.monotonic() < deadline:
        client.list_objects_v2(Bucket=node.bucket)
    assert len(node.minted) >= 2
    session.close()
