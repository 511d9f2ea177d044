"""Hours of the day, as people write them: ``08:00-18:00``, ``22:00-06:00`` (over midnight)."""

from __future__ import annotations

import re
from typing import Final

from protocol.errors import BadInput
from protocol.names import shown

DAY_MIN: Final = 24 * 60
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)\Z", re.ASCII)


def minutes(hours: str) -> tuple[int, int]:
    """Return where these hours begin (inclusive) and end (exclusive), in minutes after midnight; raise BadInput.

    An end before the beginning lies on the next day.
    """
    found = _HOURS.match(hours)
    if found is None:
        raise BadInput(f"{shown(hours)} are no hours of the day.", todo="Write them like 08:00-18:00 or 22:00-06:00.")
    first, last = (int(found[at]) * 60 + int(found[at + 1]) for at in (1, 3))
    if first == last:
        raise BadInput(
            f"{shown(hours)} begin and end at the same time.", todo="Write them like 08:00-18:00; '' for no quiet hours."
        )
    return first, last


def check_hours(hours: str) -> str:
    """Return hours as they are, or nothing for none; raise BadInput for what is neither."""
    if hours:
        minutes(hours)
    return hours
