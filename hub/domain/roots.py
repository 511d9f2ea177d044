"""Where roots and workspaces may lie: layouts, isolated names, and that nothing overlaps. Values in, values out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.api import RootKind
from protocol.messages import Finding
from protocol.names import SEPARATOR, Layout, overlaps

_ACCEPT: Final = "Make it with --accept-visible-names if that is fine."


class Laid(msgspec.Struct, frozen=True):
    """The layout a root gets."""

    layout: Layout


class NotLaid(msgspec.Struct, frozen=True):
    """Why a root may not be made like that, and what to do instead."""

    reason: str
    todo: str


def choose_layout(
    kind: RootKind, *, asked: Layout | None, prefix: str, isolates_names: Finding, accept_visible_names: bool
) -> Laid | NotLaid:
    """Decide on the layout of a new root.

    On a server that does not isolate names, whoever may list one folder of a bucket can list the names in all of it
    (4-storage, measured). So there a private root gives each workspace a bucket of its own, unless its owner accepts
    visible names. A server about which that is unknown counts as one that does not isolate.
    """
    if not kind.managed and asked is Layout.BUCKET:
        return NotLaid(
            "An unmanaged root leaves its folders where they lie, so they cannot become buckets.", "Leave the layout out."
        )
    exposed = not kind.public and isolates_names is not Finding.YES and not accept_visible_names
    if exposed and not kind.managed:
        return NotLaid(f"{_names_show(isolates_names)} and an unmanaged root cannot give workspaces buckets.", _ACCEPT)
    if exposed and asked is Layout.PREFIX:
        return NotLaid(f"{_names_show(isolates_names)}.", f"Use the bucket layout. {_ACCEPT}")
    layout = asked if asked is not None else Layout.BUCKET if exposed else Layout.PREFIX
    if layout is Layout.BUCKET and prefix:
        todo = "Leave the prefix out." if asked is not None else f"Leave the prefix out, or share one bucket: {_ACCEPT}"
        return NotLaid("With the bucket layout every workspace is a bucket of its own, so there is no prefix.", todo)
    return Laid(layout)


def names_warning(kind: RootKind, layout: Layout, prefix: str, isolates_names: Finding) -> str | None:
    """Return what the owner of a root should know about visible names; None where they are safe.

    A public root of a whole bucket shows no more than it means to; one of a part of it shows the names of the rest.
    """
    if layout is Layout.BUCKET or isolates_names is Finding.YES or (kind.public and not prefix):
        return None
    return f"{_names_show(isolates_names)}; their contents stay closed."


def _names_show(isolates_names: Finding) -> str:
    sure = "does not keep" if isolates_names is Finding.NO else "is not known to keep"
    return f"This storage server {sure} names apart: whoever may list one folder can see the names in the whole bucket"


class Territory(msgspec.Struct, frozen=True):
    """What a root covers on its node's server."""

    name: str
    layout: Layout
    bucket: str
    prefix: str


def first_overlap(new: Territory, others: Iterable[Territory]) -> Territory | None:
    """Return the first of the node's roots that shares any key with ``new``; None where there is none."""
    return next((other for other in others if _collide(new, other)), None)


def _collide(one: Territory, other: Territory) -> bool:
    if one.layout is Layout.PREFIX and other.layout is Layout.PREFIX:
        return one.bucket == other.bucket and overlaps(one.prefix, other.prefix)
    if one.layout is Layout.BUCKET and other.layout is Layout.BUCKET:
        return overlaps(one.bucket + SEPARATOR, other.bucket + SEPARATOR)
    # A bucket root covers every bucket whose name begins with its own and the separator.
    single, many = (one, other) if other.layout is Layout.BUCKET else (other, one)
    return single.bucket.startswith(many.bucket + SEPARATOR)


def nested(prefix: str, others: Iterable[str]) -> str | None:
    """Return the first of a root's workspace prefixes that shares any key with ``prefix``; None where there is none."""
    return next((other for other in others if overlaps(prefix, other)), None)
