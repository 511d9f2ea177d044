"""Spans of keys, in the order of their UTF-8 bytes: how a root is cut for scanning. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.errors import StorageRefused
from protocol.names import shown
from spoke_agent.index.entries import fits, mended
from spoke_agent.storage.node import Entry


class Span(msgspec.Struct, frozen=True):
    """The keys that start with ``prefix`` and lie above ``low``, up to and with ``high`` (None: to the end).

    Python compares text by code point, which is the order of UTF-8 bytes.
    """

    prefix: str = ""
    low: str = ""
    high: str | None = None

    def holds(self, key: str) -> bool:
        """Say whether a key lies in here."""
        return key > self.low and (self.high is None or key <= self.high) and key.startswith(self.prefix)

    def after(self, key: str) -> Span:
        """Return what is left of this span behind ``key``."""
        return Span(self.prefix, key, self.high)

    def until(self, key: str) -> Span:
        """Return the part of this span up to and with ``key``."""
        return Span(self.prefix, self.low, key)


def apart(one: Span, other: Span) -> bool:
    """Say that two spans share no key. False where they may."""
    return (
        _ends_before(one, other)
        or _ends_before(other, one)
        or not (one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix))
    )


def _ends_before(one: Span, other: Span) -> bool:
    return one.high is not None and (one.high <= other.low or one.high < other.prefix)


def split(borders: Sequence[str]) -> list[Span]:
    """Cut a whole root at these keys, whatever they are: together the spans hold every key exactly once."""
    cuts = sorted({border for border in borders if border})
    lows, highs = ["", *cuts], [*cuts, None]
    return [Span(_shared_folder(low, high), low, high) for low, high in zip(lows, highs, strict=True)]


def _shared_folder(low: str, high: str | None) -> str:
    """Return the folder that all keys between two borders lie in, as listing a folder costs less than listing past it."""
    if high is None or not low:
        return ""
    shared = 0
    while shared < min(len(low), len(high)) and low[shared] == high[shared]:
        shared += 1
    return low[: low.rfind("/", 0, shared) + 1]


def in_order(span: Span, page: Sequence[Entry]) -> str:
    """Return the last key of a page that goes on behind ``span.low``. Raises StorageRefused if it is not in order."""
    last = span.low
    for entry in page:
        if entry.key <= last:
            raise StorageRefused(
                f"The storage server listed {shown(entry.key)} after {shown(last)}: its listing is out of order.",
                todo="Nothing was changed by this. Check the server, and what stands between it and the agent.",
            )
        last = entry.key
    return last


def check_page(span: Span, page: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries of a page that lie in the span. Raises StorageRefused for one that is not in order.

    A key that S3 could not hold (too long, not text) is left out, what a row cannot say is mended (``entries``).
    """
    in_order(span, page)
    if not page or (span.high is None and not span.prefix and all(map(fits, page))):
        return page
    return [entry for entry in map(mended, page) if entry is not None and span.holds(entry.key)]
