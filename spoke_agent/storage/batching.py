"""How many audit events the storage server sends at once. Pure: the rate and the time in, a batch size out.

One by one an event is here in less than a millisecond, but each costs the server a request of its own; a hundred together
cost little more than one, and are here within a second. So few are sent one by one, and many together.

A change of the size makes the server's stream anew, and what waits in the old one for its batch to fill is lost (measured:
some 40 events where the size went from 100 to 1 under load). So a change is rare, and everything is scanned after it.
"""

from __future__ import annotations

from typing import Final

SINGLE: Final = 1
MANY: Final = 100
BUSY: Final = 200.0
"""Events a second from which on they are sent together."""
CALM: Final = 40.0
"""Events a second below which they may be sent one by one again: far from BUSY, so that nothing swings to and fro."""
CALM_LOOKS: Final = 20
"""Looks in a row that have to be calm: five minutes, as a change back costs a scan."""
KEEP_S: Final = 60.0
"""How long a batch size stays at least."""


class Batching:
    """Decides, one look at the rate after another."""

    def __init__(self, *, busy: float = BUSY, calm: float = CALM, calm_looks: int = CALM_LOOKS, keep_s: float = KEEP_S) -> None:
        self._busy = busy
        self._calm = calm
        self._calm_looks = calm_looks
        self._keep_s = keep_s
        self.size = SINGLE
        """How many are sent at once now."""
        self._changed_at: float | None = None
        self._last: tuple[float, int] | None = None
        self._calm_for = 0

    def look(self, received: int, now: float) -> int | None:
        """Return another size where the rate asks for one; None: all stays.

        ``received`` counts events since the beginning; ``now`` is monotonic seconds. The size is another one once ``change``
        was called.
        """
        last, self._last = self._last, (now, received)
        if last is None or now <= last[0]:
            return None
        rate = (received - last[1]) / (now - last[0])
        self._calm_for = self._calm_for + 1 if rate <= self._calm else 0
        if self._changed_at is not None and now - self._changed_at < self._keep_s:
            return None
        if self.size == SINGLE:
            return MANY if rate >= self._busy else None
        return SINGLE if self._calm_for >= self._calm_looks else None

    def change(self, size: int, now: float) -> None:
        """Note that the server is told to send so many at once from now on."""
        self.size = size
        self._changed_at = now
        self._calm_for = 0
