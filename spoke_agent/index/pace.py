"""How fast a scan may go: so many objects per second, no bursts. Time is passed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Pace:
    """Holds back whoever spends more than ``per_second``; 0 is no limit. ``clock`` gives microseconds."""

    def __init__(self, per_second: int, clock: Callable[[], int], pause: Callable[[float], Awaitable[None]]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._pause = pause
        self._free_at = 0

    async def spend(self, objects: int) -> None:
        """Note that so many objects were scanned, and wait until that is within the limit."""
        if not self._per_second or not objects:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now) + objects * 1_000_000 // self._per_second
        await self._pause((self._free_at - now) / 1_000_000)
