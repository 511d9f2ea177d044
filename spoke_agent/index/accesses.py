"""Attributed access: who did what to which key, compacted by the minute. Bounded; what is too much is counted and lost.

Losing some costs history only, so nothing of this is written down here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from protocol.messages import Access
from spoke_agent.index.entries import key_fits
from spoke_agent.storage.node import Call

MAX_ROWS: Final = 10_000
"""Different (minute, who, what, key) kept while nobody takes them: some 4 MB."""
MINUTE_US: Final = 60_000_000
FORBIDDEN: Final = 403


class _Row(msgspec.Struct):
    first_at: int
    last_at: int
    count: int
    refused: int


class Accesses:
    """Collects calls. ``who`` gives the user id behind the name of a Holder, 0 for nobody known.

    ``own`` says whether an access key is one that the agent itself uses, to try what a person may do: no person's access.
    """

    def __init__(self, who: Callable[[str], int], own: Callable[[str], bool] = lambda _: False) -> None:
        self._who = who
        self._own = own
        self._rows: dict[tuple[int, int, str, int, str], _Row] = {}
        self.lost = 0
        """Calls there was no room for."""

    def add(self, call: Call) -> None:
        """Count a call. Calls of nobody that wio knows are not counted, they are the server's own business; nor is listing."""
        actor = self._who(call.holder)
        if actor == 0 or self._own(call.access_key) or not key_fits(call.key):
            return
        place = (call.at // MINUTE_US, call.root, call.key, actor, call.operation[:80])
        refused = int(call.status == FORBIDDEN)
        row = self._rows.get(place)
        if row is not None:
            row.first_at, row.last_at = min(row.first_at, call.at), max(row.last_at, call.at)
            row.count += 1
            row.refused += refused
        elif len(self._rows) >= MAX_ROWS:
            self.lost += 1
        else:
            self._rows[place] = _Row(call.at, call.at, 1, refused)

    def take(self, now: int, limit: int = 1000) -> list[Access]:
        """Take out up to ``limit`` rows of minutes that are over at ``now`` (Unix microseconds)."""
        minute = now // MINUTE_US
        ripe = [place for place in self._rows if place[0] < minute][:limit]
        taken = []
        for place in ripe:
            _, root, key, actor, operation = place
            row = self._rows.pop(place)
            taken.append(Access(root, key, actor, operation, row.first_at, row.last_at, row.count, row.refused))
        return taken
