"""How long to wait before the next try. Pure; chance is passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol.errors import (
    BadSetting,
    BadSignature,
    Conflict,
    Evicted,
    HubKeyMismatch,
    UnknownPeer,
    VersionMismatch,
    WioError,
)

FIRST_S: Final = 0.1
LAST_S: Final = 4.0
"""So that an agent is back within 5 s of its hub's return."""
SLOW_S: Final = 60.0
"""Where trying again can hardly help, or does harm: two agents with one key must not push each other out all day."""
HELD_S: Final = 10.0
"""A session that lasted this long was a good one: the next loss starts from the beginning."""
_SLOW: Final = (UnknownPeer, Evicted, HubKeyMismatch, VersionMismatch, BadSignature, BadSetting, Conflict)


class Backoff:
    """Counts failures in a row. ``chance`` gives numbers from 0 up to 1, so that many agents do not come back in step."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0

    def held(self, seconds: float) -> None:
        """Note that a session lasted this long."""
        if seconds >= HELD_S:
            self._failures = 0

    def next(self, problem: WioError, *, spent_s: float = 0.0, opened: bool = False) -> float:
        """Return how many seconds to wait, from half a step to a whole one. The time a failed try took counts as waited.

        ``opened``: there was a session, so both sides have proved who they are. A frame in it that nobody signed was spoilt
        on the way: the next session is as good as any, and what is to be taken back must not wait a minute for it.
        """
        spoilt = opened and isinstance(problem, BadSignature)
        if isinstance(problem, _SLOW) and not spoilt:
            return SLOW_S * (0.5 + self._chance() / 2)
        step: float = min(FIRST_S * 2**self._failures, LAST_S)
        if step < LAST_S:
            self._failures += 1
        return max(step * (0.5 + self._chance() / 2) - spent_s, FIRST_S / 2)
