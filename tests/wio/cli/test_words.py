"""Sizes, times and lives, written and read."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest

from protocol.api import NodeState, NodeView
from protocol.errors import BadLifetime
from wio.cli import words

NOON = 1_772_452_800_000_000
"""2026-03-02 12:00 UTC."""


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0"), (1023, "1023"), (1024, "1.0K"), (1536, "1.5K"), (10_188, "9.9K"), (10_220, "10K"), (1_048_000, "1023K"),
        (1_048_575, "1.0M"), (2_577_136_026, "2.4G"), (1 << 40, "1.0T"), (1 << 63, "8.0E"), (5_000 << 60, "5000E"),
    ],
)  # fmt: skip
def test_sizes_are_written_in_powers_of_1024(bytes_: int, text: str) -> None:
    assert words.size(bytes_) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("900", 900), ("900s", 900), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("2w", 1_209_600), (" 1H ", 3600)],
)
def test_a_life_is_read(text: str, seconds: int) -> None:
    assert words.life(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5h", "1y", "h", "1h30m", "9999999999", "٣h\n", "1 h"])
def test_what_is_no_life_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadLifetime) as caught:
        words.life(text)
    assert "15m" in caught.value.todo


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.041, "41 ms"),
        (1.9, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (2220, "37 min"),
        (86_340, "23 h 59 min"),
        (3600, "1 h"),
        (522_000, "6 d 1 h"),
    ],
)
def test_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-03", NOON + 12 * 3600 * words.MICROSECONDS),
        ("2026-03-02T13:00", NOON + 3600 * words.MICROSECONDS),
        ("2026-03-02T13:00+01:00", NOON + 0 * words.MICROSECONDS + 1),
        ("7d", NOON + 7 * 86_400 * words.MICROSECONDS),
    ],
)
def test_an_end_is_read_as_a_date_a_time_or_a_span_from_now(text: str, expected: int) -> None:
    if text.endswith("+01:00"):
        assert words.until(text, NOON - 1, UTC) == NOON
    else:
        assert words.until(text, NOON, UTC) == expected


def test_a_date_is_the_beginning_of_the_day_where_one_is() -> None:
    assert words.until("2026-03-03", NOON, timezone(timedelta(hours=2))) == NOON + 10 * 3600 * words.MICROSECONDS


@pytest.mark.parametrize("text", ["2026-03-02", "2020-01-01", "soon", "", "31.12.2027"])
def test_an_end_that_is_past_or_none_is_refused(text: str) -> None:
    with pytest.raises(BadLifetime):
        words.until(text, NOON, UTC)


def test_times_of_any_year_can_be_shown() -> None:
    assert words.moment(NOON, UTC) == "2026-03-02 12:00"
    assert words.clock_time(NOON + 318_000, UTC) == "12:00:00.318"
    assert words.day(9_999_999_999_999_999_999, UTC) == "9999-12-31"


def test_names_of_others_cannot_steer_a_terminal() -> None:
    assert words.safe("a\x1b[31m\u202eb\u200b\n[red]\udcff") == "a\\x1b[31m\\u202eb\\u200b\\n[red]\\udcff"
    assert words.safe("x" * 500) == "x" * 500
    assert words.safe("Größe 数据.nii") == "Größe 数据.nii"


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (NodeView("lab3", NodeState.ONLINE, 2.4, 0, scanning=False), "lab3 2 s old"),
        (NodeView("nas", NodeState.OFFLINE, 840.0, 0, scanning=False), "nas 14 min old (offline)"),
        (NodeView("n", NodeState.ONLINE, None, 1, scanning=True), "n of unknown age (scanning, 1 change to come)"),
    ],
)
def test_the_age_of_a_view_is_said_in_words(view: NodeView, text: str) -> None:
    assert words.view(view) == text
