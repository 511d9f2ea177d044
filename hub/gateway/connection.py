"""One agent's open session: requests and their answers, and what waits to be sent. Moves no bytes itself.

Everything here happens in the event loop without waiting, in the task that calls it; so a request costs one turn of the
writer and one of whoever waits for the answer, and frames are signed in the order in which they are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from protocol.errors import BadMessage, DeadlinePassed, Evicted, LinkBroken, NodeOffline, Problem, TooMany, error_of
from protocol.messages import (
    Answer,
    Asking,
    CheckRoot,
    Configure,
    Digested,
    Digests,
    Done,
    Evict,
    Explain,
    Explained,
    Failed,
    GiveUp,
    GrantsApplied,
    GrantsRefused,
    HubMessage,
    LinkSigned,
    Mint,
    Minted,
    PlaceWorkspace,
    Recheck,
    Scan,
    SetGrants,
    SignLink,
    Survey,
    Surveyed,
    Verified,
    Verify,
)
from protocol.names import NodeId
from protocol.session import HubSession

OUT_MESSAGES: Final = 5_000
OUT_BYTES: Final = 16 * 1024 * 1024
"""What may wait for an agent that does not read: then requests are refused."""
MAX_DEADLINE_MS: Final = 3_600_000

_ANSWERS: Final[dict[type[Asking], tuple[type[Answer], ...]]] = {
    SetGrants: (GrantsApplied, GrantsRefused),
    Mint: (Minted,),
    Explain: (Explained,),
    Configure: (Done,),
    Scan: (Done,),
    CheckRoot: (Done,),
    PlaceWorkspace: (Done,),
    Survey: (Surveyed,),
    Verify: (Verified,),
    Digests: (Digested,),
    SignLink: (LinkSigned,),
    Recheck: (Done,),
}
_LONG: Final = (Survey, Verify)
"""Requests that an agent works on for long: it is told when nobody waits any more."""


class _Asked(msgspec.Struct, frozen=True):
    answers: tuple[type[Answer], ...]
    answer: asyncio.Future[Answer]


class Connection:
    """A session that is open. ``evict`` makes the signed word that its node is not wanted any more."""

    def __init__(self, node: NodeId, name: str, session: HubSession, evict: Callable[[], Evict]) -> None:
        self.node = node
        self.name = name
        self._session = session
        self._evict = evict
        self._asked: dict[int, _Asked] = {}
        self._numbers = itertools.count(1)
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._filled = asyncio.Event()
        self.ended = asyncio.Event()
        self.problem: Problem | None = None
        """Why it has ended, where there is anything to say to the agent."""
        self.late = 0
        """Answers nobody waited for any more."""

    # -------------------------------------------------------------------------------------------------- asking

    async def ask(self, make: Callable[[int, int], Asking], deadline_s: float) -> Answer:
        """Send a request and return its answer.

        Raises NodeOffline as soon as the connection is gone, DeadlinePassed, TooMany where the agent does not keep up, and
        the error a Failed carries.
        """
        self._check_open()
        number = next(self._numbers)
        request = make(number, max(1, min(int(deadline_s * 1000), MAX_DEADLINE_MS)))
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = _Asked(_ANSWERS[type(request)], answer)
        try:
            self.send(request)
            async with asyncio.timeout(deadline_s):
                said = await answer
        except TimeoutError:
            raise DeadlinePassed(f"Node {self.name} did not answer within {deadline_s:g} s.") from None
        except asyncio.CancelledError:
            if isinstance(request, _LONG):
                with contextlib.suppress(NodeOffline, TooMany, LinkBroken):
                    self.send(GiveUp(number))
            raise
        finally:
            self._asked.pop(number, None)
        if isinstance(said, Failed):
            raise error_of(said.problem)
        return said

    def answered(self, answer: Answer) -> None:
        """Hand an answer to whoever waits for it. Raises BadMessage for one that does not answer what was asked."""
        asked = self._asked.get(answer.request)
        if asked is None or asked.answer.done():
            self.late += 1
            return
        if not isinstance(answer, (*asked.answers, Failed)):
            raise BadMessage(f"{type(answer).__name__} does not answer what was asked.")
        asked.answer.set_result(answer)

    # -------------------------------------------------------------------------------------------------- sending

    def send(self, message: HubMessage) -> None:
        """Sign a message and let it wait to be sent. Raises NodeOffline, TooMany, or BadMessage if it fits no frame."""
        self._check_open()
        if len(self._out) >= OUT_MESSAGES or self._out_bytes >= OUT_BYTES:
            raise TooMany(f"Node {self.name} does not read what it is sent.")
        self._push(self._session.send(message))

    def _push(self, frame: bytes) -> None:
        self._out.append(frame)
        self._out_bytes += len(frame)
        self._filled.set()

    async def next_frames(self) -> list[bytes]:
        """Wait until there is something to send, and take it."""
        await self._filled.wait()
        return self.take_frames()

    def take_frames(self) -> list[bytes]:
        """Take what waits to be sent."""
        frames = list(self._out)
        self._out.clear()
        self._out_bytes = 0
        self._filled.clear()
        return frames

    # -------------------------------------------------------------------------------------------------- the end

    def _check_open(self) -> None:
        if self.ended.is_set():
            raise self._offline()

    def _offline(self) -> NodeOffline:
        return NodeOffline(f"Node {self.name} is not connected any more.", todo="Try again once it is: wio node ls.")

    def end(self, problem: Problem | None) -> None:
        """End the session: whoever waits for an answer learns it now. The first reason counts."""
        if self.ended.is_set():
            return
        if problem is not None and problem.code == Evicted.code:
            with contextlib.suppress(LinkBroken):  # the session broke first: the agent is told when it comes back
                self._push(self._session.send(self._evict()))
        self.problem = problem
        self.ended.set()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(self._offline())
        self._asked.clear()
