"""Keeping the server's audit stream pointed here (4-storage: the audit webhook, set without a restart)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from protocol.errors import WioError
from spoke_agent.storage.admin import Admin
from spoke_agent.storage.batching import Batching
from spoke_agent.storage.receiver import Reader, Receiver
from spoke_agent.storage.s3 import S3

BEAT_S: Final = 15.0
"""How often the audit stream is checked for life."""
ANSWER_S: Final = 5.0
"""How long an audit event of the agent's own may take."""


class Listening(msgspec.Struct, frozen=True):
    """Where the audit webhook reaches the agent. ``url`` is what the server is told, where that is not ``host:port``."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    url: str = ""


class Stream:
    """The server's audit events on their way to a reader. ``target`` is the setting that sends them, ``token`` their pass."""

    def __init__(self, admin: Admin, s3: S3, *, target: str, token: str, listening: Listening) -> None:
        self._admin = admin
        self._s3 = s3
        self._target = target
        self._token = token
        self._listening = listening
        self.batching = Batching()

    async def run(self, reader: Reader, pause: Callable[[float], Awaitable[None]]) -> None:
        """Receive until cancelled; the server is then told to send no more. Raises StorageUnreachable, StorageRefused."""
        receiver = Receiver(reader, self._token)
        port = await receiver.start(self._listening.host, self._listening.port)
        try:
            await self.point_at(port)
            reader.all_dirty()  # what was done before, nobody heard
            while True:
                await pause(BEAT_S)
                await self.check(reader, receiver, port)
                await self.adapt(reader, receiver, port)
        finally:
            with contextlib.suppress(WioError, TimeoutError):
                await asyncio.wait_for(self._admin.drop_config(self._target), ANSWER_S)
            await receiver.stop()

    async def check(self, reader: Reader, receiver: Receiver, port: int) -> bool:
        """Make an audit event and see that it comes; else point the server here again. Say whether all was well.

        A server that was restored or whose settings were reset has forgotten where to send: what it did meanwhile is lost,
        so every root is hinted as a whole.
        """
        came = receiver.expect()
        try:
            await self._s3.buckets()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), ANSWER_S)
                return True
            await self.point_at(port)
        except WioError:
            return False  # it does not answer at all: the next beat asks again
        reader.all_dirty()
        return False

    async def adapt(self, reader: Reader, receiver: Receiver, port: int) -> bool:
        """Have the server send as many events at once as suits their rate; say whether that was changed.

        Events may be lost over a change, so every root is hinted as a whole after it.
        """
        now = asyncio.get_running_loop().time()
        before, size = self.batching.size, self.batching.look(receiver.received, now)
        if size is None:
            return False
        self.batching.change(size, now)
        try:
            await self.point_at(port)
        except WioError:
            self.batching.size = before  # the server says no, or nothing: it is asked again when a size has to last no longer
            return False
        finally:
            reader.all_dirty()
        return True

    async def point_at(self, port: int) -> None:
        """Tell the server to send its audit events to this port, as many at once as suits their rate."""
        host = self._listening.host
        url = self._listening.url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
        await self._admin.set_config(
            f'{self._target} endpoint="{url.rstrip("/")}/audit" auth_token="{self._token}" batch_size={self.batching.size}'
        )
