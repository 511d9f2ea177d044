"""Counting tries, in memory: so many by one somebody in so long a time.

Each worker counts for itself, so with several workers somebody may try several times as often; that is fine for what it
guards: passwords cost time anyway, and join strings hold 256 random bits.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hub.services.ports import Clock
from protocol.errors import TooMany

_REMEMBERED: Final = 20_000
"""Somebodies that are counted at once; beyond that the one that tried longest ago is forgotten."""


class Limiter:
    """At most ``tries`` in ``window_s`` seconds for each key."""

    def __init__(self, *, clock: Clock, tries: int, window_s: int, what: str) -> None:
        self._clock = clock
        self._tries = tries
        self._window = window_s * 1_000_000
        self._what = what
        self._seen: OrderedDict[str, list[int]] = OrderedDict()

    def count(self, key: str) -> None:
        """Count a try, before it is known how it ends; raise TooMany where there were too many."""
        now = self._clock.now()
        times = [at for at in self._seen.pop(key, []) if at > now - self._window]
        self._seen[key] = times
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if len(times) >= self._tries:
            wait = max(1, -(-(times[0] + self._window - now) // 1_000_000))
            raise TooMany(f"Too many {self._what} from here.", todo=f"Try again in {wait} s.")
        times.append(now)

    def forget(self, key: str) -> None:
        """Start again at none: the last try was a good one."""
        self._seen.pop(key, None)
