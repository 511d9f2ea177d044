"""Signed HTTP to one storage server: one pool of living connections, one place where its answers become our errors.

Knows nothing of buckets or admin calls. No error made here carries a secret: what a request held is never repeated, of an
answer only the server's own code and sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from protocol.errors import BadEndpoint, DiskFull, Internal, StorageRefused, StorageUnreachable, WioError
from protocol.names import shown
from spoke_agent.storage.sigv4 import EMPTY_HASH, Key, Signable, Signer, amz_date, quoted_path, quoted_query

Query = Sequence[tuple[str, str]]

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of one answer: a page of a listing has some 3 MB at most, the list of 10,000 policies some 40 MB."""
CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
"""How long the server may be silent before an answer goes on: a listing can take long to begin."""
CONNECTIONS: Final = 64
KEEP_ALIVE_S: Final = 20.0
MAX_SOCKET: Final = 100
"""Bytes in the path of a Unix socket: the kernel's limit is 107."""
"""Below the 30 s after which MinIO lets go of an idle connection."""

_FULL: Final = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})
_STARTING: Final = frozenset({"XMinioServerNotInitialized", "ServerNotInitialized"})
"""For some 100 ms after a server says that it is healthy, it does not know its users yet."""
_BUSY: Final = frozenset({502, 503, 504, 429})
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,80})</Code>")
_WORDS = re.compile(rb"<Message>([^<]{1,300})</Message>")


class Reply(msgspec.Struct, frozen=True):
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - that is what 2xx means

    @property
    def code(self) -> str:
        """The server's own word for what went wrong, such as ``AccessDenied``; empty where it gave none."""
        return self._find(_CODE, "Code")

    @property
    def words(self) -> str:
        """The server's own sentence, made safe to print; empty where it gave none."""
        return shown(self._find(_WORDS, "Message"), 300)

    def _find(self, pattern: re.Pattern[bytes], name: str) -> str:
        head = self.body[:4096]
        found = pattern.search(head)
        if found is not None:
            return found.group(1).decode(errors="replace")
        try:
            value = json.loads(head)[name]
        except (ValueError, KeyError, TypeError):
            return ""
        return value[:300] if isinstance(value, str) else ""


def refusal(reply: Reply, what: str, *, secret: bool = False) -> WioError:
    """Return the error for an answer that is not the one hoped for; ``what`` completes "The storage server refused to …".

    ``secret``: the request held one, and the server's sentence may repeat it, so only its code is given.
    """
    reason = f"{reply.code or 'no code'}, HTTP {reply.status}"
    if reply.code in _FULL or reply.status == 507:  # noqa: PLR2004 - Insufficient Storage
        return DiskFull(f"The storage server has no room left to {what} ({reason}).", todo="Free some space on it.")
    if reply.code in _STARTING:
        return StorageUnreachable(f"The storage server is still starting and cannot {what} yet ({reason}).")
    if reply.status in _BUSY:
        return StorageUnreachable(f"The storage server is too busy to {what} ({reason}).")
    words = f": {reply.words}" if reply.words != shown("") and not secret else ""
    return StorageRefused(f"The storage server refused to {what} ({reason}){words}.")


def check_url(url: str) -> str:
    """Return the address of a storage server without a final slash; raise BadEndpoint if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadEndpoint(f"{shown(url)} is not the address of a storage server.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise BadEndpoint(
            f"{shown(url)} is not the address of a storage server.", todo="Give http://host:port or https://host."
        )
    if parts.path not in {"", "/"} or port == 0:
        raise BadEndpoint(f"{shown(url)} names a path; an S3 server lies at the top of its address.")
    return url.rstrip("/")


class Connection:
    """Signed requests to one server. ``clock`` gives Unix microseconds. Safe for concurrent use once open.

    ``socket``: the Unix socket it is reached at, whatever host the address names; its folder is there before ``open``.
    """

    def __init__(
        self, url: str, *, region: str, clock: Callable[[], int], trust: ssl.SSLContext | None = None, socket: str = ""
    ) -> None:
        self.url = check_url(url)
        self.region = region
        self.clock = clock
        self._trust = trust
        self._socket = socket
        self._folder: int | None = None
        self._host = urlsplit(self.url).netloc
        self._signer = Signer(region)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready; nothing is sent."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket:
            return aiohttp.UnixConnector(self._short(), limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)
        trust = True if self._trust is None else self._trust
        return aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S, ssl=trust)

    def _short(self) -> str:
        """Return a path of the socket that is short enough for the kernel: through its open folder, where it is not itself."""
        if len(os.fsencode(self._socket)) <= MAX_SOCKET:
            return self._socket
        folder, name = os.path.split(self._socket)
        if self._folder is None:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{name}"

    async def close(self) -> None:
        """Let go of all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)

    async def ask(
        self,
        key: Key,
        method: str,
        path: str,
        query: Query = (),
        body: bytes = b"",
        *,
        service: str = "s3",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one signed request and return the answer, whatever its status.

        A connection that broke in the middle is tried once more: every request the agent makes may be repeated.
        Raises StorageUnreachable, and StorageRefused for an answer without end.
        """
        now_s = self.clock() // 1_000_000
        body_hash = hashlib.sha256(body).hexdigest() if body else EMPTY_HASH
        signed = {"host": self._host, "x-amz-content-sha256": body_hash, "x-amz-date": amz_date(now_s), **(headers or {})}
        if key.session_token:
            signed["x-amz-security-token"] = key.session_token
        request = Signable(method, quoted_path(path), quoted_query(query), signed, body_hash)
        sent = {**signed, "authorization": self._signer.sign(key, service, request, now_s), "accept-encoding": "identity"}
        try:
            return await self._send(request, sent, body)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
            pass
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from None
        try:
            return await self._send(request, sent, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from None

    async def _send(self, request: Signable, headers: Mapping[str, str], body: bytes) -> Reply:
        if self._session is None:
            raise Internal("The storage connection was used before it was opened.")
        address = URL(f"{self.url}{request.path}{'?' + request.query if request.query else ''}", encoded=True)
        sending = self._session.request(request.method, address, data=body or None, headers=headers, allow_redirects=False)
        async with sending as answer:
            return Reply(answer.status, answer.headers, await _read(answer))

    def _unreachable(self, error: BaseException) -> StorageUnreachable:
        """Name the failure by its kind only: the text of some client errors repeats headers."""
        if isinstance(error, TimeoutError):
            reason = "it did not answer in time"
        elif isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            reason = "its certificate is not trusted here"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = "the connection broke"
        return StorageUnreachable(f"The storage server at {self.url} cannot be reached: {reason}.", todo="Check that it runs.")


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    if (answer.content_length or 0) <= MAX_ANSWER and answer.content_length is not None:
        return await answer.read()
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > MAX_ANSWER:
            raise StorageRefused(f"The storage server's answer has more than {MAX_ANSWER >> 20} MB.")
        parts.append(part)
    return b"".join(parts)
