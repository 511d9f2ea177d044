"""Sizes, times and lives, written and read."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest

from protocol.api import NodeState, NodeView, RootView
from protocol.errors import BadInput, BadLifetime, BadName
from protocol.grants import Permission
from protocol.messages import RootActivity
from wio.cli import words

NOON = 1_772_452_800_000_000
"""2026-03-02 12:00 UTC."""
_SEEN = 1_795_516_920_000_000
"""2026-11-24 10:42 UTC."""


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
        (NodeView("lab3", NodeState.ONLINE, 2.4, 0, scanning=False), "lab3: 2 s behind"),
        (NodeView("nas", NodeState.OFFLINE, 840.0, 0, scanning=False), "nas: offline, showing what is known"),
        (
            NodeView("nas", NodeState.OFFLINE, 840.0, 0, scanning=False, seen_at=_SEEN),
            "nas: offline since 10:42, showing what was known then",
        ),
        (
            NodeView("nas", NodeState.OFFLINE, 90_000.0, 0, scanning=False, seen_at=_SEEN),
            "nas: offline since 2026-11-24 10:42, showing what was known then",
        ),
        (NodeView("n", NodeState.ONLINE, None, 1, scanning=True), "n: not up to date yet (scanning; 1 change to come)"),
        (
            NodeView("n", NodeState.ONLINE, 1.0, 0, scanning=False, behind=("n/a", "n/b", "n/c", "n/\x1b")),
            "n: 1 s behind (not up to date: n/a, n/b, n/c and 1 more)",
        ),
    ],
)
def test_the_age_of_a_view_is_said_in_words(view: NodeView, text: str) -> None:
    assert words.view(view, UTC) == text


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (RootView("n/r", None, None, None, None), "not up to date yet"),
        (RootView("n/r", RootActivity.IDLE, 2.0, 1, 2), "2 s behind"),
        (
            RootView("n/r", RootActivity.MISSING, 70.0, 1, 2, dirty=1, unread=2, unreadable=1, drifted=True, problem="a\x1bb"),
            "missing, 1 min behind, 1 place to look at, 2 files to read, 1 file unreadable, not what its node knows: a\\x1bb",
        ),
    ],
)
def test_how_fresh_a_root_is_is_said_in_words(view: RootView, text: str) -> None:
    assert words.root_view(view) == text


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("10M", 10_000_000), ("1T", 10**12), ("1.5GiB", 3 << 29), ("900g", 9 * 10**11), ("312", 312), ("0", 0), ("2kb", 2000),
        ("1TiB", 1 << 40),
    ],
)  # fmt: skip
def test_amounts_are_read_as_in_a_search(text: str, bytes_: int) -> None:
    assert words.amount(text) == bytes_


@pytest.mark.parametrize("text", ["", "much", "1..2", "-1", "1X", "1.5", "99999999P", "..", "1M.."])
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        words.amount(text)
    assert "1.5GiB" in caught.value.todo


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (10**12, "1T"), (9 * 10**11, "900G"), (3 << 29, "1.5GiB"), (1 << 40, "1TiB"), (312, "312"), (0, "0"), (1500, "1.5K"),
        (1_234_567, "1234567"),
    ],
)  # fmt: skip
def test_a_limit_is_written_exactly_and_can_be_read_back(bytes_: int, text: str) -> None:
    assert words.exact(bytes_) == text
    assert words.amount(text) == bytes_


def test_a_time_in_the_past_is_read_and_a_date_is_its_beginning() -> None:
    assert words.when("2026-03-02T12:00", UTC) == NOON
    assert words.when("2026-03-02", UTC) == NOON - 12 * 3_600_000_000
    assert words.when("2026-03-02T13:00+01:00") == NOON


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "7d"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadLifetime) as caught:
        words.when(text)
    assert "2026-03-01" in caught.value.todo


def test_what_writing_becomes_over_quota_is_said_in_words() -> None:
    assert words.may(Permission.TIDY) == "read and delete: over quota"
    assert words.may(Permission.WRITE) == "write"
    assert words.may(None) == ""


@pytest.mark.parametrize("text", ["homes", "/homes", "lab3/", "lab3/homes/x", ""])
def test_what_is_no_root_is_refused(text: str) -> None:
    with pytest.raises(BadName, match="is not a root"):
        words.root_address(text)
