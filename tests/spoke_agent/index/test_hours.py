"""Quiet hours by the clock on the wall, over midnight and through the two odd nights of the year; pace and hours together."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoke_agent.index.hours import Limits, quiet_until, together

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
MICRO = 1_000_000


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()) * MICRO


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (["08:00-18:00"], "2026-11-25T07:59:59", None),
        (["08:00-18:00"], "2026-11-25T08:00:00", "2026-11-25T18:00:00"),
        (["08:00-18:00"], "2026-11-25T17:59:59", "2026-11-25T18:00:00"),
        (["08:00-18:00"], "2026-11-25T18:00:00", None),
        (["22:00-06:00"], "2026-11-25T23:30:00", "2026-11-26T06:00:00"),
        (["22:00-06:00"], "2026-11-26T05:00:00", "2026-11-26T06:00:00"),
        (["22:00-06:00"], "2026-11-26T06:00:00", None),
        (["08:00-12:00", "12:00-18:00"], "2026-11-25T09:00:00", "2026-11-25T18:00:00"),
        (["08:00-12:00", "10:00-14:00"], "2026-11-25T09:00:00", "2026-11-25T14:00:00"),
        ([], "2026-11-25T09:00:00", None),
        (["", "nonsense", "08:00-08:00"], "2026-11-25T08:00:00", None),
        # The clock goes from 02:00 to 03:00: five hours are quiet, not six, and an hour that is not there is nobody's.
        (["00:00-06:00"], "2026-03-29T00:00:00", "2026-03-29T06:00:00"),
        (["02:15-02:45"], "2026-03-29T03:00:00", None),
        (["01:00-02:30"], "2026-03-29T01:30:00", "2026-03-29T03:30:00"),
    ],
)
def test_hours_are_quiet_by_the_clock_on_the_wall(hours: list[str], now: str, end: str | None) -> None:
    assert quiet_until(hours, at(now), BERLIN) == (at(end) if end is not None else at(now))


def test_an_hour_that_comes_twice_is_quiet_twice() -> None:
    first, second = at("2026-10-25T02:20:00"), at("2026-10-25T02:20:00", fold=1)
    assert second - first == 3600 * MICRO
    assert quiet_until(["02:15-02:45"], first, BERLIN) == at("2026-10-25T02:45:00")
    assert quiet_until(["02:15-02:45"], second, BERLIN) == at("2026-10-25T02:45:00", fold=1)
    assert quiet_until(["02:15-02:45"], at("2026-10-25T02:50:00"), BERLIN) == at("2026-10-25T02:50:00")


def test_hours_that_cover_the_day_never_end() -> None:
    assert quiet_until(["08:00-20:00", "20:00-08:00"], at("2026-11-25T09:00:00"), BERLIN) is None


@given(st.integers(0, 2 * 366 * 86_400), st.integers(0, 1439), st.integers(0, 1439), st.sampled_from([BERLIN, NEW_YORK]))
def test_the_end_is_the_first_moment_that_is_not_quiet(after_s: int, first: int, last: int, zone: ZoneInfo) -> None:
    hours = [f"{first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}"]
    now = at("2026-01-01T00:00:00", zone) + after_s * MICRO
    end = quiet_until(hours, now, zone)
    assert end is not None
    assert quiet_until(hours, end, zone) == end
    if end > now:
        assert end - now <= 25 * 3600 * MICRO
        moment = now
        while moment < end:  # every fifty minutes before it is quiet
            local = datetime.fromtimestamp(moment / MICRO, UTC).astimezone(zone)
            minute = local.hour * 60 + local.minute
            assert first <= minute < last if first < last else not last <= minute < first
            moment += 3000 * MICRO


def test_the_slower_pace_and_the_hours_of_both_count() -> None:
    assert together(Limits(0, ("",)), Limits(0, ())) == Limits(0, ())
    assert together(Limits(500, ("08:00-18:00",)), Limits(0, ("22:00-23:00", "08:00-18:00"))) == Limits(
        500, ("08:00-18:00", "22:00-23:00")
    )
    assert together(Limits(500), Limits(100)).pace == together(Limits(100), Limits(500)).pace == 100
