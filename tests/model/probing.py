"""Many real S3 requests in little time: signed once, sent one behind the other over a few connections that stay open.

The signatures are made here, by AWS's public description of Signature Version 4, so that the people's keys are used as any tool
uses them: in the ``Authorization`` header, and in presigned links that are kept and tried for as long as their key lives.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.model.reference import Op, Place

EMPTY = hashlib.sha256(b"").hexdigest()
REGION = "us-east-1"
LINK_S = 7 * 86_400
CONNECTIONS = 4
MARKER = "marker.txt"
METHODS = {Op.GET: "GET", Op.LIST: "GET", Op.PUT: "PUT", Op.DELETE: "DELETE", Op.OWN: "PUT"}


@dataclass(frozen=True)
class Key:
    """A key in somebody's hand. ``only``: narrowed to reading; ``within``: to these places (None: everything)."""

    who: str
    label: str
    access_key: str
    secret_key: str
    token: str
    expires: int
    only_reading: bool = False
    within: Place | None = None
    _links: dict[tuple[Place, Op], bytes] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Try:
    """One request: who tries what where, and whether with a link that was made from the key when it was new."""

    key: Key
    place: Place
    op: Op
    link: bool

    def __str__(self) -> str:
        how = "link" if self.link else "key"
        return f"{self.op} by {self.key.who} ({how} {self.key.label}) at {self.place.bucket}/{self.place.prefix}"


def _target(who: str, place: Place, op: Op) -> tuple[str, list[tuple[str, str]]]:
    if op is Op.LIST:
        return f"/{place.bucket}/", [("list-type", "2"), ("max-keys", "1"), ("prefix", place.prefix)]
    name = {Op.GET: MARKER, Op.OWN: f"{who}/scratch"}.get(op, f"scratch-{who}")
    return f"/{place.bucket}/{quote(place.prefix + name, safe='/-_.~')}", []


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    return "&".join(sorted(f"{name}={quote(value, safe='-_.~')}" for name, value in pairs))


def _signature(secret: str, stamp: str, scope: str, canonical: str) -> str:
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"),):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _stamp(now: float) -> tuple[str, str]:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return stamp, f"{stamp[:8]}/{REGION}/s3/aws4_request"


def _link(host: str, one: Try) -> bytes:
    """Return a presigned request, made once for each key, place and operation."""
    key = one.key
    kept = key._links.get((one.place, one.op))
    if kept is None:
        method, (path, query) = METHODS[one.op], _target(key.who, one.place, one.op)
        stamp, scope = _stamp(time.time())
        pairs = [
            *query,
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{key.access_key}/{scope}"),
            ("X-Amz-Date", stamp),
            ("X-Amz-Expires", str(LINK_S)),
            ("X-Amz-Security-Token", key.token),
            ("X-Amz-SignedHeaders", "host"),
        ]
        canonical = f"{method}\n{path}\n{_query(pairs)}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        address = f"{path}?{_query(pairs)}&X-Amz-Signature={_signature(key.secret_key, stamp, scope, canonical)}"
        kept = f"{method} {address} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
        key._links[one.place, one.op] = kept
    return kept


def _signed(host: str, one: Try) -> bytes:
    """Return a request signed in its header, just now."""
    key, method, (path, query) = one.key, METHODS[one.op], _target(one.key.who, one.place, one.op)
    stamp, scope = _stamp(time.time())
    names = "host;x-amz-content-sha256;x-amz-date;x-amz-security-token"
    lines = f"host:{host}\nx-amz-content-sha256:{EMPTY}\nx-amz-date:{stamp}\nx-amz-security-token:{key.token}\n"
    canonical = f"{method}\n{path}\n{_query(query)}\n{lines}\n{names}\n{EMPTY}"
    signature = _signature(key.secret_key, stamp, scope, canonical)
    authorization = f"AWS4-HMAC-SHA256 Credential={key.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    headers = {
        "Host": host,
        "Content-Length": "0",
        "X-Amz-Date": stamp,
        "X-Amz-Content-Sha256": EMPTY,
        "X-Amz-Security-Token": key.token,
        "Authorization": authorization,
    }
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path}{'?' if query else ''}{_query(query)} HTTP/1.1\r\n{said}\r\n".encode()


class _Line:
    """One connection that stays open."""

    def __init__(self, host: str) -> None:
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, requests: Sequence[bytes]) -> None:
        self._socket.sendall(b"".join(requests))

    def receive(self) -> tuple[int, bytes]:
        first = self._file.readline()
        if not first:
            raise ConnectionError("The storage server closed the connection.")
        status, length, chunked = int(first.split()[1]), 0, False
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"transfer-encoding":
                chunked = True
        if not chunked:
            return status, self._file.read(length)
        body = b""
        while size := int(self._file.readline(), 16):
            body += self._file.read(size)
            self._file.readline()
        self._file.readline()
        return status, body

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class NotReady(Exception):
    """The storage server has just started and does not know its users yet."""


class Prober:
    """Tries keys against one storage server."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._lines: list[_Line] = []
        self.tried = 0

    def close(self) -> None:
        for line in self._lines:
            line.close()
        self._lines = []

    def answer(self, one: Try) -> str:
        """Return what the server says to one try, for a failure's report."""
        line = _Line(self._host)
        try:
            line.send([(_link if one.link else _signed)(self._host, one)])
            status, body = line.receive()
        finally:
            line.close()
        return f"{status} {body[:400].decode(errors='replace')}"

    def statuses(self, tries: Sequence[Try]) -> list[bool]:
        """Return for each try whether it was let through; raise AssertionError for an answer that is neither yes nor no.

        Raises NotReady where the server says that it is not.
        """
        while len(self._lines) < CONNECTIONS:
            self._lines.append(_Line(self._host))
        found: list[bool] = [False] * len(tries)
        dealt = [range(number, len(tries), CONNECTIONS) for number in range(CONNECTIONS)]
        for line, numbers in zip(self._lines, dealt, strict=True):
            line.send([(_link if tries[one].link else _signed)(self._host, tries[one]) for one in numbers])
        for line, numbers in zip(self._lines, dealt, strict=True):
            for one in numbers:
                status, body = line.receive()
                if status == 503 and b"IAMNotInitialized" in body:
                    self.close()
                    raise NotReady
                if status not in {200, 204, 403} or (status == 403 and b"AccessDenied" not in body):
                    raise AssertionError(f"{tries[one]} was answered with {status}: {body[:300]!r}")
                found[one] = status != 403
        self.tried += len(tries)
        return found
