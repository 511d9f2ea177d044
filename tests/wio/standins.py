"""A small hub that really listens, and a node that really seals: what the client library and the command talk to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.api import Credentials, Link, LinkMade, NewCredentials, NewLink, NodeCredential, Opened, Person, SignedIn
from protocol.errors import NotFound, WioError
from protocol.grants import Permission
from protocol.identity import from_text, new_key, public_bytes, to_text
from protocol.sealing import ClearCredential, ClearLink, Context, seal, seal_link

HUB_ADDRESS = "http://127.0.0.1"
ALICE = Person(7, "alice", "alice@lab.example", admin=False, created_at=1_767_225_600_000_000)
SIGNED_IN = SignedIn("token-of-alice", 1_790_000_000_000_000, ALICE)


@dataclass
class SealingNode:
    """A node as far as a client sees it: it seals a key for each request and signs it."""

    name: str = "lab3"
    key: Ed25519PrivateKey = field(default_factory=lambda: new_key(b"n" * 32))
    endpoint: str = "http://127.0.0.1:9000"
    bucket: str = "lab"
    mint: Callable[[int], tuple[str, str, str]] = lambda number: (f"AK{number}", "s/e+c", "TOKEN")
    """Access key, secret and session token of the key with this number."""
    minted: list[NewCredentials] = field(default_factory=list)
    linked: list[NewLink] = field(default_factory=list)
    lives: int = 43_200
    """The longest life it gives, seconds."""
    now: Callable[[], int] = lambda: 0

    def credential(self, asked: NewCredentials, paths: tuple[str, ...] | None = None) -> NodeCredential:
        """Mint, seal and sign."""
        self.minted.append(asked)
        number = len(self.minted)
        client = from_text(asked.client_key)
        expires = self.now() + min(asked.life_s, self.lives)
        clear = ClearCredential(*self.mint(number), expires, self.endpoint, "us-east-1")
        sealed = seal(self.key, Context(3, 7, number, client), clear)
        return NodeCredential(
            node=self.name,
            node_id=3,
            node_key=to_text(public_bytes(self.key)),
            subject=7,
            request=number,
            sealed=to_text(sealed.sealed),
            signature=to_text(sealed.signature),
            expires_at=sealed.expires,
            endpoint=self.endpoint,
            region="us-east-1",
            opens=tuple(self._opened(path) for path in (asked.paths if paths is None else paths)),
        )

    def link(self, asked: NewLink, **signed: Any) -> LinkMade:
        """Sign a link, seal it and sign that; ``signed`` changes what is in it."""
        self.linked.append(asked)
        number = len(self.linked)
        method = "PUT" if asked.put else "GET"
        url = f"{self.endpoint}/{self.bucket}/{quote(asked.path)}?X-Amz-Signature={number:064x}"
        clear = msgspec.structs.replace(ClearLink(method, url, self.now() + asked.life_s), **signed)
        sealed = seal_link(self.key, Context(3, 900 + number, number, from_text(asked.client_key)), clear)
        expires = sealed.expires * 1_000_000
        return LinkMade(
            link=Link(900 + number, "alice", f"alice/{asked.path}", self.name, asked.put, 0, expires),
            node_id=3,
            node_key=to_text(public_bytes(self.key)),
            request=number,
            sealed=to_text(sealed.sealed),
            signature=to_text(sealed.signature),
            expires_at=sealed.expires,
        )

    def answer(self, asked: NewCredentials) -> Credentials:
        """Answer as the hub does when everything lies on this node."""
        return Credentials((self.credential(asked),))

    def _opened(self, path: str) -> Opened:
        workspace, _, rest = path.removeprefix("alice/").partition("/")
        prefix = f"alice/{workspace}/"
        return Opened(path, f"alice/{workspace}", self.bucket, prefix, prefix + rest, Permission.MANAGE)


@dataclass
class Request:
    """What the hub was asked."""

    method: str
    path: str
    query: str
    token: str
    body: bytes


class RecordedHub:
    """An HTTP server on a free port that gives recorded answers, in turn; the last one of a kind goes on being given."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Any]] = {}
        self.asked: list[Request] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                request = Request(self.command, parts.path.removeprefix("/api/v1"), parts.query, token, body)
                hub.asked.append(request)
                status, content = hub.reply(request)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"{HUB_ADDRESS}:{self._server.server_port}"

    def on(self, method: str, path: str, *answers: Any) -> None:
        """Record what is answered: values, bytes as they are, errors, or functions of the request."""
        self.answers[method, path] = list(answers)

    def reply(self, request: Request) -> tuple[int, bytes]:
        """Return status and body."""
        known = self.answers.get((request.method, request.path))
        if not known:
            return self._write(NotFound(f"{request.method} {request.path} is not recorded."))
        answer = known.pop(0) if len(known) > 1 else known[0]
        return self._write(answer(request) if callable(answer) else answer)

    @staticmethod
    def _write(answer: Any) -> tuple[int, bytes]:
        if isinstance(answer, WioError):
            return answer.status, msgspec.json.encode(answer.problem)
        if isinstance(answer, bytes):
            return 200, answer
        return 200, b"" if answer is None else msgspec.json.encode(answer)

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
