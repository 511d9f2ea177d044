"""When roots are scanned: on request, from time to time, and again after a failure. One root at a time.

A scan repairs what no hint reported, so one is due for every root when the agent starts (hints of the time before are
lost), when the hub and the agent begin a new generation, and at intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from protocol.errors import UnknownRoot, WioError
from spoke_agent.index.ledger import Ledger, Superseded

FIRST_RETRY_S: Final = 2.0
LAST_RETRY_S: Final = 300.0


class _Due(msgspec.Struct):
    at: float
    failures: int = 0


class Schedule:
    """Which root is scanned next. ``scan`` is ``Scanner.scan_root``; ``now`` a monotonic clock in seconds."""

    def __init__(
        self,
        ledger: Ledger,
        scan: Callable[[int], Coroutine[Any, Any, object]],
        *,
        now: Callable[[], float],
        every_s: float,
    ) -> None:
        self._ledger = ledger
        self._scan = scan
        self._now = now
        self._every_s = every_s
        self._due: dict[int, _Due] = {}
        self._wanted: dict[int, int] = {}
        self._changed = asyncio.Event()
        self.current: int | None = None
        """The root that is being scanned."""

    def request(self, root: int, *, after_s: float = 0.0) -> None:
        """Scan a root soon, or after some time at the latest.

        Only a scan that begins after this serves: one that is under way, or was cut off and goes on, has listed some of
        the root before. So the root is scanned once more then.
        """
        self._wanted[root] = self._ledger.begun(root)
        at = self._now() + after_s
        due = self._due.get(root)
        if due is None or at < due.at:
            self._due[root] = _Due(at, due.failures if due is not None and after_s else 0)
        self._changed.set()

    def request_all(self) -> None:
        """Scan every root of this node soon."""
        for config in self._ledger.indexed():
            self.request(config.root)

    def waiting(self, root: int) -> bool:
        """Say whether a scan of this root is due now or under way."""
        due = self._due.get(root)
        return self.current == root or (due is not None and due.at <= self._now())

    async def step(self) -> float | None:
        """Scan the root that is due, if one is. Return how many seconds there are until the next; None: nothing is due."""
        due = min(self._due.items(), key=lambda item: item[1].at, default=None)
        if due is None:
            return None
        root, what = due
        wait = what.at - self._now()
        if wait > 0:
            return wait
        del self._due[root]
        self.current = root
        try:
            await self._scan(root)
        except UnknownRoot:
            self._wanted.pop(root, None)  # it was taken off this node meanwhile
        except Superseded:
            self.request(root)
        except WioError as error:
            failures = what.failures + 1
            # What may pass by itself is tried again soon; what needs a person, now and then.
            delay = min(FIRST_RETRY_S * 2**failures, LAST_RETRY_S) if error.retry else LAST_RETRY_S
            self._due.setdefault(root, _Due(self._now() + delay, failures))
        else:
            if self._wanted.get(root) == self._ledger.begun(root):
                self.request(root)
            else:
                self._wanted.pop(root, None)
            self._due.setdefault(root, _Due(self._now() + self._every_s))
        finally:
            self.current = None
        return 0.0

    async def run(self) -> None:
        """Scan whatever is due, for ever."""
        while True:
            self._changed.clear()
            wait = await self.step()
            if wait != 0.0:
                # Not wait_for: on Python 3.11 it can swallow a cancellation that comes as its time runs out.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
