"""Two fingerprints: of a journal (so that a reused sequence number is noticed) and of a root's content.

The content digest is a sum modulo 2^63 of one number per object, so it does not depend on order and can be kept up to
date by adding and subtracting; sums, not XOR, so that an object counted twice does not vanish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.messages import Row

EMPTY_RUN: Final = bytes(32)
"""The running hash before the first row of a generation."""
MODULUS: Final = 2**63
"""So that a digest fits a signed 64-bit database column."""

_ENCODE = msgspec.msgpack.Encoder()


def run_on(running: bytes, rows: Iterable[Row]) -> bytes:
    """Return the running hash after ``rows``: one SHA-256 over the hash before and each row's wire form, row by row."""
    for row in rows:
        running = hashlib.sha256(running + _ENCODE.encode(row)).digest()
    return running


def object_number(key: str, size: int, mtime: int, etag: str) -> int:
    """Return the number one object adds to its root's digest. ``key`` in the root's space, ``mtime`` in nanoseconds."""
    text = f"{len(key)}:{key}{size}:{mtime}:{etag}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % MODULUS


def combine(digest: int, *, added: Iterable[int] = (), removed: Iterable[int] = ()) -> int:
    """Return the digest after objects with these numbers came and went."""
    return (digest + sum(added) - sum(removed)) % MODULUS
