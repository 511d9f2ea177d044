"""How a root that is made of several buckets is listed as one, in order. Pure."""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True):
    """What to list of one bucket: keys of the bucket itself."""

    prefix: str
    start_after: str


def order_of(front: str) -> str:
    """Return what buckets of a root are sorted by: the keys in them begin with the name *and a slash*.

    ``a-x/…`` comes before ``a/…``, as ``-`` comes before ``/``, while ``a`` comes before ``a-x``.
    """
    return front + "/"


def joined(front: str, behind: str, prefix: str, start_after: str) -> Part | None:
    """Say what to list of a bucket so that the keys in the root begin with ``prefix`` and come after ``start_after``.

    ``front`` is what the bucket's keys get in front of them in the root, ``behind`` what is cut off them first. None where
    no key of the bucket can qualify.
    """
    if front.startswith(prefix):
        inner = ""
    elif prefix.startswith(front):
        inner = prefix[len(front) :]
    else:
        return None
    if start_after.startswith(front + inner):
        # With nothing left of it this skips the folder's own marker, whose key in the root would be empty.
        return Part(behind + inner, behind + start_after[len(front) :])
    return Part(behind + inner, "") if start_after < front + inner else None
