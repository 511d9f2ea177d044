"""``wio mc`` over several nodes and for longer than a key lives, with the real mc and real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import msgspec
import pytest

from deploy.running import Minio, until
from protocol.api import Credentials, NewCredentials
from protocol.errors import UnknownWorkspace
from protocol.identity import new_key
from tests.wio.standins import RecordedHub, Request, SealingNode

pytestmark = pytest.mark.real
DAY_S = 86_400
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def client(minio: Minio, service: str = "s3", access_key: str = "", secret_key: str = "") -> Any:
    return boto3.client(
        service,
        endpoint_url=minio.url,
        region_name="us-east-1",
        aws_access_key_id=access_key or minio.user,
        aws_secret_access_key=secret_key or minio.password,
    )


@dataclass
class Store:
    """A node with a bucket of its own on a real server. ``lives``: after so many seconds its server refuses a key."""

    minio: Minio
    mc: Path
    config: Path
    node: SealingNode = field(init=False)
    lives: int = DAY_S
    timers: list[threading.Timer] = field(default_factory=list)

    def begin(self, name: str) -> None:
        self.node = SealingNode(
            name, new_key(name.encode().ljust(32, b"-")), self.minio.url, f"wio-{name}-{uuid4().hex[:8]}",
            mint=self.mint, now=lambda: int(time.time()),
        )  # fmt: skip
        client(self.minio).create_bucket(Bucket=self.node.bucket)

    def mint(self, _: int) -> tuple[str, str, str]:
        user, secret = f"u{uuid4().hex[:12]}", uuid4().hex
        self.admin("user", "add", "o", user, secret)
        self.admin("policy", "attach", "o", "readwrite", "--user", user)
        key = client(self.minio, "sts", user, secret).assume_role(
            RoleArn="arn:x:ignored:by:minio:", RoleSessionName="someone", DurationSeconds=3600
        )["Credentials"]
        if self.lives < DAY_S:
            timer = threading.Timer(self.lives, lambda: self.admin("user", "rm", "o", user))
            timer.start()
            self.timers.append(timer)
        return key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"]

    def keys_live(self, seconds: int) -> None:
        self.lives = self.node.lives = seconds

    def admin(self, *words: str) -> None:
        host = f"http://{self.minio.user}:{self.minio.password}@{self.minio.host}"
        own = {"MC_HOST_o": host, "MC_CONFIG_DIR": str(self.config)}
        subprocess.run([self.mc, "admin", *words], env=os.environ | own, capture_output=True, check=True)

    def put(self, key: str, body: bytes = b"x") -> None:
        client(self.minio).put_object(Bucket=self.node.bucket, Key=key, Body=body)

    def held(self) -> dict[str, bytes]:
        s3 = client(self.minio)
        found = s3.list_objects_v2(Bucket=self.node.bucket).get("Contents", [])
        return {one["Key"]: s3.get_object(Bucket=self.node.bucket, Key=one["Key"])["Body"].read() for one in found}


@pytest.fixture
def stores(
    minio: Minio, new_minio: Callable[[str], Minio], hub: RecordedHub, mc: Path, tmp_path: Path
) -> Iterator[tuple[Store, Store]]:
    """Two nodes, each a server: `here/…` is on lab3, `there/…` on nas."""
    lab3 = Store(minio, mc, tmp_path / "admin")
    nas = Store(new_minio("nas"), mc, tmp_path / "admin")
    lab3.begin("lab3")
    nas.begin("nas")

    def answer(request: Request) -> Credentials:
        asked = msgspec.json.decode(request.body, type=NewCredentials)
        keys = []
        for store in (lab3, nas):
            head = "there" if store is nas else "here"
            paths = tuple(path for path in asked.paths if path.removeprefix("alice/").split("/")[0] == head)
            if paths:
                keys.append(store.node.credential(asked, paths))
        return Credentials(tuple(keys))

    hub.on("POST", "/credentials", answer)
    yield lab3, nas
    for store in (lab3, nas):
        for timer in store.timers:
            timer.join()


@pytest.fixture
def environment(hub: RecordedHub, mc: Path, tmp_path: Path) -> dict[str, str]:
    own = {"WIO_CONFIG": str(tmp_path / "c"), "WIO_HUB": hub.url, "WIO_TOKEN": "t", "WIO_MC": str(mc), "HOME": str(tmp_path)}
    return os.environ | own | {"MC_CONFIG_DIR": str(tmp_path / "mc")}


COMMAND = [sys.executable, "-c", "from wio.cli import main; main()", "mc"]


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    (tmp_path / "here").mkdir()

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], env=environment, cwd=tmp_path / "here", capture_output=True, text=True, timeout=60, check=False
        )

    return start


# ------------------------------------------------------------------------------------------------------ several nodes


def test_a_file_goes_from_one_node_to_another(run: Run, stores: tuple[Store, Store]) -> None:
    lab3, nas = stores
    lab3.put("alice/here/a", b"content")
    assert run("cp", "here/a", "there/b").returncode == 0
    assert nas.held() == {"alice/there/b": b"content"}
    assert run("mv", "there/b", "here/c").returncode == 0
    assert lab3.held() == {"alice/here/a": b"content", "alice/here/c": b"content"}
    assert nas.held() == {}
    assert run("mirror", "here/", "there/all/").returncode == 0
    assert nas.held() == {"alice/there/all/a": b"content", "alice/there/all/c": b"content"}


def test_sources_of_two_nodes_and_this_machine_go_into_one_folder_and_none_is_mistaken(
    run: Run, stores: tuple[Store, Store], tmp_path: Path
) -> None:
    lab3, nas = stores
    (tmp_path / "here" / "l").write_bytes(b"local")
    lab3.put("alice/here/a", b"of lab3")
    nas.put("alice/there/b", b"of nas")
    lab3.put("alice/there/b", b"the wrong one")  # where mc itself would look for there/b
    said = run("cp", "here/a", "there/b", "l", "there/in")
    assert said.returncode == 0, said.stderr
    assert {key: body for key, body in nas.held().items() if "/in/" in key} == {
        "alice/there/in/a": b"of lab3",
        "alice/there/in/b": b"of nas",
        "alice/there/in/l": b"local",
    }
    assert run("mv", "here/a", "there/b", "./down").returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "here" / "down").iterdir()} == {
        "a": b"of lab3",
        "b": b"of nas",
    }
    assert lab3.held() == {"alice/there/b": b"the wrong one"}
    assert "alice/there/b" not in nas.held()


def test_after_a_run_that_failed_nothing_else_is_copied(run: Run, stores: tuple[Store, Store]) -> None:
    lab3, nas = stores
    nas.put("alice/there/b", b"of nas")
    said = run("mv", "here/none", "there/b", "here/in/")
    assert said.returncode == 1
    assert "mc: <ERROR>" in said.stderr
    assert lab3.held() == {}
    assert "alice/there/b" in nas.held()


# ------------------------------------------------------------------------------------------------------ longer than a key


@pytest.fixture
def many(tmp_path: Path, run: Run) -> dict[str, bytes]:
    """So many files that mc does not begin with all at once, and so slow that no key is enough."""
    assert run is not None
    made = {}
    for number in range(400):
        name = f"sub{number % 3}/f{number:03}"
        made[name] = os.urandom(10_000)
        (tmp_path / "here" / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / "up" / name).write_bytes(made[name])
    return made


SLOW = ("--limit-upload", "512KiB")


@pytest.mark.parametrize("command", [("mirror",), ("cp", "-r"), ("mv", "-r")], ids=" ".join)
def test_a_copy_that_outlives_its_key_goes_on_with_a_new_one_and_nothing_is_lost(
    run: Run, stores: tuple[Store, Store], many: dict[str, bytes], tmp_path: Path, command: tuple[str, ...]
) -> None:
    lab3, _ = stores
    lab3.keys_live(3)
    said = run(*command, *SLOW, "./up/", "here/all/")
    assert said.returncode == 0, said.stderr
    assert len(lab3.node.minted) > 1
    assert "goes on with a new one" in said.stderr
    assert "ERROR" not in said.stderr
    assert lab3.held() == {f"alice/here/all/{name}": body for name, body in many.items()}
    left = [path for path in (tmp_path / "here" / "up").rglob("*") if path.is_file()]
    assert len(left) == (0 if command[0] == "mv" else len(many))


def test_a_recursive_cp_into_what_is_not_empty_is_not_continued_as_if_it_were(
    run: Run, stores: tuple[Store, Store], many: dict[str, bytes]
) -> None:
    lab3, _ = stores
    lab3.keys_live(3)
    name = max(many)
    lab3.put(f"alice/here/all/{name}", b"y" * len(many[name]))  # of the same size: mirror would take it for copied
    said = run("cp", "-r", *SLOW, "./up/", "here/all/")
    assert said.returncode == 1
    assert len(lab3.node.minted) >= 1
    assert "goes on with a new one" not in said.stderr
    assert "wio mc mirror" in said.stderr or "run the command again" in said.stderr


def test_where_access_has_ended_meanwhile_the_copy_ends_with_the_hubs_reason(
    run: Run, stores: tuple[Store, Store], many: dict[str, bytes], hub: RecordedHub
) -> None:
    lab3, _ = stores
    lab3.keys_live(3)
    first = hub.answers["POST", "/credentials"][0]
    hub.on("POST", "/credentials", first, UnknownWorkspace("here is not shared with you.", todo="Ask alice."))
    said = run("mirror", *SLOW, "./up/", "here/all/")
    assert said.returncode == 3
    assert "Ask alice." in said.stderr
    assert len(lab3.held()) < len(many)


# ------------------------------------------------------------------------------------------------------ ends and secrets


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_mc_too_and_nothing_else_begins(
    stores: tuple[Store, Store], many: dict[str, bytes], environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    lab3, nas = stores
    nas.put("alice/there/b")
    process = subprocess.Popen(
        [*COMMAND, "cp", *SLOW, *(f"./up/{name}" for name in many), "there/b", "here/all/"],
        env=environment,
        cwd=tmp_path / "here",
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until("the first file is there", lambda: bool(lab3.held()), seconds=20)
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    arguments = Path(f"/proc/{child}/cmdline").read_bytes()
    variables = Path(f"/proc/{child}/environ").read_bytes()
    assert b"MC_HOST_wio_lab3=" in variables
    assert Path(f"/proc/{child}/environ").stat().st_mode & 0o077 == 0
    secret = variables.split(b"MC_HOST_wio_lab3=")[1].split(b"\0")[0].split(b":")[2]
    assert len(secret) > 20
    assert secret not in arguments
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number, said
    assert not Path(f"/proc/{child}").exists()
    assert "alice/here/all/b" not in lab3.held()
