"""``wio creds serve``: HTTP on loopback that gives a person's own tools their keys, for machines without an agent.

    AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:PORT/NODE
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=…   a file (0600) without a newline, which this writes and removes again

Who may ask at all, ``protocol.loopback`` decides; besides, the token is needed, and where the platform says whose program is at
the other end of a connection (Linux), it has to be this person's. Keys are asked of the hub as everywhere and kept; while the
hub is away a kept key is given until shortly before it ends, then 503 with the reason. Nothing of a request is logged but its
time, node and outcome.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import BadMessage, BadSetting, Internal, NotAllowed, NotSignedIn, UnknownNode, Unreachable, WioError
from protocol.loopback import MAX_HEADER, ContainerKey, check_caller, hosts, token_of
from protocol.names import shown
from wio import private
from wio.credentials import Key

HOST: Final = "127.0.0.1"
_BAD: Final = 400
_WAIT_S: Final = 10
"""How long a connection may take to say what it wants."""
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_ROOT: Final = 0


class Server(ThreadingHTTPServer):
    """Answers for the nodes in ``keys``: by name, what fetches a key for it. ``note`` is told one line per request.

    Raises BadSetting for a port that is not free. ``token_file`` is there while it listens.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, keys: Mapping[str, Callable[[], Key]], folder: Path, note: Callable[[str], None], *, port: int = 0
    ) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise BadSetting(
                f"Keys cannot be given at {HOST}:{port}: {error.strerror}.", todo="Choose another --port, or none."
            ) from error
        self.keys = keys
        self.note = note
        self.port = int(self.server_address[1])
        self.hosts = hosts(HOST, self.port)
        self.token = secrets.token_urlsafe(32)
        self.token_file = folder / f"{self.port}.token"
        private.write(self.token_file, self.token.encode())  # no newline: boto3 would send it along

    def address(self, node: str) -> str:
        """Return where the keys of a node are given."""
        return f"http://{HOST}:{self.port}/{node}"

    def server_close(self) -> None:
        """Stop listening, and let the token end."""
        super().server_close()
        if "token_file" in vars(self):
            private.remove(self.token_file)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke."""


@contextmanager
def listening(server: Server) -> Iterator[Server]:
    """Close a server when the block ends, however it ends."""
    try:
        yield server
    finally:
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: Server
    timeout = _WAIT_S
    protocol_version = "HTTP/1.1"
    server_version = "wio"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a key or with an error in its JSON form."""
        self.close_connection = True
        node = ""
        try:
            self._check()
            node = self.path.removeprefix("/")
            key = self._key(node)
            ends = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            body: Any = ContainerKey(key.access_key, key.secret_key, key.session_token, ends)
            self._answer(200, body, f"{node}: key {key.access_key}, good until {ends}")
        except WioError as error:
            # 202 would be good news to a tool that wants a key.
            status = error.status if error.status >= _BAD else Unreachable.status
            self._answer(status, error.problem, f"{node or '-'}: {status} {error.message}")
        except Exception as error:  # noqa: BLE001  - whatever it is, the caller gets an answer and the person the kind
            self._answer(Internal.status, Internal("wio failed at this.").problem, f"{node or '-'}: {type(error).__name__}")

    def _key(self, node: str) -> Key:
        if node not in self.server.keys:
            known = ", ".join(sorted(self.server.keys))
            raise UnknownNode(f"There is no {shown(self.path)} here.", todo=f"These nodes are served: {known}.")
        return self.server.keys[node]()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what cannot be read, or is no GET; nothing of it is quoted."""
        del message, explain
        self.close_connection = True
        self._answer(code, BadMessage("There is nothing here but GET /NODE.").problem, f"-: {code} not a request for a key")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  - http.server's own form
        """Leave the lines to ``_answer``."""

    def _check(self) -> None:
        if any(len(name) + len(text) > MAX_HEADER for name, text in self.headers.items()) or len(self.path) > MAX_HEADER:
            raise BadMessage("This request is too long for one that wants a key.")
        headers = tuple(self.headers.items())
        check_caller(headers, self.server.hosts, str(self.client_address[0]), f"http://{HOST}:{self.server.port}")
        uid = owner_of(self.connection)
        if uid is not None and uid not in {os.getuid(), _ROOT}:
            raise NotAllowed("These keys are given to their owner's programs only.")
        if not hmac.compare_digest(token_of(headers).encode(), self.server.token.encode()):
            raise NotSignedIn(
                "The token is missing, or is not the one of this start.", todo=f"It is in {self.server.token_file}."
            )

    def _answer(self, status: int, body: msgspec.Struct, said: str) -> None:
        self.server.note(f"{datetime.now().astimezone():%H:%M:%S} {said}")
        content = msgspec.json.encode(body)
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def owner_of(connection: socket.socket) -> int | None:
    """Return the user id of whoever is at the other end of a TCP connection of this machine; None where nobody says.

    From Linux's table of connections: the other end's line has our two addresses the other way round.
    """
    mine, theirs = connection.getsockname(), connection.getpeername()
    wanted = f"{_hexed(theirs)} {_hexed(mine)}".split()
    for table in _TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            # An IPv4 address of a socket that speaks both ends like the plain one.
            if words[1].endswith(wanted[0]) and words[2].endswith(wanted[1]):
                return int(words[7])
    return None


def _hexed(address: Any) -> str:
    host, port = address[:2]
    [number] = struct.unpack("=I", socket.inet_aton(host))
    return f"{number:08X}:{port:04X}"
