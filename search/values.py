"""What is asked of the values that were read out of files: ``image.width>4000``, ``dicom.modality:MR``.

Nobody says beforehand which names there are, or whether a value is text, a number, or yes and no. So ``name:3`` asks for the
number and for text with that word, and ``name:true`` for yes and for the word; what compares asks for numbers only.
"""

from __future__ import annotations

import math
import re
from typing import Final

from protocol.errors import BadQuery
from protocol.fields import MAX_NAME
from protocol.names import shown
from search.tree import HasValue, Or, Query, ValueGlob, ValueRange, ValueTruth, ValueWords
from search.words import fold, runs

RANGE: Final = ".."

_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+\Z")
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_TRUTHS: Final = {"true": True, "false": False}
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Integers that a value can be; beyond them a number is read as a float."""


def is_value(field: str) -> bool:
    """Say whether this can be the name of a value: parts of letters, digits and underscores with dots between."""
    return len(field) <= MAX_NAME and _NAME.match(field) is not None


def of_value(name: str, text: str, operator: str, column: int) -> Query:
    """Read what is asked of the value ``name``; ``operator`` (``>`` … or none) compares. Raises BadQuery."""
    if operator:
        return _compared(name, text, operator, column)
    if RANGE in text and (between := _between(name, text, column)) is not None:
        return between
    if "*" in text or "?" in text:
        pattern = re.sub(r"\*+", "*", fold(text))
        return HasValue(name) if pattern == "*" else ValueGlob(name, pattern)
    found = runs(text)
    if not found:
        raise BadQuery(
            f"There is no letter or digit in {shown(text)} at column {column}.",
            todo=f"Put stars around it to find it inside a value: {name}:*{text}*",
            column=column,
        )
    run = "".join(found[0]) if len(found) == 1 and len(found[0]) > 1 else ""
    words = ValueWords(name, tuple(part for parts in found for part in parts), run)
    if (number := _number(text)) is not None:
        return Or((ValueRange(name, number, number), words))
    if (truth := _TRUTHS.get(fold(text))) is not None:
        return Or((ValueTruth(name, truth), words))
    return words


def _compared(name: str, text: str, operator: str, column: int) -> Query:
    if RANGE in text:
        raise BadQuery(
            f"{shown(operator + text)} is not a range.",
            todo=f"Write two ends, or one: {name}:1..2 or {name}:1..",
            column=column,
        )
    number = _number(text)
    if number is None:
        raise BadQuery(
            f"{shown(text)} is not a number.",
            todo=f"Compare with a number, or ask for the text: {name}:{text}",
            column=column,
        )
    strict = "=" not in operator
    if ">" in operator:
        return ValueRange(name, number, None, above=strict)
    return ValueRange(name, None, number, below=strict)


def _between(name: str, text: str, column: int) -> Query | None:
    """Read ``1..2``, ``1..`` or ``..2``; None where neither end is a number: then it is text with dots in it."""
    left, _, right = text.partition(RANGE)
    low, high = _number(left), _number(right)
    if low is None and high is None:
        return None
    for end, number, at in ((left, low, 0), (right, high, len(left) + len(RANGE))):
        if end and number is None:
            raise BadQuery(
                f"{shown(end)} is not a number.", todo=f"Write numbers at both ends: {name}:1..2", column=column + at
            )
    if low is not None and high is not None and high < low:
        raise BadQuery(f"The range {shown(text)} ends before it begins.", todo="Write the smaller end first.", column=column)
    return ValueRange(name, low, high)


def _number(text: str) -> int | float | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    if _INTEGER.fullmatch(text) and _LEAST <= int(text) <= _MOST:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None
