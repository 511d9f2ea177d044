"""How fresh the agent's view of each of its roots is: what the parts of the index know, put together for the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol.errors import RootMissing
from protocol.messages import RootActivity, RootState
from spoke_agent.index.feed import Feed
from spoke_agent.index.ledger import Ledger, Standing
from spoke_agent.index.schedule import Schedule

MICRO: Final = 1_000_000
MAX_ROOTS: Final = 1_000
"""As many as ``protocol.messages.Health`` holds, and as one Configure brings."""
_LAST: Final = 7_258_118_400_000_000
"""The latest time the protocol knows: what never comes."""


class States:
    """Puts them together. ``clock`` gives Unix microseconds."""

    def __init__(self, ledger: Ledger, schedule: Schedule, feed: Feed, *, clock: Callable[[], int]) -> None:
        self._ledger = ledger
        self._schedule = schedule
        self._feed = feed
        self._clock = clock

    async def look(self) -> tuple[RootState, ...]:
        """Return every root whose objects the hub may know."""
        standings = {one.root: one for one in await self._ledger.standings()}
        reading = await self._ledger.reading_state()
        places = self._feed.places()
        return tuple(
            self._state(standings[config.root], places[config.root], *reading.get(config.root, (0, 0)))
            for config in self._ledger.indexed()[:MAX_ROOTS]
            if config.root in standings
        )

    def _state(self, standing: Standing, places: int, unread: int, unreadable: int) -> RootState:
        root = standing.root
        due_s = self._schedule.due_in(root)
        next_at = 0
        if due_s is not None:
            next_at = _LAST if due_s * MICRO > _LAST else min(self._clock() + int(due_s * MICRO), _LAST)
        # A scan that something unknown is waiting for is a place not looked at, however large.
        dirty = places + self._schedule.doubts(root)
        return RootState(root, self._activity(standing), standing.scanned_at or 0, next_at, dirty, unread, unreadable)

    def _activity(self, standing: Standing) -> RootActivity:
        problem = standing.problem
        if problem is not None and problem.code == RootMissing.code:
            return RootActivity.MISSING
        if self._schedule.current == standing.root:
            return RootActivity.SCANNING
        if problem is not None:
            return RootActivity.FAILING
        return RootActivity.WAITING if self._schedule.waiting(standing.root) else RootActivity.IDLE
