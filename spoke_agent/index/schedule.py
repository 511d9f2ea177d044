"""When roots are scanned: on request, from time to time, and again after a failure. One root at a time.

A scan repairs what no hint reported, so one is due for every root when the agent starts (hints of the time before are
lost), when the hub and the agent begin a new generation, and at intervals. In a root's quiet hours none of it runs, unless
a person asks for that very root; what is under way stops at its next page, and goes on from there afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from protocol.errors import UnknownRoot, WioError
from spoke_agent.index.ledger import Ledger, Superseded
from spoke_agent.index.pace import QuietNow

FIRST_RETRY_S: Final = 2.0
LAST_RETRY_S: Final = 300.0
HELD_S: Final = 60.0
"""How often it is asked again whether quiet hours are over: clocks and zones of machines change."""


class _Due(msgspec.Struct):
    at: float
    failures: int = 0


class Schedule:
    """Which root is scanned next. ``scan`` is ``Scanner.scan_root``; ``now`` a monotonic clock in seconds.

    ``quiet_s`` says for how many more seconds a root's quiet hours last; 0: there are none now. ``told`` is called when what
    is done about some root has changed.
    """

    def __init__(
        self,
        ledger: Ledger,
        scan: Callable[[int], Coroutine[Any, Any, object]],
        *,
        now: Callable[[], float],
        every_s: float,
        quiet_s: Callable[[int], float] = lambda _: 0.0,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._scan = scan
        self._now = now
        self._every_s = every_s
        self._quiet_s = quiet_s
        self._told = told
        self._due: dict[int, _Due] = {}
        self._wanted: dict[int, int] = {}
        self._doubted: set[int] = set()
        self._insisted: set[int] = set()
        self._recalled: set[int] = set()
        """Those of them that were insisted on before the agent was started."""
        self._changed = asyncio.Event()
        self.current: int | None = None
        """The root that is being scanned."""

    def request(self, root: int, *, after_s: float = 0.0, person: bool = False) -> None:
        """Scan a root soon, or after some time at the latest.

        Only a scan that begins after this serves: one that is under way, or was cut off and goes on, has listed some of
        the root before. So the root is scanned once more then. ``person``: a person asks, so quiet hours do not count for
        this once; anybody else asks because something of the root may be unknown.
        """
        self._wanted[root] = self._ledger.begun(root)
        if person:
            self._insisted.add(root)
        else:
            self._doubted.add(root)
        at = self._now() + after_s
        due = self._due.get(root)
        if due is None or at < due.at:
            self._due[root] = _Due(at, due.failures if due is not None and after_s else 0)
        self._changed.set()

    def insist(self, root: int) -> None:
        """Have a person's wish that a root is scanned now; one that is due or under way serves, whatever the hours."""
        if self.waiting(root):
            self._insisted.add(root)
            self._changed.set()
        else:
            self.request(root, person=True)

    async def remember(self) -> None:
        """Write down what persons insist on, so that it holds after a restart as well; where it cannot be, it does not."""
        for root in sorted(self._insisted - self._recalled):
            with contextlib.suppress(WioError):
                await self._ledger.wish(root)

    async def recall(self) -> None:
        """Take up what persons insisted on before the agent was started: it goes on from where it was cut off."""
        for root in await self._ledger.wishes():
            if root not in self._insisted:
                self._insisted.add(root)
                self._recalled.add(root)
            self._due.setdefault(root, _Due(self._now()))
        self._changed.set()

    async def _grant(self, root: int) -> None:
        """Note that a scan is done that somebody may have insisted on."""
        if root in self._insisted:
            with contextlib.suppress(WioError):  # else it is done once more after a restart
                await self._ledger.fulfil(root)
            self._insisted.discard(root)
            self._recalled.discard(root)

    def request_all(self, *, after_s: float = 0.0) -> None:
        """Scan every root of this node soon, or after some time at the latest."""
        for config in self._ledger.indexed():
            self.request(config.root, after_s=after_s)

    def stir(self) -> None:
        """Look again at what is due: roots or their quiet hours have changed."""
        self._changed.set()

    def waiting(self, root: int) -> bool:
        """Say whether a scan of this root is due now or under way."""
        due = self._due.get(root)
        return self.current == root or (due is not None and due.at <= self._now())

    def held(self, root: int) -> bool:
        """Say whether a scan of this root has to wait for the end of its quiet hours."""
        return self._held_s(root) > 0

    def doubts(self, root: int) -> bool:
        """Say whether something of this root may be unknown until a scan that is still to begin or to end."""
        return root in self._doubted

    def due_in(self, root: int) -> float | None:
        """Return in how many seconds a scan of this root is due, its quiet hours included; None: not at all."""
        due = self._due.get(root)
        return None if due is None else max(due.at - self._now(), self._held_s(root), 0.0)

    def _held_s(self, root: int) -> float:
        return 0.0 if root in self._insisted else self._quiet_s(root)

    def _next(self) -> tuple[int, _Due] | float | None:
        """Return the root whose turn it is, or how many seconds there are until one's; None: nothing is due."""
        now, wait = self._now(), None
        for root, due in sorted(self._due.items(), key=lambda item: item[1].at):
            left = due.at - now
            if left <= 0:
                held = self._held_s(root)
                if held <= 0:
                    return root, due
                left = min(held, HELD_S)
            wait = left if wait is None else min(wait, left)
        return wait

    async def step(self) -> float | None:
        """Scan the root that is due, if one is. Return how many seconds there are until the next; None: nothing is due."""
        turn = self._next()
        if not isinstance(turn, tuple):
            return turn
        root, what = turn
        del self._due[root]
        self.current = root
        self._told()
        try:
            await self._scan(root)
        except UnknownRoot:
            self._forget(root)  # it was taken off this node meanwhile
        except Superseded:
            self.request(root)
        except QuietNow:
            self._due.setdefault(root, _Due(self._now(), what.failures))
        except WioError as error:
            failures = what.failures + 1
            # What may pass by itself is tried again soon; what needs a person, now and then.
            delay = min(FIRST_RETRY_S * 2**failures, LAST_RETRY_S) if error.retry else LAST_RETRY_S
            self._due.setdefault(root, _Due(self._now() + delay, failures))
        else:
            if self._wanted.get(root) == self._ledger.begun(root):
                if root in self._recalled:  # what they wanted is what went on just now
                    await self._grant(root)
                self.request(root, person=root in self._insisted and root not in self._doubted)
            else:
                await self._grant(root)
                self._forget(root)
            self._due.setdefault(root, _Due(self._now() + self._every_s))
        finally:
            self.current = None
            self._told()
        return 0.0

    def _forget(self, root: int) -> None:
        self._wanted.pop(root, None)
        self._doubted.discard(root)
        self._insisted.discard(root)
        self._recalled.discard(root)

    async def run(self) -> None:
        """Scan whatever is due, for ever."""
        await self.recall()
        while True:
            self._changed.clear()
            wait = await self.step()
            if wait != 0.0:
                # Not wait_for: on Python 3.11 it can swallow a cancellation that comes as its time runs out.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
