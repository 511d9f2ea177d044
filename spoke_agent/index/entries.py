"""What a look found, brought within the limits of the wire: one object that no row can carry must not stop all others. Pure.

A file of 1960 or of the year 9999 keeps its place in the catalogue; its time becomes the nearest one that can be said.
"""

from __future__ import annotations

from typing import Final

from protocol.names import MAX_KEY_BYTES
from spoke_agent.storage.node import Entry

LAST_NS: Final = 7_258_118_400_000_000_000
"""``protocol.messages.Nanosecond``: the year 2200."""
LARGEST: Final = 2**63 - 1
LONGEST_ETAG: Final = 200


def key_fits(key: str) -> bool:
    """Say whether S3 could hold this key, and so a row carry it: text of 1 to 1,024 bytes without NUL."""
    if "\0" in key:
        return False
    if len(key) <= MAX_KEY_BYTES // 4 and key.isascii():
        return bool(key)
    try:
        return 0 < len(key.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def fits(entry: Entry) -> bool:
    """Say whether a row can carry all of this."""
    return (
        0 <= entry.mtime <= LAST_NS
        and 0 <= entry.size <= LARGEST
        and len(entry.etag) <= LONGEST_ETAG
        and entry.etag.isascii()
        and key_fits(entry.key)
    )


def mended(entry: Entry) -> Entry | None:
    """Return what a row can carry of this; None where it cannot even carry the key."""
    if fits(entry):
        return entry
    if not key_fits(entry.key):
        return None
    etag = entry.etag[:LONGEST_ETAG].encode("ascii", "replace").decode()
    return Entry(entry.key, min(max(entry.size, 0), LARGEST), min(max(entry.mtime, 0), LAST_NS), etag)
