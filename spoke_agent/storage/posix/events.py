"""What the gateway reports of writes: who wrote what. Hints and attribution only: it loses some, and nothing relies on it.

It asks for no answer but a short one, does not start while nobody listens, and does not say whether a delete was refused.
"""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from protocol.errors import StorageUnreachable
from protocol.messages import RootConfig
from protocol.names import Place, in_root
from spoke_agent.storage.node import Call, Hint

MAX_BODY: Final = 64 * 1024
"""Bytes of one event; it has some 1,000."""
DONE: Final = 200
_OPERATIONS: Final = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "PostObject",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "s3:ObjectRemoved:Delete": "DeleteObject",
    "s3:ObjectRemoved:DeleteObjects": "DeleteMultipleObjects",
}
"""Named as the other kind of node names them."""
_UNSURE: Final = frozenset({"DeleteObject", "DeleteMultipleObjects"})
"""Reported also where they were refused."""
_BODY: Final = frozenset({"s3:ObjectRemoved:DeleteObjects"})
"""Their keys come from the body of a request; all others from its path, as it was sent."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Keyed(msgspec.Struct, frozen=True):
    key: str = ""


class _S3(msgspec.Struct, frozen=True):
    bucket: _Named = _Named()
    object: _Keyed = _Keyed()


class _Identity(msgspec.Struct, frozen=True):
    access_key: str = msgspec.field(default="", name="PrincipalId")


class Record(msgspec.Struct, frozen=True):
    """The part of an event that is used."""

    name: str = msgspec.field(default="", name="eventName")
    time: str = msgspec.field(default="", name="eventTime")
    identity: _Identity = msgspec.field(default=_Identity(), name="userIdentity")
    s3: _S3 = _S3()


class _Event(msgspec.Struct, frozen=True):
    records: tuple[Record, ...] = msgspec.field(default=(), name="Records")


_DECODE: Final = msgspec.json.Decoder(_Event)


class Events:
    """Listens on loopback for as long as the gateway may run; passes on what it hears while somebody watches.

    ``token`` stands in the address that the gateway is given. ``holder`` gives the Holder behind an access key; empty: none.
    """

    def __init__(self, token: str, *, holder: Callable[[str], str], clock: Callable[[], int]) -> None:
        self._token = token
        self._holder = holder
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._watchers: list[_Watcher] = []
        self.received = 0
        """Events taken in so far."""
        self.refused = 0
        """Deliveries without the token."""

    async def start(self) -> str:
        """Listen on a free port of this machine; return the address for the gateway. Raises StorageUnreachable."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/{token}", self._deliver)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise StorageUnreachable(f"The agent cannot listen for the gateway's events: {error.strerror}.") from None
        port: int = self._runner.addresses[0][1]
        return f"http://127.0.0.1:{port}/{self._token}"

    async def stop(self) -> None:
        """Stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def watch(
        self,
        roots: Callable[[], Sequence[RootConfig]],
        hint: Callable[[Hint], None],
        call: Callable[[Call], None],
    ) -> _Watcher:
        """Pass everything on from now on, until ``unwatch``."""
        watcher = _Watcher(roots, hint, call)
        self._watchers.append(watcher)
        return watcher

    def unwatch(self, watcher: _Watcher) -> None:
        """Pass nothing more on to this one."""
        self._watchers.remove(watcher)

    async def _deliver(self, request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.match_info["token"].encode(), self._token.encode()):
            self.refused += 1
            return web.Response(status=403)
        try:
            event = _DECODE.decode(await request.read())
        except (msgspec.MsgspecError, UnicodeDecodeError, web.HTTPRequestEntityTooLarge):
            return web.Response()
        for record in event.records:
            self.received += 1
            for watcher in self._watchers:
                self._pass_on(record, watcher)
        return web.Response()

    def _pass_on(self, record: Record, watcher: _Watcher) -> None:
        operation = _OPERATIONS.get(record.name)
        if operation is None:
            return
        person = self._holder(record.identity.access_key)
        key = record.s3.object.key if record.name in _BODY else unquote(record.s3.object.key)
        place = Place(record.s3.bucket.name, key)
        for root in watcher.roots():
            inside = in_root(root.layout, root.bucket, root.prefix, place)
            if not inside:
                continue
            watcher.hint(Hint(root.root, inside, actor=person))
            if person and operation not in _UNSURE:
                at = _microseconds(record.time) or self._clock()
                watcher.call(Call(root.root, inside, person, operation, DONE, at, record.identity.access_key))


class _Watcher(msgspec.Struct, frozen=True, eq=False):
    roots: Callable[[], Sequence[RootConfig]]
    hint: Callable[[Hint], None]
    call: Callable[[Call], None]


def _microseconds(text: str) -> int:
    """Read the gateway's time, which has whole seconds; 0 where it is none."""
    try:
        return max(0, (dt.datetime.fromisoformat(text) - _EPOCH) // dt.timedelta(microseconds=1))
    except (ValueError, TypeError):
        return 0
