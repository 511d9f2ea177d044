"""Run the hub under uvicorn on a socket of its own, and say in the log what happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import uvicorn
from litestar import Litestar

from hub.app import SystemChance, SystemClock, create_app
from hub.settings import LogForm, Settings
from protocol.errors import BadSetting, Conflict, WioError
from protocol.messages import MAX_FRAME
from protocol.names import shown

KEEP_ALIVE_S: Final = 75
"""A client's idle connection lives this long: longer than the pauses of a person at a terminal."""
GRACE_S: Final = 10
"""How long requests that are under way may take to end when the hub is told to stop."""
PING_S: Final = 20.0
"""An agent that is gone without a word is noticed after two of these."""

GARBAGE: Final = 20_000
"""New objects after which Python looks for garbage: a batch of journal rows is thousands of them, and none is any. At the
usual 700 an import spends a twentieth of its time on that, and a key request that comes at that moment waits for it."""

SWITCH_S: Final = 0.0005
"""How long a thread may keep Python's lock where another wants it. The search index is written in a thread of its own, and at
the usual 5 ms whoever answers a person waits for that time after each look at the database: ten times for one key."""


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket, which does not accept yet. Raises Conflict if the port is taken, BadSetting if it cannot be had."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bound = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Something else listens on {where} already.", todo="Choose another one with --port; 0 takes any free one."
            ) from error
        raise BadSetting(
            f"The hub cannot listen on {shown(where)}: {_reason(error)}.", todo="See --host and --port."
        ) from error
    return bound


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


async def serve(settings: Settings, *, ready: Callable[[Settings, bool], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    ``ready`` is called once, when it listens, with the settings and the port in use, and whether nobody has an account yet.

    Raises any error of ``protocol.errors`` that keeps the hub from starting.
    """
    bound = listen(settings.host, settings.port)
    try:
        settings = msgspec.structs.replace(settings, port=bound.getsockname()[1])
        app = create_app(settings, clock=SystemClock(), chance=SystemChance())
        async with app.lifespan():
            await _Server(server_config(app), lambda: ready(settings, app.state.nobody)).serve(sockets=[bound])
    except BaseExceptionGroup as group:  # the framework's own task group wraps what its lifespan raises
        raise _first(group) from group
    finally:
        bound.close()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    told = group.subgroup(WioError) or group
    first = told.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def server_config(app: Litestar) -> uvicorn.Config:
    """Return how uvicorn runs a hub. The caller opens and closes the app, so that what fails is raised where it can be told."""
    return uvicorn.Config(
        app,
        lifespan="off",
        workers=1,
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        ws_per_message_deflate=False,  # a frame is small and holds signatures; compressing would cost time for nothing
        proxy_headers=False,  # hub.web.call reads X-Forwarded-For, by the number of trusted hops
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


class _Server(uvicorn.Server):
    """uvicorn, except that a signal ends ``serve`` and nothing more: what the hub holds has still to be closed in order."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        gc.freeze()  # what is there now stays: looking through it again and again finds nothing
        gc.set_threshold(GARBAGE)
        sys.setswitchinterval(SWITCH_S)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _told_to_stop(self) -> None:
        self.force_exit = self.should_exit  # the second time nothing is waited for
        self.should_exit = True


# ------------------------------------------------------------------------------------------------------ log


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    at: str
    level: str
    logger: str
    message: str
    traceback: str | None = None


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        traceback = self.formatException(record.exc_info) if record.exc_info else None
        at = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}"
        line = _Line(at, record.levelname.lower(), record.name, record.getMessage(), traceback)
        return msgspec.json.encode(line).decode()


def begin_log(form: LogForm) -> None:
    """Send the log to standard error. Libraries say warnings and worse; none of them is told to print requests or SQL."""
    handler: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if form is LogForm.JSON else plain)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("wio").setLevel(logging.INFO)
