"""Sizes and times as people write them in a query, to bounds in bytes and nanoseconds.

A value stands for everything that begins with it: ``2024`` is the whole year, ``10M`` is 10.0 to 10.999… million bytes.
Compared (``>10M``) and in ranges, a size is exactly itself. An age (``7d``) is a moment: ``modified:7d`` is since then,
``modified:<7d`` is before. Times are in UTC.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from fractions import Fraction
from typing import Final, NamedTuple

from protocol.errors import BadQuery
from protocol.names import shown
from search.words import fold

MAX_NUMBER: Final = 2**63 - 1
"""The largest size in bytes and the last moment in nanoseconds that a document can have."""

_SIZE = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?([a-z]*)", re.ASCII)
_UNITS: Final = {"": 1, "b": 1} | {
    name: base**power
    for power, letter in enumerate("kmgtp", 1)
    for base, names in ((1000, (letter, f"{letter}b")), (1024, (f"{letter}i", f"{letter}ib")))
    for name in names
}
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
_AGE = re.compile(r"(\d{1,6})([hdwy])", re.ASCII)
_AGE_S: Final = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_DAYS: Final = {"today": 0, "yesterday": 1}
_NANO: Final = 1_000_000_000
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
_DECEMBER: Final = 12
_RANGE: Final = ".."


class Bounds(NamedTuple):
    """Two bounds, both included; None is unbounded. ``high`` may lie below ``low`` or 0: then nothing fits."""

    low: int | None
    high: int | None


def sizes(value: str, operator: str, column: int, _now: int) -> Bounds:
    """Read ``10M``, ``1.5GiB`` or ``1M..2M`` as bytes; ``operator`` (``>`` … or none) compares. Raises BadQuery."""
    if _RANGE in value:
        low, high = _sides(value, operator, column)
        first = math.ceil(_size(low, column)[0]) if low else None
        last = math.floor(_size(high, column + len(low) + len(_RANGE))[0]) if high else None
        return _ordered(first, last, value, column)
    exact, step = _size(value, column)
    match operator:
        case ">":
            return Bounds(math.floor(exact) + 1, None)
        case ">=":
            return Bounds(math.ceil(exact), None)
        case "<":
            return Bounds(None, math.ceil(exact) - 1)
        case "<=":
            return Bounds(None, math.floor(exact))
        case _:
            return Bounds(math.ceil(exact), math.ceil(exact + step) - 1)


def dates(value: str, operator: str, column: int, now: int) -> Bounds:
    """Read ``2024``, ``2024-03-01``, ``7d``, ``today`` or ``2023..2024`` as Unix nanoseconds; ``operator`` compares.

    ``now`` is Unix microseconds. Raises BadQuery.
    """
    if _RANGE in value:
        low, high = _sides(value, operator, column)
        first = _date(low, column, now)[0] if low else None
        last = _date(high, column + len(low) + len(_RANGE), now)[1] - 1 if high else None
        return _ordered(first, last, value, column)
    begin, end = _date(value, column, now)
    match operator:
        case ">":
            return Bounds(end, None)
        case ">=":
            return Bounds(begin, None)
        case "<":
            return Bounds(None, begin - 1)
        case "<=":
            return Bounds(None, end - 1)
        case _:
            return Bounds(begin, end - 1 if end > begin else None)


def _sides(value: str, operator: str, column: int) -> tuple[str, str]:
    low, _, high = value.partition(_RANGE)
    if operator or not (low or high):
        raise BadQuery(
            f"{shown(operator + value)} is not a range.",
            todo="Write two ends, or one: 1M..2M, 1M.. or ..2M",
            column=column,
        )
    return low, high


def _ordered(low: int | None, high: int | None, value: str, column: int) -> Bounds:
    if low is not None and high is not None and high < low:
        raise BadQuery(f"The range {shown(value)} ends before it begins.", todo="Write the smaller end first.", column=column)
    return Bounds(low, high)


def _size(text: str, column: int) -> tuple[Fraction, Fraction]:
    """Return a size in bytes and how much its last written digit is worth."""
    found = _SIZE.fullmatch(fold(text))
    unit = _UNITS.get(found[3]) if found else None
    if found is None or unit is None or (unit == 1 and found[2]):
        raise BadQuery(
            f"{shown(text)} is not a size.",
            todo="Write bytes, or a number with K, M, G, T, P (thousands) or KiB, MiB, GiB … (1,024): 10M, 1.5GiB",
            column=column,
        )
    decimals = found[2] or ""
    exact = Fraction(int(found[1] + decimals), 10 ** len(decimals)) * unit
    if exact > MAX_NUMBER:
        raise BadQuery(f"{shown(text)} is larger than any file can be.", todo="Write a smaller size.", column=column)
    return exact, Fraction(unit, 10 ** len(decimals))


def _date(text: str, column: int, now: int) -> tuple[int, int]:
    """Return where a written time begins and ends (not included), in nanoseconds; equal for a moment."""
    word = fold(text)
    if age := _AGE.fullmatch(word):
        moment = max(now * 1000 - int(age[1]) * _AGE_S[age[2]] * _NANO, 0)
        return moment, moment
    if word in _DAYS:
        day = now // 1_000_000 // _AGE_S["d"] - _DAYS[word]
        return day * _AGE_S["d"] * _NANO, (day + 1) * _AGE_S["d"] * _NANO
    try:
        found = _DATE.fullmatch(word)
        span = _calendar(*(int(part) if part else None for part in found.groups())) if found else None
    except ValueError:
        span = None
    if span is None:
        raise BadQuery(
            f"{shown(text)} is not a date between {_FIRST_YEAR} and {_LAST_YEAR}, nor an age.",
            todo="Write 2024, 2024-03, 2024-03-01, today, yesterday, or an age: 12h, 7d, 3w, 1y",
            column=column,
        )
    return span


def _calendar(year: int | None, month: int | None, day: int | None) -> tuple[int, int] | None:
    """Return the span of a year, a month or a day; None for a year out of bounds, ValueError for no such day."""
    if year is None or not _FIRST_YEAR <= year <= _LAST_YEAR:
        return None
    begin = dt.date(year, 1 if month is None else month, 1 if day is None else day)
    if day is not None:
        end = begin + dt.timedelta(days=1)
    elif month is not None and month < _DECEMBER:
        end = dt.date(year, month + 1, 1)
    else:
        end = dt.date(year + 1, 1, 1)
    first = dt.date(_FIRST_YEAR, 1, 1)
    return (begin - first).days * _AGE_S["d"] * _NANO, (end - first).days * _AGE_S["d"] * _NANO
