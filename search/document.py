"""What is indexed about one file.

A document carries its workspace's id and its root's id, never people: so a share, a hand-over or a new owner changes no
document. Whoever searches passes the ids they may read.
"""

from __future__ import annotations

from typing import NewType

import msgspec

from protocol.fields import Fields

Revision = NewType("Revision", int)
"""Assigned by the hub, rising; a document with a higher one replaces a lower one, whatever order they come in."""


class Document(msgspec.Struct, frozen=True):
    """One live file, identified by (root, key).

    ``key`` is in the root's own space; ``mtime`` in Unix nanoseconds; ``path`` is what people see of it below its
    workspace (the key without the workspace's prefix).
    """

    root: int
    workspace: int
    key: str
    path: str
    size: int
    mtime: int
    revision: int
    fields: Fields | None = None
    """What was read out of it; None where nothing was.

    It is searched and counted, and does not come back: the documents of an answer have None here. The catalogue keeps it, and
    who wants to show it asks there for the few files it is about; kept in the index too it would be read with every hit.
    """


class Gone(msgspec.Struct, frozen=True):
    """A file that is no more."""

    root: int
    key: str
    revision: int
