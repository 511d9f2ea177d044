"""The hub's requests: each is carried out beside the others, and answered with its id.

Grant sets of one subject are applied in the order in which they came, whatever else goes on, and are carried out even when
their sender has stopped waiting, or the session has ended: they say how things must be. A key is minted behind the sets of
its subject that came before it, and behind nothing else. Everything else is dropped when its deadline has passed.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Hashable
from typing import Final

import msgspec

from protocol.errors import BadSetting, Internal, Problem, TooMany, WioError
from protocol.grants import Subject
from protocol.messages import (
    Answer,
    Asking,
    CheckRoot,
    Configure,
    Digests,
    Done,
    Explain,
    Failed,
    Mint,
    PlaceWorkspace,
    Recheck,
    Scan,
    SetGrants,
    SignLink,
    Survey,
    Verify,
)
from spoke_agent.index.feed import Feed
from spoke_agent.index.ledger import Ledger, is_indexed, problem_of
from spoke_agent.index.proofs import Proofs
from spoke_agent.index.schedule import Schedule
from spoke_agent.link.ports import Access

MAX_WAITING: Final = 2_000
"""Requests under way at once; whatever comes on top of them is refused, so that memory stays bounded."""
LEAVING_S: Final = 5.0
"""How long grant sets under way may take to finish when the agent stops."""

_log: Final = logging.getLogger(__name__)


class _Front(msgspec.Struct, frozen=True, array_like=True):
    """The first two fields of a ``grants.GrantSet``."""

    node: int
    subject: Subject


_FRONT: Final = msgspec.msgpack.Decoder(_Front)


class Desk:
    """Carries out requests. Lives as long as the agent: what is under way outlasts a session. ``now`` is monotonic seconds."""

    def __init__(
        self,
        access: Access,
        ledger: Ledger,
        schedule: Schedule,
        feed: Feed,
        proofs: Proofs,
        *,
        now: Callable[[], float],
    ) -> None:
        self._access = access
        self._ledger = ledger
        self._schedule = schedule
        self._feed = feed
        self._proofs = proofs
        self._now = now
        self._lasts: dict[Hashable, asyncio.Task[None]] = {}
        self._lasting: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._asked: dict[int, asyncio.Task[None]] = {}
        self.dropped = 0
        """Requests whose deadline had passed before there was an answer."""

    def take(self, request: Asking, answer: Callable[[Answer], None]) -> None:
        """Carry out a request beside the others. ``answer`` is called once, or never; it may be of a session that is over."""
        if len(self._lasting) + len(self._passing) >= MAX_WAITING:
            problem = TooMany(f"This node has {MAX_WAITING} requests under way already.").problem
            answer(Failed(request.request, problem))
            return
        deadline = self._now() + request.deadline_ms / 1000
        turn = _turn(request)
        before = self._lasts.get(turn) if turn is not None else None
        lasting = isinstance(request, SetGrants | Configure)
        task = asyncio.create_task(self._serve(request, answer, None if lasting else deadline, before))
        tasks = self._lasting if lasting else self._passing
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if lasting:
            self._lasts[turn] = task
            task.add_done_callback(lambda _: self._forget(turn, task))
        elif isinstance(request, Survey | Verify):
            self._asked[request.request] = task
            task.add_done_callback(lambda _: self._no_longer_asked(request.request, task))

    def _no_longer_asked(self, request: int, task: asyncio.Task[None]) -> None:
        if self._asked.get(request) is task:
            del self._asked[request]

    def give_up(self, request: int) -> None:
        """Stop what takes long and nobody waits for any more; anything else goes on."""
        task = self._asked.get(request)
        if task is not None:
            task.cancel()

    def _forget(self, turn: Hashable, task: asyncio.Task[None]) -> None:
        if self._lasts.get(turn) is task:
            del self._lasts[turn]

    def hang_up(self) -> None:
        """Stop what only the session's end was waiting for."""
        self._asked.clear()  # the next session counts its requests anew
        for task in self._passing:
            task.cancel()

    async def close(self) -> None:
        """Stop; grant sets under way are finished first, if that takes no longer than LEAVING_S."""
        self.hang_up()
        if self._lasting:
            await asyncio.wait(self._lasting, timeout=LEAVING_S)
        rest = [*self._lasting, *self._passing]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(
        self, request: Asking, answer: Callable[[Answer], None], deadline: float | None, before: asyncio.Task[None] | None
    ) -> None:
        try:
            async with asyncio.timeout(None if deadline is None else deadline - self._now()) as limit:
                if before is not None:
                    await asyncio.wait({before})
                said = await self._carried_out(request)
        except TimeoutError:
            if not limit.expired():  # pragma: no cover - _carried_out lets no other out
                raise
            self.dropped += 1
            return
        answer(said)

    async def _carried_out(self, request: Asking) -> Answer:
        try:
            return await self._do(request)
        except WioError as error:
            return Failed(request.request, problem_of(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the hub gets an answer and the log the rest
            _log.error("%s failed: %s", type(request).__name__, _where(error))
            return Failed(request.request, Problem(Internal.code, "The agent failed at this; its log has the rest."))

    async def _do(self, request: Asking) -> Answer:
        match request:
            case SetGrants():
                return await self._access.set_grants(request)
            case Mint():
                return await self._access.mint(request)
            case SignLink():
                return await self._access.sign_link(request)
            case Explain():
                return await self._access.explain(request)
            case CheckRoot():
                await self._access.check_root(request)
            case PlaceWorkspace():
                await self._access.place_workspace(request)
            case Configure():
                await self._configure(request)
            case Scan():
                await self._scan(request)
            case Survey() | Verify() | Digests() | Recheck():
                return await self._prove(request)
        return Done(request.request)

    async def _prove(self, request: Survey | Verify | Digests | Recheck) -> Answer:
        match request:
            case Survey():
                root = self._access.admit(request.root) or request.root
                await self._access.check_root(CheckRoot(request.request, request.deadline_ms, root))
                return await self._proofs.survey(request, root)
            case Verify():
                return await self._proofs.verify(request)
            case Digests():
                return await self._proofs.digests(request)
            case Recheck():
                await self._proofs.recheck(request)
        return Done(request.request)

    async def _configure(self, request: Configure) -> None:
        """Keep the roots the owner admits, scan those that never were, forget what was marked in those that are gone."""
        before = {config.root for config in self._ledger.configs()}
        admitted = [self._access.admit(root) for root in request.roots]
        if await self._ledger.configure(request.revision, [root for root in admitted if root is not None]):
            await self._follow(before)

    async def readmit(self) -> None:
        """Let go of what the owner admits no longer. What is admitted again comes back with the hub's next Configure."""
        before = {config.root for config in self._ledger.configs()}
        await self._ledger.limit(self._access.admit)
        await self._follow(before)

    async def _follow(self, before: set[int]) -> None:
        for gone in before - {config.root for config in self._ledger.indexed()}:
            self._feed.dirty.drop_root(gone)
        scanned = {one.root for one in await self._ledger.standings() if one.scanned_at is not None}
        for config in self._ledger.indexed():
            if config.root not in scanned and not self._schedule.waiting(config.root):
                self._schedule.request(config.root)
        self._schedule.stir()  # their quiet hours may be others

    async def _scan(self, request: Scan) -> None:
        config = self._ledger.config(request.root)
        if not is_indexed(config):
            raise BadSetting(
                f"Root {config.name} is not scanned: its index level is {config.level}.",
                todo="Raise its index level, if the node's owner allows that.",
            )
        self._schedule.request(request.root, person=True)
        await self._schedule.remember()


def _turn(request: Asking) -> Hashable:
    """Return what a request has to take turns for; None where it is for nothing."""
    match request:
        case SetGrants():
            return _subject(request)
        case Mint() | SignLink():
            return request.subject.kind, request.subject.id
        case Configure():
            return "roots"
        case _:
            return None


def _subject(request: SetGrants) -> Hashable:
    """Return whom a set is about, unverified: it decides about nothing but the order."""
    try:
        subject = _FRONT.decode(request.grant_set.body).subject
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "unreadable"
    return subject.kind, subject.id


def _where(error: Exception) -> str:
    """Return what was raised and where, without the message: it may hold what was being worked on."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(
        [type(error).__name__, *(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames[::-1][:6])]
    )
