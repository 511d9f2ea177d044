"""What waits to be sent, in lanes: an answer never waits behind the journal. One writer signs and sends, one at a time."""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from protocol.errors import BadMessage
from protocol.messages import AgentMessage

_log: Final = logging.getLogger(__name__)


class Lane(enum.IntEnum):
    """The lower one goes first; within one, whoever came first."""

    ANSWER = 0
    STATE = 1
    JOURNAL = 2


class Outbox:
    """The lanes of one session. Its writer waits for the network, so at most one message lies in front of a new answer."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, AgentMessage, asyncio.Future[None] | None]] = []
        self._order = itertools.count()
        self._filled = asyncio.Event()

    def put(self, lane: Lane, message: AgentMessage) -> None:
        """Send this when its turn comes."""
        self._push(lane, message, None)

    async def sent(self, lane: Lane, message: AgentMessage) -> None:
        """Send this, and wait until it is with the network. Raises BadMessage if it fits no frame."""
        done = asyncio.get_running_loop().create_future()
        self._push(lane, message, done)
        await done

    def _push(self, lane: Lane, message: AgentMessage, done: asyncio.Future[None] | None) -> None:
        heapq.heappush(self._waiting, (lane, next(self._order), message, done))
        self._filled.set()

    async def run(self, send: Callable[[AgentMessage], Awaitable[None]]) -> None:
        """Send what comes, until sending fails; raises what ``send`` raised."""
        while True:
            await self._filled.wait()
            while self._waiting:
                _, _, message, done = heapq.heappop(self._waiting)
                if done is not None and done.cancelled():
                    continue
                try:
                    await send(message)
                except BadMessage as error:
                    # A fault of this agent's own. It does not end the session: nothing has been sent.
                    _log.error("%s was not sent: %s", type(message).__name__, error)
                    if done is not None and not done.done():
                        done.set_exception(error)
                    continue
                if done is not None and not done.done():
                    done.set_result(None)
            self._filled.clear()
