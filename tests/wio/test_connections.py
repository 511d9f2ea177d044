"""What goes wrong between a person and their hub is said in a sentence that names the hub. Over real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from protocol.errors import HubUnreachable
from wio.client import Client
from wio.connections import Connections

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hand every connection to ``serve``, one after the other; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_a_hub_that_does_not_run_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(HubUnreachable) as raised:
        client.health()
    assert f"http://127.0.0.1:{port} cannot be reached: Connection refused." in str(raised.value)
    assert "WIO_HUB" in raised.value.problem.todo


def test_a_name_that_nobody_has_is_said_to_be_unreachable() -> None:
    with Client("http://hub.invalid:80") as client, pytest.raises(HubUnreachable, match=r"hub\.invalid:80 cannot be reached"):
        client.health()


def test_a_connection_that_breaks_before_the_answer_is_said_to_have_broken() -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(1)

    with listening(hang_up) as port, Client(f"http://127.0.0.1:{port}") as client, pytest.raises(HubUnreachable) as raised:
        client.health()
    assert " broke: " in str(raised.value)


def test_a_hub_without_tls_that_is_asked_for_it_is_told_apart_from_one_that_is_away() -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listening(plain) as port, Client(f"https://127.0.0.1:{port}") as client, pytest.raises(HubUnreachable) as raised:
        client.health()
    assert "does not speak TLS as expected" in str(raised.value)
    assert "http://" in raised.value.problem.todo


def test_a_connection_the_hub_has_let_go_of_is_opened_again_unseen() -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(ANSWER)

    with listening(once) as port:
        connections = Connections(f"http://127.0.0.1:{port}", {}, NOBODY)
        answers = []
        for _ in range(3):
            answers.append(connections.ask("GET", "/x"))
            # The other side has closed; wait until that is to be seen here too.
            pool = connections._pool.pool  # type: ignore[union-attr]  # the kept connection itself
            kept = pool.queue[-1]
            if kept is not None and kept.sock is not None:
                kept.sock.settimeout(10)
                assert kept.sock.recv(1, socket.MSG_PEEK) == b""
        connections.close()
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[0].headers.get("content-type") == "application/json"


def test_a_proxy_of_the_environment_is_used_except_where_it_is_said_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def proxy(connection: socket.socket) -> None:
        asked.append(connection.recv(10_000))
        connection.sendall(ANSWER)

    with listening(proxy) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        through = Connections("http://hub.invalid", {"Authorization": "Bearer x"}, NOBODY)
        assert through.ask("GET", "/api", (("a", "b c"),)).status == 200
        through.close()
        monkeypatch.setenv("no_proxy", "hub.invalid")
        past = Connections("http://hub.invalid", {}, NOBODY)
        with pytest.raises(HubUnreachable):
            past.ask("GET", "/api")
        past.close()
    [request] = asked
    assert request.startswith(b"GET http://hub.invalid/api?a=b+c HTTP/1.1\r\n")
