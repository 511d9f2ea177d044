"""When a place that changes is looked at: at once, and again while it goes on changing, but not all the time. Pure.

A file that is being written changes a thousand times a second; what it is while it grows is worth little, and each look
costs. So the first change is looked at at once, later ones as the settle time passes, and the last one always.
"""

from __future__ import annotations

from typing import Final

import msgspec

AGAIN_S: Final = 0.2
"""Between two looks at a place that somebody says is complete: closed, or moved there."""
MAX_PLACES: Final = 20_000


class Spot(msgspec.Struct, frozen=True):
    """A key of a bucket, or a folder of it with everything below (``key`` ends in a slash, or is empty)."""

    bucket: str
    key: str
    folder: bool = False


class _Seen(msgspec.Struct):
    looked_at: float
    due_at: float | None = None


class Settling:
    """Places that change. ``now`` is a clock that only runs forward, in seconds."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: dict[Spot, _Seen] = {}

    def touch(self, spot: Spot, now: float, *, complete: bool) -> None:
        """Note that something happened there; ``complete``: it may well have been the last of it."""
        seen = self._seen.get(spot)
        if seen is None:
            self._seen[spot] = _Seen(float("-inf"), now)
            return
        at = max(now, seen.looked_at + (min(AGAIN_S, self._settle_s) if complete else self._settle_s))
        seen.due_at = at if seen.due_at is None else min(at, seen.due_at)

    def due(self, now: float) -> list[Spot]:
        """Return the places whose turn it is, in the order in which they were first touched."""
        found = []
        for spot, seen in list(self._seen.items()):
            if seen.due_at is not None and seen.due_at <= now:
                seen.due_at, seen.looked_at = None, now
                found.append(spot)
            elif seen.due_at is None and (now - seen.looked_at > self._settle_s or len(self._seen) > MAX_PLACES):
                del self._seen[spot]
        return found

    def next_in(self, now: float) -> float | None:
        """Return in how many seconds the next place is due; None: none is."""
        due = [seen.due_at for seen in self._seen.values() if seen.due_at is not None]
        return max(min(due) - now, 0.0) if due else None

    def __len__(self) -> int:
        return len(self._seen)
