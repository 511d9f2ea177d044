"""How fast a scan may go: so many objects per second, no bursts; and when it has to stop. Time is passed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class QuietNow(Exception):
    """Not an error: the root's quiet hours have begun. What was listed is kept, and the scan goes on after them."""


class Pace:
    """Holds back whoever spends more than ``per_second``; 0 is no limit. ``clock`` gives microseconds.

    Where ``per_second`` is asked each time it is called, so a pace that changes counts from the next page on. ``held`` says
    whether to stop altogether.
    """

    def __init__(
        self,
        per_second: int | Callable[[], int],
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]],
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._pause = pause
        self._held = held
        self._free_at = 0

    async def spend(self, objects: int) -> None:
        """Note that so many objects were scanned, and wait until that is within the limit. Raises QuietNow."""
        if self._held():
            raise QuietNow
        per_second = self._per_second if isinstance(self._per_second, int) else self._per_second()
        if not per_second or not objects:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now) + objects * 1_000_000 // per_second
        await self._pause((self._free_at - now) / 1_000_000)
        if self._held():
            raise QuietNow
