"""A wire that can be bad: a TCP proxy on loopback, before a hub, a storage server, or a database.

It runs in a thread of its own and is stopped by its own handle. What goes wrong is armed beforehand (``Trouble``: after so
many bytes or WebSocket frames, in the middle of the next) or happens to everybody from now on (``delay_s``, ``rate``,
``silent``, ``refuse``, ``cut_all``). Whatever it does it counts, so a test can tell that its fault really happened.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

CHUNK: Final = 65_536
ANSWER_S: Final = 10.0
_HEAD_END: Final = b"\r\n\r\n"


class Way(enum.Enum):
    """Which way bytes go."""

    UP = "up"
    """From whoever connected: the agent, or the hub where the server is its database."""
    DOWN = "down"


class Act(enum.Enum):
    """What goes wrong with a connection."""

    CUT = "cut"
    """Both ends see a reset."""
    CORRUPT = "corrupt"
    """One byte arrives as another one."""
    SILENCE = "silence"
    """Nothing goes either way any more, and nobody is told."""


@dataclass
class Trouble:
    """Let so many whole frames, or bytes, through from now on; then act, ``into`` the next frame (0: its start, 1: its end)."""

    act: Act
    way: Way = Way.UP
    frames: int | None = None
    bytes: int | None = None
    into: float = 0.5
    least: int = 0
    """Frames shorter than this are let through uncounted: an import's batches are larger than pings and health."""


@dataclass
class Segment:
    """Bytes of one frame, where in it they begin, and how long it is; ``length`` 0 where there are no frames."""

    data: bytes
    start: int = 0
    length: int = 0

    @property
    def end(self) -> int:
        """Where in the frame it ends."""
        return self.start + len(self.data)


class Frames:
    """Cuts a stream into its WebSocket frames (RFC 6455, 5.2), once the HTTP head is through."""

    def __init__(self) -> None:
        self._open = False
        self._held = b""
        self._length = 0
        self._at = 0

    def feed(self, data: bytes) -> Iterator[Segment]:
        """Yield what came in pieces of one frame each; the first bytes of a frame wait until its length is known."""
        data, self._held = self._held + data, b""
        if not self._open:
            head, end, rest = data.partition(_HEAD_END)
            if not end:
                self._held = data
                return
            self._open = True
            yield Segment(head + end)
            data = rest
        while data:
            if self._at == self._length:
                length = _length(data)
                if length is None:
                    self._held = data
                    return
                self._at, self._length = 0, length
            piece = data[: self._length - self._at]
            data = data[len(piece) :]
            yield Segment(piece, self._at, self._length)
            self._at += len(piece)


def _length(data: bytes) -> int | None:
    """Return how long the frame is that begins here, its head included; None where too little of it has come."""
    if len(data) < 2:
        return None
    mask, size, head = 4 * (data[1] >> 7), data[1] & 0x7F, 2
    if size >= 126:
        head = 4 if size == 126 else 10
        if len(data) < head:
            return None
        size = int.from_bytes(data[2:head], "big")
    return head + mask + size


@dataclass(eq=False)
class _Pair:
    """One connection and the one behind it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    def abort(self) -> None:
        for writer in (self.client, self.server):
            with suppress(OSError, AttributeError):
                # No lingering: the other end gets a reset, as when a machine in between has forgotten the connection.
                raw = writer.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()


class Wire:
    """Stands before ``127.0.0.1:target``. ``web``: cut the streams into WebSocket frames, so that frames can be counted."""

    def __init__(self, target: int, *, web: bool = False) -> None:
        self.target = target
        self.port = 0
        self.counted: Counter[str] = Counter()
        """``connections``, ``frames-up``, ``bytes-down``, ``cut``, ``corrupt``, ``silence``, ``refused`` …"""
        self.delay_s = 0.0
        """How long each piece waits."""
        self.rate = 0
        """Bytes a second and way that get through; 0: all."""
        self._web = web
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._armed: deque[Trouble] = deque()
        self._silent = False

    # -------------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        self._thread.start()
        self._ask(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._ask(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_S)
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(ANSWER_S)

    def _do(self, work: Callable[[], object]) -> None:
        async def done() -> None:
            work()

        self._ask(done())

    async def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        listening.bind(("127.0.0.1", self.port))
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=CHUNK, backlog=2048)
        self.port = listening.getsockname()[1]

    async def _end(self) -> None:
        await self._deaf()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deaf(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for pair in list(self._pairs):
            pair.abort()

    # -------------------------------------------------------------------------------------------------- what goes wrong

    def arm(self, *troubles: Trouble) -> None:
        """Let these happen, one after the other, each counted from when it is first in the line."""
        self._do(lambda: self._armed.extend(troubles))

    @property
    def armed(self) -> int:
        """How many have yet to happen."""
        return len(self._armed)

    def cut_all(self) -> None:
        """Cut every connection there is."""
        self._do(lambda: [self._cut(pair) for pair in list(self._pairs)])

    def refuse(self) -> None:
        """Cut everything, and refuse connections, until ``heal``."""
        self._ask(self._deaf())

    def silence(self) -> None:
        """Accept, and say nothing; what was connected hears nothing any more either. Until ``heal``."""

        def work() -> None:
            self._silent = True
            for pair in self._pairs:
                pair.silent.set()
            self.counted["silence"] += 1

        self._do(work)

    def heal(self) -> None:
        """Be a good wire again. What was silent is cut: nobody could tell where it stopped."""
        self.delay_s, self.rate = 0.0, 0

        async def work() -> None:
            self._armed.clear()
            self._silent = False
            for pair in list(self._pairs):
                if pair.silent.is_set():
                    pair.abort()
            if self._server is None:
                await self._listen()

        self._ask(work())

    def _cut(self, pair: _Pair) -> None:
        self.counted["cut"] += 1
        pair.abort()

    # -------------------------------------------------------------------------------------------------- passing on

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.counted["connections"] += 1
        pair: _Pair | None = None
        try:
            back, server = await asyncio.open_connection("127.0.0.1", self.target, limit=CHUNK)
            pair = _Pair(writer, server)
            self._pairs.add(pair)
            if self._silent:
                pair.silent.set()
            ways = [
                asyncio.create_task(self._copy(pair, Way.UP, reader, server)),
                asyncio.create_task(self._copy(pair, Way.DOWN, back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            self.counted["refused"] += pair is None
        finally:
            self._tasks.discard(task)
            if pair is not None:
                self._pairs.discard(pair)
                pair.abort()
            writer.transport.abort()

    async def _copy(self, pair: _Pair, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames() if self._web else None
        while data := await reader.read(CHUNK):
            for segment in frames.feed(data) if frames is not None else [Segment(data)]:
                await self._pass(pair, way, segment, writer)
        writer.write_eof()

    async def _pass(self, pair: _Pair, way: Way, segment: Segment, writer: asyncio.StreamWriter) -> None:
        if self.delay_s or self.rate:
            await asyncio.sleep(self.delay_s + (len(segment.data) / self.rate if self.rate else 0.0))
        if pair.silent.is_set():
            await asyncio.Event().wait()
        point = self._point(way, segment)
        act = self._armed.popleft().act if point is not None else None
        if act is Act.CORRUPT and point is not None:
            self.counted["corrupt"] += 1
            spoilt = bytearray(segment.data)
            spoilt[min(point, len(spoilt) - 1)] ^= 0x41
            segment = Segment(bytes(spoilt), segment.start, segment.length)
            act = None
        data = segment.data if act is None else segment.data[:point]
        self.counted[f"bytes-{way.value}"] += len(data)
        self.counted[f"frames-{way.value}"] += segment.length > 0 and segment.end == segment.length
        writer.write(data)
        await writer.drain()
        if act is Act.SILENCE:
            self.counted["silence"] += 1
            pair.silent.set()
            await asyncio.Event().wait()
        if act is Act.CUT:
            self.counted["cut"] += 1
            raise ConnectionAbortedError

    def _point(self, way: Way, segment: Segment) -> int | None:
        """Return up to where in this segment things still go well; None: to its end."""
        trouble = self._armed[0] if self._armed else None
        if trouble is None or trouble.way is not way:
            return None
        if trouble.bytes is not None:
            if len(segment.data) < trouble.bytes:
                trouble.bytes -= len(segment.data)
                return None
            return trouble.bytes
        if segment.length <= trouble.least or trouble.frames is None:
            return None
        if trouble.frames:
            trouble.frames -= segment.end == segment.length
            return None
        point = int(trouble.into * segment.length)
        return point - segment.start if segment.start <= point <= segment.end else None
