"""The other end of MinIO's audit webhook: HTTP on loopback in, hints and calls out.

Answers at once: the server holds its next event back until then. What comes in is parsed afterwards, bounded, and thrown
away: an audit entry repeats session tokens and signatures, so nothing of it is ever logged or kept.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hmac
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
from aiohttp import web

from protocol.errors import StorageUnreachable
from protocol.messages import RootConfig
from protocol.names import Place, in_root
from spoke_agent.storage.node import Call, Hint

MAX_BODY: Final = 8 * 1024 * 1024
"""Bytes of one delivery: a DeleteMultipleObjects of 1,000 long names has some 2 MB, a batch of 100 events less than 1 MB."""
MAX_WAITING: Final = 64 * 1024 * 1024
"""Bytes received and not yet parsed. Beyond that deliveries are dropped and every root is hinted as a whole."""
SLICE: Final = 64
"""Deliveries parsed before others in this process get their turn."""

_UNCHANGED: Final = frozenset(
    {"NewMultipartUpload", "PutObjectPart", "CopyObjectPart", "AbortMultipartUpload", "SelectObjectContent"}
)
"""Calls that are not named Get, Head or List and still change no object."""
_WHOLE: Final = frozenset({"DeleteBucket", "PutObjectExtract"})
"""Calls that change more objects than they name."""
_FORCE: Final = "X-Minio-Force-Delete"
"""A DELETE with this header purges everything below the key that it names."""
_FAILED: Final = 400
_REDIRECTS: Final = range(300, 400)
_FORM: Final = "PostPolicyBucket"
"""An upload with a signed form, as browsers make it."""
_NOTED: Final = re.compile(r"name=(.+),pool=\d+,set=\d+\Z", re.DOTALL)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class _Name(msgspec.Struct, frozen=True):
    name: str = msgspec.field(default="", name="objectName")


class _Api(msgspec.Struct, frozen=True):
    name: str = ""
    bucket: str = ""
    object: str = ""
    objects: tuple[_Name, ...] = ()
    status: int = msgspec.field(default=0, name="statusCode")


class Entry(msgspec.Struct, frozen=True):
    """The part of an audit entry that is used; the rest is not even decoded."""

    api: _Api = _Api()
    path: str = msgspec.field(default="", name="requestPath")
    headers: dict[str, str] = msgspec.field(default={}, name="requestHeader")
    parent: str = msgspec.field(default="", name="parentUser")
    access_key: str = msgspec.field(default="", name="accessKey")
    time: str = ""
    tags: dict[str, object] | None = None
    answer: dict[str, str] | None = msgspec.field(default=None, name="responseHeader")

    def __repr__(self) -> str:
        return f"Entry({self.api.name})"


_DECODE = msgspec.json.Decoder(Entry)


def changes(entry: Entry) -> bool:
    """Say whether a call may have changed an object. Calls this agent does not know count as changes."""
    name = entry.api.name
    return entry.api.status < _FAILED and name not in _UNCHANGED and not name.startswith(("Get", "Head", "List"))


def places(entry: Entry) -> list[Place]:
    """Return the objects that a call was about.

    For copies the server names the *source* as the object; the target is in the path of the request (4-storage). For an
    upload with a form it names none: the key is in what it noted of its own work, and in where it says the object lies.
    """
    api = entry.api
    if not api.bucket:
        return []
    if api.objects:
        return [Place(api.bucket, one.name) for one in api.objects if one.name]
    if api.name.startswith("Copy"):
        bucket, slash, key = entry.path.lstrip("/").partition("/")
        return [Place(bucket, key)] if slash and key else []
    if api.name == _FORM:
        uploaded = _uploaded(entry)
        return [Place(api.bucket, uploaded)] if uploaded else []
    return [Place(api.bucket, api.object)] if api.object else []


def _uploaded(entry: Entry) -> str:
    """Return the key of an upload with a form; empty where the entry does not say it."""
    noted = (entry.tags or {}).get("PutObject")
    if isinstance(noted, str) and (found := _NOTED.match(noted)):
        return found[1]
    if entry.api.status in _REDIRECTS:
        return ""  # the address in the answer is the uploader's
    path = urlsplit((entry.answer or {}).get("Location", "")).path
    start = f"/{entry.api.bucket}/"
    return unquote(path[len(start) :]) if path.startswith(start) else ""


def _microseconds(text: str) -> int:
    """Read the server's time; 0 where it is none. Nanoseconds are cut off."""
    try:
        return max(0, (dt.datetime.fromisoformat(text) - _EPOCH) // dt.timedelta(microseconds=1))
    except (ValueError, TypeError):
        return 0


class Reader:
    """Turns audit entries into hints and calls. ``holder`` gives the Holder's name behind a storage user; empty if not ours."""

    def __init__(
        self,
        roots: Callable[[], Sequence[RootConfig]],
        hint: Callable[[Hint], None],
        call: Callable[[Call], None],
        holder: Callable[[str], str],
        clock: Callable[[], int],
    ) -> None:
        self._roots = roots
        self._hint = hint
        self._call = call
        self._holder = holder
        self._clock = clock
        self.unreadable = 0
        """Entries that were not what an audit entry is."""

    def read(self, body: bytes) -> int:
        """Take in one delivery, an entry per line; return how many there were."""
        count = 0
        for line in body.splitlines():
            if not line.strip():
                continue
            count += 1
            try:
                entry = _DECODE.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.unreadable += 1
                continue
            self.take(entry)
        return count

    def take(self, entry: Entry) -> None:
        """Report one entry to every root that it touches."""
        person = self._holder(entry.parent) if entry.parent else ""
        changed = changes(entry)
        if not changed and not person:
            return
        named = places(entry)
        if changed and (entry.api.name in _WHOLE or (entry.api.name == _FORM and not named)):
            self._bucket_changed(entry.api.bucket)
        at = _microseconds(entry.time) or self._clock()
        for place in named:
            for root in self._roots():
                key = in_root(root.layout, root.bucket, root.prefix, place)
                if not key:
                    continue
                if changed:
                    self._hint(Hint(root.root, key, actor=person))
                if changed and _FORCE in entry.headers:
                    self._hint(Hint(root.root, key.rstrip("/") + "/", folder=True))
                if person:
                    self._call(Call(root.root, key, person, entry.api.name, entry.api.status, at, entry.access_key))

    def _bucket_changed(self, bucket: str) -> None:
        for root in self._roots():
            folder = in_root(root.layout, root.bucket, root.prefix, Place(bucket, root.prefix))
            if folder is not None:
                self._hint(Hint(root.root, folder, folder=True))

    def all_dirty(self) -> None:
        """Something was lost: everything may have changed."""
        for root in self._roots():
            self._hint(Hint(root.root, "", folder=True))


class Receiver:
    """The HTTP side. ``token`` is what the server has to show; a delivery without it is refused and counted."""

    def __init__(self, reader: Reader, token: str) -> None:
        self._reader = reader
        self._expected = (token.encode(), f"Bearer {token}".encode())
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self._arrived = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._parsing: asyncio.Task[None] | None = None
        self.received = 0
        """Entries taken in so far."""
        self.refused = 0
        """Deliveries without the token."""
        self.lost = 0
        """Deliveries there was no room for."""

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises StorageUnreachable if the address is not free."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/audit", self._deliver)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise StorageUnreachable(
                f"The agent cannot listen on {host}:{port} for the storage server's audit events: {error.strerror}.",
                todo="Choose another receiver address.",
            ) from None
        self._parsing = asyncio.create_task(self._parse())
        addresses: list[tuple[str, int]] = self._runner.addresses
        return addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._parsing is not None:
            self._parsing.cancel()
            await asyncio.gather(self._parsing, return_exceptions=True)
            self._parsing = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _deliver(self, request: web.Request) -> web.Response:
        # Some builds send the token as it is, others as a bearer token.
        shown = request.headers.get("Authorization", "").encode(errors="replace")
        if not any(hmac.compare_digest(shown, expected) for expected in self._expected):
            self.refused += 1
            return web.Response(status=403)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            # Refused, the server would send it again and again and hold back everything behind it.
            self._reader.all_dirty()
            return web.Response()
        if self._bytes + len(body) > MAX_WAITING:
            self.lost += 1
            if self.lost == 1 or self.lost % 1000 == 0:
                self._reader.all_dirty()
        else:
            self._bytes += len(body)
            self._waiting.append(body)
        self._came.set()
        self._arrived.set()
        return web.Response()

    async def _parse(self) -> None:
        while True:
            await self._came.wait()
            if not self.parse_some():
                self._came.clear()
            await asyncio.sleep(0)

    def parse_some(self) -> bool:
        """Parse up to ``SLICE`` deliveries; say whether more are waiting."""
        for _ in range(min(SLICE, len(self._waiting))):
            body = self._waiting.popleft()
            self._bytes -= len(body)
            self.received += self._reader.read(body)
        if not self._waiting and self.lost:
            # What was dropped may have come after the last hint for everything: say it once more, now that there is room.
            self.lost = 0
            self._reader.all_dirty()
        return bool(self._waiting)

    def expect(self) -> asyncio.Event:
        """Return an event that the next delivery sets."""
        self._arrived.clear()
        return self._arrived
