"""`wio creds serve`: who is given a key on loopback, and who is not."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.config import Config as ClientConfig

from deploy.running import until
from protocol.api import NewCredentials
from protocol.errors import BadSetting, HubUnreachable, NodeOffline, UnknownWorkspace
from tests.wio.standins import RecordedHub, Request, SealingNode
from wio import serving
from wio.config import Config, Seat
from wio.credentials import Wish
from wio.serving import Server, listening, owner_of
from wio.session import Session


@pytest.fixture
def node(hub: RecordedHub) -> SealingNode:
    made = SealingNode(now=lambda: int(time.time()))
    hub.on("POST", "/credentials", lambda request: made.answer(msgspec.json.decode(request.body, type=NewCredentials)))
    return made


@pytest.fixture
def session(hub: RecordedHub, tmp_path: Path) -> Iterator[Session]:
    with Session(Config(tmp_path / "config", {}), Seat(hub.url, "token-of-alice")) as made:
        yield made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def server(session: Session, said: list[str], tmp_path: Path) -> Iterator[Server]:
    keys = {"lab3": lambda: session.keys.any(("scans", "alice/more"), Wish()).key}
    with listening(Server(keys, tmp_path / "serve", said.append)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


Ask = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def ask(server: Server) -> Ask:
    def send(path: str = "/lab3", *, method: str = "GET", **headers: str | None) -> tuple[int, dict[str, object]]:
        sent = {"Authorization": server.token_file.read_text(), "Host": f"127.0.0.1:{server.port}"}
        sent |= {name.replace("_", "-"): text for name, text in headers.items()}  # type: ignore[misc]  # None leaves out
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, text in sent.items():
                if text is not None:
                    connection.putheader(name, text)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    return send


@pytest.mark.usefixtures("node")
def test_whoever_has_the_token_gets_a_key_and_one_line_says_so(ask: Ask, said: list[str]) -> None:
    status, key = ask()
    assert status == 200
    assert (key["AccessKeyId"], key["SecretAccessKey"], key["Token"]) == ("AK1", "s/e+c", "TOKEN")
    assert len(said) == 1
    assert "lab3: key AK1" in said[0]
    assert "s/e+c" not in said[0]


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"Host": None}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"X_Forwarded_For": "127.0.0.1"}, 403),
        ({"Forwarded": "for=127.0.0.1"}, 403),
        ({"Via": "1.1 proxy"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Extra": "x" * 5000}, 502),
    ],
    ids=str,
)
def test_what_no_tool_of_this_person_would_send_is_refused(
    ask: Ask, hub: RecordedHub, said: list[str], headers: dict[str, str | None], status: int
) -> None:
    answered, problem = ask(**headers)
    assert answered == status, problem
    assert problem["code"]
    assert "AccessKeyId" not in problem
    assert hub.asked == []
    assert len(said) == 1


@pytest.mark.usefixtures("node")
def test_only_get_and_only_nodes_that_are_served(ask: Ask, hub: RecordedHub) -> None:
    assert ask(method="POST")[0] == 501
    assert ask("/nas")[0] == 404
    assert ask("/")[0] == 404
    assert ask("/lab3?x=1")[0] == 404
    assert hub.asked == []


def test_another_persons_programs_are_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "owner_of", lambda _: os.getuid() + 1)
    status, problem = ask()
    assert status == 403
    assert "owner" in str(problem["message"])


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says whose connection one is")
def test_linux_says_whose_a_connection_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert owner_of(accepted) == os.getuid()
            assert client.getsockname()[1] == accepted.getpeername()[1]


def test_the_token_is_in_a_file_of_this_person_without_a_newline_and_ends_with_the_server(
    session: Session, tmp_path: Path
) -> None:
    with listening(Server({}, tmp_path / "serve", print)) as server:
        content = server.token_file.read_bytes()
        assert content == content.strip()
        assert len(content) >= 40
        assert stat.S_IMODE(server.token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(server.token_file.parent.stat().st_mode) == 0o700
        with pytest.raises(BadSetting, match="cannot be given"):
            Server({}, tmp_path / "serve", print, port=server.port)
    assert not server.token_file.exists()
    session.close()


def test_many_tools_at_once_cost_one_key(ask: Ask, node: SealingNode) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(), range(16)))
    assert {status for status, _ in answers} == {200}
    assert {key["AccessKeyId"] for _, key in answers} == {"AK1"}
    assert len(node.minted) == 1


def test_one_workspace_that_is_gone_ends_nothing_for_the_others(ask: Ask, hub: RecordedHub, node: SealingNode) -> None:
    def answer(request: Request) -> object:
        asked = msgspec.json.decode(request.body, type=NewCredentials)
        return UnknownWorkspace("There is no scans.") if "scans" in asked.paths else node.answer(asked)

    hub.on("POST", "/credentials", answer)
    assert ask()[1]["AccessKeyId"] == "AK1"
    assert node.minted[-1].paths == ("alice/more",)


def test_while_the_hub_is_away_a_kept_key_goes_on_and_then_503_says_why(
    ask: Ask, hub: RecordedHub, node: SealingNode, session: Session
) -> None:
    assert ask()[0] == 200
    later = time.time() + 3000  # of an hour's life: no longer fresh, still good
    session.clock = lambda: later
    session.keys._clock = session.clock
    hub.on("POST", "/credentials", NodeOffline("lab3 is offline."))
    assert ask()[1]["AccessKeyId"] == "AK1"
    later += 560
    status, problem = ask()
    assert (status, problem["code"]) == (503, "node-offline")
    hub.on("POST", "/credentials", HubUnreachable("The hub is away: a server in front of it answered 502."))
    status, problem = ask()
    assert (status, problem["code"]) == (503, "hub-unreachable")
    assert len(node.minted) == 1


def test_the_command_serves_boto3_until_it_is_told_to_stop(
    hub: RecordedHub, node: SealingNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"WIO_CONFIG": str(tmp_path / "config"), "WIO_HUB": hub.url, "WIO_TOKEN": "t"}
    command = [sys.executable, "-c", "from wio.cli import main; main()", "creds", "serve", "scans", "--json"]
    with (
        (tmp_path / "err").open("w") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("\n}"):
            text += process.stdout.readline()
        [served] = json.loads(text)["nodes"]
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", served["uri"])
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", served["token_file"])
        session = boto3.session.Session(region_name=served["region"])
        key = session.get_credentials().get_frozen_credentials()
        assert (key.access_key, key.secret_key, key.token) == ("AK1", "s/e+c", "TOKEN")
        client = session.client("s3", endpoint_url=served["endpoint"], config=ClientConfig(signature_version="s3v4"))
        for _ in range(3):
            client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (tmp_path / "err").read_text().count("lab3: key") == 1
    assert len(node.minted) == 1
    until("the token is gone", lambda: not Path(served["token_file"]).exists())
